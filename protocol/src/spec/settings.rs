//! What of Docker's own settings an instance asks for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Settings that Docker knows and nobody else reads. Each is as Compose has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Host name inside.
    pub hostname: Option<String>,
    /// Capabilities to add.
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    pub cap_drop: Vec<String>,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// The signal that stops it; `None`: SIGTERM, or as the image says.
    pub stop_signal: Option<String>,
    /// An init process inside that reaps.
    pub init: bool,
    /// Its root file system cannot be written.
    pub read_only: bool,
    /// Gives it the node's devices and all capabilities.
    pub privileged: bool,
    /// Devices, `HOST:CONTAINER[:rwm]`.
    pub devices: Vec<String>,
    /// More groups of its user.
    pub group_add: Vec<String>,
    /// Security options.
    pub security_opt: Vec<String>,
    /// More lines of its hosts file, `NAME:IP`.
    pub extra_hosts: Vec<String>,
    /// Limits of its processes: soft and hard.
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// Size of /dev/shm in bytes; zero: Docker's default.
    pub shm_bytes: u64,
    /// A terminal as its standard output.
    pub tty: bool,
    /// Its standard input stays open.
    pub stdin_open: bool,
}
