//! Which instances of this node may run by their leases, and until when.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{NodeState, View};
use vc_protocol::instance::InstanceState;
use vc_protocol::lease::{Epoch, LeaseKey};
use vc_protocol::planted::{PlantedBug, is_planted};
use vc_protocol::spec::ServiceSpec;
use vc_protocol::{InstanceId, Millis, NodeId, Slot, VolumeKey};

use super::{Effects, Leases, Votes, keys_of};
use crate::volumes::{unfinished, unread, unready};

/// An instance is asked to stop this long before its lease ends: the time from SIGTERM to SIGKILL where a node is cut off.
const STOP_BEFORE: Millis = 1000;

/// What the leases say about a slot whose service is exclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gate {
    /// This node has the lease.
    Held(Epoch),
    /// It has just asked for it.
    Asked,
    /// It has it, and the data of its volumes is about to be ready.
    AlmostReady,
    /// It does not have it, and why, for people.
    Missing(String),
}

/// What the leases say about the slots of this node at one time. Slots without an entry need no lease.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    slots: BTreeMap<Slot, Gate>,
    deadlines: BTreeMap<InstanceId, Millis>,
    now: Millis,
}

impl Gates {
    /// Returns what the leases say about a slot.
    pub(crate) fn of(&self, slot: &Slot) -> Option<&Gate> {
        self.slots.get(slot)
    }

    /// Returns whether an instance that was started with this epoch may go on.
    pub(crate) fn may_run(&self, id: &InstanceId, epoch: Option<Epoch>) -> bool {
        match (self.of(&id.slot), epoch) {
            // It was started before its service needed a lease, and goes on until its node has had it once.
            (None, _) | (_, None) => true,
            (Some(Gate::Held(held)), Some(epoch)) => *held == epoch,
            (Some(Gate::Asked | Gate::AlmostReady | Gate::Missing(_)), Some(_)) => {
                self.deadlines.get(id).is_some_and(|&end| self.now + STOP_BEFORE < end)
            }
        }
    }

    /// Returns how long an instance that may not go on has until its lease ends, in milliseconds.
    pub(crate) fn grace(&self, id: &InstanceId) -> Millis {
        self.deadlines.get(id).map_or(0, |end| end.saturating_sub(self.now))
    }
}

/// The leases of this node, and what they mean for its instances.
#[derive(Debug)]
pub(crate) struct Guard {
    node: NodeId,
    pub(crate) leases: Leases,
    /// The leases under which the slots of this node run, while it has instances in them.
    used: BTreeMap<Slot, BTreeSet<LeaseKey>>,
    /// When the instances must have ended.
    deadlines: BTreeMap<InstanceId, Millis>,
    /// The deadlines that were last reported.
    reported: BTreeMap<InstanceId, Millis>,
    /// What the leases said last.
    gates: BTreeMap<Slot, Gate>,
    /// When an instance has to be asked to stop, unless its lease is renewed until then.
    stop_at: Option<Millis>,
}

impl Guard {
    /// A guard that goes on with the instances in `own`, the node's document from before the start. `deadlines`: when the
    /// watchdog ends them; one that it does not know has ended, unless this node is the only voter.
    pub(crate) fn new(
        node: NodeId,
        votes: Votes,
        own: &NodeState,
        view: &View,
        deadlines: BTreeMap<InstanceId, Millis>,
        now: Millis,
    ) -> Self {
        let leased = own.claims.iter().filter(|(_, claim)| claim.state.is_running());
        let leased = leased.filter_map(|(id, claim)| Some((&id.slot, claim.epoch?)));
        let mut used = BTreeMap::new();
        let mut resumed = BTreeMap::new();
        for (slot, epoch) in leased {
            let Some(spec) = view.spec(&slot.service) else { continue };
            let keys = keys_of(slot, spec);
            resumed.extend(keys.iter().map(|key| (key.clone(), epoch)));
            used.insert(slot.clone(), keys);
        }
        let set = view.cluster.voter_set();
        let leases = Leases::new(node, votes, resumed, set, now);
        let gates = BTreeMap::new();
        Self { node, leases, used, reported: deadlines.clone(), deadlines, gates, stop_at: None }
    }

