//! Tracks whether the runtime answers, and when its outage is reported.

use vc_protocol::Millis;

#[derive(Debug)]
enum State {
    /// No list of instances has come since the start.
    Unknown,
    Available,
    Unavailable {
        since: Millis,
        reason: String,
    },
}

/// Whether a list of the runtime's instances ends a time in which it was unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// It is the first list since the start.
    First,
    /// The runtime was unavailable until now.
    Returned,
    /// The runtime was available before.
    None,
}

/// The health of this node's runtime.
#[derive(Debug)]
pub(crate) struct RuntimeHealth {
    /// Time from the loss of the runtime until its instances are given to other nodes.
    grace: Millis,
    state: State,
    reported: Option<String>,
}

impl RuntimeHealth {
    /// The health of a runtime that has not answered yet.
    pub(crate) fn new(grace: Millis) -> Self {
        Self { grace, state: State::Unknown, reported: None }
    }

    /// Returns whether neither a list nor an error has come since the start. This node then publishes nothing about
    /// itself: its old claims may be held by other nodes by now.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.state, State::Unknown)
    }

    /// Returns the error that this node's document reports.
    pub(crate) fn error(&self) -> Option<&str> {
        self.reported.as_deref()
    }

    /// Takes in that the runtime listed its instances.
    pub(crate) fn listed(&mut self) -> Recovery {
        if self.reported.take().is_some() {
            tracing::info!("runtime available again");
        }
        match std::mem::replace(&mut self.state, State::Available) {
            State::Unknown => Recovery::First,
            State::Unavailable { .. } => Recovery::Returned,
            State::Available => Recovery::None,
        }
    }

    /// Takes in that the runtime cannot be reached.
    pub(crate) fn unavailable(&mut self, reason: String, now: Millis) {
        tracing::warn!(reason, "runtime unavailable");
        match &mut self.state {
            State::Unknown => {
                // There is nothing to wait for: what ran before the start is not known.
                self.reported = Some(reason.clone());
                self.state = State::Unavailable { since: now, reason };
            }
            State::Available => self.state = State::Unavailable { since: now, reason },
            State::Unavailable { reason: latest, .. } => *latest = reason,
        }
    }

    /// Returns when to call [`RuntimeHealth::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        match self.state {
            State::Unavailable { since, .. } if self.reported.is_none() => Some(since + self.grace),
            _ => None,
        }
    }

    /// Reports the outage when its grace is over. Returns whether that is now.
    pub(crate) fn handle_timeout(&mut self, now: Millis) -> bool {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return false;
        }
        if let State::Unavailable { reason, .. } = &self.state {
            self.reported = Some(reason.clone());
        }
        true
    }
}
