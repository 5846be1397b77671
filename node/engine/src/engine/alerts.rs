//! Alerts of this node: when it looks at the problems, and what it writes of those that were sent.

use std::collections::BTreeSet;

use vc_crdt::DocumentError;
use vc_protocol::{Millis, Name};

use super::Engine;
use crate::interface::{Clock, Output};
use crate::problem::Problem;
use crate::report;

impl Engine {
    /// Notes whether there are receivers of alerts, and whether this node may be the one that sends.
    pub(super) fn follow_receivers(&mut self, now: Millis) {
        if self.replica.servers().any(|server| server == self.replica.id()) {
            self.alerts.follow(&self.view, now);
        }
        if self.view.cluster.receivers.is_empty() {
            self.own.unsent_alerts.clear();
        }
    }

    /// Looks at the problems, and sends what is due.
    pub(super) fn send_alerts(&mut self, now: Millis) {
        self.follow_receivers(now);
        // What it knows may be old: it counts no problem as ended, and none as new.
        if !self.renewed || self.hold.reason().is_some() || self.is_removed() {
            return;
        }
        self.record_alerts();
        let mut problems = report::problems(&self.view, &self.vitals, self.wall);
        let own = self.own_problems.iter().map(|problem| Problem::of_process(&self.view, problem));
        for problem in own {
            // As its document has it, if that could be written.
            if !problems.iter().any(|it| it.is_same(&problem)) {
                problems.push(problem);
            }
        }
        let clock = Clock { monotonic: now, wall: self.wall };
        let own = (self.cluster, self.replica.id());
        let deliveries = self.alerts.update(&self.view, own, problems, clock);
        self.outputs.extend(deliveries.into_iter().map(Output::Notify));
        self.report_unsent();
    }

    /// Takes in how a delivery ended, and writes what the receiver has now.
    pub(super) fn delivered(&mut self, receiver: &Name, result: Result<(), String>, now: Millis) {
        self.alerts.delivered(receiver, self.replica.id(), result, now);
        self.report_unsent();
        self.record_alerts();
    }

    /// Writes what receivers have confirmed into the cluster document. What cannot be written is tried again.
    fn record_alerts(&mut self) {
        let confirmed = self.alerts.unwritten();
        if confirmed.is_empty() {
            return;
        }
        let mut wanted = self.replica.cluster().clone();
        let receivers = wanted.receivers.keys().cloned().collect::<BTreeSet<Name>>();
        let sent = confirmed.sent.into_iter().filter(|(key, _)| receivers.contains(&key.receiver));
        wanted.alerts.extend(sent.map(|(key, record)| (key, record.into())));
        for key in confirmed.ended {
            wanted.alerts.remove(&key);
        }
        match self.write_cluster(&wanted, None) {
            Ok(change) => {
                self.alerts.written();
                self.dirty |= change.is_some();
                self.audit(change.as_slice());
                self.unsent.extend(change);
            }
            // The log says when a document becomes held.
            Err(DocumentError::Held) => {}
            Err(error) => tracing::error!(%error, "cannot write which alerts were sent"),
        }
    }

    /// Says in this node's document which receivers it does not reach.
    fn report_unsent(&mut self) {
        let unsent = self.alerts.unsent();
        if self.own.unsent_alerts != unsent {
            self.own.unsent_alerts = unsent;
            self.dirty = true;
        }
    }
}
