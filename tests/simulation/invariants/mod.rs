//! What must hold, one invariant a file: some at every moment, some at rest.

pub(crate) mod acknowledged_is_durable;
pub(crate) mod documents_converge;
pub(crate) mod minimal_movement;
pub(crate) mod no_overcommit;
pub(crate) mod one_instance_per_slot_at_rest;
pub(crate) mod orphans_replaced;
pub(crate) mod quiet_cluster_is_left_alone;
pub(crate) mod routes_lead_to_instances;
pub(crate) mod same_heads_same_plan;
pub(crate) mod updates_end;

use vc_crdt::View;
use vc_protocol::{Millis, Name, Slot};

use crate::world::World;

/// How an invariant is violated.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The result of checking an invariant.
pub(crate) type Check = Result<(), Violation>;

/// Whether a slot waits for a service that has no place anywhere.
pub(crate) fn waits_for_unplaced(view: &View, slot: &Slot) -> bool {
    let is_of = |other: &Slot, name: &Name| {
        other.service.project == slot.service.project && other.service.service == *name
    };
    let depends_on = &view.cluster.services[&slot.service].spec.depends_on;
    depends_on.keys().any(|name| !view.plan.placements.keys().any(|other| is_of(other, name)))
}

/// What must hold once nothing has happened for a while.
pub(crate) fn at_rest(world: &World) -> Check {
    documents_converge::check(world)?;
    one_instance_per_slot_at_rest::check(world)?;
    updates_end::check(world)?;
    routes_lead_to_instances::check(world)?;
    no_overcommit::running(world)?;
    acknowledged_is_durable::check(world)
}

impl World {
    /// Lets time pass until everything is as it must be at rest, and still is a few seconds later.
    pub(crate) fn converge(&mut self, most: Millis) {
        let until = self.now + most;
        loop {
            let left = until.saturating_sub(self.now);
            self.run_until(left, "everything at rest", at_rest);
            let cursor = self.history.cursor();
            self.run(4000);
            if at_rest(self).is_ok() && quiet_cluster_is_left_alone::check(self, cursor).is_ok() {
                return;
            }
        }
    }
}
