//! Time.

/// Milliseconds; as a point in time, since the Unix epoch. All durations and times in the workspace use this unit.
pub type Millis = u64;
