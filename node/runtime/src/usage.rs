//! What instances use.

use tokio::time::Instant;
use vc_protocol::{InstanceId, Millis};

/// What a running instance has used since its start, and uses now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceUsage {
    /// The instance.
    pub id: InstanceId,
    /// Name of its container; empty of a process.
    pub container: String,
    /// When it was started, by the clock of its host.
    pub started: Millis,
    /// When this was measured.
    pub at: Instant,
    /// CPU time since the start, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory in use without what the kernel can drop (the working set), bytes.
    pub working_set_bytes: u64,
    /// Memory in use with caches of files, bytes.
    pub memory_bytes: u64,
    /// The limits of its container.
    pub limits: Limits,
    /// Bytes of its network since the start; `None` if it has none of its own.
    pub network: Option<NetworkTraffic>,
    /// Bytes of disks since the start; `None` if the host does not count them.
    pub disk: Option<DiskTraffic>,
    /// Number of its processes and threads.
    pub processes: u64,
}

/// The limits that the kernel enforces for a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// CPU, thousandths of a core; 0 without a limit.
    pub cpu_millis: u64,
    /// Memory, bytes; 0 without a limit.
    pub memory_bytes: u64,
}

/// Bytes of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkTraffic {
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

/// Bytes of disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskTraffic {
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}
