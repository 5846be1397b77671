//! Getting snapshots from other nodes.

use tokio::sync::watch;
use tokio::time::Instant;
use vc_engine::Input;
use vc_protocol::NodeId;
use vc_protocol::volume::{SnapshotId, VolumeCopy};

use super::CopyTask;
use crate::driver_message::DriverMessage;
use crate::volumes::error::CopyError;
use crate::volumes::transfer;

/// How often at most the progress of the first transfer of a volume is reported.
const PROGRESS_STEPS: u64 = 20;
/// The least that has to arrive in between, in bytes: what is there in a moment needs no progress.
const MIN_PROGRESS: u64 = 16 << 20;

impl CopyTask {
    /// Gets a snapshot, or a later one, from one of these nodes. Returns its id. Of the first one of a `copy`, reports how much
    /// has arrived.
    pub(super) async fn fetch(
        &mut self,
        copy: &VolumeCopy,
        id: SnapshotId,
        sources: &[NodeId],
    ) -> Result<SnapshotId, CopyError> {
        let (arrived, mut steps) = watch::channel(0);
        if copy.snapshot.is_none() {
            // What is reported meanwhile is not what was reported last.
            self.reported = None;
        }
        let report = async {
            while copy.snapshot.is_none() && steps.changed().await.is_ok() {
                let received = *steps.borrow_and_update();
                let copy = VolumeCopy { received, error: self.problem.clone(), ..copy.clone() };
                let input = Input::Volume(self.volume.key().clone(), copy);
                if self.context.driver.send(DriverMessage::Input(input)).await.is_err() {
                    break;
                }
            }
            std::future::pending().await
        };
        let progress = |received, total| {
            let step = progress_step(received, total);
            arrived.send_if_modified(|last| std::mem::replace(last, step) != step);
        };
        tokio::select! {
            fetched = self.fetch_from(id, sources, progress) => fetched,
            never = report => never,
        }
    }

    async fn fetch_from(
        &self,
        id: SnapshotId,
        sources: &[NodeId],
        progress: impl Fn(u64, u64) + Send + Sync,
    ) -> Result<SnapshotId, CopyError> {
        // The semaphore is never closed.
        let _permit = self.context.transfers.acquire().await;
        // Each node begins with the next one after itself, so that they share the requests.
        let (before, after): (Vec<NodeId>, Vec<NodeId>) =
            sources.iter().partition(|source| **source < self.context.node);
        let mut failed = CopyError::NoSource(id);
        for source in after.into_iter().chain(before) {
            let node = self.context.snapshot.borrow().view.name(source);
            let started = Instant::now();
            let members = self.context.members.clone();
            let (volume, volumes) = (&self.volume, &self.context.volumes);
            match transfer::fetch(members, source, volume, id, volumes, &progress).await {
                Ok(got) => {
                    let (volume, elapsed) = (self.volume.key(), started.elapsed());
                    tracing::debug!(%volume, snapshot = %got, node, ?elapsed, "snapshot received");
                    return Ok(got);
                }
                Err(source) => failed = CopyError::Transfer { id, node, source },
            }
        }
        Err(failed)
    }
}

/// Returns how much has arrived of a snapshot of `total` bytes, in steps: each one is a change of the node's document.
fn progress_step(received: u64, total: u64) -> u64 {
    let step = (total / PROGRESS_STEPS).max(MIN_PROGRESS);
    // Lists and sums are sent, too.
    received.min(total) / step * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_reported_in_few_steps_and_ends_at_the_size() {
        let total = 2_000_000_007;
        let steps: std::collections::BTreeSet<u64> =
            (0..=17_000).map(|chunk| progress_step(chunk * 128 * 1024, total)).collect();
        assert_eq!(steps.len(), 21, "{steps:?}");
        assert!(steps.last().is_some_and(|last| total - last < 20));
        assert_eq!(progress_step(40 << 20, 100 << 20), 32 << 20);
        assert_eq!((progress_step(300, 10), progress_step(300, 0)), (0, 0), "a small volume");
    }
}
