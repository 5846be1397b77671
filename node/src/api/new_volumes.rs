//! Volumes that begin with data: copies of snapshots, of Docker's volumes and of directories.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use vc_engine::Input;
use vc_protocol::audit::AuditAction;
use vc_protocol::control::{Change, Reply};
use vc_protocol::lease::Epoch;
use vc_protocol::volume::SnapshotId;
use vc_protocol::{ApiError, VolumeKey};
use vc_runtime::Runtime;
use vc_volumes::{Manifest, Store};

use super::ControlService;
use super::volume_error::VolumeError;
use crate::auth::User;
use crate::auth::privileges::check_copy;
use crate::clock;

/// The epoch of a first snapshot: before the first lease, so that the first node that writes the volume begins with it.
pub(crate) const FIRST_EPOCH: Epoch = 0;

/// Whether services that are to run may mount a volume that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mounted {
    /// They would begin it empty at any moment.
    No,
    /// They are deployed again with it.
    Yes,
}

impl ControlService {
    /// Errors: a node has the volume, or a service that is to run mounts it and may begin it empty at any moment.
    pub(super) fn check_new(&self, key: &VolumeKey, mounted: Mounted) -> Result<(), VolumeError> {
        let view = self.cluster.latest().view;
        if !view.rules.copies {
            return Err(VolumeError::OlderMembers);
        }
        let home = view.input.volumes.get(key);
        if let Some(node) = home.or_else(|| view.copies.get(key)?.first()) {
            return Err(VolumeError::Exists { volume: key.clone(), node: view.name(*node) });
        }
        if mounted == Mounted::Yes {
            return Ok(());
        }
        // Also after a rollback.
        let mounting = vc_engine::mounting(&view.cluster, key).cloned();
        let services: Vec<_> = mounting.filter(|it| view.replicas(it) > 0).collect();
        match services.is_empty() {
            true => Ok(()),
            false => Err(VolumeError::InUse { volume: key.clone(), services }),
        }
    }

    /// Makes a volume of a snapshot of another one, on this node.
    pub(super) async fn clone_volume(
        &self,
        user: &User,
        key: VolumeKey,
        snapshot: SnapshotId,
        to: VolumeKey,
    ) -> Result<Reply, ApiError> {
        self.check_new(&to, Mounted::No)?;
        let store = self.store()?;
        let cloned = store
            .volume(&to)
            .link_from(&store.volume(&key), snapshot, FIRST_EPOCH, clock::now())
            .await;
        let manifest = cloned.map_err(VolumeError::from)?;
        let from = format!("snapshot {snapshot} of {key}");
        self.announce(user, &store, to, from, &manifest, Mounted::No).await
    }

    /// Makes a volume of what a volume of Docker's, or a directory, on this node has.
    pub(super) async fn adopt_volume(
        &self,
        user: &User,
        key: VolumeKey,
        source: &str,
    ) -> Result<Reply, ApiError> {
        let view = self.cluster.latest().view;
        let path = source.starts_with('/').then_some(source);
        let may = |path| check_copy(&user.rights, &view, &key, path).map_err(VolumeError::from);
        may(path)?;
        let store = self.store()?;
        let Runtime::Docker(docker) = &self.runtime else {
            return Err(VolumeError::NoDocker.into());
        };
        self.check_new(&key, Mounted::No)?;
        let directory = match path {
            Some(path) => {
                docker.directory_source(path.as_ref(), user.rights.projects().is_none()).await
            }
            None => docker.volume_source(source).await,
        };
        let directory = directory.map_err(VolumeError::from)?;
        if path.is_some() {
            // Links may lead elsewhere.
            may(Some(&directory.to_string_lossy()))?;
        }
        let before = identity(&directory).await;
        let copied = store.volume(&key).copy_from(&directory, FIRST_EPOCH, clock::now()).await;
        let manifest = copied.map_err(VolumeError::from)?;
        // Somebody may have put a link in its place since it was checked, which root has followed.
        if before.is_none() || identity(&directory).await != before {
            store.volume(&key).trash(None, None, clock::now()).await.map_err(VolumeError::from)?;
            return Err(VolumeError::Replaced(directory).into());
        }
        let from = match path {
            Some(path) => format!("the directory {path}"),
            None => format!("Docker's volume {source}"),
        };
        self.announce(user, &store, key, from, &manifest, Mounted::No).await
    }

    /// Says in the document of this node that it has a new volume, unless another node has begun it meanwhile.
    pub(super) async fn announce(
        &self,
        user: &User,
        store: &Store,
        volume: VolumeKey,
        from: String,
        manifest: &Manifest,
        mounted: Mounted,
    ) -> Result<Reply, ApiError> {
        if let Err(error) = self.check_new(&volume, mounted) {
            // Not what an instance of this node has begun to write.
            if self.copy(store, &volume).await?.written.is_none() {
                store
                    .volume(&volume)
                    .trash(None, None, clock::now())
                    .await
                    .map_err(VolumeError::from)?;
            }
            return Err(error.into());
        }
        let copy = self.copy(store, &volume).await?;
        self.cluster.input(Input::Volume(volume.clone(), copy)).await?;
        let node_name = self.cluster.latest().view.name(self.cluster.membership().node);
        let (snapshot, bytes) = (manifest.id.to_string(), manifest.bytes);
        let change = Change::VolumeCreated { volume, from, node_name, snapshot, bytes };
        self.audit.record(AuditAction::VolumeCreated, user, None, change.to_string());
        Ok(Reply::Done(vec![change]))
    }
}

/// Returns what a path leads to, by device and inode; `None` if it leads elsewhere than to itself.
async fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = tokio::fs::canonicalize(path).await.ok().filter(|it| it == path)?;
    let metadata = tokio::fs::symlink_metadata(found).await.ok()?;
    Some((metadata.dev(), metadata.ino()))
}
