//! Requests about named volumes, and about what this node keeps of them.

use std::sync::Arc;

use vc_crdt::View;
use vc_engine::{Input, WallClocks, find_node, report};
use vc_placement::Node;
use vc_protocol::audit::AuditAction;
use vc_protocol::control::{Change, Reply, Request, SnapshotKind, SnapshotRow, VolumeRow};
use vc_protocol::node::RuntimeKind;
use vc_protocol::volume::{SnapshotId, VolumeCopy};
use vc_protocol::{ApiError, InstanceId, Millis, NodeId, VolumeKey};
use vc_runtime::Runtime;
use vc_runtime::docker::VolumePlace;
use vc_volumes::{Manifest, Source, Store};

use super::ControlService;
use super::volume_error::VolumeError;
use crate::auth::User;
use crate::clock;
use crate::snapshot::Snapshot;
use crate::volumes::pause_writers;

impl ControlService {
    /// Lists volumes and the nodes that hold their data.
    pub(super) fn volumes(&self, user: &User) -> Reply {
        let vitals = self.cluster.latest().vitals;
        let clocks = WallClocks { now: clock::now(), vitals: &vitals };
        Reply::Volumes(report::volumes(&self.cluster.view_of(user), clocks))
    }

    /// Returns the latest view, and a volume in it. Errors: there is no such volume.
    pub(super) fn volume(&self, key: &VolumeKey) -> Result<(Arc<View>, VolumeRow), VolumeError> {
        let Snapshot { view, vitals, .. } = self.cluster.latest();
        let clocks = WallClocks { now: clock::now(), vitals: &vitals };
        let row = report::volumes(&view, clocks).into_iter().find(|row| row.volume == *key);
        let row = row.ok_or_else(|| VolumeError::NoVolume(key.clone()))?;
        Ok((view, row))
    }

    /// Returns the node that performs a request about one copy of a volume, if that is another one.
    pub(super) fn volume_node(&self, request: &mut Request) -> Result<Option<NodeId>, ApiError> {
        let view = self.cluster.latest().view;
        let own = self.cluster.membership().node;
        let node = match request {
            Request::DiskUsage { node }
            | Request::NodeProgram { node }
            | Request::UpgradeNode { node, .. }
            | Request::Snapshots { node, .. }
            | Request::UndeleteVolume { node, .. }
            | Request::ExportVolume { node, .. }
            | Request::CloneVolume { node, .. } => *node,
            Request::StagedUpload { node, .. } => *node,
            Request::UploadVolume { upload: Some(upload), .. } => upload.node,
            Request::RestoreVolume { volume, .. }
            | Request::ReplaceVolume { volume, .. }
            | Request::VolumeFiles { volume }
            | Request::CopyIntoVolume { volume, .. }
            | Request::SnapshotVolume { volume } => *view.input.volumes.get(volume).unwrap_or(&own),
            Request::AdoptVolume { node, .. } | Request::ImportVolume { node: Some(node), .. } => {
                find_node(&view, node)?
            }
            Request::ImportVolume { node, .. } => {
                let chosen = new_home(&view, own).ok_or(VolumeError::NoNode)?;
                *node = Some(chosen.to_string());
                chosen
            }
            _ => return Ok(None),
        };
        Ok(Some(node).filter(|it| *it != own))
    }

