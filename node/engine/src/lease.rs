//! Leases of exclusive slots and of volumes that are written: this node as a voter, as a holder, and as the proposer of
//! changes of the voters.
//!
//! A lease is granted by a majority of the voters to one node at a time ([`vc_protocol::lease`]). Everything here counts
//! monotonic milliseconds of one node; no clocks are compared between nodes.

mod change;
mod guard;
mod holder;
mod selection;
mod voter;

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::View;
use vc_protocol::lease::{
    ChangeVote, Epoch, LEASE_MS, LeaseKey, LeaseMessage, LeaseRequest, MAX_ENTRIES, Refusal, Vote,
    VoterSet,
};
use vc_protocol::spec::{Overlap, ServiceSpec};
use vc_protocol::{Millis, NodeId, Slot, VolumeKey};

use self::holder::HeldLease;
use crate::voters;

pub(crate) use self::guard::{Gate, Gates, Guard};

/// A voter that was down for this time gives its place to another server.
const LOST: Millis = 600_000;

/// What a voter keeps on its disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Votes {
    /// About leases.
    pub leases: BTreeMap<LeaseKey, Vote>,
    /// About the next set of voters.
    pub change: Option<ChangeVote>,
    /// Leases whose votes are removed from the disk.
    pub forgotten: BTreeSet<LeaseKey>,
}

impl Votes {
    /// Returns whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty() && self.change.is_none() && self.forgotten.is_empty()
    }
}

/// What is to be done for the leases, in this order.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// To be made durable first.
    pub(crate) votes: Votes,
    /// To be sent to other members.
    pub(crate) messages: Vec<(NodeId, LeaseMessage)>,
    /// A set of voters that the present ones have decided on, for the cluster document.
    pub(crate) decided: Option<VoterSet>,
}

/// Returns the leases that a slot of a service needs: those of the volumes that it writes, or that of the slot, and for a run of a schedule
/// the right to it. Empty if the service is neither exclusive nor runs at most once for a time.
pub(crate) fn keys_of(slot: &Slot, spec: &ServiceSpec) -> BTreeSet<LeaseKey> {
    let mut keys = exclusive_keys_of(slot, spec);
    if let Some(schedule) = spec.schedule.as_ref().filter(|it| it.at_most_once) {
        keys.insert(LeaseKey::run(slot));
        if schedule.overlap != Overlap::Allow {
            keys.insert(LeaseKey::job(&slot.service));
        }
    }
    keys
}

/// Returns the highest epoch under which each volume was written. Its copies refuse a lower one, which voters that have lost their
/// votes may grant.
fn written(view: &View) -> BTreeMap<LeaseKey, Epoch> {
    let mut written: BTreeMap<LeaseKey, Epoch> = BTreeMap::new();
    for (volume, record) in view.nodes.values().flat_map(|state| &state.volumes) {
        let Some(copy) = &record.copy else { continue };
        let epoch = copy.written.max(copy.snapshot.map(|it| it.epoch));
        if let Some(epoch) = epoch {
            let highest = written.entry(LeaseKey::volume(volume)).or_default();
            *highest = epoch.max(*highest);
        }
    }
    written
}

fn exclusive_keys_of(slot: &Slot, spec: &ServiceSpec) -> BTreeSet<LeaseKey> {
    if !spec.is_exclusive() {
        return BTreeSet::new();
    }
    let project = &slot.service.project;
    let key = |volume: &vc_protocol::Name| {
        LeaseKey::volume(&VolumeKey { project: project.clone(), volume: volume.clone() })
    };
    let volumes: BTreeSet<LeaseKey> = spec.written_volumes().map(key).collect();
    if volumes.is_empty() { BTreeSet::from([LeaseKey::slot(slot)]) } else { volumes }
}

/// The leases of a node.
#[derive(Debug)]
pub(crate) struct Leases {
    node: NodeId,
    voter: voter::Voter,
    change_vote: Option<ChangeVote>,
    holder: holder::Holder,
    proposer: change::Proposer,
    /// The present voters, as the documents say.
    set: Option<VoterSet>,
    /// Since when this node knows them.
    since: Millis,
    /// The nodes that the plan gives each lease to.
    planned: BTreeMap<LeaseKey, BTreeSet<NodeId>>,
    /// Since when each voter is down.
    down: BTreeMap<NodeId, Millis>,
    /// The voters that are to follow, if this node is to propose them.
    next: Option<VoterSet>,
}

impl Leases {
    /// The leases of a node that starts with these votes on its disk, and goes on with leases that it had.
    pub(crate) fn new(
        node: NodeId,
        votes: Votes,
        resumed: BTreeMap<LeaseKey, Epoch>,
        set: Option<&VoterSet>,
        now: Millis,
    ) -> Self {
        let lease_ms = set.map_or(LEASE_MS, |set| set.lease_ms);
        Self {
            node,
            voter: voter::Voter::new(node, votes.leases, lease_ms, now),
            change_vote: votes.change,
            holder: holder::Holder::new(node, resumed, now),
            proposer: change::Proposer::default(),
            set: set.cloned(),
            since: now,
            planned: BTreeMap::new(),
            down: BTreeMap::new(),
            next: None,
        }
    }

