//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use vc_protocol::Millis;

/// Returns this node's time.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}
