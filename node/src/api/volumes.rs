//! Requests about named volumes, and about what this node keeps of them.

use vc_engine::{Input, report};
use vc_protocol::audit::AuditAction;
use vc_protocol::control::{Change, Reply, SnapshotKind, SnapshotRow};
use vc_protocol::volume::{SnapshotId, VolumeCopy};
use vc_protocol::{ApiError, ErrorCode, ServiceKey, VolumeKey};
use vc_runtime::docker::VolumePlace;
use vc_runtime::{DockerError, Runtime, RuntimeError};
use vc_volumes::{Manifest, Source, Store};

use super::ControlService;
use crate::auth::User;
use crate::clock;

/// Why a request about what a node keeps of a volume failed.
#[derive(Debug, thiserror::Error)]
enum VolumeError {
    #[error("this node runs plain processes, which have no volumes")]
    NoDocker,
    #[error("this node has just started, and reads its volumes")]
    Starting,
    #[error("no volume '{0}'")]
    NoVolume(VolumeKey),
    #[error("nothing of volume {0} is in the trash of this node")]
    NotInTrash(VolumeKey),
    #[error("volume {volume} is in use by {}", list(.services))]
    InUse { volume: VolumeKey, services: Vec<ServiceKey> },
    #[error("this node has never written volume {0}")]
    NotWritten(VolumeKey),
    #[error("the node is stopping")]
    Stopping,
    #[error("cannot look for containers of the volume: {0}")]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Store(#[from] vc_volumes::Error),
}