    /// Takes in a view: the voters, and which node may get which lease. Returns the leases whose votes are not needed any more.
    pub(crate) fn update(&mut self, view: &View, now: Millis) -> BTreeSet<LeaseKey> {
        let present = view.cluster.voter_set();
        if self.set.as_ref() != present {
            if let Some(set) = present {
                tracing::info!(number = set.number, voters = ?set.voters, forced = set.forced, "voters changed");
                if set.forced {
                    self.voter.silence(set.lease_ms, now);
                }
            }
            self.set = present.cloned();
            self.since = now;
            self.holder.renew_now();
        }
        let mut planned: BTreeMap<LeaseKey, BTreeSet<NodeId>> = BTreeMap::new();
        for (slot, placement) in &view.plan.placements {
            let Some(spec) = view.spec(&slot.service) else { continue };
            for key in keys_of(slot, spec) {
                planned.entry(key).or_default().insert(placement.node);
            }
        }
        self.planned = planned;
        self.next = self.next_voters(view, now);
        self.voter.forget_runs(|key| self.planned.contains_key(key))
    }

    /// Returns the voters that are to follow, if this node is the one that proposes them: the first voter that is up.
    fn next_voters(&mut self, view: &View, now: Millis) -> Option<VoterSet> {
        let set = self.set.as_ref()?;
        let up = voters::able(view);
        self.down.retain(|node, _| set.voters.contains(node) && !up.contains(node));
        for &node in set.voters.difference(&up) {
            self.down.entry(node).or_insert(now);
        }
        if set.voters.intersection(&up).next() != Some(&self.node) {
            return None;
        }
        let gone = |node: &NodeId| view.cluster.left.contains_key(node);
        let present = view.servers.iter().copied().filter(|node| !gone(node)).collect();
        let lost = self.down.iter().filter(|&(_, &since)| now >= since + LOST);
        let servers = selection::Servers {
            present: &present,
            up: &up,
            wanted: &view.cluster.voter_wishes(true),
            unwanted: &view.cluster.voter_wishes(false),
            lost: &lost.map(|(&node, _)| node).collect(),
        };
        let voters = selection::next_voters(set, &servers)?;
        Some(VoterSet {
            number: set.number + 1,
            voters,
            lease_ms: set.lease_ms,
            forced: false,
            by: String::new(),
        })
    }

    /// Returns the present voters.
    pub(crate) fn set(&self) -> Option<&VoterSet> {
        self.set.as_ref()
    }

    /// Returns the leases, if this node has all of them now: the epoch is the highest, the end the earliest.
    pub(crate) fn held(&self, keys: &BTreeSet<LeaseKey>, now: Millis) -> Option<HeldLease> {
        let set = self.set.as_ref()?;
        let mut all = None::<HeldLease>;
        for key in keys {
            let one = self.holder.held(key, set, now)?;
            all = Some(match all {
                None => one,
                Some(all) => HeldLease {
                    epoch: all.epoch.max(one.epoch),
                    until: all.until.into_iter().chain(one.until).min(),
                },
            });
        }
        all
    }

    /// Returns whether this node has just asked for these leases, without an answer so far.
    pub(crate) fn is_asked(&self, keys: &BTreeSet<LeaseKey>) -> bool {
        self.set.is_some() && keys.iter().all(|key| self.holder.is_asked(key))
    }

    /// Returns why this node does not have these leases, for people.
    pub(crate) fn why_not(&self, keys: &BTreeSet<LeaseKey>, view: &View, now: Millis) -> String {
        let Some(set) = &self.set else {
            return "waits for the voters that grant leases: they are chosen once all nodes are up"
                .to_owned();
        };
        let (reachable, voters) = (self.holder.reachable(set, now), set.voters.len());
        if reachable < set.majority() {
            return format!("waits for the lease: {reachable} of {voters} voters reachable");
        }
        let refusals = keys.iter().filter_map(|key| self.holder.refused(key));
        let holder = refusals.into_iter().find_map(|because| match because {
            Refusal::Held(node) => Some(node),
            _ => None,
        });
        match holder {
            Some(node) if node != self.node => {
                format!("waits for the lease, which {} has", view.name(node))
            }
            _ => "waits for the lease".to_owned(),
        }
    }

    /// Sets the leases that this node needs, of which instances run under some.
    pub(crate) fn need(
        &mut self,
        keys: &BTreeSet<LeaseKey>,
        in_use: &BTreeSet<&LeaseKey>,
        view: &View,
        now: Millis,
    ) -> Effects {
        let written = written(view);
        let seen = || {
            let claims = view.nodes.values().flat_map(|state| &state.claims);
            let claims = claims.filter_map(|(_, it)| it.epoch);
            claims.chain(written.values().copied()).max().unwrap_or(0)
        };
        let least = |key: &LeaseKey| match in_use.contains(key) {
            true => 0,
            false => written.get(key).copied().unwrap_or(0),
        };
        let released = self.holder.need(keys, seen, least, now);
        let mut effects = Effects::default();
        self.ask(released, now, &mut effects);
        effects
    }