    /// Takes in a view: asks for the leases that this node needs, and releases those that it does not. While the runtime does not
    /// answer, the instances are not known: the leases end by themselves, and the watchdog ends the instances, so that another
    /// node can run them.
    pub(crate) fn update(&mut self, view: &View, own: &NodeState, now: Millis) -> Effects {
        let node = self.node;
        let forgotten = self.leases.update(view, now);
        if own.runtime_error.is_some() {
            // No other node could run the instances: nothing is won by ending them.
            let is_alone = view.up.iter().all(|it| *it == node);
            if !is_alone {
                self.leases.abandon();
                for end in self.deadlines.values_mut().filter(|end| **end == Millis::MAX) {
                    *end = now;
                }
            }
            let votes = Votes { forgotten, ..Votes::default() };
            return Effects { votes, ..Effects::default() };
        }
        let mut slots = BTreeMap::new();
        let here = || own.claims.keys().filter(|id| !view.has_ended(id));
        // They use what the service mounted before.
        let former = here().filter(|id| view.is_former(id)).map(|id| &id.slot);
        let former: BTreeSet<&Slot> = former.collect();
        for slot in view.plan.slots_of(node).chain(here().map(|id| &id.slot)) {
            let spec = view.spec(&slot.service);
            let mut keys = spec.map(|spec| keys_of(slot, spec)).unwrap_or_default();
            if former.contains(slot) {
                keys.extend(self.used.get(slot).into_iter().flatten().cloned());
            }
            if !keys.is_empty() {
                slots.insert(slot.clone(), keys);
            }
        }
        self.used = slots;
        let mut needed: BTreeSet<LeaseKey> = self.used.values().flatten().cloned().collect();
        needed.extend(unfinished(view, own, node, &self.leases, now));
        // What runs under a lease goes on under it.
        let runs = |state: InstanceState| {
            matches!(state, InstanceState::Starting | InstanceState::Stopping) || state.is_running()
        };
        let leased = own.claims.iter().filter(|(_, it)| it.epoch.is_some() && runs(it.state));
        let in_use = leased.filter_map(|(id, _)| self.used.get(&id.slot)).flatten().collect();
        let mut effects = self.leases.need(&needed, &in_use, view, now);
        self.leases.ask_for_due(now, &mut effects);
        effects.votes.forgotten = forgotten;
        effects
    }

    /// Returns whether an instance in a slot of this node needs the lease of a volume, or did until its service was changed.
    pub(crate) fn uses(&self, slot: &Slot, volume: &VolumeKey) -> bool {
        self.used.get(slot).is_some_and(|keys| keys.contains(&LeaseKey::volume(volume)))
    }

    /// Returns what the leases say about the slots of this node.
    pub(crate) fn gates(&mut self, view: &View, own: &NodeState, now: Millis) -> Gates {
        self.gates = self.compute(view, own, now);
        Gates { slots: self.gates.clone(), deadlines: self.deadlines.clone(), now }
    }

    /// Returns whether the leases say something else by now than [`Guard::gates`] returned last, or an instance has to stop.
    pub(crate) fn has_changed(&self, view: &View, own: &NodeState, now: Millis) -> bool {
        self.stop_at.is_some_and(|at| now >= at) || self.compute(view, own, now) != self.gates
    }

