//! The clocks of the host.

use std::time::Instant;

use vc_engine::Clock;
use vc_protocol::Millis;
pub(crate) use vc_runtime::clock::now;

/// Returns the time by the monotonic clock, in milliseconds of CLOCK_BOOTTIME: for durations, timeouts, and the deadlines of leases.
///
/// It goes on while the host is suspended, as CLOCK_MONOTONIC does not: the voters' clocks go on too, so a lease ends meanwhile, and a
/// holder that wakes up has to see that. The watchdog, another process, reads the same clock. Timers of tokio do not run in suspend, so
/// those of the engine may come late by what was left of them.
pub(crate) fn monotonic() -> Millis {
    vc_runtime::watchdog::boottime()
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
