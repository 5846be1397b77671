//! Instances as containers of a Docker engine.
//!
//! Labels mark the containers that belong to this node, and a container's name follows from its instance. So a start is
//! `create` and `start` without a query before, and a second start of the same instance meets the container of the first.
//! Containers outlive the node: those with the node's labels are adopted when the engine answers.

mod archive;
mod attach;
mod backend;
mod cgroup;
mod client;
mod config;
mod confined_mounts;
mod connection;
mod container;
mod exec;
mod files;
mod freezer;
mod handle;
mod hijack;
mod host_paths;
mod labels;
mod log_entries;
mod logs;
mod mounts;
mod networks;
mod observe;
mod orphans;
mod pause;
mod podman;
mod remove;
mod sources;
mod start;
mod subnets;
mod subpaths;
mod time;
mod uninstall;
mod units;
mod usage;
mod volume_names;
mod volume_place;
mod volumes;

pub use archive::{Archive, Upload};
pub use config::{Config, DEFAULT_HOST, DnsServers, host};
pub use connection::check_engine;
pub use exec::{Exec, ExecProcess};
pub use files::{OpenFile, OpenFileError};
pub use handle::Docker;
pub use hijack::ExecOutput;
pub use networks::ContainerByIp;
pub use orphans::AdoptError;
pub use pause::PausedInstances;
pub use sources::SourceError;
pub use subnets::{NetworkPool, NetworkPoolError, SUBNET_LENGTH};
pub use uninstall::{Remains, UninstallError, release_host, remains};
pub use volume_names::VolumeNamesError;
pub use volume_place::{FindVolume, VolumePlace};
