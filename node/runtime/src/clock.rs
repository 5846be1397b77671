//! The wall clock of the host.

use std::time::{SystemTime, UNIX_EPOCH};

use vc_protocol::Millis;

/// Returns the time by the wall clock, in milliseconds since the Unix epoch. It follows the clock when that is set.
pub fn now() -> Millis {
    since_epoch(SystemTime::now())
}

/// Returns a time in milliseconds since the Unix epoch; 0 for a time before it.
pub(crate) fn since_epoch(time: SystemTime) -> Millis {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}
