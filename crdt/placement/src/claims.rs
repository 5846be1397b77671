//! Which claims stand. This is decided for all services before anything is placed, so that no placement pushes a claim
//! out.

use std::collections::BTreeMap;

use vc_protocol::Slot;

use crate::feasibility::{eligible, has_volumes, room};
use crate::input::{ClaimView, PlanInput};
use crate::ledger::Account;
use crate::order::Demand;
use crate::rendezvous::rendezvous;
use crate::volumes::Volumes;

/// What became of the claims. Nodes are numbered as in the ledger.
pub(crate) struct Claims<'a> {
    /// By service, in their order: the replicas that have their place already.
    pub(crate) kept: Vec<BTreeMap<u32, Kept>>,
    /// The others.
    pub(crate) lost: Vec<Lost<'a>>,
}

/// The place of a slot that is claimed.
#[derive(Clone, Copy)]
pub(crate) struct Kept {
    /// On which node.
    pub(crate) node: usize,
    /// The node that claims it, where that one was told to give it up to this one.
    pub(crate) from: Option<usize>,
}

/// A claim that does not stand.
pub(crate) struct Lost<'a> {
    pub(crate) slot: &'a Slot,
    /// Whose claim it is.
    pub(crate) node: usize,
    /// Why, with that node as the subject.
    pub(crate) why: String,
}

/// A claim on a wanted slot by a node that may run it.
struct Contender<'a> {
    slot: &'a Slot,
    node: usize,
    claim: &'a ClaimView,
}

/// Judges the claims, and enters those that stand into the ledger. In the order of the services and slots, each slot
/// stays where it is claimed and fits beside what was kept before; the rest is lost. A reservation that has grown, or
/// two sides of a partition that come together, can thus cost the latest services their places, but nobody else. What
/// stands says where volumes are that nobody holds. Last come the orders to move.
pub(crate) fn judge<'a>(
    input: &PlanInput,
    demands: &[Demand<'a>],
    accounts: &mut [Account<'a>],
    volumes: &mut Volumes<'_>,
) -> Claims<'a> {
    let mut judged = Claims { kept: vec![BTreeMap::new(); demands.len()], lost: Vec::new() };
    let mut contenders = sort(demands, accounts, volumes, &mut judged.lost);
    for (number, demand) in demands.iter().enumerate() {
        for (replica, mut of_slot) in std::mem::take(&mut contenders[number]) {
            if of_slot.len() > 1 {
                rank(demand, accounts, &mut of_slot);
                defer(input, accounts, &mut of_slot);
            }
            let mut winner: Option<&Contender<'_>> = None;
            for contender in &of_slot {
                let Contender { slot, node, .. } = *contender;
                let account = &mut accounts[node];
                let fits =
                    has_volumes(demand, account, volumes).and_then(|()| room(demand, account));
                let why = match (winner, fits) {
                    (Some(winner), _) => beaten(demand, accounts, winner, contender),
                    (None, Err(obstacle)) => obstacle.to_string(),
                    (None, Ok(())) => {
                        account.promise(demand);
                        account.take_ports(demand, replica);
                        volumes.settle(demand, account.id);
                        judged.kept[number].insert(replica, Kept { node, from: None });
                        winner = Some(contender);
                        continue;
                    }
                };
                judged.lost.push(Lost { slot, node, why });
            }
        }
    }
    give_way(input, demands, accounts, volumes, &mut judged);
    judged
}

