//! Numbers as Docker's API takes them.

use std::time::Duration;

/// Converts to a signed number; larger ones become the largest.
pub(super) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Converts to whole seconds, rounded up so that a grace time is not cut short.
pub(super) fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}