    fn compute(&self, view: &View, own: &NodeState, now: Millis) -> BTreeMap<Slot, Gate> {
        let gate = |slot: &Slot, keys: &BTreeSet<LeaseKey>| match self.leases.held(keys, now) {
            Some(held) if held.until.is_none_or(|until| now + STOP_BEFORE < until) => {
                let unread = || unread(view, own, self.node, slot);
                match unready(view, own, slot, &self.leases, now).or_else(unread) {
                    Some(volume) => preparing(view, own, &volume),
                    None => Gate::Held(held.epoch),
                }
            }
            None if self.leases.is_asked(keys) => Gate::Asked,
            _ => Gate::Missing(self.leases.why_not(keys, view, now)),
        };
        // Before the first voters were chosen, as while older members are there, what writes a volume runs as it did before.
        let is_known = self.leases.set().is_some();
        let asks = |slot: &Slot| {
            let says = |spec: &ServiceSpec| spec.on_partition.is_some() || spec.runs_at_most_once();
            is_known || view.spec(&slot.service).is_some_and(|spec| says(spec))
        };
        let gates = self.used.iter().filter(|(slot, _)| asks(slot));
        let gates = gates.map(|(slot, keys)| (slot.clone(), gate(slot, keys)));
        let reading = view.plan.slots_of(self.node).filter(|slot| !self.used.contains_key(*slot));
        let unread = reading.filter_map(|slot| {
            let volume = unread(view, own, self.node, slot)?;
            Some((slot.clone(), preparing(view, own, &volume)))
        });
        gates.chain(unread).collect()
    }

    /// Updates the deadlines of the instances that `own` claims. Returns them if they have changed.
    pub(crate) fn deadlines(
        &mut self,
        own: &NodeState,
        now: Millis,
    ) -> Option<BTreeMap<InstanceId, Millis>> {
        if own.runtime_error.is_none() {
            let claims = &own.claims;
            self.deadlines.retain(|id, _| claims.contains_key(id));
            for (id, claim) in claims.iter().filter(|(_, claim)| claim.epoch.is_some()) {
                let Some(keys) = self.used.get(&id.slot) else { continue };
                match self.leases.held(keys, now) {
                    Some(held) if Some(held.epoch) == claim.epoch => {
                        let until = held.until.filter(|_| !is_planted(PlantedBug::NoWatchdog));
                        self.deadlines.insert(id.clone(), until.unwrap_or(Millis::MAX));
                    }
                    // This node was the only voter when it had the lease.
                    _ if self.deadlines.get(id) == Some(&Millis::MAX) => {
                        self.deadlines.insert(id.clone(), now);
                    }
                    _ => {}
                }
            }
        }
        let ends = self.deadlines.values().filter(|&&end| end != Millis::MAX);
        let stops = ends.map(|end| end.saturating_sub(STOP_BEFORE));
        self.stop_at = stops.filter(|&at| at > now).min();
        if self.deadlines == self.reported {
            return None;
        }
        self.reported.clone_from(&self.deadlines);
        Some(self.deadlines.clone())
    }

    /// Returns when to call [`Guard::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        self.stop_at.into_iter().chain(self.leases.poll_timeout()).min()
    }

    /// Renews leases and asks for them, where that is due.
    pub(crate) fn handle_timeout(&mut self, now: Millis) -> Effects {
        self.leases.handle_timeout(now)
    }
}

/// Says why the data of a volume is not ready: this node has just been told to make it so, or gets it from others.
fn preparing(view: &View, own: &NodeState, volume: &VolumeKey) -> Gate {
    let copy = own.copy(volume);
    let snapshot = copy.and_then(|copy| copy.snapshot);
    let others = || view.nodes.values().filter_map(|it| it.copy(volume));
    match copy.and_then(|copy| copy.error.as_deref()) {
        Some(error) => Gate::Missing(format!("volume {volume} is not ready: {error}")),
        None if others().map(|copy| copy.snapshot).max() > Some(snapshot) => {
            let total = others().map(|copy| copy.bytes).max().unwrap_or(0);
            let percent = copy.and_then(|it| (it.received * 100).checked_div(total)).unwrap_or(0);
            let arrived = if percent > 0 { format!(": {percent} %") } else { String::new() };
            Gate::Missing(format!("gets the data of volume {volume}{arrived}"))
        }
        None => Gate::AlmostReady,
    }
}
