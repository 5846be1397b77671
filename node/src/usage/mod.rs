//! What instances use. Each node measures its own at an interval and keeps the last values in memory; the node that shows those of
//! the cluster asks the others. They are in no document, and decide nothing.

mod gather;
mod sampler;
mod series;
mod server;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use vc_protocol::NodeId;
use vc_protocol::control::UsageRow;

pub(crate) use sampler::Sampler;
pub(crate) use server::UsageServer;

/// Returns what instances use. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Usages {
    node: NodeId,
    latest: watch::Sender<Arc<Vec<UsageRow>>>,
    /// When these values were last asked for.
    asked: watch::Sender<Option<Instant>>,
    members: libp2p_stream::Control,
}

impl Usages {
    /// Returns the values of a node, which a [`Sampler`] measures, and those of the members.
    pub(crate) fn new(node: NodeId, members: libp2p_stream::Control) -> Self {
        let (latest, asked) = (watch::Sender::default(), watch::Sender::default());
        Self { node, latest, asked, members }
    }

    /// Returns the last values of this node's instances, without names of nodes.
    pub(crate) fn own(&self) -> Arc<Vec<UsageRow>> {
        Arc::clone(&self.latest.borrow())
    }

    /// As [`Self::own`]; the next values are measured sooner.
    fn ask_own(&self) -> Arc<Vec<UsageRow>> {
        self.asked.send_replace(Some(Instant::now()));
        self.own()
    }
}
