//! When to try again what may fail.

use std::time::{Duration, Instant};

/// The first pause; each one after it is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Attempts at one thing.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
    next: Option<Instant>,
}

impl Backoff {
    /// Whether it is time to try, with no pause longer than `longest`. Takes the attempt as made.
    pub(crate) fn is_due(&mut self, now: Instant, longest: Duration) -> bool {
        if self.next.is_some_and(|next| now < next) {
            return false;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.attempts.min(8)).min(longest);
        self.attempts = self.attempts.saturating_add(1);
        self.next = Some(now + pause);
        true
    }

    /// It is worth trying at once.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}
