//! The handle to the process runtime.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use vc_engine::runtime::{RuntimeAction, RuntimeEvent};
use vc_protocol::Slot;

use super::children::Children;
use crate::drain::Drain;
use crate::error::RuntimeError;
use crate::identity::Identity;
use crate::instance_queue::{self, MAX_PENDING_ACTIONS};
use crate::log::{LogLines, LogQuery};
use crate::watchdog::Watchdog;

/// The settings of the process runtime.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's data directory; instances are in its subdirectory `instances`.
    pub dir: PathBuf,
}

/// A handle to the process runtime.
#[derive(Debug, Clone)]
pub struct Process {
    actions: mpsc::Sender<RuntimeAction>,
    children: Arc<Children>,
}

impl Process {
    pub(crate) fn start(
        config: Config,
        identity: Identity,
        drain: Arc<dyn Drain>,
        watchdog: Watchdog,
        events: mpsc::Sender<RuntimeEvent>,
    ) -> Self {
        let (reporter, receiver) = instance_queue::channel();
        let (actions, waiting) = mpsc::channel(MAX_PENDING_ACTIONS);
        let dir = std::path::absolute(&config.dir).unwrap_or(config.dir).join("instances");
        let children = Children::new(dir, identity, reporter, watchdog);
        let this = children.clone();
        let dropped = children.dropped.clone().drop_guard();
        tokio::spawn(async move {
            let _dropped = dropped;
            // Before any action, so that nothing is started twice.
            let adopted = this.adopt_all().await;
            tokio::select! {
                () = instance_queue::run(this.clone(), drain, receiver, waiting, events) => {}
                () = this.maintain(adopted) => {}
            }
        });
        Self { actions, children: Arc::new(children) }
    }

    pub(crate) fn actions(&self) -> &mpsc::Sender<RuntimeAction> {
        &self.actions
    }

    pub(crate) async fn logs(
        &self,
        slot: &Slot,
        query: LogQuery,
    ) -> Result<LogLines, RuntimeError> {
        self.children.logs(slot, query).await
    }
}
