//! Mounts of containers, and named volumes, which are created before a container mounts them and outlive it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{
    Mount as DockerMount, MountTmpfsOptions, MountType, MountVolumeOptions, Volume,
    VolumeCreateRequest,
};
use bollard::query_parameters::RemoveVolumeOptions;
use tokio::time::sleep;
use vc_protocol::spec::{ContainerSpec, Mount};
use vc_protocol::{Name, VolumeKey};

use super::client::DockerClient;
use super::volume_place::VolumePlace;
use super::{labels, units};
use crate::docker_error;
use crate::error::RuntimeError;

/// The label with the volume's name in its project.
pub(super) const VOLUME_LABEL: &str = "vc.volume";

/// Docker's own default; without one, podman makes directories that only root can enter.
const TMPFS_MODE: i64 = 0o1777;

/// How often the removal of a volume is tried, and the time between two attempts.
const MAX_REMOVAL_ATTEMPTS: usize = 10;
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Converts a mount for Docker.
pub(super) fn mount(
    volume_name: &dyn Fn(&VolumeKey) -> String,
    project: &Name,
    mount: &Mount,
) -> DockerMount {
    let of = |typ, target: &String| DockerMount {
        typ: Some(typ),
        target: Some(target.clone()),
        ..DockerMount::default()
    };
    match mount {
        Mount::Volume { name, target, read_only, nocopy, subpath } => {
            let key = VolumeKey { project: project.clone(), volume: name.clone() };
            DockerMount {
                source: Some(volume_name(&key)),
                read_only: Some(*read_only),
                volume_options: (*nocopy || subpath.is_some()).then(|| MountVolumeOptions {
                    no_copy: nocopy.then_some(true),
                    subpath: subpath.clone(),
                    ..MountVolumeOptions::default()
                }),
                ..of(MountType::VOLUME, target)
            }
        }
        Mount::Anonymous { target } => of(MountType::VOLUME, target),
        Mount::Bind { source, target, read_only } => DockerMount {
            source: Some(source.clone()),
            read_only: Some(*read_only),
            ..of(MountType::BIND, target)
        },
        Mount::Tmpfs { target, bytes } => DockerMount {
            tmpfs_options: Some(MountTmpfsOptions {
                size_bytes: (*bytes > 0).then(|| units::to_i64(*bytes)),
                mode: Some(TMPFS_MODE),
                ..MountTmpfsOptions::default()
            }),
            ..of(MountType::TMPFS, target)
        },
    }
}

/// Returns a mount of a directory with nothing in it, which is read-only.
pub(super) fn empty(target: &str) -> DockerMount {
    DockerMount {
        typ: Some(MountType::TMPFS),
        target: Some(target.to_owned()),
        read_only: Some(true),
        tmpfs_options: Some(MountTmpfsOptions {
            size_bytes: Some(4096),
            mode: Some(0o555),
            ..MountTmpfsOptions::default()
        }),
        ..DockerMount::default()
    }
}

impl DockerClient {
    /// Removes a volume with its data; retries while a container that is being removed still uses it.
    pub(super) async fn remove_volume(&self, key: &VolumeKey) {
        let name = self.volume_names.of(&self.identity, key);
        for _ in 0..MAX_REMOVAL_ATTEMPTS {
            let removed = match self.client() {
                Ok(client) => client.remove_volume(&name, None::<RemoveVolumeOptions>).await,
                Err(error) => Err(error),
            };
            match removed {
                Err(error) if docker_error::status(&error) == Some(409) => {
                    sleep(RETRY_INTERVAL).await
                }
                Err(error) if docker_error::status(&error) != Some(404) => {
                    let error = docker_error::message(&error);
                    return tracing::warn!(volume = %key, name, error, "cannot remove a volume");
                }
                _ => {
                    if let Err(error) = self.volume_names.removed(key) {
                        tracing::warn!(volume = %key, %error, "its name is not forgotten");
                    }
                    return tracing::info!(volume = %key, name, "volume removed");
                }
            }
        }
        tracing::warn!(volume = %key, name, "volume not removed: it is in use; remove it with 'docker volume rm'");
    }

    /// Creates the named volumes of an instance that do not exist. Docker would create them with the container, but
    /// without labels.
    ///
    /// # Errors
    /// Docker refuses, or a volume of that name belongs to another owner or is mounted from elsewhere.
    pub(super) async fn create_volumes(
        &self,
        project: &Name,
        spec: &ContainerSpec,
    ) -> Result<(), Error> {
        let named = spec.mounts.iter().filter_map(|mount| match mount {
            Mount::Volume { name, .. } => Some(name),
            _ => None,
        });
        for volume in named {
            let key = VolumeKey { project: project.clone(), volume: volume.clone() };
            self.create_volume(&key, &self.places.of(&key)).await?;
        }
        Ok(())
    }

