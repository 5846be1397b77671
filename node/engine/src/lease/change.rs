//! Changes of the voters: one voter at a time, decided by the present ones (one instance of Paxos for each change).
//!
//! Majorities of two sets that follow each other share a voter. A voter takes part in the next change only when it has known the
//! present set for one lease time: then no lease is left that a majority of the set before has granted.

use std::collections::BTreeSet;

use vc_protocol::lease::{ChangeReply, ChangeRequest, ChangeVote, MAX_VOTERS, VoterSet};
use vc_protocol::{Millis, NodeId};

/// For how long a proposer waits for answers.
const ANSWER: Millis = 2000;
/// Time until it proposes again.
const RETRY: Millis = 1000;

/// Returns from when on a node that knows a set since `since` takes part in the change to the next one. There are no leases of
/// before the first set.
pub(super) fn earliest(set: &VoterSet, since: Millis) -> Millis {
    if set.number == 1 { 0 } else { since + set.lease_ms }
}

/// Returns whether a set may follow another one.
pub(super) fn follows(next: &VoterSet, set: &VoterSet) -> bool {
    let changed = next.voters.symmetric_difference(&set.voters).count();
    next.number == set.number + 1
        && changed == 1
        && !next.voters.is_empty()
        && next.voters.len() <= MAX_VOTERS
        && next.lease_ms == set.lease_ms
        && !next.forced
}

/// Answers a request about the set that follows `set`, which this node knows since `since`. `vote` is what this voter keeps on
/// its disk; the answer holds once it is durable.
pub(super) fn answer(
    (node, from): (NodeId, NodeId),
    request: ChangeRequest,
    (set, since): (&VoterSet, Millis),
    vote: &mut Option<ChangeVote>,
    now: Millis,
) -> ChangeReply {
    let ChangeRequest { from: number, ballot, accept } = request;
    let fresh = ChangeVote { from: set.number, promised: 0, to: from, accepted: None };
    let held = vote.take_if(|vote| vote.from == set.number).unwrap_or(fresh);
    let is_newest =
        ballot > held.promised || ballot == held.promised && from == held.to && ballot > 0;
    let is_valid = accept.as_ref().is_none_or(|next| follows(next, set));
    let granted = number == set.number
        && set.voters.contains(&node)
        && set.voters.contains(&from)
        && now >= earliest(set, since)
        && is_newest
        && is_valid;
    let vote = vote.insert(held);
    if granted {
        (vote.promised, vote.to) = (ballot, from);
        if let Some(next) = accept {
            vote.accepted = Some((ballot, next));
        }
    }
    let accepted = vote.accepted.clone();
    ChangeReply { from: number, ballot, granted, highest: vote.promised, accepted }
}

/// Proposes the next set of voters.
#[derive(Debug, Default)]
pub(super) struct Proposer {
    attempt: Option<Attempt>,
    highest: u64,
    retry_at: Millis,
}

#[derive(Debug)]
struct Attempt {
    ballot: u64,
    next: VoterSet,
    /// Whether it has asked to accept the set, and not only for promises.
    accepts: bool,
    granted: BTreeSet<NodeId>,
    /// The set with the highest ballot that a voter has accepted already: it is proposed instead.
    accepted: Option<(u64, VoterSet)>,
    until: Millis,
}

/// What a proposer does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask every voter.
    Ask(ChangeRequest),
    /// The voters have decided.
    Decided(VoterSet),
}

impl Proposer {
    /// Returns when to call [`Proposer::propose`] again, if there is something to propose.
    pub(super) fn poll_timeout(&self) -> Millis {
        self.attempt.as_ref().map_or(self.retry_at, |attempt| attempt.until)
    }

    /// Starts to propose `next` after `set`, unless an attempt is under way.
    pub(super) fn propose(&mut self, set: &VoterSet, next: VoterSet, now: Millis) -> Option<Step> {
        let is_over = |it: &mut Attempt| now >= it.until || it.next.number != set.number + 1;
        if self.attempt.take_if(is_over).is_some() {
            self.retry_at = now + RETRY;
        }
        if self.attempt.is_some() || now < self.retry_at {
            return None;
        }
        let ballot = self.highest + 1;
        let granted = BTreeSet::new();
        let until = now + ANSWER;
        self.attempt =
            Some(Attempt { ballot, next, accepts: false, granted, accepted: None, until });
        Some(Step::Ask(ChangeRequest { from: set.number, ballot, accept: None }))
    }

    /// Takes in the answer of a voter.
    pub(super) fn handle(
        &mut self,
        from: NodeId,
        reply: ChangeReply,
        set: &VoterSet,
        now: Millis,
    ) -> Option<Step> {
        let is_present = reply.from == set.number && set.voters.contains(&from);
        if !is_present {
            return None;
        }
        self.highest = self.highest.max(reply.highest);
        let attempt = self.attempt.as_mut()?;
        if attempt.next.number != set.number + 1 || reply.ballot != attempt.ballot {
            return None;
        }
        if !reply.granted {
            return None;
        }
        if !attempt.accepts {
            let before = attempt.accepted.as_ref().map_or(0, |(ballot, _)| *ballot);
            attempt.accepted = match reply.accepted {
                Some((ballot, next)) if ballot > before && follows(&next, set) => {
                    Some((ballot, next))
                }
                _ => attempt.accepted.take(),
            };
        }
        attempt.granted.insert(from);
        if attempt.granted.len() < set.majority() {
            return None;
        }
        if attempt.accepts {
            let decided = self.attempt.take()?.next;
            self.retry_at = now + RETRY;
            return Some(Step::Decided(decided));
        }
        attempt.accepts = true;
        attempt.granted.clear();
        if let Some((_, next)) = attempt.accepted.take() {
            attempt.next = next;
        }
        let accept = Some(attempt.next.clone());
        Some(Step::Ask(ChangeRequest { from: set.number, ballot: attempt.ballot, accept }))
    }
}
