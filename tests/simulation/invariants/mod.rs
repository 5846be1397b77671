//! The invariants, one in each file. Some hold after every change of a view, some only at rest.

pub mod acknowledged_is_durable;
pub mod bounded_at_rest;
pub mod copies_converge;
pub mod data_is_kept;
pub mod data_is_ready;
pub mod documents_converge;
pub mod equal_versions_equal_plan;
pub mod minimal_movement;
pub mod newest_copy_counts;
pub mod no_actions_at_rest;
pub mod no_flapping;
pub mod no_overcommit;
pub mod no_wrongful_verdict;
pub mod older_members_are_respected;
pub mod one_holder;
pub mod one_instance_per_slot;
pub mod one_writer;
pub mod replicas_rescheduled;
pub mod routes_lead_to_instances;
pub mod runs_once;
pub mod updates_end;

use vc_crdt::View;
use vc_engine::Engine;
use vc_protocol::{Millis, Name, Slot};

use crate::check::Check;
use crate::world::{ViewCheck, World};
use equal_versions_equal_plan::PlanRecorder;

/// Returns the check of the invariants that hold after every change of a view.
pub fn view_check() -> ViewCheck {
    let mut plans = PlanRecorder::default();
    Box::new(move |index: usize, engine: &Engine| {
        let view = engine.view();
        // A node that holds the documents does not read all of them, and does not act by its plan.
        if view.held.documents.is_empty() {
            plans.record(index, engine.replica().versions().fingerprint(), &view)?;
        }
        no_overcommit::plan(&view)
    })
}

/// Returns whether a slot waits for a service of which no slot is placed: its deployment is not complete.
pub fn waits_for_unplaced(view: &View, slot: &Slot) -> bool {
    if view.updates.contains_key(&slot.service) {
        return false;
    }
    let is_of = |other: &Slot, name: &Name| {
        other.service.project == slot.service.project && other.service.service == *name
    };
    let depends_on = &view.cluster.services[&slot.service].spec.depends_on;
    depends_on.keys().any(|name| !view.plan.placements.keys().any(|other| is_of(other, name)))
}

/// Returns whether a slot runs under a lease.
pub fn is_exclusive(view: &View, slot: &Slot) -> bool {
    view.spec(&slot.service).is_some_and(|spec| spec.is_exclusive())
}

/// Checks the invariants that hold once all faults have ended and the cluster has converged.
pub fn at_rest(world: &World) -> Check {
    documents_converge::check(world)?;
    one_instance_per_slot::check(world)?;
    updates_end::check(world)?;
    routes_lead_to_instances::check(world)?;
    no_overcommit::running(world)?;
    copies_converge::check(world)?;
    data_is_kept::check(world)?;
    acknowledged_is_durable::check(world)
}

impl World {
    /// Advances time until the invariants at rest hold and no node acts for 4 s. Panics after `limit` milliseconds.
    pub fn converge(&mut self, limit: Millis) {
        let until = self.now + limit;
        loop {
            let left = until.saturating_sub(self.now);
            self.run_until(left, "the cluster converges", at_rest);
            let cursor = self.history.cursor();
            self.run(4000);
            match at_rest(self).and_then(|()| no_actions_at_rest::check(self, cursor)) {
                Ok(()) => return,
                Err(why) => assert!(self.now < until, "no rest within {limit} ms: {why}"),
            }
        }
    }
}
