//! Alerts: which problems are sent to which receivers, when, and by which node.
//!
//! A problem that holds for [`HOLD`] is sent as *firing*, and when it has been gone for [`HOLD`] as *resolved*. One server sends to a
//! receiver: the first in the order of a rendezvous hash that is up and does not say that it cannot reach it. Every server keeps track of the problems, so that the next one
//! goes on when that one dies. What a receiver has confirmed is in the cluster document
//! ([`AlertRecord`]): it is not sent again, by whichever node. So an alert arrives at least once; twice if the node that sends dies
//! between the confirmation and its record, or if both sides of a partition reach the receiver.

mod message;
#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{AlertKey, AlertRecord, Receiver, ReceiverTarget, View};
use vc_placement::rendezvous;
use vc_protocol::alert::ProblemKind;
use vc_protocol::{ClusterId, Millis, Name, NodeId};

use crate::interface::Clock;
use crate::output::remove_output;
use crate::problem::Problem;

pub use message::{Message, message, test_alert};

/// For how long a problem has to hold before it is sent, and to be gone before its end is: what ends sooner is not sent. A node
/// that begins to send to a receiver waits as long, so that what another one has sent until then reaches it.
pub const HOLD: Millis = 15_000;
/// Time between two looks at the problems.
const INTERVAL: Millis = 2000;
/// Most alerts in a delivery; the others follow in the next.
pub const MAX_BATCH: usize = 32;
/// Most alerts that a receiver has at a time; further problems wait for the end of others.
pub const MAX_ALERTS: usize = 256;
/// Pause after the first delivery that fails; twice as long after each further one.
const FIRST_PAUSE: Millis = 2000;
/// The longest pause.
const LONGEST_PAUSE: Millis = 5 * 60_000;
/// A delivery of which nothing is heard for this long has failed: the shell has lost it.
const LOST: Millis = 2 * 60_000;
/// Failures in a row after which it is a problem that a receiver gets no alerts.
const FAILURES: u32 = 3;

/// Whether a problem holds or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertStatus {
    /// It holds.
    Firing,
    /// It has ended.
    Resolved,
}

/// A problem as a receiver gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Identifies the problem, on every node alike.
    pub fingerprint: String,
    /// The kind of the problem.
    pub kind: ProblemKind,
    /// Whether it holds.
    pub status: AlertStatus,
    /// What it is about.
    pub labels: BTreeMap<String, String>,
    /// The line for people.
    pub summary: String,
    /// When it began, by the clock of the node that saw it first, as far as that is known.
    pub started: Millis,
    /// When it ended; `None` while it holds.
    pub ended: Option<Millis>,
}

/// Alerts to send to a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Name of the receiver.
    pub receiver: Name,
    /// At most [`MAX_BATCH`].
    pub alerts: Vec<Alert>,
}

/// What confirmed deliveries mean for the cluster document.
#[derive(Debug, Clone, Default)]
pub(crate) struct Confirmed {
    /// Alerts that a receiver has now.
    pub(crate) sent: BTreeMap<AlertKey, AlertRecord>,
    /// Alerts whose end it has.
    pub(crate) ended: BTreeSet<AlertKey>,
}

impl Confirmed {
    /// Returns whether nothing was confirmed.
    pub(crate) fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.ended.is_empty()
    }

    /// Returns whether a receiver has confirmed this state of a problem.
    fn has(&self, receiver: &Name, alert: &Alert) -> bool {
        let fingerprint = alert.fingerprint.clone();
        let key = AlertKey { receiver: receiver.clone(), fingerprint };
        match alert.status {
            AlertStatus::Firing => self.sent.contains_key(&key),
            AlertStatus::Resolved => self.ended.contains(&key),
        }
    }
}

