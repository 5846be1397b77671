//! The mounts of a container as they are on this host.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use vc_protocol::spec::{ContainerSpec, Mount};
use vc_protocol::{Name, VolumeKey};

use super::client::DockerClient;
use super::confined_mounts::{self, ConfineError};
use super::start::StartError;
use super::subpaths::Subpath;
use super::volume_place::VolumePlace;
use crate::docker_error::DockerError;

/// A mount of a subpath of a volume that the engine cannot make.
pub(super) struct Part {
    /// The number of the mount.
    pub(super) number: usize,
    pub(super) volume: VolumeKey,
    pub(super) place: VolumePlace,
    pub(super) subpath: String,
}

/// Returns the mounts that are checked: of a subpath what it leads to, which nothing hides.
pub(super) fn checked(spec: &ContainerSpec, parts: &[Part]) -> Vec<Mount> {
    let mut mounts = spec.mounts.clone();
    for Part { number, subpath, .. } in parts {
        if let Some(Mount::Bind { source, read_only, .. }) = mounts.get_mut(*number) {
            *source = Path::new(&*source).join(subpath).display().to_string();
            *read_only = false;
        }
    }
    mounts
}

impl DockerClient {
    /// Returns the spec with bind mounts in place of those volumes whose data is in a directory of this host, and the mounts of subpaths
    /// that the engine cannot make. Creates these directories, unless a policy forbids them.
    pub(super) async fn placed(
        &self,
        client: &bollard::Docker,
        project: &Name,
        spec: &ContainerSpec,
    ) -> Result<(ContainerSpec, Vec<Part>), StartError> {
        let (mut spec, mut parts) = (spec.clone(), Vec::new());
        let roots = spec.host_path_roots.clone();
        let is_allowed =
            |path: &Path| roots.is_empty() || roots.iter().any(|root| path.starts_with(root));
        for (number, mount) in spec.mounts.iter_mut().enumerate() {
            let Mount::Volume { name, target, read_only, subpath, .. } = mount else { continue };
            let volume = VolumeKey { project: project.clone(), volume: name.clone() };
            let place = self.places.of(&volume);
            let subpath = subpath.clone();
            if let VolumePlace::Directory(path) = &place {
                if is_allowed(path) {
                    let created = self.volume_directory(&volume, &place).await;
                    created.map_err(|error| StartError::Node(error.to_string()))?;
                }
                let (source, target) = (path.display().to_string(), target.clone());
                *mount = Mount::Bind { source, target, read_only: *read_only };
            } else if let Some(subpath) = &subpath {
                let info = self.info.get(client, &self.host).await.map_err(DockerError::Engine)?;
                if info.subpaths {
                    continue;
                }
                // What a network file system has is mounted with the container.
                if place != VolumePlace::Volume || !self.is_local() {
                    return Err(StartError::Subpath(subpath.clone()));
                }
            }
            parts.extend(subpath.map(|subpath| Part { number, volume, place, subpath }));
        }
        Ok((spec, parts))
    }

    /// Attaches subpaths of volumes, and makes them the mounts of a container.
    pub(super) async fn attach_parts(
        &self,
        container: &str,
        spec: &mut ContainerSpec,
        parts: &[Part],
    ) -> Result<Vec<Subpath>, StartError> {
        let mut attached = Vec::new();
        for Part { number, volume, place, subpath } in parts {
            let Some(mount) = spec.mounts.get_mut(*number) else { continue };
            let (directory, target, read_only) = match mount {
                Mount::Bind { source, target, read_only } => {
                    (PathBuf::from(&*source), target, *read_only)
                }
                Mount::Volume { target, read_only, .. } => {
                    let found = self.volume_directory(volume, place).await;
                    let found = found.map_err(|error| StartError::Node(error.to_string()))?;
                    (found, target, *read_only)
                }
                _ => continue,
            };
            let (subpaths, container) = (self.subpaths.clone(), container.to_owned());
            let protected = self.protected.clone();
            let (name, subpath) = (self.volume_names.of(&self.identity, volume), subpath.clone());
            let number = *number;
            // A file system may hang.
            let attaching = tokio::task::spawn_blocking(move || {
                subpaths.attach(&directory, &subpath, &name, (&container, number), &protected)
            });
            let subpath = attaching.await.map_err(|_| StartError::Cancelled)??;
            let (source, target) = (subpath.place().display().to_string(), std::mem::take(target));
            *mount = Mount::Bind { source, target, read_only };
            attached.push(subpath);
        }
        Ok(attached)
    }

    /// Makes the directories that bind mounts lack, as Docker does for the short form of a mount. Those of another host are left to
    /// its engine, which refuses them.
    pub(super) async fn create_host_paths(&self, spec: &ContainerSpec) -> Result<(), StartError> {
        if !self.is_local() || !spec.host_path_roots.is_empty() {
            return Ok(());
        }
        for path in &spec.created_host_paths {
            let missing = matches!(tokio::fs::metadata(path).await, Err(error) if error.kind() == ErrorKind::NotFound);
            if missing && let Err(error) = tokio::fs::create_dir_all(path).await {
                return Err(StartError::Node(format!("cannot make the directory {path}: {error}")));
            }
        }
        Ok(())
    }

    /// Returns the spec with the host paths of its mounts resolved, where a policy limits them.
    pub(super) async fn confined(&self, spec: &ContainerSpec) -> Result<ContainerSpec, StartError> {
        let mut spec = spec.clone();
        if spec.host_path_roots.is_empty() {
            return Ok(spec);
        }
        if !self.is_local() {
            return Err(ConfineError::Remote(self.host.to_string()).into());
        }
        // A file system may hang.
        let confine = move || confined_mounts::confine(&mut spec).map(|()| spec);
        let confined = tokio::task::spawn_blocking(confine).await;
        Ok(confined.map_err(|_| StartError::Cancelled)??)
    }
}
