//! The file systems of instances: named volumes, which are made before a container mounts them and outlive it, and what
//! comes and goes with a container.

use std::collections::HashMap;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{Mount as DockerMount, MountTmpfsOptions, MountType, VolumeCreateRequest};
use bollard::query_parameters::RemoveVolumeOptions;
use tokio::time::sleep;
use vc_protocol::spec::{ContainerSpec, Mount};
use vc_protocol::{Name, VolumeKey};

use super::{Engine, container};
use crate::Identity;
use crate::reason;

/// The label that holds a volume's name in its project.
const VOLUME: &str = "vc.volume";

/// How often the removal of a volume's data is tried, and the pause between.
const REMOVALS: usize = 10;
const HELD: Duration = Duration::from_secs(2);

/// Docker's name of a named volume. The dot cannot occur in a project's or volume's name, so that no two share one.
pub(super) fn docker_name(
    identity: &Identity,
    VolumeKey { project, volume }: &VolumeKey,
) -> String {
    format!("vc-{project}.{volume}-{}", identity.node.short())
}

/// As Docker takes it.
pub(super) fn mount(identity: &Identity, project: &Name, mount: &Mount) -> DockerMount {
    let of = |typ, target: &String| DockerMount {
        typ: Some(typ),
        target: Some(target.clone()),
        ..DockerMount::default()
    };
    match mount {
        Mount::Volume { name, target, read_only } => {
            let key = VolumeKey { project: project.clone(), volume: name.clone() };
            DockerMount {
                source: Some(docker_name(identity, &key)),
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
            tmpfs_options: (*bytes > 0).then(|| MountTmpfsOptions {
                size_bytes: Some(container::whole(*bytes)),
                ..MountTmpfsOptions::default()
            }),
            ..of(MountType::TMPFS, target)
        },
    }
}

impl Engine {
    /// Removes the data of a volume; tries again while a container on its way out still holds it.
    pub(crate) async fn remove_volume(&self, key: &VolumeKey) {
        let name = docker_name(&self.identity, key);
        for _ in 0..REMOVALS {
            let removed = match self.client() {
                Ok(client) => client.remove_volume(&name, None::<RemoveVolumeOptions>).await,
                Err(error) => Err(error),
            };
            match removed {
                Err(error) if reason::status(&error) == Some(409) => sleep(HELD).await,
                Err(error) if reason::status(&error) != Some(404) => {
                    let error = reason::of(&error);
                    return tracing::warn!(volume = %key, name, error, "cannot remove the data of a volume");
                }
                _ => return tracing::info!(volume = %key, name, "removed the data of a volume"),
            }
        }
        tracing::warn!(volume = %key, name, "the data of a volume is in use and was not removed: docker volume rm");
    }

    /// Makes the named volumes of an instance that are not there yet. Docker would make them too, but without our
    /// labels. Errors: as Docker says, or a volume of that name is not ours.
    pub(super) async fn make_volumes(
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
            let name = docker_name(&self.identity, &key);
            let labels = HashMap::from([
                (container::CLUSTER.to_owned(), self.identity.cluster.to_string()),
                (container::NODE.to_owned(), self.identity.node.to_string()),
                (container::PROJECT.to_owned(), project.to_string()),
                (VOLUME.to_owned(), volume.to_string()),
            ]);
            let request = VolumeCreateRequest {
                name: Some(name.clone()),
                labels: Some(labels.clone()),
                ..VolumeCreateRequest::default()
            };
            // One that is there is given back as it is.
            let found = self.client()?.create_volume(request).await?;
            if !labels.iter().all(|label| found.labels.get(label.0) == Some(label.1)) {
                let error = format!(
                    "the name {name} is taken by a volume that is not ours: docker volume rm {name}"
                );
                return Err(Error::DockerStreamError { error });
            }
        }
        Ok(())
    }
}
