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
    /// It was available, and does not answer now.
    Hung(String),
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
            State::Unavailable { .. } | State::Hung(_) => Recovery::Returned,
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
            State::Available | State::Hung(_) => {
                self.state = State::Unavailable { since: now, reason };
            }
            State::Unavailable { reason: latest, .. } => *latest = reason,
        }
    }

    /// Takes in that the runtime is there and does not answer. Its instances run on, as far as is known: others that started
    /// them too would run them twice. One that has not answered since the start, or could not be reached meanwhile, is
    /// unavailable: this node does not claim its instances.
    pub(crate) fn hung(&mut self, reason: String, now: Millis) {
        match &mut self.state {
            State::Available | State::Hung(_) => self.state = State::Hung(reason),
            State::Unknown | State::Unavailable { .. } => self.unavailable(reason, now),
        }
    }

    /// Returns why this node starts nothing, although it keeps what its runtime ran.
    pub(crate) fn hang(&self) -> Option<&str> {
        match &self.state {
            State::Hung(reason) => Some(reason),
            _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn available() -> RuntimeHealth {
        let mut health = RuntimeHealth::new(5000);
        assert_eq!(health.listed(), Recovery::First);
        health
    }

    #[test]
    fn a_runtime_that_hangs_keeps_its_instances_until_it_answers() {
        let mut health = available();
        health.hung("Docker does not answer".to_owned(), 1000);
        assert_eq!((health.error(), health.poll_timeout()), (None, None), "nothing is given away");
        assert_eq!(health.hang(), Some("Docker does not answer"));
        assert_eq!(health.listed(), Recovery::Returned, "what was asked of it is asked again");
        assert_eq!(health.hang(), None);
    }

    #[test]
    fn a_hung_runtime_that_dies_is_unavailable_after_the_grace() {
        let mut health = available();
        health.hung("no answer".to_owned(), 1000);
        health.unavailable("connection refused".to_owned(), 9000);
        assert_eq!((health.hang(), health.poll_timeout()), (None, Some(14_000)));
        assert!(health.handle_timeout(14_000));
        // It starts, slowly: its instances are given away by now.
        health.hung("no answer".to_owned(), 15_000);
        assert_eq!((health.hang(), health.error()), (None, Some("connection refused")));
    }

    #[test]
    fn a_runtime_that_hangs_at_the_start_of_the_node_is_unavailable() {
        let mut health = RuntimeHealth::new(5000);
        health.hung("no answer".to_owned(), 0);
        assert_eq!((health.hang(), health.error()), (None, Some("no answer")));
    }
}