/// Carries out the orders to move: a claim that stands gives way to the node that is to take the slot, if that one
/// has room beside all other claims. What it reserves stays reserved on both, for it may run on both until it is
/// withdrawn here: so nothing else can come in its place before.
fn give_way<'a>(
    input: &PlanInput,
    demands: &[Demand<'a>],
    accounts: &mut [Account<'a>],
    volumes: &Volumes<'_>,
    judged: &mut Claims<'a>,
) {
    if input.moves.is_empty() {
        return;
    }
    for (demand, kept) in demands.iter().zip(&mut judged.kept) {
        for (&replica, place) in kept {
            let slot = Slot { service: demand.key.clone(), replica };
            let Some((from, to)) = order(input, accounts, &slot) else { continue };
            let taker = &mut accounts[to];
            let takes = has_volumes(demand, taker, volumes).is_ok()
                && eligible(demand, taker).is_ok()
                && room(demand, taker).is_ok();
            if place.node != from || from == to || !takes {
                continue;
            }
            taker.promise(demand);
            taker.take_ports(demand, replica);
            let why = format!("moves to {}", taker.node.name);
            *place = Kept { node: to, from: Some(from) };
            judged.lost.retain(|lost| lost.node != to || *lost.slot != slot);
            if let Some((slot, _)) = accounts[from].node.claims.get_key_value(&slot) {
                judged.lost.push(Lost { slot, node: from, why });
            }
        }
    }
}

/// The order to move a slot: from which node, to which.
fn order(input: &PlanInput, accounts: &[Account<'_>], slot: &Slot) -> Option<(usize, usize)> {
    let (from, to) = input.moves.get(slot)?;
    let number = |node| accounts.binary_search_by(|account| account.id.cmp(node)).ok();
    Some((number(from)?, number(to)?))
}

/// While a slot moves, the claim of the node that takes it comes last: it is the order that decides.
fn defer(input: &PlanInput, accounts: &[Account<'_>], of_slot: &mut [Contender<'_>]) {
    let Some((from, to)) = of_slot.first().and_then(|it| order(input, accounts, it.slot)) else {
        return;
    };
    if of_slot.iter().any(|it| it.node == from) {
        of_slot.sort_by_key(|it| it.node == to && from != to);
    }
}

/// The contenders for each slot, by service and replica. Claims that cannot stand go to `lost`.
fn sort<'a>(
    demands: &[Demand<'a>],
    accounts: &[Account<'a>],
    volumes: &Volumes<'_>,
    lost: &mut Vec<Lost<'a>>,
) -> Vec<BTreeMap<u32, Vec<Contender<'a>>>> {
    let numbers: BTreeMap<_, usize> =
        demands.iter().enumerate().map(|(n, demand)| (demand.key, n)).collect();
    let mut contenders: Vec<BTreeMap<u32, Vec<Contender<'a>>>> =
        demands.iter().map(|_| BTreeMap::new()).collect();
    for (node, account) in accounts.iter().enumerate() {
        for (slot, claim) in &account.node.claims {
            let why = match numbers.get(&slot.service) {
                None => format!("still holds it, but {} was removed", slot.service),
                Some(&n) if !(1..=demands[n].replicas).contains(&slot.replica) => {
                    format!(
                        "still holds it, but {} has {} replicas now",
                        slot.service, demands[n].replicas
                    )
                }
                Some(&n) => match has_volumes(&demands[n], account, volumes)
                    .and_then(|()| eligible(&demands[n], account))
                {
                    Err(obstacle) => obstacle.to_string(),
                    Ok(()) => {
                        contenders[n].entry(slot.replica).or_default().push(Contender {
                            slot,
                            node,
                            claim,
                        });
                        continue;
                    }
                },
            };
            lost.push(Lost { slot, node, why });
        }
    }
    contenders
}

/// What a claim is worth beside another on the same slot: it runs, and it runs the current spec.
fn worth(claim: &ClaimView, current: &str) -> (bool, bool) {
    (claim.running, claim.digest == current)
}

/// Puts the strongest claim first: between equals the one that has held longer, so that what ran before a partition
/// outlives what a side started meanwhile; then rendezvous hashing of slot and node decides.
fn rank(demand: &Demand<'_>, accounts: &[Account<'_>], of_slot: &mut [Contender<'_>]) {
    let current = demand.container().digest();
    of_slot.sort_by_cached_key(|contender| {
        let weight = rendezvous(&[&contender.slot.to_string(), &accounts[contender.node].id_text]);
        let since = std::cmp::Reverse(contender.claim.since);
        std::cmp::Reverse((worth(contender.claim, &current), since, weight))
    });
}

/// Why a claim lost against another.
fn beaten(
    demand: &Demand<'_>,
    accounts: &[Account<'_>],
    winner: &Contender<'_>,
    loser: &Contender<'_>,
) -> String {
    let name = &accounts[winner.node].node.name;
    let current = demand.container().digest();
    let (won, lost) = (worth(winner.claim, &current), worth(loser.claim, &current));
    if won.0 != lost.0 {
        format!("claims it too, but on {name} it is running")
    } else if won.1 != lost.1 {
        format!("claims it too, but {name} has the current version")
    } else if winner.claim.since != loser.claim.since {
        format!("claims it too, but {name} has held it longer")
    } else {
        format!("claims it too, but {name} comes first by hash")
    }
}
