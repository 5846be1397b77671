//! The task that writes the records of a node: into its log, or to a server.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use vc_protocol::audit::AuditRow;

use super::log::{LogError, ServerLog};
use super::report::Reporter;
use super::{AuditQueue, Batch};
use crate::clock;
use crate::driver_message::DriverMessage;

/// Records that may wait while they cannot be written; the oldest are lost then, and counted.
const MAX_PENDING: usize = 4096;
/// Pause after a failure to write, and between looks for records that were suppressed.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Where the records of a node go.
pub(crate) enum Sink {
    /// Into the log in this directory. The number changes with each write.
    Log(PathBuf, watch::Sender<u64>),
    /// To a server.
    Server(Reporter),
}

/// Writes records. [`run`](Self::run) it as a task.
pub(crate) struct Recorder {
    pub(crate) queue: AuditQueue,
    pub(crate) sink: Sink,
    /// Gets the problem that the log cannot be written, and its end.
    pub(crate) driver: mpsc::Sender<DriverMessage>,
}

impl Recorder {
    /// Runs until the last handle is dropped. Records are made durable together, as many as wait.
    pub(crate) async fn run(self) {
        let Self { queue: AuditQueue { audit, mut batches }, mut sink, driver } = self;
        let (mut pending, mut lost, mut failing) = (VecDeque::new(), 0, false);
        let mut log = None;
        loop {
            let batch = tokio::select! {
                batch = batches.recv() => match batch {
                    Some(batch) => Some(batch),
                    None => return,
                },
                () = sleep(RETRY_INTERVAL) => None,
            };
            let mut flushed = Vec::new();
            let mut next = batch;
            while let Some(batch) = next {
                match batch {
                    Batch::Rows(rows) => pending.extend(rows),
                    Batch::Flush(done) => flushed.push(done),
                }
                next = if pending.len() < MAX_PENDING { batches.try_recv().ok() } else { None };
            }
            pending.extend(audit.suppressed());
            while pending.len() > MAX_PENDING {
                pending.pop_front();
                lost += 1;
            }
            if let Some(row) = audit.lost(std::mem::take(&mut lost)) {
                pending.push_back(row);
            }
            let rows: Vec<AuditRow> = pending.iter().cloned().collect();
            let written = match &mut sink {
                _ if rows.is_empty() => Ok(()),
                Sink::Log(dir, changed) => {
                    let of = (audit.0.node, audit.0.name.clone());
                    let written = append(&mut log, dir, of, rows).await;
                    changed.send_modify(|count| *count = count.wrapping_add(1));
                    written.map_err(|error| error.to_string())
                }
                Sink::Server(reporter) => {
                    reporter.send(rows).await.map_err(|error| error.to_string())
                }
            };
            match written {
                Ok(()) => {
                    pending.clear();
                    if std::mem::take(&mut failing) {
                        tracing::info!("audit records are written again");
                        let _ = driver.try_send(DriverMessage::AuditProblem(None));
                    }
                }
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(error, "cannot write audit records: retrying");
                    let _ = driver.try_send(DriverMessage::AuditProblem(Some(error)));
                }
                Err(_) => {}
            }
            for done in flushed {
                let _ = done.send(());
            }
        }
    }
}

/// Appends rows to the log, which is opened first.
async fn append(
    log: &mut Option<Arc<Mutex<ServerLog>>>,
    dir: &std::path::Path,
    (node, name): (vc_protocol::NodeId, String),
    rows: Vec<AuditRow>,
) -> Result<(), LogError> {
    let (open, dir) = (log.clone(), dir.to_owned());
    let written = tokio::task::spawn_blocking(move || {
        let open = match open {
            Some(open) => open,
            None => Arc::new(Mutex::new(ServerLog::open(&dir, (node, &name), clock::now())?)),
        };
        open.lock().unwrap_or_else(PoisonError::into_inner).append(&rows)?;
        Ok(open)
    });
    match written.await {
        Ok(Ok(open)) => {
            *log = Some(open);
            Ok(())
        }
        Ok(Err(error)) => Err(error),
        // The runtime is stopping.
        Err(_) => Ok(()),
    }
}