/// Returns the node that sends to a receiver: a server that is up, and runs commands if that is needed; of these one that does not say that
/// it cannot reach the receiver, if there is one. `None` if there is none.
pub fn sender(view: &View, name: &Name, receiver: &Receiver) -> Option<NodeId> {
    let may = |node: &NodeId| match receiver.target {
        ReceiverTarget::Webhook { .. } => true,
        ReceiverTarget::Command { .. } => {
            let info = view.nodes.get(node).and_then(|state| state.info.as_ref());
            info.is_some_and(|info| info.notify_commands)
        }
    };
    let able = view.servers.iter().copied().filter(|node| view.up.contains(node) && may(node));
    let reaches = |node: &NodeId| {
        view.nodes.get(node).is_none_or(|state| !state.unsent_alerts.contains_key(name))
    };
    able.max_by_key(|node| {
        (reaches(node), rendezvous(&["alerts", name.as_str(), &node.to_string()]), *node)
    })
}

/// A problem as this node has seen it.
#[derive(Debug)]
struct Seen {
    alert: Alert,
    project: Option<Name>,
    /// Since when it holds, by the monotonic clock.
    since: Millis,
    /// Since when it is gone.
    gone: Option<Millis>,
}

/// What this node does for a receiver.
#[derive(Debug, Default)]
struct Progress {
    /// Since when it is the one that sends; `None` if another node is.
    chosen: Option<Millis>,
    /// What is being sent.
    in_flight: Vec<Alert>,
    /// Since when.
    sent_at: Millis,
    /// What was confirmed, and is not in the cluster document so far.
    unwritten: Confirmed,
    failures: u32,
    /// When the last delivery failed.
    failed_at: Millis,
    /// When to try again.
    retry_at: Millis,
    /// Why the last delivery failed.
    error: String,
}

/// The state machine of a node's alerts.
#[derive(Debug, Default)]
pub(crate) struct Alerts {
    look_at: Option<Millis>,
    seen: BTreeMap<String, Seen>,
    receivers: BTreeMap<Name, Progress>,
}