fn list(services: &[ServiceKey]) -> String {
    services.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl From<VolumeError> for ApiError {
    fn from(error: VolumeError) -> Self {
        let message = error.to_string();
        let (code, hint) = match error {
            VolumeError::NoDocker | VolumeError::Starting | VolumeError::Stopping => {
                (ErrorCode::Unavailable, "try again, or use another node with --peer".to_owned())
            }
            VolumeError::NoVolume(_) => (ErrorCode::NotFound, "see 'vc volume ls'".to_owned()),
            VolumeError::NotInTrash(_) => {
                (ErrorCode::NotFound, "what is removed is kept for 24 h".to_owned())
            }
            VolumeError::InUse { services, .. } => {
                let scale = |it: &ServiceKey| format!("'vc scale {it}=0'");
                let commands: Vec<String> = services.iter().map(scale).collect();
                let hint = format!(
                    "stop it first with {}, and scale it up afterwards",
                    commands.join(", ")
                );
                (ErrorCode::FailedPrecondition, hint)
            }
            VolumeError::NotWritten(_) => {
                (ErrorCode::FailedPrecondition, "start its service once".to_owned())
            }
            VolumeError::Store(vc_volumes::Error::Missing { volume, .. }) => {
                let hint = format!(
                    "see 'vc volume snapshots {volume}' and 'vc volume conflicts {volume}'; 'vc volume move' takes the volume to \
                     the node that has it"
                );
                (ErrorCode::NotFound, hint)
            }
            VolumeError::Store(vc_volumes::Error::Exists { volume }) => {
                (ErrorCode::AlreadyExists, format!("remove it first: 'vc volume rm {volume}'"))
            }
            VolumeError::Docker(_) | VolumeError::Runtime(_) | VolumeError::Store(_) => {
                (ErrorCode::Internal, "see the log of the node".to_owned())
            }
        };
        Self::new(code, message).with_hint(hint)
    }
}

impl ControlService {
    /// Lists volumes and the nodes that hold their data.
    pub(super) fn volumes(&self, user: &User) -> Reply {
        Reply::Volumes(report::volumes(&self.cluster.view_of(user), clock::now()))
    }

    fn store(&self) -> Result<Store, VolumeError> {
        match self.runtime {
            Runtime::Docker(_) => self.volumes.store().ok_or(VolumeError::Starting),
            Runtime::Process(_) => Err(VolumeError::NoDocker),
        }
    }

    /// Lists what this node keeps of a volume.
    pub(super) async fn snapshots(&self, volume: VolumeKey) -> Result<Reply, ApiError> {
        let store = self.store()?;
        let node = self.cluster.membership().node;
        let node_name = self.cluster.latest().view.name(node);
        let rows = blocking(move || {
            let row = |kind, manifest: Manifest, time, expires| SnapshotRow {
                volume: volume.clone(),
                kind,
                snapshot: manifest.id.to_string(),
                node,
                node_name: node_name.clone(),
                time,
                files: manifest.files,
                bytes: manifest.bytes,
                expires,
            };
            let copy = store.volume(&volume);
            let mut rows = Vec::new();
            for manifest in copy.snapshots()? {
                let time = manifest.taken;
                rows.push(row(SnapshotKind::Snapshot, manifest, time, 0));
            }
            for conflict in copy.conflicts()? {
                let time = conflict.manifest.taken;
                rows.push(row(SnapshotKind::Conflict, conflict.manifest, time, conflict.expires));
            }
            for trashed in store.trashed()?.into_iter().filter(|it| it.key == volume) {
                if let Some(manifest) = trashed.newest {
                    rows.push(row(
                        SnapshotKind::Removed,
                        manifest,
                        trashed.removed,
                        trashed.expires,
                    ));
                }
            }
            Ok(rows)
        });
        Ok(Reply::Snapshots(rows.await?))
    }

    /// Makes the volume that this node wrote last equal to a snapshot, or to what is kept aside here.
    pub(super) async fn restore(
        &self,
        user: &User,
        volume: VolumeKey,
        id: SnapshotId,
        conflict: bool,
    ) -> Result<Reply, ApiError> {
        let snapshot = self.restored(&volume, id, conflict).await?;
        let from = match conflict {
            true => format!("conflict {id}"),
            false => format!("snapshot {id}"),
        };
        let change = Change::VolumeRestored { volume, from, snapshot: snapshot.to_string() };
        self.audit.record(AuditAction::VolumeRestored, user, None, change.to_string());
        Ok(Reply::Done(vec![change]))
    }

    async fn restored(
        &self,
        key: &VolumeKey,
        id: SnapshotId,
        conflict: bool,
    ) -> Result<SnapshotId, ApiError> {
        let (store, node) = (self.store()?, self.cluster.membership().node);
        let Runtime::Docker(docker) = &self.runtime else {
            return Err(VolumeError::NoDocker.into());
        };
        let view = self.cluster.latest().view;
        let row = report::volumes(&view, clock::now()).into_iter().find(|row| row.volume == *key);
        let row = row.ok_or_else(|| VolumeError::NoVolume(key.clone()))?;
        let place = VolumePlace::on(node, &vc_placement::volume_spec(&view.input, key));
        let users = docker.volume_users(key, &place).await.map_err(VolumeError::from)?;
        let wanted = row.services.iter().any(|service| view.cluster.replicas(service) > 0);
        if users > 0 || wanted {
            let (volume, services) = (key.clone(), row.services);
            return Err(VolumeError::InUse { volume, services }.into());
        }
        let volume = store.volume(key);
        let epoch = self.copy(&store, key).await?.written;
        let epoch = epoch.ok_or_else(|| VolumeError::NotWritten(key.clone()))?;
        let working = docker.volume_directory(key, &place).await.map_err(VolumeError::from)?;
        let source = if conflict { Source::Conflict(id) } else { Source::Snapshot(id) };
        let restored = volume.restore(source, &working, epoch, clock::now()).await;
        let restored = restored.map_err(VolumeError::from)?;
        let copy = self.copy(&store, key).await?;
        self.cluster.input(Input::Volume(key.clone(), copy)).await?;
        Ok(restored.id)
    }

    /// Takes what was removed last under a name out of the trash of this node.
    pub(super) async fn undelete(&self, user: &User, volume: VolumeKey) -> Result<Reply, ApiError> {
        let store = self.store()?;
        let (from, key) = (store.clone(), volume.clone());
        blocking(move || {
            let all = from.trashed()?.into_iter().filter(|it| it.key == key);
            let last = all.max_by_key(|it| it.removed);
            let removed = last.ok_or_else(|| VolumeError::NotInTrash(key.clone()))?.removed;
            Ok(from.undelete(&key, removed)?)
        })
        .await?;
        let copy = self.copy(&store, &volume).await?;
        self.cluster.input(Input::Volume(volume.clone(), copy)).await?;
        let node_name = self.cluster.latest().view.name(self.cluster.membership().node);
        let change = Change::VolumeUndeleted { volume, node_name };
        self.audit.record(AuditAction::VolumeUndeleted, user, None, change.to_string());
        Ok(Reply::Done(vec![change]))
    }

    async fn copy(&self, store: &Store, key: &VolumeKey) -> Result<VolumeCopy, ApiError> {
        let volume = store.volume(key);
        blocking(move || Ok(volume.copy()?)).await
    }
}

/// Runs what reads or writes small files.
async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => result.map_err(ApiError::from),
        Err(_) => Err(VolumeError::Stopping.into()),
    }
}
