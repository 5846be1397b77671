//! The settings of the Docker runtime.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::files::OpenFile;
use super::subnets::NetworkPool;
use super::volume_place::FindVolume;
use crate::images::Images;

/// The address of the Docker engine by default.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Returns the addresses of DNS servers, in the order in which they are asked.
pub type DnsServers = dyn Fn() -> Vec<IpAddr> + Send + Sync;

/// The settings of the Docker runtime.
#[derive(Clone)]
pub struct Config {
    /// The address of the engine, see [`host`].
    pub host: Option<String>,
    /// Brings images that the engine does not have.
    pub images: Images,
    /// Decrypts secrets and configs.
    pub open: Arc<OpenFile>,
    /// Where decrypted files are kept: the first of these directories that is on an in-memory file system. `None`: in
    /// /run, else in /dev/shm. The engine must see the same directory.
    pub memory: Option<Vec<PathBuf>>,
    /// The node's data directory, which no container mounts.
    pub data_dir: PathBuf,
    /// Where the subnets of the project networks are taken from.
    pub pool: NetworkPool,
    /// Returns the DNS servers of a container that is about to be created.
    pub dns: Arc<DnsServers>,
    /// Returns where a volume is that a container is about to mount.
    pub find_volume: Arc<FindVolume>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Returns the address of the Docker engine, `unix:///PATH` or `tcp://HOST:PORT`: the given one, else the environment
/// variable `DOCKER_HOST`, else [`DEFAULT_HOST`].
pub fn host(given: Option<String>) -> String {
    let set = |host: &String| !host.is_empty();
    let host = given.filter(set).or_else(|| std::env::var("DOCKER_HOST").ok().filter(set));
    host.unwrap_or_else(|| DEFAULT_HOST.to_owned())
}
