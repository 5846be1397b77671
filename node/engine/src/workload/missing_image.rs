//! The waiting of an instance for its image, while no node and no registry that answers has it.

use vc_protocol::Millis;
use vc_protocol::instance::InstanceState;

/// It is looked for again after this time, then after twice as long each time, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Millis = 5_000;
/// The longest pause between two searches.
const MAX_PAUSE: Millis = 60_000;
/// For how long it may not be found before its instance has failed, and with it an update. It is looked for further.
const DEADLINE: Millis = 120_000;

/// An image that was looked for in vain.
#[derive(Debug, Clone)]
pub(super) struct MissingImage {
    /// When it was looked for first.
    since: Millis,
    /// How often.
    tries: u32,
    /// Where, as first reported: the reason must not change with every try, or the document would.
    reason: String,
    /// Whether [`DEADLINE`] has passed.
    is_overdue: bool,
}

impl MissingImage {
    /// An image that is looked for from now on; `reason` is where.
    pub(super) fn new(reason: String, now: Millis) -> Self {
        Self { since: now, tries: 0, reason, is_overdue: false }
    }

    /// Counts a search that has not found it. Returns the reason if it is overdue: the instance has failed.
    pub(super) fn not_found(&mut self, now: Millis) -> Option<&str> {
        self.tries = self.tries.saturating_add(1);
        self.is_overdue |= now >= self.since.saturating_add(DEADLINE);
        self.is_overdue.then_some(self.reason.as_str())
    }

    /// Returns the time until the next search.
    pub(super) fn pause(&self) -> Millis {
        FIRST_PAUSE.saturating_mul(1 << (self.tries.max(1) - 1).min(16)).min(MAX_PAUSE)
    }

    /// Returns the state and reason of its instance.
    pub(super) fn shown(&self) -> (InstanceState, String) {
        let state = if self.is_overdue { InstanceState::Failed } else { InstanceState::Pending };
        (state, self.reason.clone())
    }
}
