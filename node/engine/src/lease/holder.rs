//! The holder: gets the leases that this node needs, and renews them.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::lease::{Epoch, LeaseKey, LeaseReply, LeaseRequest, Refusal, VoterSet};
use vc_protocol::wire::fingerprint;
use vc_protocol::{Millis, NodeId};

/// Interval between renewals.
const RENEWAL: Millis = 500;
/// For how long it waits for promises, and for the first grant.
const ANSWER: Millis = 1000;
/// Time until it asks again for a lease that another node has.
const RETRY: Millis = 200;
/// The most that it waits in addition where several nodes ask at the same time: each waits for another time, or they would go on
/// to outbid each other.
const SPREAD: Millis = 300;
/// A voter that has not answered for this time counts as unreachable.
const REACHABLE: Millis = 3000;

/// A lease that this node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldLease {
    /// Its epoch.
    pub(crate) epoch: Epoch,
    /// When it ends, by the monotonic clock; `None`: not before this node grants it to another one.
    pub(crate) until: Option<Millis>,
}

/// The leases that this node has or wants.
#[derive(Debug)]
pub(super) struct Holder {
    node: NodeId,
    leases: BTreeMap<LeaseKey, Lease>,
    /// When each voter answered last.
    heard: BTreeMap<NodeId, Millis>,
    renew_at: Millis,
}

#[derive(Debug)]
struct Lease {
    /// The highest epoch that is known of it.
    seen: Epoch,
    state: State,
    /// The voters that have refused what the state asks for.
    refused_by: BTreeSet<NodeId>,
    /// Why a voter refused it last.
    refused: Option<Refusal>,
    /// How often it was asked for since this node had it.
    attempts: u64,
}

impl Lease {
    fn new(seen: Epoch, state: State) -> Self {
        Self { seen, state, refused_by: BTreeSet::new(), refused: None, attempts: 0 }
    }

    /// Waits until it asks again.
    fn wait(&mut self, node: NodeId, now: Millis) {
        let pause = match self.refused {
            Some(Refusal::Held(_)) => RETRY,
            _ => RETRY / 2 + fingerprint(&(node, self.attempts)) % SPREAD,
        };
        self.attempts += 1;
        self.enter(State::Waiting { retry_at: now + pause });
    }

    /// Asks anew for a lease with a lower epoch than this. Returns the epoch that it gives up.
    fn require(&mut self, least: Epoch, node: NodeId, now: Millis) -> Option<Epoch> {
        self.seen = self.seen.max(least);
        let (given_up, epoch) = match self.state {
            State::Waiting { .. } => return None,
            State::Preparing { epoch, .. } => (None, epoch),
            State::Proposed { epoch, .. } => (Some(epoch), epoch),
        };
        if epoch >= least {
            return None;
        }
        self.wait(node, now);
        given_up
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.refused_by.clear();
    }
}

#[derive(Debug)]
enum State {
    Waiting {
        retry_at: Millis,
    },
    Preparing {
        epoch: Epoch,
        promised: BTreeSet<NodeId>,
        until: Millis,
    },
    /// A majority has promised, or did so before the start of this process.
    Proposed {
        epoch: Epoch,
        /// When the last request was sent that each voter has granted.
        acks: BTreeMap<NodeId, Millis>,
        /// Until when a majority grants it. What a former set of voters has granted stays granted.
        until: Option<Millis>,
        since: Millis,
    },
}

impl Holder {
    /// A holder that goes on renewing the leases with these epochs, which it had before its start.
    pub(super) fn new(node: NodeId, resumed: BTreeMap<LeaseKey, Epoch>, now: Millis) -> Self {
        let proposed = |epoch| Lease::new(epoch, State::proposed(epoch, now));
        let leases = resumed.into_iter().map(|(key, epoch)| (key, proposed(epoch))).collect();
        Self { node, leases, heard: BTreeMap::new(), renew_at: 0 }
    }

