//! From the documents to what runs here, and back into our own document.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vc_crdt::{UpdateResult, View};
use vc_protocol::change::DocumentId;
use vc_protocol::control::RolloutState;
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::spec::{Dependency, FailureAction, ServiceSpec};
use vc_protocol::{InstanceId, Millis, Name, NodeId, ServiceKey, Slot, VolumeKey};

use crate::engine::{Engine, RuntimeHealth};
use crate::interface::Output;
use crate::rollout::{Rollout, Version};
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
                self.replica.start_generation(&self.own, now)
            } else {
                self.replica.write_node(&self.own, now)
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
        !self.renewed || self.replica.own_change_count() >= HISTORY
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
        let desired = self.desired();
        let handed_on = self.handed_on();
        let hold = self.hold.is_some();
        let (actions, claims) = self.workload.reconcile(&desired, &handed_on, hold, now);
        self.own.claims = claims;
        self.note_volumes(now);
        self.note_outcomes();
        self.outputs.extend(actions.into_iter().map(Output::Runtime));
    }

    /// What is to run in each slot that the plan gives to this node.
    fn desired(&self) -> BTreeMap<Slot, Desired> {
        let id = self.replica.id();
        let mut rollouts = BTreeMap::new();
        let mut desired = BTreeMap::new();
        for slot in self.view.plan.slots_of(id) {
            let rollout = match rollouts.entry(&slot.service) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => match Rollout::of(&self.view, &slot.service) {
                    Some(rollout) => entry.insert(rollout),
                    None => continue,
                },
            };
            let Version { spec, digest } = rollout.version(slot.replica);
            let wanted = Desired {
                spec: spec.container.clone(),
                digest: digest.clone(),
                waits_for: self.waits_for(slot, spec),
                starts_first: spec.starts_first(),
                update: spec.update.clone(),
            };
            desired.insert(slot.clone(), wanted);
        }
        desired
    }

    /// What an instance waits for before it may start; empty: nothing.
    fn waits_for(&self, slot: &Slot, spec: &ServiceSpec) -> String {
        let unmet = spec.depends_on.iter().filter(|(name, condition)| {
            let mut claims = self.claims_of(slot, name);
            !claims.any(|claim| match condition {
                Dependency::ServiceStarted => {
                    claim.state.is_running() || claim.state == InstanceState::Completed
                }
                Dependency::ServiceHealthy => claim.state == InstanceState::Healthy,
                Dependency::ServiceCompletedSuccessfully => claim.state == InstanceState::Completed,
            })
        });
        let mut waits: Vec<String> = unmet
            .map(|(name, condition)| match condition {
                Dependency::ServiceStarted => format!("waits for {name} to run"),
                Dependency::ServiceHealthy => format!("waits for {name} to be healthy"),
                Dependency::ServiceCompletedSuccessfully => {
                    format!("waits for {name} to be done")
                }
            })
            .collect();
        if !spec.starts_first() {
            let elsewhere = self.view.claims_on(slot).find(|(node, _, claim)| {
                *node != self.replica.id()
                    && (claim.state.is_running() || claim.state == InstanceState::Stopping)
            });
            waits.extend(
                elsewhere
                    .map(|(node, ..)| format!("waits for {} to stop it", self.view.name(node))),
            );
        }
        waits.join(", ")
    }

    /// Slots that this node is to give up and that another is to fill and has not filled yet: what runs here goes on
    /// meanwhile. Of a node that is drained, also what no other can take: better here than nowhere. What must go
    /// because there is no room for it goes at once.
    fn handed_on(&self) -> BTreeSet<Slot> {
        let (id, view) = (self.replica.id(), &self.view);
        let draining = view.cluster.drained.get(&id).copied().unwrap_or(false);
        let told_to_move =
            |slot: &Slot| view.input.moves.get(slot).is_some_and(|&(from, _)| from == id);
        let goes_on = |slot: &Slot| match view.plan.placements.get(slot) {
            Some(placement) if placement.node == id => false,
            Some(placement) => {
                let mut claims = view.claims_on(slot);
                (draining || told_to_move(slot))
                    && view.spec(&slot.service).is_some_and(ServiceSpec::starts_first)
                    && !claims.any(|(node, _, claim)| node == placement.node && claim.available)
            }
            None => draining && view.plan.unplaced.contains_key(slot),
        };
        self.own.claims.keys().map(|id| &id.slot).filter(|slot| goes_on(slot)).cloned().collect()
    }

    /// From the first instance on that mounts it here, a volume's data is here; until somebody removes it.
    fn note_volumes(&mut self, now: Millis) {
        let view = Arc::clone(&self.view);
        let tombstones = &view.cluster.tombstones;
        let is_forgotten =
            |key: &VolumeKey, since: Millis| tombstones.get(key).is_some_and(|&at| since <= at);
        let removed: Vec<VolumeKey> = self
            .own
            .volumes
            .extract_if(.., |key, since| is_forgotten(key, *since))
            .map(|(key, _)| key)
            .collect();
        self.outputs.extend(removed.into_iter().map(Output::RemoveVolume));
        for id in self.own.claims.keys() {
            let project = &id.slot.service.project;
            let Some(spec) = view.spec(&id.slot.service) else { continue };
            if !view.plan.placements.contains_key(&id.slot) {
                continue;
            }
            for volume in spec.volumes() {
                let key = VolumeKey { project: project.clone(), volume: volume.clone() };
                if !view.input.volumes.contains_key(&key) {
                    // What was removed by a clock ahead of ours begins after that.
                    let since = tombstones.get(&key).map_or(now, |&at| now.max(at + 1));
                    self.own.volumes.entry(key).or_insert(since);
                }
            }
        }
    }

    /// Says in our document how updates ended, as far as we see their end: that of an instance of ours that failed, or
    /// that every instance is where it should be.
    fn note_outcomes(&mut self) {
        let view = Arc::clone(&self.view);
        let revision = |key: &ServiceKey| view.cluster.services.get(key).map(|it| it.updated);
        self.own.update_results.retain(|key, result| revision(key) == Some(result.revision));
        let ours: BTreeSet<&ServiceKey> =
            self.own.claims.keys().map(|id| &id.slot.service).collect();
        for key in ours {
            let (Some(rollout), Some(record)) =
                (Rollout::of(&view, key), view.cluster.services.get(key))
            else {
                continue;
            };
            if record.previous.is_none() || view.updates.contains_key(key) {
                continue;
            }
            let goes_on = record.spec.update.failure_action == FailureAction::Continue;
            let failed = self.workload.failures().find(|(id, _)| {
                !goes_on
                    && rollout.state == RolloutState::Updating
                    && id.slot.service == *key
                    && id.digest == rollout.goal()
            });
            let failed = failed
                .map(|(id, why)| format!("{} on {}: {why}", id.slot, view.name(self.replica.id())));
            if let Some(reason) = &failed {
                tracing::warn!(service = %key, reason, "an update failed");
            }
            if failed.is_some() || rollout.has_arrived() {
                let result = UpdateResult { revision: record.updated, failed };
                self.own.update_results.insert(key.clone(), result);
            }
        }
    }

    /// The claims of nodes that are up on a service of the same project.
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
