//! Mounts of containers, and named volumes, which are created before a container mounts them and outlive it.

use std::collections::HashMap;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{Mount as DockerMount, MountTmpfsOptions, MountType, VolumeCreateRequest};
use bollard::query_parameters::RemoveVolumeOptions;
use tokio::time::sleep;
use vc_protocol::spec::{ContainerSpec, Mount};
use vc_protocol::{Name, VolumeKey};

use super::client::DockerClient;
use super::{labels, units};
use crate::docker_error;

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
        Mount::Volume { name, target, read_only } => {
            let key = VolumeKey { project: project.clone(), volume: name.clone() };
            DockerMount {
                source: Some(volume_name(&key)),
                read_only: Some(*read_only),
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
    /// Docker refuses, or a volume of that name belongs to another owner.
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
            let name = self.volume_names.of(&self.identity, &key);
            let labels = HashMap::from([
                (labels::CLUSTER.to_owned(), self.identity.cluster.to_string()),
                (labels::NODE.to_owned(), self.identity.node.to_string()),
                (labels::PROJECT.to_owned(), project.to_string()),
                (VOLUME_LABEL.to_owned(), volume.to_string()),
            ]);
            let request = VolumeCreateRequest {
                name: Some(name.clone()),
                labels: Some(labels.clone()),
                ..VolumeCreateRequest::default()
            };
            // An existing one is returned unchanged.
            let found = self.client()?.create_volume(request).await?;
            // One that was taken over has the label of the former node.
            let is_adopted = self.volume_names.is_adopted(&key);
            if !is_adopted && !labels.iter().all(|label| found.labels.get(label.0) == Some(label.1))
            {
                let error = format!(
                    "the name {name} is taken by a volume of another owner; remove it with 'docker volume rm {name}'"
                );
                return Err(Error::DockerStreamError { error });
            }
        }
        Ok(())
    }
}