impl Alerts {
    /// Returns when to call [`Alerts::handle_timeout`]; `None` without receivers.
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        self.look_at
    }

    /// Returns whether it is time to look at the problems.
    pub(crate) fn handle_timeout(&mut self, now: Millis) -> bool {
        self.look_at.take_if(|at| now >= *at).is_some()
    }

    /// Notes whether there are receivers. Without any this node does not look at the problems.
    pub(crate) fn follow(&mut self, view: &View, now: Millis) {
        if view.cluster.receivers.is_empty() {
            *self = Self::default();
        } else if self.look_at.is_none() {
            self.look_at = Some(now.saturating_add(INTERVAL));
        }
    }

    /// Notes that this process did not run for a while: another node may have sent meanwhile.
    pub(crate) fn was_late(&mut self, now: Millis) {
        for progress in self.receivers.values_mut() {
            progress.chosen = progress.chosen.map(|_| now);
        }
    }

    /// Takes in the problems that hold now, and returns what this node is to send.
    pub(crate) fn update(
        &mut self,
        view: &View,
        (cluster, node): (ClusterId, NodeId),
        problems: Vec<Problem>,
        now: Clock,
    ) -> Vec<Delivery> {
        let receivers = &view.cluster.receivers;
        self.receivers.retain(|name, _| receivers.contains_key(name));
        self.see(view, cluster, problems, now);
        let mut deliveries = Vec::new();
        for (name, receiver) in receivers {
            let progress = self.receivers.entry(name.clone()).or_default();
            if sender(view, name, receiver) != Some(node) {
                let before = std::mem::take(progress);
                // For a while it goes on saying that it could not reach it: else it would be chosen again at once.
                let failed = before.failures >= FAILURES
                    && now.monotonic < before.failed_at.saturating_add(LONGEST_PAUSE);
                *progress = Progress {
                    chosen: None,
                    retry_at: 0,
                    failures: if failed { before.failures } else { 0 },
                    ..before
                };
                continue;
            }
            let chosen = *progress.chosen.get_or_insert(now.monotonic);
            let settles = now.monotonic < chosen.saturating_add(HOLD);
            if now.monotonic >= progress.sent_at.saturating_add(LOST) {
                progress.in_flight.clear();
            }
            if settles || !progress.in_flight.is_empty() || now.monotonic < progress.retry_at {
                continue;
            }
            let alerts = due(view, name, receiver, &self.seen, now.monotonic);
            let alerts = alerts.into_iter().filter(|it| !progress.unwritten.has(name, it));
            let alerts: Vec<Alert> = alerts.take(MAX_BATCH).collect();
            if alerts.is_empty() {
                progress.failures = 0;
                continue;
            }
            progress.in_flight.clone_from(&alerts);
            progress.sent_at = now.monotonic;
            deliveries.push(Delivery { receiver: name.clone(), alerts });
        }
        deliveries
    }

    /// Compares the problems that hold with those that did.
    fn see(&mut self, view: &View, cluster: ClusterId, problems: Vec<Problem>, now: Clock) {
        let mut recorded: BTreeMap<&String, &AlertRecord> = BTreeMap::new();
        for (key, record) in &view.cluster.alerts {
            recorded.entry(&key.fingerprint).or_insert(record);
        }
        let mut present = BTreeSet::new();
        for problem in problems {
            let fingerprint = problem.fingerprint(cluster);
            present.insert(fingerprint.clone());
            let project = problem.project().and_then(|project| project.parse().ok());
            let started = recorded.get(&fingerprint).map_or(now.wall, |record| record.started);
            let seen = self.seen.entry(fingerprint.clone()).or_insert_with(|| Seen {
                alert: alert(&problem, cluster, fingerprint, started),
                project,
                since: now.monotonic,
                gone: None,
            });
            if seen.gone.is_some_and(|gone| now.monotonic >= gone.saturating_add(HOLD)) {
                // Its end counts, as receivers may have it.
                (seen.since, seen.alert.started) = (now.monotonic, now.wall);
            }
            seen.alert.summary = summary(&problem);
            (seen.gone, seen.alert.ended) = (None, None);
        }
        // What was sent and is no problem here any more, or was none since this process started.
        for (&fingerprint, record) in &recorded {
            if present.contains(fingerprint) {
                continue;
            }
            let seen = self.seen.entry(fingerprint.clone()).or_insert_with(|| Seen {
                alert: Alert {
                    fingerprint: fingerprint.clone(),
                    kind: record.kind,
                    status: AlertStatus::Firing,
                    labels: record.labels.clone(),
                    summary: record.summary.clone(),
                    started: record.started,
                    ended: None,
                },
                project: None,
                since: now.monotonic,
                gone: None,
            });
            seen.gone.get_or_insert(now.monotonic);
            seen.alert.ended.get_or_insert(now.wall);
        }
        // A problem that was not sent is forgotten with its end, so that flaps are not sent.
        self.seen.retain(|fingerprint, _| {
            present.contains(fingerprint) || recorded.contains_key(fingerprint)
        });
    }

    /// Takes in how a delivery ended.
    pub(crate) fn delivered(
        &mut self,
        name: &Name,
        by: NodeId,
        result: Result<(), String>,
        now: Millis,
    ) {
        let Some(progress) = self.receivers.get_mut(name) else { return };
        let alerts = std::mem::take(&mut progress.in_flight);
        if let Err(error) = result {
            progress.failures = progress.failures.saturating_add(1);
            let doubled =
                FIRST_PAUSE.saturating_mul(1 << progress.failures.min(10).saturating_sub(1));
            progress.retry_at = now.saturating_add(doubled.min(LONGEST_PAUSE));
            (progress.error, progress.failed_at) = (error, now);
            return;
        }
        (progress.failures, progress.retry_at) = (0, now);
        for alert in alerts {
            let Alert { fingerprint, kind, status, labels, summary, started, .. } = alert;
            let key = AlertKey { receiver: name.clone(), fingerprint };
            let Confirmed { sent, ended } = &mut progress.unwritten;
            match status {
                AlertStatus::Resolved => {
                    sent.remove(&key);
                    ended.insert(key);
                }
                AlertStatus::Firing => {
                    ended.remove(&key);
                    sent.insert(key, AlertRecord { kind, labels, summary, started, by });
                }
            }
        }
    }

    /// Returns what receivers have confirmed, and is not in the cluster document so far.
    pub(crate) fn unwritten(&self) -> Confirmed {
        let mut all = Confirmed::default();
        for Progress { unwritten, .. } in self.receivers.values() {
            all.sent.extend(unwritten.sent.clone());
            all.ended.extend(unwritten.ended.iter().cloned());
        }
        all
    }

    /// Notes that it is in the cluster document.
    pub(crate) fn written(&mut self) {
        for progress in self.receivers.values_mut() {
            progress.unwritten = Confirmed::default();
        }
    }

    /// Returns the receivers that this node is to send to and does not reach, with the reason.
    pub(crate) fn unsent(&self) -> BTreeMap<Name, String> {
        let failing = self.receivers.iter().filter(|(_, it)| it.failures >= FAILURES);
        failing.map(|(name, it)| (name.clone(), it.error.clone())).collect()
    }
}