    /// Sets which leases this node needs. `seen`: the highest epoch that the documents name for a new one. `least`: the lowest epoch that
    /// a lease is of use with, or 0. Returns the releases of those that it does not need any more.
    pub(super) fn need(
        &mut self,
        keys: &BTreeSet<LeaseKey>,
        seen: impl Fn() -> Epoch,
        least: impl Fn(&LeaseKey) -> Epoch,
        now: Millis,
    ) -> Vec<LeaseRequest> {
        let dropped = self.leases.extract_if(.., |key, _| !keys.contains(key));
        let released = dropped.filter_map(|(key, lease)| match lease.state {
            State::Proposed { epoch, .. } => Some(LeaseRequest::Release { key, epoch }),
            State::Waiting { .. } | State::Preparing { .. } => None,
        });
        let mut released: Vec<LeaseRequest> = released.collect();
        for key in keys {
            match self.leases.get_mut(key) {
                Some(lease) => {
                    let given_up = lease.require(least(key), self.node, now);
                    let release = |epoch| LeaseRequest::Release { key: key.clone(), epoch };
                    released.extend(given_up.map(release));
                }
                None => {
                    let waiting = State::Waiting { retry_at: 0 };
                    self.leases.insert(key.clone(), Lease::new(seen(), waiting));
                }
            }
        }
        released
    }

    /// Gives up all leases without a word.
    pub(super) fn abandon(&mut self) {
        self.leases.clear();
    }

    /// Returns the lease, if this node has it now.
    pub(super) fn held(&self, key: &LeaseKey, set: &VoterSet, now: Millis) -> Option<HeldLease> {
        let State::Proposed { epoch, until, .. } = self.leases.get(key)?.state else { return None };
        let until = until?;
        if set.is_only(self.node) {
            return Some(HeldLease { epoch, until: None });
        }
        (now < until).then_some(HeldLease { epoch, until: Some(until) })
    }