    pub(super) fn store(&self) -> Result<Store, VolumeError> {
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
                        trashed.decided,
                        // Zero, as of snapshots, where it is kept.
                        if trashed.expires == Millis::MAX { 0 } else { trashed.expires },
                    ));
                }
            }
            Ok(rows)
        });
        Ok(Reply::Snapshots(rows.await?))
    }

    /// Takes a snapshot of the volume that this node writes, or wrote last, unless one has all of it.
    pub(super) async fn snapshot_volume(
        &self,
        user: &User,
        key: VolumeKey,
    ) -> Result<Reply, ApiError> {
        let (store, node) = (self.store()?, self.cluster.membership().node);
        let Runtime::Docker(docker) = &self.runtime else {
            return Err(VolumeError::NoDocker.into());
        };
        let view = self.cluster.latest().view;
        if !view.input.volumes.contains_key(&key) {
            return Err(VolumeError::NoVolume(key).into());
        }
        let copy = self.copy(&store, &key).await?;
        let snapshot = match copy.snapshot.filter(|_| copy.closed || copy.written.is_none()) {
            Some(id) => id,
            None => {
                let epoch = copy.written.ok_or_else(|| VolumeError::NotWritten(key.clone()))?;
                let spec = vc_placement::volume_spec(&view.input, &key);
                let place = VolumePlace::on(node, &spec);
                let directory = docker.volume_directory(&key, &place).await;
                let working = directory.map_err(VolumeError::from)?;
                let writer = writer(&view, node, &key);
                let pause = pause_writers(docker.clone(), key.clone(), place, spec.hooks, writer);
                let volume = store.volume(&key);
                let taken = volume.snapshot(&working, epoch, clock::now(), &pause).await;
                let id = taken.map_err(VolumeError::from)?.manifest().id;
                volume.prune(spec.keep, clock::now()).await.map_err(VolumeError::from)?;
                self.report_snapshot(&store, &key).await?;
                id
            }
        };
        let (snapshot, node_name) = (snapshot.to_string(), view.name(node));
        let change = Change::SnapshotTaken { volume: key, snapshot, node_name };
        self.audit.record(AuditAction::SnapshotTaken, user, None, change.to_string());
        Ok(Reply::Done(vec![change]))
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
        let (view, row) = self.volume(key)?;
        let place = VolumePlace::on(node, &vc_placement::volume_spec(&view.input, key));
        let users = docker.volume_users(key, &place).await.map_err(VolumeError::from)?;
        let wanted = row.services.iter().any(|service| view.replicas(service) > 0);
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
        self.report_snapshot(&store, key).await?;
        Ok(restored.id)
    }

    /// Says in the document of this node that its copy has a new snapshot, with all that was written. What else the document says
    /// of it is the copy's task to say.
    pub(super) async fn report_snapshot(
        &self,
        store: &Store,
        key: &VolumeKey,
    ) -> Result<(), ApiError> {
        let view = self.cluster.latest().view;
        let said = view.nodes.get(&self.cluster.membership().node).and_then(|it| it.copy(key));
        let error = said.and_then(|copy| copy.error.clone());
        let copy = VolumeCopy { unchanged: true, error, ..self.copy(store, key).await? };
        self.cluster.input(Input::Volume(key.clone(), copy)).await
    }

    /// Takes what was removed last under a name out of the trash of this node.
    pub(super) async fn undelete(&self, user: &User, volume: VolumeKey) -> Result<Reply, ApiError> {
        let store = self.store()?;
        let (from, key) = (store.clone(), volume.clone());
        blocking(move || {
            let all = from.trashed()?.into_iter().filter(|it| it.key == key);
            // The copies of one removal have one time, and not all have what was written last.
            let last =
                all.max_by_key(|it| (it.decided, it.newest.as_ref().map(|newest| newest.id)));
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

    pub(super) async fn copy(
        &self,
        store: &Store,
        key: &VolumeKey,
    ) -> Result<VolumeCopy, ApiError> {
        let volume = store.volume(key);
        blocking(move || Ok(volume.copy()?)).await
    }
}

/// Returns an instance of a node that writes a volume.
fn writer(view: &View, node: NodeId, key: &VolumeKey) -> Option<InstanceId> {
    let mut running =
        view.nodes.get(&node)?.claims.iter().filter(|(_, claim)| claim.state.is_running());
    let writes = |id: &InstanceId| {
        let of_project = id.slot.service.project == key.project;
        let spec = view.spec(&id.slot.service).filter(|_| of_project);
        spec.is_some_and(|spec| spec.written_volumes().any(|it| *it == key.volume))
    };
    running.find(|(id, _)| writes(id)).map(|(id, _)| id.clone())
}

/// Returns a node that can have a new volume, `own` if it can.
fn new_home(view: &View, own: NodeId) -> Option<NodeId> {
    let can = |(_, node): &(&NodeId, &Node)| {
        let docker = node.runtime == RuntimeKind::Docker;
        docker && node.up && !node.draining && node.runtime_error.is_none()
    };
    let nodes = view.input.nodes.iter().filter(can);
    nodes.map(|(node, _)| *node).min_by_key(|node| (*node != own, *node))
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
