//! The node's clock.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vc_protocol::Millis;

/// The wall clock at the first call, and the monotonic clock that is added to it.
static START: LazyLock<(Duration, Instant)> = LazyLock::new(|| {
    (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), Instant::now())
});

/// Returns the time in milliseconds since the Unix epoch. Never goes back while the process lives, even when the wall
/// clock is set.
pub(crate) fn now() -> Millis {
    let (wall, start) = *START;
    Millis::try_from((wall + start.elapsed()).as_millis()).unwrap_or(Millis::MAX)
}
