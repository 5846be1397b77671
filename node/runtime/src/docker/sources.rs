//! What a new volume may be a copy of: Docker's volumes, and directories of the host.

use std::path::{Path, PathBuf};

use bollard::models::MountPoint;
use bollard::query_parameters::{ListContainersOptionsBuilder, ListVolumesOptions};
use vc_protocol::spec::Mount;
use vc_protocol::{ApiError, ErrorCode};

use super::client::DockerClient;
use super::host_paths::HostPathError;
use crate::docker_error;
use crate::error::{RuntimeError, api_error};

/// Directories that are of the system, with what is in them.
const SYSTEM: [&str; 13] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys",
    "/usr", "/var/run",
];
/// Directories of the system in which others have their data.
const ROOTS: [&str; 8] = ["/", "/home", "/media", "/mnt", "/opt", "/srv", "/var", "/var/lib"];

/// Why something cannot be copied into a volume. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Docker has no such volume.
    #[error("Docker has no volume '{name}' on this node; {}", listed(.volumes))]
    NoVolume {
        /// The name.
        name: String,
        /// Those that there are.
        volumes: Vec<String>,
    },
    /// The volume of Docker's is mounted from elsewhere.
    #[error(
        "the volume {0} is mounted from elsewhere, and has no data on this node; declare it with its driver_opts"
    )]
    Mounted(String),
    /// There is no such directory.
    #[error("there is no directory {path} on this node: {source}; correct the path, or name another node with --node", path = path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
        /// The error of the disk.
        source: std::io::Error,
    },
    /// It is of the system, or Docker's own.
    #[error("{path} is a directory of {owner}; name the directory with the data", path = path.display())]
    System {
        /// The directory.
        path: PathBuf,
        /// What it is of.
        owner: &'static str,
    },
    /// It leads to keys of the node.
    #[error(transparent)]
    Protected(#[from] HostPathError),
    /// A container may write it.
    #[error("{source_name} is in use by {}, which runs; stop it first, so that nothing writes meanwhile", named(.containers))]
    InUse {
        /// The directory or volume.
        source_name: String,
        /// The names of the containers; none for who may not see them.
        containers: Vec<String>,
    },
    /// Docker refuses or does not answer.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

fn listed(volumes: &[String]) -> String {
    match volumes {
        [] => "it has none".to_owned(),
        some => format!("it has {}", some.join(", ")),
    }
}

fn named(names: &[String]) -> String {
    match names {
        [] => "a container".to_owned(),
        [one] => format!("container {one}"),
        several => format!("container {}", several.join(" and ")),
    }
}

impl From<SourceError> for ApiError {
    fn from(error: SourceError) -> Self {
        let code = match error {
            SourceError::Runtime(error) => return error.into(),
            SourceError::NoVolume { .. } | SourceError::NoDirectory { .. } => ErrorCode::NotFound,
            _ => ErrorCode::FailedPrecondition,
        };
        api_error(code, &error.to_string())
    }
}

impl DockerClient {
    /// Returns the directory of a volume of Docker's, by Docker's name, that no running container mounts.
    pub(super) async fn volume_source(&self, name: &str) -> Result<PathBuf, SourceError> {
        if !self.is_local() {
            return Err(RuntimeError::RemoteVolumes(self.host.to_string()).into());
        }
        let client = self.client().map_err(|error| self.error(error))?;
        let volume = match client.inspect_volume(name).await {
            Err(error) if docker_error::status(&error) == Some(404) => {
                let all = client.list_volumes(None::<ListVolumesOptions>).await;
                let all = all.map_err(|error| self.error(error))?.volumes.unwrap_or_default();
                let mut volumes: Vec<String> = all.into_iter().map(|it| it.name).collect();
                volumes.sort_unstable();
                return Err(SourceError::NoVolume { name: name.to_owned(), volumes });
            }
            volume => volume.map_err(|error| self.error(error))?,
        };
        if volume.driver != "local" || !volume.options.is_empty() {
            return Err(SourceError::Mounted(name.to_owned()));
        }
        let directory = PathBuf::from(volume.mountpoint);
        let uses = |mount: &MountPoint| {
            mount.name.as_deref() == Some(name)
                || mount.source.as_deref().map(Path::new) == Some(&directory)
        };
        self.check_unused(name, uses).await?;
        Ok(directory)
    }

    /// Returns the directory of the host that a path leads to, if a volume may be a copy of it: it is neither the system's nor the
    /// node's nor Docker's, and no running container may write it.
    pub(super) async fn directory_source(
        &self,
        path: &Path,
        docker: Option<&Path>,
        names: bool,
    ) -> Result<PathBuf, SourceError> {
        if !self.is_local() {
            return Err(RuntimeError::RemoteVolumes(self.host.to_string()).into());
        }
        let missing = |source| SourceError::NoDirectory { path: path.to_owned(), source };
        let found = tokio::fs::canonicalize(path).await.map_err(missing)?;
        if !tokio::fs::metadata(&found).await.map_err(missing)?.is_dir() {
            return Err(missing(std::io::ErrorKind::NotADirectory.into()));
        }
        if let Some(owner) = owner(&found, docker) {
            return Err(SourceError::System { path: found, owner });
        }
        let mount = Mount::Bind {
            source: found.to_string_lossy().into_owned(),
            target: String::new(),
            read_only: false,
        };
        let protected = self.protected.clone();
        let checked = tokio::task::spawn_blocking(move || protected.check(&[mount])).await;
        checked.map_err(|error| missing(error.into()))??;
        let uses = |mount: &MountPoint| {
            let source = mount.source.as_deref().map(Path::new);
            source.is_some_and(|it| {
                it.starts_with(&found) || (it != Path::new("/") && found.starts_with(it))
            })
        };
        let unused = self.check_unused(&found.display().to_string(), uses).await;
        unused.map_err(|error| match error {
            SourceError::InUse { source_name, .. } if !names => {
                SourceError::InUse { source_name, containers: Vec::new() }
            }
            error => error,
        })?;
        Ok(found)
    }

    /// Errors: a running container has a mount that it may write and that is meant.
    async fn check_unused(
        &self,
        source: &str,
        is_meant: impl Fn(&MountPoint) -> bool,
    ) -> Result<(), SourceError> {
        let client = self.client().map_err(|error| self.error(error))?;
        let options = ListContainersOptionsBuilder::default().build();
        let running = client.list_containers(Some(options)).await;
        let users = running.map_err(|error| self.error(error))?.into_iter().filter(|container| {
            let mut mounts = container.mounts.iter().flatten();
            mounts.any(|mount| mount.rw != Some(false) && is_meant(mount))
        });
        let name = |names: Option<Vec<String>>, id: Option<String>| {
            let name = names.and_then(|names| names.into_iter().next()).or(id).unwrap_or_default();
            name.trim_start_matches('/').to_owned()
        };
        let containers: Vec<String> = users.map(|it| name(it.names, it.id)).collect();
        match containers.is_empty() {
            true => Ok(()),
            false => Err(SourceError::InUse { source_name: source.to_owned(), containers }),
        }
    }
}

/// Returns who owns a directory that is no data of users.
fn owner(path: &Path, docker: Option<&Path>) -> Option<&'static str> {
    let is_system = SYSTEM.iter().any(|it| path.starts_with(it));
    match docker {
        _ if is_system || ROOTS.iter().any(|it| path == Path::new(it)) => Some("the system"),
        Some(docker) if path.starts_with(docker) || docker.starts_with(path) => Some("Docker"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_the_system_and_of_docker_are_no_data() {
        let of = |path: &str| owner(Path::new(path), Some(Path::new("/var/lib/docker")));
        for path in [
            "/",
            "/etc",
            "/etc/app",
            "/usr/share",
            "/proc/1",
            "/home",
            "/srv",
            "/run/x",
            "/var/lib",
        ] {
            assert_eq!(of(path), Some("the system"), "{path}");
        }
        for path in ["/var/lib/docker", "/var/lib/docker/volumes/x/_data"] {
            assert_eq!(of(path), Some("Docker"), "{path}");
        }
        for path in
            ["/srv/app", "/home/ann/photos", "/var/lib/app", "/data", "/mnt/disk/x", "/etcetera"]
        {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
