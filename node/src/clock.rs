//! The clocks of the host.

use std::sync::LazyLock;
use std::time::Instant;

use vc_engine::Clock;
use vc_protocol::Millis;
pub(crate) use vc_runtime::clock::now;

/// The first call.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);
/// What the monotonic clock shows at the first call: far enough from zero to subtract any timeout.
const START_MILLIS: Millis = 1 << 40;

/// Returns the time by the monotonic clock, in milliseconds since no particular time: for durations and timeouts.
pub(crate) fn monotonic() -> Millis {
    let elapsed = Millis::try_from(START.elapsed().as_millis()).unwrap_or(Millis::MAX);
    START_MILLIS.saturating_add(elapsed)
}

/// Returns the time by both clocks.
pub(crate) fn both() -> Clock {
    Clock { monotonic: monotonic(), wall: now() }
}

/// The wall clock at one moment, and the monotonic clock from then on: for one conversation, in which times are compared
/// with those of others and must not go back.
pub(crate) struct SteadyClock {
    wall: Millis,
    start: Instant,
}

impl SteadyClock {
    /// Returns a clock that shows the time.
    pub(crate) fn new() -> Self {
        Self { wall: now(), start: Instant::now() }
    }

    /// Returns the time in milliseconds since the Unix epoch.
    pub(crate) fn now(&self) -> Millis {
        let elapsed = Millis::try_from(self.start.elapsed().as_millis()).unwrap_or(Millis::MAX);
        self.wall.saturating_add(elapsed)
    }
}
