//! What runs here, against what should: the reconcile loop of one node.
//!
//! A slot has one instance that is wanted, and for a while perhaps one more: with *start first*, what ran before goes on
//! until its successor, here or on another node, has proven itself.

mod instance;

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::claims_of_slot;
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::spec::{ContainerSpec, UpdatePolicy};
use vc_protocol::{Millis, NodeId, Slot};

use crate::runtime::{InstanceId, Observed, Phase, RuntimeAction};
use instance::Local;

/// What is to run in a slot of this node.
#[derive(Debug, Clone)]
pub(crate) struct Desired {
    pub(crate) spec: ContainerSpec,
    pub(crate) digest: String,
    /// What it waits for before it may start; empty: nothing.
    pub(crate) waits_for: String,
    /// Whether what runs in the slot goes on until this one has proven itself.
    pub(crate) starts_first: bool,
    pub(crate) update: UpdatePolicy,
}

/// All instances of this node.
#[derive(Debug)]
pub(crate) struct Workload {
    /// This node, for the log.
    node: NodeId,
    local: BTreeMap<InstanceId, Local>,
    /// Claims of our previous life: restarts go on counting, and what did not change keeps its time.
    inherited: BTreeMap<InstanceId, Claim>,
}

impl Workload {
    pub(crate) fn new(node: NodeId, inherited: BTreeMap<InstanceId, Claim>) -> Self {
        Self { node, local: BTreeMap::new(), inherited }
    }

    fn entry(&mut self, id: &InstanceId, now: Millis) -> &mut Local {
        let inherited = &mut self.inherited;
        self.local.entry(id.clone()).or_insert_with(|| Local::new(inherited.remove(id), now))
    }

    /// The runtime told us everything that exists.
    pub(crate) fn listed(&mut self, all: Vec<Observed>, now: Millis) {
        let there: BTreeSet<&InstanceId> = all.iter().map(|seen| &seen.id).collect();
        // What was asked for a moment ago may not have been made when the list was.
        let gone: Vec<InstanceId> = self
            .local
            .iter()
            .filter(|(id, local)| !there.contains(id) && local.is_expected(now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.changed(Observed { id, phase: Phase::Gone, address: String::new() }, now);
        }
        for seen in all {
            self.changed(seen, now);
        }
    }

    /// The runtime told us about one instance.
    pub(crate) fn changed(&mut self, seen: Observed, now: Millis) {
        let known = self.local.get(&seen.id);
        if seen.phase == Phase::Gone && known.is_none_or(Local::is_removing) {
            self.local.remove(&seen.id);
            return;
        }
        if known.is_some_and(|local| local.shows(&seen)) {
            return;
        }
        self.entry(&seen.id.clone(), now).see(seen, now);
    }

    /// The runtime was away: what was asked for and not seen to happen is asked for again.
    pub(crate) fn asked_in_vain(&mut self) {
        self.local.values_mut().for_each(Local::asked_in_vain);
    }

    /// The runtime is lost for good: nothing is known to run.
    pub(crate) fn forget(&mut self) {
        self.local.clear();
        self.inherited.clear();
    }

    /// The next time at which something is due.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        self.local.values().filter_map(Local::deadline).min()
    }

    /// The instances that failed since they were last started by a change: with why.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (&InstanceId, &str)> {
        self.local.iter().filter_map(|(id, local)| Some((id, local.failure()?)))
    }

    /// What to do so that `desired` runs, and what to claim meanwhile. `handed_on`: slots that another node is to
    /// fill and does not yet, in which what runs here goes on. With `hold`, `desired` may be yesterday's: nothing new is
    /// started, and nothing that runs is taken away.
    pub(crate) fn reconcile(
        &mut self,
        desired: &BTreeMap<Slot, Desired>,
        handed_on: &BTreeSet<Slot>,
        hold: bool,
        now: Millis,
    ) -> (Vec<RuntimeAction>, BTreeMap<InstanceId, Claim>) {
        let mut actions = Vec::new();
        let mut claims = BTreeMap::new();
        for (slot, wanted) in desired {
            let id = InstanceId { slot: slot.clone(), digest: wanted.digest.clone() };
            if let Some(local) = self.local.get_mut(&id) {
                local.judge(wanted, now);
            }
        }
        let stays = self.stays(desired, handed_on, hold);
        self.remove_unwanted(desired, &stays, hold, now, &mut actions, &mut claims);
        for (slot, wanted) in desired {
            // With the earlier version first, it is waited for: it may hold the volume.
            if claims_of_slot(&claims, slot)
                .any(|(id, _)| !wanted.starts_first || id.digest == wanted.digest)
            {
                continue;
            }
            let id = InstanceId { slot: slot.clone(), digest: wanted.digest.clone() };
            let node = self.node;
            let local = self.entry(&id, now);
            if local.step(wanted, hold, now) {
                actions.push(RuntimeAction::Start {
                    id: id.clone(),
                    spec: Box::new(wanted.spec.clone()),
                });
            }
            local.judge(wanted, now);
            let (state, reason) = local.describe(wanted, hold, now);
            local.show(node, &id, state, reason, now);
            claims.insert(id, local.claim());
        }
        (actions, claims)
    }

    /// The instances that are not wanted any more and go on all the same, until their successors have proven
    /// themselves: of each such slot the one that serves best.
    fn stays(
        &self,
        desired: &BTreeMap<Slot, Desired>,
        handed_on: &BTreeSet<Slot>,
        hold: bool,
    ) -> BTreeSet<InstanceId> {
        let mut best: BTreeMap<&Slot, &InstanceId> = BTreeMap::new();
        let proven = |id: &InstanceId| self.local.get(id).is_some_and(Local::is_proven);
        for (id, _) in self.local.iter().filter(|(_, local)| local.is_serving()) {
            let goes_on = match desired.get(&id.slot) {
                Some(wanted) if wanted.digest == id.digest => false,
                Some(wanted) => {
                    let successor =
                        InstanceId { slot: id.slot.clone(), digest: wanted.digest.clone() };
                    wanted.starts_first && !proven(&successor)
                }
                None => handed_on.contains(&id.slot),
            };
            if !goes_on || hold {
                continue;
            }
            let held = best.entry(&id.slot).or_insert(id);
            if proven(id) && !proven(held) {
                *held = id;
            }
        }
        best.into_values().cloned().collect()
    }

    fn remove_unwanted(
        &mut self,
        desired: &BTreeMap<Slot, Desired>,
        stays: &BTreeSet<InstanceId>,
        hold: bool,
        now: Millis,
        actions: &mut Vec<RuntimeAction>,
        claims: &mut BTreeMap<InstanceId, Claim>,
    ) {
        let wanted = |id: &InstanceId| {
            desired.get(&id.slot).is_some_and(|wanted| wanted.digest == id.digest)
        };
        // Never asked for and never seen: nothing to take away.
        self.local.retain(|id, local| wanted(id) || local.is_there());
        for (id, local) in &mut self.local {
            if wanted(id) && !local.is_removing() {
                continue;
            }
            if (hold || stays.contains(id)) && !local.is_removing() {
                local.stay();
                if let Some((state, reason)) = local.running() {
                    local.show(self.node, id, state, reason, now);
                    claims.insert(id.clone(), local.claim());
                }
                continue;
            }
            if let Some(grace_ms) = local.remove(now) {
                actions.push(RuntimeAction::Remove { id: id.clone(), grace_ms });
            }
            local.show(self.node, id, InstanceState::Stopping, String::new(), now);
            claims.insert(id.clone(), local.claim());
        }
    }
}
