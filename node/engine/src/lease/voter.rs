//! The voter: grants each lease to one node at a time.
//!
//! It differs from PaxosLease in three ways. Promises and accepted epochs are durable before they are answered, so that epochs
//! grow whatever restarts. While another node holds a lease, a voter promises it to none, so that a node which waits for a
//! lease never disturbs the renewals of its holder. And a voter that has promised a higher epoch, which no node got, joins the majority of
//! a holder: it would be of no use to it otherwise when another voter dies. The epochs still grow: those who granted the lease first
//! had promised nothing higher, so no higher epoch was granted before, nor is one while their majority holds.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::lease::{
    Epoch, LeaseKey, LeaseReply, LeaseRequest, MAX_ENTRIES, MAX_KEY, Refusal, Vote, VoterSet,
};
use vc_protocol::planted::{PlantedBug, is_planted};
use vc_protocol::{Millis, NodeId};

/// Of how many runs of a service that have ended a voter remembers to whom it has granted them.
const KEPT_RUNS: usize = 100;

/// What a voter answers, and what is to be durable before.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) replies: Vec<LeaseReply>,
    pub(super) votes: BTreeMap<LeaseKey, Vote>,
}

/// Whether, by the plan, a node may get a lease.
pub(super) type MayHold<'a> = dyn Fn(NodeId, &LeaseKey) -> bool + 'a;

/// The votes of this node.
#[derive(Debug)]
pub(super) struct Voter {
    node: NodeId,
    leases: BTreeMap<LeaseKey, Granted>,
    /// Until this time it grants nothing anew: it may have done so before its start.
    silent_until: Millis,
}

#[derive(Debug)]
struct Granted {
    vote: Vote,
    /// Until when the accepted lease counts.
    open_until: Millis,
    /// Whether the holder has released the lease.
    released: bool,
}

impl Voter {
    /// A voter with the votes from its disk. Leases that it has granted count as renewed just before.
    pub(super) fn new(
        node: NodeId,
        votes: BTreeMap<LeaseKey, Vote>,
        lease_ms: Millis,
        now: Millis,
    ) -> Self {
        let silent_until = if votes.is_empty() { 0 } else { now + lease_ms };
        let granted = |vote: Vote| Granted {
            vote,
            open_until: if vote.accepted.is_some() { silent_until } else { 0 },
            released: false,
        };
        let leases = votes.into_iter().map(|(key, vote)| (key, granted(vote))).collect();
        Self { node, leases, silent_until }
    }

    /// Grants nothing anew for one lease time: leases of voters that a person has replaced may still be in use.
    pub(super) fn silence(&mut self, lease_ms: Millis, now: Millis) {
        self.silent_until = self.silent_until.max(now + lease_ms);
    }

    /// Notes that this node still uses the lease that it has granted to itself.
    pub(super) fn keep(&mut self, key: &LeaseKey, epoch: Epoch, until: Millis) {
        if let Some(granted) = self.leases.get_mut(key)
            && granted.vote.accepted == Some((epoch, self.node))
        {
            granted.open_until = granted.open_until.max(until);
        }
    }

    /// Forgets the rights to runs that the plan gives to no node any more, but for the newest of each service. Returns them.
    pub(super) fn forget_runs(
        &mut self,
        is_planned: impl Fn(&LeaseKey) -> bool,
    ) -> BTreeSet<LeaseKey> {
        let mut of_service: BTreeMap<String, Vec<(u32, LeaseKey)>> = BTreeMap::new();
        for key in self.leases.keys().filter(|key| key.is_once() && !is_planned(key)) {
            if let Some((service, time)) = key.as_str().rsplit_once('/') {
                let runs = of_service.entry(service.to_owned()).or_default();
                runs.push((time.parse().unwrap_or(0), key.clone()));
            }
        }
        let mut forgotten = BTreeSet::new();
        for mut runs in of_service.into_values() {
            runs.sort_unstable_by(|a, b| b.cmp(a));
            forgotten.extend(runs.into_iter().skip(KEPT_RUNS).map(|(_, key)| key));
        }
        self.leases.retain(|key, _| !forgotten.contains(key));
        forgotten
    }

