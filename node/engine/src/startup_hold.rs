//! Holds back starts and removals after this node starts.

use vc_protocol::Millis;

/// Until this node knows the other nodes' documents, it starts nothing new and removes nothing: the slots that it held
/// may run elsewhere by now.
pub(crate) struct StartupHold {
    until: Option<Millis>,
}

impl StartupHold {
    /// A hold that ends at a time; `None`: no hold.
    pub(crate) fn new(until: Option<Millis>) -> Self {
        Self { until }
    }

    /// Returns why this node still starts and removes nothing; `None` if it does not wait.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        self.until.map(|_| "waits for the documents of the other nodes")
    }

    /// Ends the hold. Returns whether it was active.
    pub(crate) fn release(&mut self) -> bool {
        self.until.take().is_some()
    }

    /// Returns when to call [`StartupHold::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        self.until
    }

    /// Ends the hold when its time is over: no node that is up can tell more. Returns whether that is now.
    pub(crate) fn handle_timeout(&mut self, now: Millis) -> bool {
        self.until.is_some_and(|until| now >= until) && self.release()
    }
}
