//! From the documents to what runs here, and back into our own document.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vc_crdt::View;
use vc_protocol::change::DocumentId;
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::spec::Dependency;
use vc_protocol::{InstanceId, Millis, Name, NodeId, Slot};

use crate::engine::{Engine, RuntimeHealth};
use crate::interface::Output;
use crate::runtime::{Observed, Phase, RuntimeEvent};
use crate::workload::Desired;

/// Changes in our own document after which it starts anew.
const HISTORY: u64 = 2000;

impl Engine {
    pub(crate) fn runtime_event(&mut self, event: RuntimeEvent, now: Millis) {
        self.dirty = true;
        match event {
            RuntimeEvent::Listed(all) => {
                if self.own.runtime_error.take().is_some() {
                    tracing::info!("the runtime answers again");
                }
                match self.runtime {
                    RuntimeHealth::Unknown => self.disown(&all),
                    RuntimeHealth::Away { .. } => self.workload.asked_in_vain(),
                    RuntimeHealth::Answers => {}
                }
                self.runtime = RuntimeHealth::Answers;
                self.workload.listed(all, now);
            }
            RuntimeEvent::Changed(seen) => self.workload.changed(seen, now),
            RuntimeEvent::Unavailable(why) => {
                tracing::warn!(reason = why.as_str(), "the runtime does not answer");
                match &mut self.runtime {
                    // Nothing is known of what ran before: others take over at once.
                    RuntimeHealth::Unknown => {
                        self.own.runtime_error = Some(why.clone());
                        self.runtime = RuntimeHealth::Away { since: now, why };
                    }
                    RuntimeHealth::Answers => {
                        self.runtime = RuntimeHealth::Away { since: now, why }
                    }
                    RuntimeHealth::Away { why: latest, .. } => *latest = why,
                }
            }
        }
    }

    /// Of what we claimed in our previous life, what is not running any more is not claimed as running: a successor's
    /// instance goes before it.
    fn disown(&mut self, all: &[Observed]) {
        for (id, claim) in self.own.claims.iter_mut().filter(|(_, claim)| claim.state.is_running())
        {
            let runs =
                |seen: &Observed| matches!(seen.phase, Phase::Running { .. }) && seen.id == *id;
            if !all.iter().any(runs) {
                claim.state = InstanceState::Pending;
            }
        }
    }

    /// Brings everything that follows from the documents up to date: our incarnation, the view, what runs here, and
    /// what we say of it.
    pub(crate) fn settle(&mut self, now: Millis) {
        let mut own_changes = Vec::new();
        let mut view_changed = false;
        // Our own words are part of the view, so it takes a second turn to see them; they do not change in a third.
        for _ in 0..4 {
            if !std::mem::take(&mut self.dirty) {
                break;
            }
            self.answer_accusations();
            view_changed = true;
            self.look();
            if matches!(self.runtime, RuntimeHealth::Unknown) {
                break;
            }
            self.reconcile(now);
            let written = if self.needs_renewal() {
                self.renewed = true;
                self.pending.replaced.extend(self.own_document());
                self.replica.renew_own(&self.own, now)
            } else {
                self.replica.write_own(&self.own, now)
            };
            match written {
                Ok(Some(change)) => {
                    own_changes.push(change);
                    self.dirty = true;
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "cannot write this node's document"),
            }
        }
        self.pending.changes.extend(own_changes.iter().cloned());
        self.persist();
        self.publish(own_changes, now);
        if view_changed {
            self.outputs.push(Output::ViewChanged);
        }
    }

    /// Our document starts a new generation at each start and when its history has grown.
    fn needs_renewal(&self) -> bool {
        !self.renewed || self.replica.own_history() >= HISTORY
    }

    fn own_document(&self) -> Option<DocumentId> {
        let node = self.replica.id();
        let &(generation, _) = self.replica.versions().nodes.get(&node)?;
        Some(DocumentId::Node { node, generation })
    }

    fn look(&mut self) {
        let mut nodes = self.replica.nodes().clone();
        if !matches!(self.runtime, RuntimeHealth::Unknown) {
            // What we are about to write counts already, and first of all our incarnation: in our last one we may be
            // accused, and would see ourselves down and stop everything.
            nodes.insert(self.replica.id(), self.own.clone());
        }
        let view = View::from_states(self.replica.cluster().clone(), nodes);
        let moved = |from: &View, to: &View| -> Vec<NodeId> {
            from.up.difference(&to.up).copied().collect()
        };
        for node in moved(&view, &self.view) {
            tracing::info!(node = %node, name = view.name(node), "node is up");
        }
        for node in moved(&self.view, &view) {
            tracing::warn!(node = %node, name = view.name(node), "node is down");
        }
        self.detector.forget(|node| !view.nodes.contains_key(node));
        self.view = Arc::new(view);
    }

    fn reconcile(&mut self, now: Millis) {
        if self.own.runtime_error.is_some() {
            self.workload.forget();
            self.own.claims.clear();
            return;
        }
        let id = self.replica.id();
        let desired: BTreeMap<Slot, Desired> = self
            .view
            .plan
            .placements
            .iter()
            .filter(|(_, placement)| placement.node == id)
            .filter_map(|(slot, _)| Some((slot.clone(), self.desired(slot)?)))
            .collect();
        let (actions, claims) = self.workload.reconcile(&desired, self.hold.is_some(), now);
        self.own.claims = claims;
        self.outputs.extend(actions.into_iter().map(Output::Runtime));
    }

    fn desired(&self, slot: &Slot) -> Option<Desired> {
        let spec = self.view.spec(&slot.service)?;
        let waits_for: Vec<String> = spec
            .depends_on
            .iter()
            .filter(|(name, condition)| {
                let mut claims = self.claims_of(slot, name);
                !claims.any(|claim| match condition {
                    Dependency::ServiceStarted => claim.state.is_running(),
                    Dependency::ServiceHealthy => claim.state == InstanceState::Healthy,
                    Dependency::ServiceCompletedSuccessfully => {
                        claim.state == InstanceState::Completed
                    }
                })
            })
            .map(|(name, condition)| match condition {
                Dependency::ServiceStarted => format!("waits for {name} to run"),
                Dependency::ServiceHealthy => format!("waits for {name} to be healthy"),
                Dependency::ServiceCompletedSuccessfully => {
                    format!("waits for {name} to be done")
                }
            })
            .collect();
        Some(Desired {
            spec: spec.container.clone(),
            digest: spec.container.digest(),
            waits_for: waits_for.join(", "),
        })
    }

    /// The claims of machines that are up on a service of the same project.
    fn claims_of<'a>(&'a self, slot: &'a Slot, name: &'a Name) -> impl Iterator<Item = &'a Claim> {
        let up: &BTreeSet<NodeId> = &self.view.up;
        self.view.nodes.iter().filter(|(node, _)| up.contains(node)).flat_map(move |(_, state)| {
            let of = |other: &InstanceId| {
                let service = &other.slot.service;
                service.project == slot.service.project && service.service == *name
            };
            state.claims.iter().filter(move |(other, _)| of(other)).map(|(_, claim)| claim)
        })
    }
}
