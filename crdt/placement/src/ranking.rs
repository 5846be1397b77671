//! Which of several claims on one slot is kept.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use vc_protocol::Slot;
use vc_protocol::spec::Reconcile;

use crate::allocation::NodeAllocation;
use crate::claims::Kept;
use crate::input::ClaimView;
use crate::order::Service;
use crate::rendezvous::rendezvous;
use crate::rules::Rules;
use crate::score::share;

/// A claim by a node that may run the slot.
pub(crate) struct Contender<'a> {
    pub(crate) slot: &'a Slot,
    pub(crate) node: usize,
    pub(crate) claim: &'a ClaimView,
    /// What the service's rule compares, where claims are equally strong; the lowest wins.
    pub(crate) rank: (u64, u64),
}

/// Returns the rule by which two instances of a slot are compared.
pub(crate) fn reconcile(rules: Rules, service: &Service<'_>) -> Reconcile {
    if rules.disconnect { service.demand.spec.disconnect.reconcile } else { Reconcile::default() }
}

/// Returns the strength of a claim: running, then running the current spec.
fn strength(claim: &ClaimView, current: &str) -> (bool, bool) {
    (claim.running, claim.digest == current)
}

/// Sorts the strongest claim first. Among equals the rule of the service decides, by default that the older claim wins, so
/// that what ran before a partition outlives what one side started meanwhile; then the age, and then rendezvous hashing of
/// slot and node. `kept` are the slots of the service that have a node already.
pub(crate) fn rank(
    rules: Rules,
    service: &Service<'_>,
    services: &[Service<'_>],
    allocations: &[NodeAllocation<'_>],
    kept: &BTreeMap<u32, Kept>,
    of_slot: &mut [Contender<'_>],
) {
    for Contender { node, claim, rank, .. } in of_slot.iter_mut() {
        *rank = match reconcile(rules, service) {
            Reconcile::KeepOriginal => (claim.lamport, 0),
            Reconcile::KeepReplacement => (u64::MAX - claim.lamport, 0),
            Reconcile::LongestRunning if claim.started == 0 => (claim.lamport, 0),
            Reconcile::LongestRunning => (claim.started, 0),
            Reconcile::BestScore => {
                let replicas = kept.values().filter(|it| it.node == *node).count();
                (u64::try_from(replicas).unwrap_or(u64::MAX), load(services, &allocations[*node]))
            }
        };
    }
    let current = service.demand.spec.container_digest();
    of_slot.sort_by_cached_key(|contender| {
        let id = &allocations[contender.node].id_text;
        let weight = rendezvous(&[&contender.slot.to_string(), id]);
        let strength = Reverse(strength(contender.claim, &current));
        (strength, contender.rank, contender.claim.lamport, Reverse(weight))
    });
}

/// Returns the share of a node that the slots which it claims reserve, in parts per million. Of claims alone, so that it does
/// not depend on which of them are kept.
fn load(services: &[Service<'_>], allocation: &NodeAllocation<'_>) -> u64 {
    let reservations: BTreeMap<_, _> =
        services.iter().map(|service| (service.key, service.reservation())).collect();
    let claimed = allocation.node.claims.keys();
    let claimed = claimed.filter_map(|slot| reservations.get(&slot.service));
    let used = claimed.fold(vc_protocol::Resources::default(), |sum, it| sum.plus(*it));
    share(used, allocation.node.capacity)
}

/// Returns why a claim lost to another.
pub(crate) fn loss_reason(
    rules: Rules,
    service: &Service<'_>,
    allocations: &[NodeAllocation<'_>],
    winner: &Contender<'_>,
    loser: &Contender<'_>,
) -> String {
    let name = &allocations[winner.node].node.name;
    let current = service.demand.spec.container_digest();
    let (won, lost) = (strength(winner.claim, &current), strength(loser.claim, &current));
    let rule = reconcile(rules, service);
    if won.0 != lost.0 {
        format!("also claims it, but only {name} is running it")
    } else if won.1 != lost.1 {
        format!("also claims it, but {name} has the current version")
    } else if winner.rank < loser.rank && rule != Reconcile::KeepOriginal {
        let has = match rule {
            Reconcile::KeepOriginal | Reconcile::KeepReplacement => "has replaced it",
            Reconcile::BestScore => "is less loaded",
            Reconcile::LongestRunning => "has run it longer",
        };
        format!("also claims it, but {name} {has} ({})", rule.as_str())
    } else if winner.claim.lamport != loser.claim.lamport {
        format!("also claims it, but {name} has claimed it longer")
    } else {
        format!("also claims it, but {name} wins by rendezvous hash")
    }
}
