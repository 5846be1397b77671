//! The copies of volumes on this node: carries out what the engine decides about them.
//!
//! A task for each copy ([`CopyTask`](copy::CopyTask)) follows the latest [`VolumeTask`] of the engine, and reports what the copy is to the driver,
//! which never waits for it. The content is `vc_volumes`' matter, on this node and over a stream to another ([`transfer`]).

mod copy;
mod error;
mod metered;
mod metrics;
mod pause;
mod place;
mod schedule;
mod supervisor;
mod transfer;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use vc_engine::volumes::VolumeTask;
use vc_protocol::{Millis, VolumeKey};
use vc_volumes::Store;

use crate::bandwidth::Bandwidth;
use metered::Metered;
#[cfg(test)]
pub(crate) use metrics::Operation;
pub(crate) use metrics::VolumeMetrics;
pub(crate) use pause::pause_writers;
pub(crate) use place::find;
pub(crate) use supervisor::Supervisor;
pub(crate) use transfer::VolumeServer;

/// The copies of this node. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Volumes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    wanted: Mutex<Wanted>,
    changed: Notify,
    /// Set once it is open.
    store: watch::Sender<Option<Store>>,
    metrics: VolumeMetrics,
    bandwidth: Bandwidth,
}

/// What becomes of a copy that this node is not to have any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Removal {
    how: How,
    /// When it was removed from the cluster, or forgotten; `None`: others keep it.
    decided: Option<Millis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Its snapshots go to the trash, and the volume in Docker is deleted.
    Remove,
    /// Its snapshots stay in the trash, and the volume stays in Docker.
    Forget,
}

/// What the driver has said, and the supervisor not done yet.
#[derive(Debug, Default)]
struct Wanted {
    tasks: Option<BTreeMap<VolumeKey, VolumeTask>>,
    removed: BTreeMap<VolumeKey, Removal>,
}

impl Volumes {
    /// Returns those of a node that sends with this bandwidth.
    pub(crate) fn new(bandwidth: Bandwidth) -> Self {
        let (store, _) = watch::channel(None);
        let metrics = VolumeMetrics::new();
        Self(Arc::new(Shared {
            wanted: Mutex::default(),
            changed: Notify::new(),
            store,
            metrics,
            bandwidth,
        }))
    }

    /// Sets what to do with each copy. Never waits.
    pub(crate) fn keep(&self, tasks: BTreeMap<VolumeKey, VolumeTask>) {
        self.change(|wanted| wanted.tasks = Some(tasks));
    }

    /// Removes a copy: what it has goes to the trash. Never waits.
    pub(crate) fn remove(&self, volume: VolumeKey, decided: Option<Millis>) {
        self.change(|wanted| {
            wanted.removed.insert(volume, Removal { how: How::Remove, decided });
        });
    }

    /// Keeps what a copy has aside, and does not delete it. Never waits.
    pub(crate) fn forget(&self, volume: VolumeKey, decided: Millis) {
        self.change(|wanted| {
            wanted.removed.insert(volume, Removal { how: How::Forget, decided: Some(decided) });
        });
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.notify_one();
    }

    fn take(&self) -> Wanted {
        std::mem::take(&mut self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns what is counted about the copies.
    pub(crate) fn metrics(&self) -> &VolumeMetrics {
        &self.0.metrics
    }

    /// Counts and limits what goes over a stream to another node for a volume.
    fn metered<S>(&self, volume: &VolumeKey, stream: S) -> Metered<S> {
        Metered::new(stream, self.0.metrics.traffic(volume), self.0.bandwidth.clone())
    }

    /// Returns the store, if it is open.
    pub(crate) fn store(&self) -> Option<Store> {
        self.0.store.borrow().clone()
    }
}
