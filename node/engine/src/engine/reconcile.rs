//! Reconciles the instances of this node with the plan, and this node's document with the instances.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vc_crdt::{UpdateResult, View};
use vc_protocol::change::DocumentId;
use vc_protocol::control::RolloutState;
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::spec::{Dependency, FailureAction, ServiceSpec};
use vc_protocol::{InstanceId, Millis, Name, NodeId, ServiceKey, Slot, VolumeKey};

use super::Engine;
use crate::interface::Output;
use crate::rollout::{Rollout, Version};
use crate::runtime::{Observed, Phase, RuntimeEvent};
use crate::runtime_health::Recovery;
use crate::workload::Desired;

/// Changes in this node's document after which a new generation starts.
const HISTORY: u64 = 2000;

impl Engine {
    pub(super) fn runtime_event(&mut self, event: RuntimeEvent, now: Millis) {
        self.dirty = true;
        match event {
            RuntimeEvent::Listed(all) => {
                match self.runtime.listed() {
                    Recovery::First => self.demote_stale_claims(&all),
                    Recovery::Returned => self.workload.retry_pending(),
                    Recovery::None => {}
                }
                self.workload.listed(all, now);
            }
            RuntimeEvent::Changed(seen) => self.workload.changed(seen, now),
            RuntimeEvent::Unavailable(reason) => self.runtime.unavailable(reason, now),
        }
    }

    /// Claims from before the start whose instances do not run become pending: a successor's instance takes precedence
    /// over them.
    fn demote_stale_claims(&mut self, all: &[Observed]) {
        for (id, claim) in self.own.claims.iter_mut().filter(|(_, claim)| claim.state.is_running())
        {
            let runs =
                |seen: &Observed| matches!(seen.phase, Phase::Running { .. }) && seen.id == *id;
            if !all.iter().any(runs) {
                claim.state = InstanceState::Pending;
            }
        }
    }

    /// Updates everything that follows from the documents: the incarnation, the view, the instances, and this node's
    /// document.
    pub(super) fn converge(&mut self, now: Millis) {
        let mut own_changes = Vec::new();
        let mut view_changed = false;
        // This node's document is part of the view: the second round sees what the first wrote, a third changes nothing.
        for _ in 0..4 {
            if !std::mem::take(&mut self.dirty) {
                break;
            }
            self.own.runtime_error = self.runtime.error().map(str::to_owned);
            self.answer_accusations();
            view_changed = true;
            self.update_view();
            if self.runtime.is_unknown() {
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

    /// This node's document starts a new generation at each start, and when its history has grown.
    fn needs_renewal(&self) -> bool {
        !self.renewed || self.replica.own_change_count() >= HISTORY
    }

    fn own_document(&self) -> Option<DocumentId> {
        let node = self.replica.id();
        let &(generation, _) = self.replica.versions().nodes.get(&node)?;
        Some(DocumentId::Node { node, generation })
    }

    fn update_view(&mut self) {
        let mut nodes = self.replica.nodes().clone();
        if !self.runtime.is_unknown() {
            // What is about to be written counts already, above all the incarnation: the last one may be accused, and this
            // node would count itself as down and stop everything.
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
        self.detector.retain(|node| view.nodes.contains_key(node));
        self.view = Arc::new(view);
    }

    fn reconcile(&mut self, now: Millis) {
        if self.own.runtime_error.is_some() {
            self.workload.clear();
            self.own.claims.clear();
            return;
        }
        let desired = self.desired();
        let handover = self.handover();
        let hold = self.hold.is_active();
        let (actions, claims) = self.workload.reconcile(&desired, &handover, hold, now);
        self.own.claims = claims;
        self.record_volumes(now);
        self.record_update_results();
        self.outputs.extend(actions.into_iter().map(Output::Runtime));
    }

    /// Returns what is to run in each slot that the plan gives to this node.
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

    /// Returns what an instance waits for before it starts; empty if nothing.
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
                    format!("waits for {name} to complete")
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

    /// Returns the slots whose instances keep running here although the plan gives them to another node, because that node
    /// does not run them yet. On a drained node these include slots that no other node can take. Slots that are moved
    /// because this node lacks room are not among them.
    fn handover(&self) -> BTreeSet<Slot> {
        let (id, view) = (self.replica.id(), &self.view);
        let draining = view.cluster.drained.get(&id).copied().unwrap_or(false);
        let ordered_to_move =
            |slot: &Slot| view.input.moves.get(slot).is_some_and(|&(from, _)| from == id);
        let keeps_running = |slot: &Slot| match view.plan.placements.get(slot) {
            Some(placement) if placement.node == id => false,
            Some(placement) => {
                let mut claims = view.claims_on(slot);
                (draining || ordered_to_move(slot))
                    && view.spec(&slot.service).is_some_and(ServiceSpec::starts_first)
                    && !claims.any(|(node, _, claim)| node == placement.node && claim.available)
            }
            None => draining && view.plan.unplaced.contains_key(slot),
        };
        self.own
            .claims
            .keys()
            .map(|id| &id.slot)
            .filter(|slot| keeps_running(slot))
            .cloned()
            .collect()
    }

    /// Records in this node's document the volumes that its instances mount, and removes those with a tombstone.
    fn record_volumes(&mut self, now: Millis) {
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
                    // The tombstone may be by a clock ahead of ours; the new volume must be later.
                    let since = tombstones.get(&key).map_or(now, |&at| now.max(at + 1));
                    self.own.volumes.entry(key).or_insert(since);
                }
            }
        }
    }

    /// Records in this node's document how updates ended: an instance of this node failed, or all instances are available.
    fn record_update_results(&mut self) {
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
            let continues = record.spec.update.failure_action == FailureAction::Continue;
            let failed = self.workload.failures().find(|(id, _)| {
                !continues
                    && rollout.state == RolloutState::Updating
                    && id.slot.service == *key
                    && id.digest == rollout.goal()
            });
            let failed = failed
                .map(|(id, why)| format!("{} on {}: {why}", id.slot, view.name(self.replica.id())));
            if let Some(reason) = &failed {
                tracing::warn!(service = %key, reason, "update failed");
            }
            if failed.is_some() || rollout.is_complete() {
                let result = UpdateResult { revision: record.updated, failed };
                self.own.update_results.insert(key.clone(), result);
            }
        }
    }

    /// Returns the claims of up nodes on a service of the same project.
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
