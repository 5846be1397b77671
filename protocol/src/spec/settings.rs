//! Docker settings of a container.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Cgroup, DeviceRequest, Namespaces, is_default};

/// Settings that are passed to Docker. Names and meanings are those of Compose.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Host name of the container.
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: Option<String>,
    /// Linux capabilities to add.
    #[serde(skip_serializing_if = "is_default")]
    pub cap_add: Vec<String>,
    /// Linux capabilities to drop.
    #[serde(skip_serializing_if = "is_default")]
    pub cap_drop: Vec<String>,
    /// Kernel parameters of the namespaces.
    #[serde(skip_serializing_if = "is_default")]
    pub sysctls: BTreeMap<String, String>,
    /// Signal that stops the container; `None` for that of the image, or SIGTERM.
    #[serde(skip_serializing_if = "is_default")]
    pub stop_signal: Option<String>,
    /// Runs an init process that reaps zombies.
    #[serde(skip_serializing_if = "is_default")]
    pub init: bool,
    /// Mounts the root file system read-only.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// Grants all capabilities and devices of the host.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// Devices of the host as `HOST:CONTAINER[:rwm]`.
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<String>,
    /// Rules of the device cgroup: `c 1:3 rwm`.
    #[serde(skip_serializing_if = "is_default")]
    pub device_cgroup_rules: Vec<String>,
    /// Devices that a driver gives.
    #[serde(skip_serializing_if = "is_default")]
    pub device_requests: Vec<DeviceRequest>,
    /// Additional groups of the user.
    #[serde(skip_serializing_if = "is_default")]
    pub group_add: Vec<String>,
    /// Security options such as `no-new-privileges`.
    #[serde(skip_serializing_if = "is_default")]
    pub security_opt: Vec<String>,
    /// Additional entries of `/etc/hosts`, `NAME:IP`.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_hosts: Vec<String>,
    /// The DNS servers of the container, which the cluster's asks for names that are no services; empty for those of the host.
    #[serde(skip_serializing_if = "is_default")]
    pub dns: Vec<IpAddr>,
    /// Domains in which names are looked up that do not resolve as they are.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_search: Vec<String>,
    /// Options of the container's resolver (resolv.conf(5)), except for `ndots`.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_opt: Vec<String>,
    /// Resource limits (setrlimit): soft and hard.
    #[serde(skip_serializing_if = "is_default")]
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// Size of `/dev/shm` in bytes; zero for the default of Docker.
    #[serde(skip_serializing_if = "is_default")]
    pub shm_bytes: u64,
    /// The most processes and threads; zero for no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub pids_limit: i64,
    /// Limit of memory and swap together in bytes, -1 for no limit; zero for the default of Docker.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_swap_bytes: i64,
    /// What else limits the use of the host.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup: Cgroup,
    /// Namespaces that are the host's.
    #[serde(skip_serializing_if = "is_default")]
    pub namespaces: Namespaces,
    /// Options of the storage driver, as `size`.
    #[serde(skip_serializing_if = "is_default")]
    pub storage_opt: BTreeMap<String, String>,
    /// Options of the log driver `json-file`: `max-size`, `max-file`.
    #[serde(skip_serializing_if = "is_default")]
    pub log_options: BTreeMap<String, String>,
    /// Annotations for the OCI runtime. Engines before Docker 24 do not know them.
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    /// Domain name of the container.
    #[serde(skip_serializing_if = "is_default")]
    pub domainname: Option<String>,
    /// The OCI runtime, as the engine's configuration names it; `None` for the engine's default.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime: Option<String>,
    /// Allocates a pseudo-terminal.
    #[serde(skip_serializing_if = "is_default")]
    pub tty: bool,
    /// Keeps standard input open.
    #[serde(skip_serializing_if = "is_default")]
    pub stdin_open: bool,
}