/// Returns what a receiver is to get now, oldest first; what has ended before what has begun.
fn due(
    view: &View,
    name: &Name,
    receiver: &Receiver,
    seen: &BTreeMap<String, Seen>,
    now: Millis,
) -> Vec<Alert> {
    let has = |fingerprint: &str| {
        let key = AlertKey { receiver: name.clone(), fingerprint: fingerprint.to_owned() };
        view.cluster.alerts.contains_key(&key)
    };
    let holds = |since: Millis| now >= since.saturating_add(HOLD);
    let is_ended = |it: &&Seen| it.gone.is_some_and(holds) && has(&it.alert.fingerprint);
    let ended = seen.values().filter(is_ended);
    let mut alerts: Vec<Alert> =
        ended.map(|it| Alert { status: AlertStatus::Resolved, ..it.alert.clone() }).collect();
    let held = view.cluster.alerts.keys().filter(|key| key.receiver == *name).count();
    let room = MAX_ALERTS.saturating_sub(held);
    // Not to the receiver that does not get them.
    let is_own = |alert: &Alert| {
        alert.kind == ProblemKind::Notification
            && alert.labels.get("receiver").is_some_and(|it| it == name.as_str())
    };
    let is_begun = |it: &&Seen| {
        it.gone.is_none()
            && holds(it.since)
            && receiver.filter.passes(it.alert.kind, it.project.as_ref())
            && !is_own(&it.alert)
            && !has(&it.alert.fingerprint)
    };
    let mut begun: Vec<&Seen> = seen.values().filter(is_begun).collect();
    begun.sort_by_key(|it| (it.since, &it.alert.fingerprint));
    alerts.extend(begun.into_iter().take(room).map(|it| it.alert.clone()));
    alerts
}

/// Returns the alert of a problem.
fn alert(problem: &Problem, cluster: ClusterId, fingerprint: String, started: Millis) -> Alert {
    let own = problem.labels.iter().map(|(label, value)| ((*label).to_owned(), value.clone()));
    let labels = own.chain([
        ("alertname".to_owned(), problem.kind.alert_name()),
        ("severity".to_owned(), problem.kind.severity().as_str().to_owned()),
        ("cluster".to_owned(), cluster.to_string()),
    ]);
    Alert {
        fingerprint,
        kind: problem.kind,
        status: AlertStatus::Firing,
        labels: labels.collect(),
        summary: summary(problem),
        started,
        ended: None,
    }
}

/// Returns the line of a problem without what an instance has written: it leaves the cluster.
fn summary(problem: &Problem) -> String {
    let mut text = problem.text.clone();
    remove_output(&mut text);
    text
}