    /// Returns the leases that this node has until it grants them to another one, because it is the only voter.
    pub(super) fn held_alone<'a>(
        &'a self,
        set: &'a VoterSet,
        now: Millis,
    ) -> impl Iterator<Item = (&'a LeaseKey, Epoch)> {
        self.leases.keys().filter_map(move |key| {
            let held = self.held(key, set, now)?;
            held.until.is_none().then_some((key, held.epoch))
        })
    }

    /// Returns whether this node asks for a lease for the first time and was not refused.
    pub(super) fn is_asked(&self, key: &LeaseKey) -> bool {
        self.leases.get(key).is_some_and(|lease| lease.attempts == 0 && lease.refused.is_none())
    }

    /// Returns why a voter refused this lease last.
    pub(super) fn refused(&self, key: &LeaseKey) -> Option<Refusal> {
        self.leases.get(key)?.refused
    }

    /// Returns how many voters have answered a moment ago.
    pub(super) fn reachable(&self, set: &VoterSet, now: Millis) -> usize {
        let answers =
            |voter: &&NodeId| self.heard.get(voter).is_some_and(|&heard| now < heard + REACHABLE);
        set.voters.iter().filter(answers).count()
    }

    /// Returns when to call [`Holder::requests`].
    pub(super) fn poll_timeout(&self) -> Option<Millis> {
        let due = |lease: &Lease| match lease.state {
            State::Waiting { retry_at } => retry_at,
            State::Preparing { until, .. } => until,
            State::Proposed { .. } => self.renew_at,
        };
        self.leases.values().map(due).min()
    }

    /// Renews at once, as the voters may have changed.
    pub(super) fn renew_now(&mut self) {
        self.renew_at = 0;
    }

    /// Returns what is to be asked of every voter now.
    pub(super) fn requests(&mut self, set: &VoterSet, now: Millis) -> Vec<LeaseRequest> {
        let renews = now >= self.renew_at;
        if renews {
            self.renew_at = now + RENEWAL;
        }
        let mut requests = Vec::new();
        for (key, lease) in &mut self.leases {
            match lease.state {
                State::Waiting { retry_at } if now >= retry_at => {
                    let epoch = set.next_epoch(lease.seen);
                    let (promised, until) = (BTreeSet::new(), now + ANSWER);
                    lease.enter(State::Preparing { epoch, promised, until });
                    requests.push(LeaseRequest::Prepare { key: key.clone(), epoch });
                }
                State::Preparing { until, .. } if now >= until => {
                    lease.wait(self.node, now);
                }
                State::Proposed { epoch, until, since, .. } if renews => {
                    let ended = match until {
                        Some(until) => now >= until && !set.is_only(self.node),
                        None => now >= since + ANSWER,
                    };
                    if ended {
                        lease.attempts += 1;
                        lease.enter(State::Waiting { retry_at: now });
                    } else {
                        let (key, held) = (key.clone(), until.is_some());
                        requests.push(LeaseRequest::Accept { key, epoch, sent: now, held });
                    }
                }
                _ => {}
            }
        }
        requests
    }

    /// Takes in the answers of a voter. Returns what is to be asked of every voter next.
    pub(super) fn handle(
        &mut self,
        from: NodeId,
        replies: Vec<LeaseReply>,
        set: &VoterSet,
        now: Millis,
    ) -> Vec<LeaseRequest> {
        self.heard.retain(|node, _| set.voters.contains(node));
        if !set.voters.contains(&from) {
            return Vec::new();
        }
        self.heard.insert(from, now);
        let mut requests = Vec::new();
        for reply in replies {
            let (LeaseReply::Promised { key, epoch }
            | LeaseReply::Accepted { key, epoch, .. }
            | LeaseReply::Refused { key, epoch, .. }) = &reply;
            let Some(lease) = self.leases.get_mut(key) else { continue };
            let (State::Preparing { epoch: ours, .. } | State::Proposed { epoch: ours, .. }) =
                lease.state
            else {
                continue;
            };
            if *epoch != ours {
                continue;
            }
            match (reply, &mut lease.state) {
                (LeaseReply::Promised { key, epoch }, State::Preparing { promised, .. }) => {
                    promised.insert(from);
                    if promised.len() >= set.majority() {
                        lease.seen = epoch;
                        lease.enter(State::proposed(epoch, now));
                        let held = false;
                        requests.push(LeaseRequest::Accept { key, epoch, sent: now, held });
                    }
                }
                // A time that is yet to come is not one that this node has sent.
                (LeaseReply::Accepted { sent, .. }, State::Proposed { acks, until, .. })
                    if sent <= now =>
                {
                    let ack = acks.entry(from).or_default();
                    *ack = sent.max(*ack);
                    *until = granted_until(acks, set).max(*until);
                    lease.refused = None;
                    lease.refused_by.remove(&from);
                    lease.attempts = 0;
                }
                (LeaseReply::Refused { highest, because, .. }, state) => {
                    lease.seen = lease.seen.max(highest);
                    lease.refused = Some(because);
                    lease.refused_by.insert(from);
                    let no_majority = lease.refused_by.len() > set.voters.len() - set.majority();
                    let is_granted = matches!(state, State::Proposed { until: Some(_), .. });
                    if no_majority && !is_granted {
                        lease.wait(self.node, now);
                    }
                }
                _ => {}
            }
        }
        requests
    }
}

impl State {
    fn proposed(epoch: Epoch, now: Millis) -> Self {
        Self::Proposed { epoch, acks: BTreeMap::new(), until: None, since: now }
    }
}

/// Returns until when a majority of the voters grants a lease.
fn granted_until(acks: &BTreeMap<NodeId, Millis>, set: &VoterSet) -> Option<Millis> {
    let mut sent: Vec<Millis> = set.voters.iter().filter_map(|it| acks.get(it)).copied().collect();
    sent.sort_unstable_by(|a, b| b.cmp(a));
    Some(sent.get(set.majority() - 1)? + set.hold_ms())
}