    /// Creates a volume that does not exist, and returns what Docker knows of it.
    async fn create_volume(&self, key: &VolumeKey, place: &VolumePlace) -> Result<Volume, Error> {
        let name = self.volume_names.of(&self.identity, key);
        let labels = HashMap::from([
            (labels::CLUSTER.to_owned(), self.identity.cluster.to_string()),
            (labels::NODE.to_owned(), self.identity.node.to_string()),
            (labels::PROJECT.to_owned(), key.project.to_string()),
            (VOLUME_LABEL.to_owned(), key.volume.to_string()),
        ]);
        let options = driver_options(place);
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(labels.clone()),
            driver_opts: (!options.is_empty()).then(|| options.clone()),
            ..VolumeCreateRequest::default()
        };
        // An existing one is returned unchanged.
        let mut found = self.client()?.create_volume(request.clone()).await?;
        // One that was taken over has the label of the former node. One without labels is what an engine leaves that is killed
        // while it creates the volume, or loses what it knew of its volumes: the directory stays.
        let is_adopted = self.volume_names.is_adopted(key);
        let is_own = labels.iter().all(|label| found.labels.get(label.0) == Some(label.1));
        if !is_adopted && !is_own && !found.labels.is_empty() {
            let error = format!(
                "the name {name} is taken by a volume of another owner; if nothing needs its data, remove it with 'docker volume \
                 rm {name}'"
            );
            return Err(Error::DockerStreamError { error });
        }
        if found.options != options && !options.is_empty() {
            if found.options.is_empty() {
                let error = format!(
                    "the volume {name} has data on this node, and is now to be mounted from {}; move the data there, then remove \
                     it with 'docker volume rm {name}'",
                    options.get("device").map_or("", String::as_str)
                );
                return Err(Error::DockerStreamError { error });
            }
            // What it mounted stays where it is.
            self.client()?.remove_volume(&name, None::<RemoveVolumeOptions>).await?;
            found = self.client()?.create_volume(request).await?;
        }
        Ok(found)
    }

    /// Returns the directory of the data of a volume, which is created if it is missing.
    ///
    /// # Errors
    /// Docker refuses or does not answer, its volumes are on another host, or the directory cannot be created.
    pub(super) async fn volume_directory(
        &self,
        key: &VolumeKey,
        place: &VolumePlace,
    ) -> Result<PathBuf, RuntimeError> {
        if !self.is_local() {
            return Err(RuntimeError::RemoteVolumes(self.host.to_string()));
        }
        if let VolumePlace::Directory(path) = place {
            let created = tokio::fs::create_dir_all(path).await;
            created.map_err(|source| RuntimeError::Directory { path: path.clone(), source })?;
            return Ok(path.clone());
        }
        let volume = self.create_volume(key, place).await.map_err(|error| self.error(error))?;
        Ok(PathBuf::from(volume.mountpoint))
    }

    /// Returns the directory of the data of a volume of Docker's; `None` if there is none.
    ///
    /// # Errors
    /// Docker refuses or does not answer.
    pub(super) async fn existing_volume(
        &self,
        key: &VolumeKey,
    ) -> Result<Option<PathBuf>, RuntimeError> {
        let name = self.volume_names.of(&self.identity, key);
        let client = self.client().map_err(|error| self.error(error))?;
        match client.inspect_volume(&name).await {
            Err(error) if docker_error::status(&error) == Some(404) => Ok(None),
            // What is mounted there is not this node's.
            Ok(volume) if !volume.options.is_empty() => Ok(None),
            Ok(volume) => Ok(Some(PathBuf::from(volume.mountpoint))),
            Err(error) => Err(self.error(error)),
        }
    }
}

/// Returns the options of Docker's driver `local`.
fn driver_options(place: &VolumePlace) -> HashMap<String, String> {
    let VolumePlace::Mounted(driver) = place else { return HashMap::new() };
    let all = [("type", &driver.kind), ("device", &driver.device), ("o", &driver.options)];
    let said = all.into_iter().filter(|(_, value)| !value.is_empty());
    said.map(|(key, value)| (key.to_owned(), value.clone())).collect()
}
