//! Exponential backoff.

use std::time::{Duration, Instant};

/// First delay; each further delay is twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(250);

/// The attempts so far, and when the next is due.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
    next: Option<Instant>,
}

impl Backoff {
    /// Returns whether an attempt is due, and if so counts it. Delays are at most `longest`.
    pub(crate) fn is_due(&mut self, now: Instant, longest: Duration) -> bool {
        if self.next.is_some_and(|next| now < next) {
            return false;
        }
        let delay = FIRST_DELAY.saturating_mul(1 << self.attempts.min(8)).min(longest);
        self.attempts = self.attempts.saturating_add(1);
        self.next = Some(now + delay);
        true
    }

    /// Makes the next attempt due at once.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}