    /// Answers the request of a member, which knows the voter set of number `number` with this lease time.
    pub(super) fn handle(
        &mut self,
        from: NodeId,
        (number, lease_ms): (u64, Millis),
        entries: Vec<LeaseRequest>,
        set: Option<&VoterSet>,
        may_hold: &MayHold<'_>,
        now: Millis,
    ) -> Answer {
        let agrees = |set: &&VoterSet| {
            set.number == number && set.lease_ms == lease_ms && set.voters.contains(&self.node)
        };
        let is_voter = set.filter(agrees).is_some();
        let mut answer = Answer::default();
        for entry in entries.into_iter().take(MAX_ENTRIES) {
            let (key, epoch) = match &entry {
                LeaseRequest::Prepare { key, epoch }
                | LeaseRequest::Accept { key, epoch, .. }
                | LeaseRequest::Release { key, epoch } => (key.clone(), *epoch),
            };
            let granted = match entry {
                _ if !is_voter => Err(Refusal::OtherVoters),
                _ if key.as_str().len() > MAX_KEY => Err(Refusal::NotPlanned),
                LeaseRequest::Prepare { .. } => {
                    self.prepare(from, &key, epoch, may_hold, now, &mut answer.votes)
                }
                LeaseRequest::Accept { sent, held, .. } => self
                    .accept(from, &key, (epoch, held), may_hold, lease_ms, now, &mut answer.votes)
                    .map(|()| LeaseReply::Accepted { key: key.clone(), epoch, sent }),
                LeaseRequest::Release { .. } => {
                    self.release(from, &key, epoch);
                    continue;
                }
            };
            let highest = self.leases.get(&key).map_or(0, |granted| granted.vote.promised);
            answer.replies.push(granted.unwrap_or_else(|because| LeaseReply::Refused {
                key,
                epoch,
                highest,
                because,
            }));
        }
        answer
    }

    fn prepare(
        &mut self,
        from: NodeId,
        key: &LeaseKey,
        epoch: Epoch,
        may_hold: &MayHold<'_>,
        now: Millis,
        votes: &mut BTreeMap<LeaseKey, Vote>,
    ) -> Result<LeaseReply, Refusal> {
        let known = self.leases.get(key);
        let promised = known.map(|granted| (granted.vote.promised, granted.vote.to));
        if promised.is_some_and(|(highest, to)| epoch < highest || epoch == highest && to != from) {
            return Err(Refusal::Outdated);
        }
        self.check_free(from, key, now)?;
        if !may_hold(from, key) {
            return Err(Refusal::NotPlanned);
        }
        let accepted = known.and_then(|granted| granted.vote.accepted);
        let open_until = known.map_or(0, |granted| granted.open_until);
        let vote = Vote { promised: epoch, to: from, accepted };
        let granted = Granted { vote, open_until, released: false };
        self.leases.insert(key.clone(), granted);
        if promised != Some((epoch, from)) {
            votes.insert(key.clone(), vote);
        }
        Ok(LeaseReply::Promised { key: key.clone(), epoch })
    }

    #[allow(clippy::too_many_arguments, reason = "one request, and what it is judged by")]
    fn accept(
        &mut self,
        from: NodeId,
        key: &LeaseKey,
        (epoch, held): (Epoch, bool),
        may_hold: &MayHold<'_>,
        lease_ms: Millis,
        now: Millis,
        votes: &mut BTreeMap<LeaseKey, Vote>,
    ) -> Result<(), Refusal> {
        let known = self.leases.get(key);
        let is_renewal = known.is_some_and(|it| it.vote.accepted == Some((epoch, from)));
        let outdated = known.is_some_and(|Granted { vote, released, .. }| {
            let is_promised = epoch < vote.promised || epoch == vote.promised && vote.to != from;
            let is_granted = vote.accepted.is_some_and(|(accepted, _)| epoch <= accepted);
            is_promised && !(held && (is_renewal || !is_granted)) || *released && is_renewal
        });
        if outdated {
            return Err(Refusal::Outdated);
        }
        let accepted = Some((epoch, from));
        let vote = match known {
            // A promise stands.
            Some(Granted { vote, .. }) if vote.promised > epoch => Vote { accepted, ..*vote },
            _ => Vote { promised: epoch, to: from, accepted },
        };
        if !is_renewal {
            self.check_free(from, key, now)?;
            if !may_hold(from, key) {
                return Err(Refusal::NotPlanned);
            }
            votes.insert(key.clone(), vote);
        }
        let open_until = now + lease_ms;
        let granted = Granted { vote, open_until, released: false };
        self.leases.insert(key.clone(), granted);
        Ok(())
    }

    /// Checks that `from` may get a lease anew: no other node has it.
    fn check_free(&self, from: NodeId, key: &LeaseKey, now: Millis) -> Result<(), Refusal> {
        if is_planted(PlantedBug::EagerVoter) {
            return Ok(());
        }
        let known = self.leases.get(key);
        let holder = known.and_then(|granted| granted.vote.accepted).map(|(_, holder)| holder);
        let is_open = known.is_some_and(|granted| now < granted.open_until);
        if let Some(other) = holder.filter(|&holder| key.is_once() && holder != from) {
            return Err(Refusal::Held(other));
        }
        if let Some(other) = holder.filter(|&holder| is_open && holder != from) {
            return Err(Refusal::Held(other));
        }
        if now < self.silent_until && holder != Some(from) {
            return Err(Refusal::Silent);
        }
        Ok(())
    }

    fn release(&mut self, from: NodeId, key: &LeaseKey, epoch: Epoch) {
        if let Some(granted) = self.leases.get_mut(key)
            && granted.vote.accepted == Some((epoch, from))
        {
            (granted.open_until, granted.released) = (0, true);
        }
    }
}
