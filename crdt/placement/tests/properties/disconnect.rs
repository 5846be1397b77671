//! Slots of nodes that are down, and several instances of one slot.

use proptest::prelude::*;
use vc_placement::{ClaimView, PlanInput, RULES, Rules, plan};
use vc_protocol::spec::{DisconnectPolicy, Reconcile};
use vc_protocol::{Slot, VolumeKey};

use crate::clusters::{converged_cluster, key, messy_cluster};
use crate::rules::{is_global, may_run, volumes_of};
use crate::support::{node, node_id, service};

/// Returns whether a node that is down, and may run a slot otherwise, claims and keeps it. One whose data is on another node is
/// not waited for.
pub(crate) fn is_awaited(input: &PlanInput, slot: &Slot) -> bool {
    let deployed = input.services.get(&slot.service).filter(|service| !is_global(service));
    let Some(service) = deployed else { return false };
    input.nodes.iter().any(|(id, node)| {
        let keeps = service.spec.disconnect.keeps_slots(node.silent_ms);
        let mut healed = node.clone();
        healed.up = true;
        let is_elsewhere =
            |volume: &VolumeKey| input.volumes.get(volume).is_some_and(|holder| holder != id);
        let claims = !node.up && keeps && node.claims.contains_key(slot);
        claims && may_run(&healed, service) && !volumes_of(service).iter().any(is_elsewhere)
    })
}

pub(crate) fn a_policy() -> impl Strategy<Value = DisconnectPolicy> {
    let reconcile = prop_oneof![
        Just(Reconcile::KeepOriginal),
        Just(Reconcile::KeepReplacement),
        Just(Reconcile::BestScore),
        Just(Reconcile::LongestRunning)
    ];
    (0..3_u64, 0..4_u8, reconcile).prop_map(|(lost_after_ms, replace, reconcile)| {
        DisconnectPolicy {
            lost_after_ms,
            replace: replace > 0,
            reconcile,
            ..DisconnectPolicy::default()
        }
    })
}

proptest! {
    #[test]
    fn slots_of_a_dead_node_wait_exactly_while_it_keeps_them(
        mut input in converged_cluster(),
        victim in 0..6_u16,
        silent_ms in 0..4_u64,
    ) {
        let before = plan(&input, Rules::newest());
        let victim = node_id(victim);
        let Some(node) = input.nodes.get_mut(&victim) else { return Ok(()) };
        node.up = false;
        node.silent_ms = silent_ms;
        let after = plan(&input, Rules::newest());
        let mut without = input.clone();
        for service in without.services.values_mut() {
            service.spec.disconnect = DisconnectPolicy::default();
        }
        let without = plan(&without, Rules::newest());
        for (slot, _) in before.placements.iter().filter(|(_, it)| it.node == victim) {
            let service = &input.services[&slot.service];
            // That it holds the data of a volume decides before; a slot of a global service goes nowhere.
            if !volumes_of(service).is_empty() || is_global(service) {
                continue;
            }
            if service.spec.disconnect.keeps_slots(silent_ms) {
                let refusals = after.unplaced.get(slot).map(Vec::as_slice).unwrap_or_default();
                prop_assert_eq!(refusals.iter().map(|it| it.node).collect::<Vec<_>>(), vec![victim]);
                prop_assert!(after.moves.iter().all(|it| it.slot != *slot));
            } else if without.placements.contains_key(slot) {
                prop_assert!(after.placements.contains_key(slot), "{slot} is not kept, and fits elsewhere");
            }
        }
    }

    #[test]
    fn services_that_ask_for_nothing_are_placed_as_by_the_rules_before(mut input in messy_cluster()) {
        for service in input.services.values_mut() {
            service.spec.disconnect = DisconnectPolicy::default();
        }
        prop_assert_eq!(plan(&input, RULES[2]), plan(&input, RULES[3]));
    }

    #[test]
    fn of_two_running_instances_the_rule_of_the_service_decides(
        reconcile in a_policy().prop_map(|it| it.reconcile),
        lamports in (1..9_u64, 1..9_u64),
        started in (1..9_u64, 1..9_u64),
        other in any::<bool>(),
    ) {
        let mut input = PlanInput::default();
        let mut wanted = service(1, 0, 0);
        wanted.spec.disconnect.reconcile = reconcile;
        wanted.revision = 1;
        let digest = wanted.spec.container_digest();
        input.services.insert(key(0), wanted);
        input.services.insert(key(1), service(1, 1000, 0));
        let slot = |number| Slot { service: key(number), replica: 1 };
        let claim = |lamport, started| ClaimView { digest: digest.clone(), running: true, lamport, started };
        for (number, lamport, started) in [(0, lamports.0, started.0), (1, lamports.1, started.1)] {
            let mut node = node("m", 4000, 4096);
            node.claims.insert(slot(0), claim(lamport, started));
            if other && number == 0 {
                node.claims.insert(slot(1), claim(1, 0));
            }
            input.nodes.insert(node_id(number), node);
        }
        let chosen = plan(&input, Rules::newest()).placements[&slot(0)].node;
        let by_age = (lamports.0 != lamports.1).then_some(lamports.0 > lamports.1);
        let second = match reconcile {
            Reconcile::KeepOriginal => by_age,
            Reconcile::KeepReplacement => by_age.map(|second| !second),
            Reconcile::BestScore if other => Some(true),
            Reconcile::BestScore => by_age,
            Reconcile::LongestRunning if started.0 == started.1 => by_age,
            Reconcile::LongestRunning => Some(started.0 > started.1),
        };
        if let Some(second) = second {
            prop_assert_eq!(chosen, node_id(second.into()));
        }
    }
}
