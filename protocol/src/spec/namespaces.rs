//! Which namespaces a container shares with its host.

use serde::{Deserialize, Serialize};

use super::is_default;

/// The namespaces of a container other than the network; those that are not named are its own, or as the engine has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// It sees the processes of the host.
    #[serde(skip_serializing_if = "is_default")]
    pub host_pid: bool,
    /// It has the host name of the host.
    #[serde(skip_serializing_if = "is_default")]
    pub host_uts: bool,
    /// Its users are those of the host, on an engine that remaps them.
    #[serde(skip_serializing_if = "is_default")]
    pub host_users: bool,
    /// Its cgroup namespace; `None` for the engine's default.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup: Option<CgroupNamespace>,
    /// Its shared memory and message queues; `None` for the engine's default.
    #[serde(skip_serializing_if = "is_default")]
    pub ipc: Option<IpcNamespace>,
}

impl Namespaces {
    /// Returns the names of those that are the host's, as a Compose file has them.
    pub fn of_host(&self) -> impl Iterator<Item = &'static str> {
        let all = [
            (self.host_pid, "pid"),
            (self.host_uts, "uts"),
            (self.host_users, "userns_mode"),
            (self.cgroup == Some(CgroupNamespace::Host), "cgroup"),
            (self.ipc == Some(IpcNamespace::Host), "ipc"),
        ];
        all.into_iter().filter(|(is_host, _)| *is_host).map(|(_, name)| name)
    }
}

/// The cgroup namespace of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupNamespace {
    /// That of the host.
    Host,
    /// Its own.
    Private,
}

/// The IPC namespace of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpcNamespace {
    /// That of the host.
    Host,
    /// Its own.
    Private,
    /// Its own, which other containers may join.
    Shareable,
    /// Its own, without shared memory.
    None,
}

impl IpcNamespace {
    /// Returns the word of Compose and Docker.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Private => "private",
            Self::Shareable => "shareable",
            Self::None => "none",
        }
    }
}
