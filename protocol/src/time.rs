//! Time.

/// Milliseconds; as a point in time, since the Unix epoch. All durations and times in the workspace use this unit.
pub type Millis = u64;

/// A Lamport timestamp (Lamport 1978): one more than the highest that the node has seen in any document. It orders what
/// depends on each other, whatever the clocks of the nodes say; of two that are equal neither has seen the other.
pub type Lamport = u64;
