//! The events of the cluster, as this node has seen them: the last ones are kept on the disk, and readers follow them.

mod backfill;
mod file;
mod log;
mod server;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use vc_engine::events::between;
use vc_protocol::NodeId;

use crate::clock;
use crate::snapshot::Snapshot;
use backfill::{Backfill, is_repeated};
use file::EventFile;
use log::EventLog;
pub(crate) use log::Events;
pub(crate) use server::EventServer;

/// Time after the start for documents to arrive whose changes a server has told already.
const CATCH_UP: Duration = Duration::from_secs(10);

/// Records the events of this node. [`run`](Self::run) it as a task.
pub(crate) struct EventRecorder {
    pub(crate) node: NodeId,
    pub(crate) dir: PathBuf,
    pub(crate) snapshot: watch::Receiver<Snapshot>,
    pub(crate) log: watch::Sender<EventLog>,
    pub(crate) members: libp2p_stream::Control,
}

impl EventRecorder {
    /// Appends the differences between successive views to the log, until the driver ends. The log begins with what the disk
    /// has, and with what a server has seen meanwhile.
    pub(crate) async fn run(self) {
        let Self { node, dir, mut snapshot, log, members } = self;
        let catch_up = Instant::now() + CATCH_UP;
        let mut view = Arc::clone(&snapshot.borrow_and_update().view);
        let (mut file, kept) = EventFile::open(dir).await;
        let since = kept.last().map(|row| row.time);
        let before = kept.len();
        log.send_modify(|log| log.append(kept));
        let snapshots = snapshot.clone();
        let backfill = Backfill { node, snapshot: snapshots, members, since }.run();
        tokio::pin!(backfill);
        let (mut is_filled, mut missed) = (false, Vec::new());
        loop {
            tokio::select! {
                changed = snapshot.changed() => if changed.is_err() {
                    return;
                },
                rows = &mut backfill, if !is_filled => {
                    is_filled = true;
                    missed = backfill::merge(&log, before, rows);
                    let rows = log.borrow().rows();
                    file.replace(rows).await;
                    continue;
                }
            }
            let latest = Arc::clone(&snapshot.borrow_and_update().view);
            // Most snapshots differ in resource usage alone.
            if Arc::ptr_eq(&view, &latest) {
                continue;
            }
            let mut rows = between(&view, &latest, clock::now());
            view = latest;
            if Instant::now() < catch_up {
                rows.retain(|row| !is_repeated(row, &mut missed));
            }
            if !rows.is_empty() {
                file.append(&rows).await;
                log.send_modify(|log| log.append(rows));
            }
        }
    }
}
