//! What the kernel lets a container use, beyond CPUs and memory (`Resources`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::is_default;

/// Settings of a container's cgroup that are passed to Docker; zero and `None` for Docker's defaults. The names are those of
/// Compose.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cgroup {
    /// The cgroup of the host below which that of the container is.
    #[serde(skip_serializing_if = "is_default")]
    pub parent: Option<String>,
    /// The weight of the container where CPUs are scarce; 1024 is Docker's default.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_shares: i64,
    /// The CPU time of a period that it may use, in microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_quota: i64,
    /// That period, in microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_period: i64,
    /// The time of a real-time period that its real-time tasks may use, in microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_rt_runtime: i64,
    /// That period, in microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_rt_period: i64,
    /// The CPUs that it may run on: `0-2,4`.
    #[serde(skip_serializing_if = "is_default")]
    pub cpuset: Option<String>,
    /// How readily its memory is swapped out, from 0 to 100.
    #[serde(skip_serializing_if = "is_default")]
    pub mem_swappiness: Option<u8>,
    /// Its processes wait for memory instead of being killed when the limit is reached.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_kill_disable: bool,
    /// How readily the kernel kills it when the host lacks memory, from -1000 (never) to 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_score_adj: i16,
    /// Its share of the host's disks.
    #[serde(skip_serializing_if = "is_default")]
    pub blkio: Blkio,
}

/// The share of the host's disks that a container gets. Devices are named by their paths on the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Blkio {
    /// Its weight, from 10 to 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub weight: u16,
    /// Its weight on one device.
    #[serde(skip_serializing_if = "is_default")]
    pub weight_device: BTreeMap<String, u16>,
    /// Bytes a second that it may read.
    #[serde(skip_serializing_if = "is_default")]
    pub device_read_bps: BTreeMap<String, u64>,
    /// Bytes a second that it may write.
    #[serde(skip_serializing_if = "is_default")]
    pub device_write_bps: BTreeMap<String, u64>,
    /// Reads a second.
    #[serde(skip_serializing_if = "is_default")]
    pub device_read_iops: BTreeMap<String, u64>,
    /// Writes a second.
    #[serde(skip_serializing_if = "is_default")]
    pub device_write_iops: BTreeMap<String, u64>,
}
