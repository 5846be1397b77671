//! Docker settings of a container.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Settings that are passed to Docker unchanged. Names and meanings are those of Compose.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Host name of the container.
    pub hostname: Option<String>,
    /// Linux capabilities to add.
    pub cap_add: Vec<String>,
    /// Linux capabilities to drop.
    pub cap_drop: Vec<String>,
    /// Kernel parameters of the namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Signal that stops the container; `None` for that of the image, or SIGTERM.
    pub stop_signal: Option<String>,
    /// Runs an init process that reaps zombies.
    pub init: bool,
    /// Mounts the root file system read-only.
    pub read_only: bool,
    /// Grants all capabilities and devices of the host.
    pub privileged: bool,
    /// Devices of the host as `HOST:CONTAINER[:rwm]`.
    pub devices: Vec<String>,
    /// Additional groups of the user.
    pub group_add: Vec<String>,
    /// Security options such as `no-new-privileges`.
    pub security_opt: Vec<String>,
    /// Additional entries of `/etc/hosts`, `NAME:IP`.
    pub extra_hosts: Vec<String>,
    /// Resource limits (setrlimit): soft and hard.
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// Size of `/dev/shm` in bytes; zero for the default of Docker.
    pub shm_bytes: u64,
    /// Allocates a pseudo-terminal.
    pub tty: bool,
    /// Keeps standard input open.
    pub stdin_open: bool,
}