    /// Gives up all leases without a word: the instances may still run until they end.
    pub(crate) fn abandon(&mut self) {
        self.holder.abandon();
    }

    /// Returns when to call [`Leases::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        let earliest = change::earliest(self.set.as_ref()?, self.since);
        let proposer = self.next.as_ref().map(|_| self.proposer.poll_timeout().max(earliest));
        self.holder.poll_timeout().into_iter().chain(proposer).min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Millis) -> Effects {
        let mut effects = Effects::default();
        self.ask_for_due(now, &mut effects);
        let Some(set) = self.set.clone() else { return effects };
        if let Some(next) = self.next.clone()
            && now >= self.proposer.poll_timeout().max(change::earliest(&set, self.since))
        {
            let step = self.proposer.propose(&set, next, now);
            self.change(step, now, &mut effects);
        }
        effects
    }

    /// Takes in a message of a member, or of this node.
    pub(crate) fn handle(&mut self, from: NodeId, message: LeaseMessage, now: Millis) -> Effects {
        let mut effects = Effects::default();
        self.receive(from, message, now, &mut effects);
        effects
    }

    fn receive(&mut self, from: NodeId, message: LeaseMessage, now: Millis, effects: &mut Effects) {
        match message {
            LeaseMessage::Request { set, lease_ms, entries } => {
                if let Some(present) = &self.set {
                    // It may not have renewed them in time, if it was stalled.
                    for (key, epoch) in self.holder.held_alone(present, now) {
                        self.voter.keep(key, epoch, now + present.lease_ms);
                    }
                }
                let planned = &self.planned;
                let may_hold = |node: NodeId, key: &LeaseKey| {
                    planned.get(key).is_some_and(|nodes| nodes.contains(&node))
                };
                let present = self.set.as_ref();
                let answer =
                    self.voter.handle(from, (set, lease_ms), entries, present, &may_hold, now);
                effects.votes.leases.extend(answer.votes);
                let number = present.map_or(0, |set| set.number);
                if !answer.replies.is_empty() {
                    let reply = LeaseMessage::Reply { set: number, entries: answer.replies };
                    self.send(from, reply, now, effects);
                }
            }
            LeaseMessage::Reply { entries, .. } => {
                let Some(set) = self.set.clone() else { return };
                let requests = self.holder.handle(from, entries, &set, now);
                self.ask(requests, now, effects);
            }
            LeaseMessage::Change(request) => {
                let Some(set) = &self.set else { return };
                let before = self.change_vote.clone();
                let reply = change::answer(
                    (self.node, from),
                    request,
                    (set, self.since),
                    &mut self.change_vote,
                    now,
                );
                if self.change_vote != before {
                    effects.votes.change.clone_from(&self.change_vote);
                }
                self.send(from, LeaseMessage::ChangeReply(reply), now, effects);
            }
            LeaseMessage::ChangeReply(reply) => {
                let Some(set) = self.set.clone() else { return };
                let step = self.proposer.handle(from, reply, &set, now);
                self.change(step, now, effects);
            }
        }
    }

    fn change(&mut self, step: Option<change::Step>, now: Millis, effects: &mut Effects) {
        match step {
            Some(change::Step::Ask(request)) => {
                self.send_to_voters(&LeaseMessage::Change(request), now, effects);
            }
            Some(change::Step::Decided(set)) => effects.decided = Some(set),
            None => {}
        }
    }

    /// Asks for the leases, and their renewals, that are due.
    pub(crate) fn ask_for_due(&mut self, now: Millis, effects: &mut Effects) {
        let Some(set) = self.set.clone() else { return };
        if self.holder.poll_timeout().is_some_and(|at| now >= at) {
            let requests = self.holder.requests(&set, now);
            self.ask(requests, now, effects);
        }
    }

    fn ask(&mut self, requests: Vec<LeaseRequest>, now: Millis, effects: &mut Effects) {
        let Some(set) = &self.set else { return };
        let (number, lease_ms) = (set.number, set.lease_ms);
        for entries in requests.chunks(MAX_ENTRIES) {
            let entries = entries.to_vec();
            let request = LeaseMessage::Request { set: number, lease_ms, entries };
            self.send_to_voters(&request, now, effects);
        }
    }

    fn send_to_voters(&mut self, message: &LeaseMessage, now: Millis, effects: &mut Effects) {
        let voters = self.set.as_ref().map(|set| set.voters.clone()).unwrap_or_default();
        for voter in voters {
            self.send(voter, message.clone(), now, effects);
        }
    }

    /// Sends a message; one to this node is handled at once: its votes become durable before anything that follows from it.
    fn send(&mut self, to: NodeId, message: LeaseMessage, now: Millis, effects: &mut Effects) {
        if to == self.node {
            self.receive(to, message, now, effects);
        } else {
            effects.messages.push((to, message));
        }
    }
}
