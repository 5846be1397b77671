//! The driver's latest state, as other tasks see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use vc_crdt::View;
use vc_engine::Vitals;
use vc_protocol::NodeId;

/// The latest view of the documents and the volatile data beside it. Cheap to clone; published on a watch channel.
#[derive(Clone)]
pub struct Snapshot {
    /// The view of the documents.
    pub(crate) view: Arc<View>,
    /// Latest vitals by node, from gossip.
    pub(crate) vitals: Arc<BTreeMap<NodeId, Vitals>>,
    /// Whether this node has been removed from the cluster for good; it then stops.
    pub(crate) left: bool,
    /// Why this node has to stop: another process runs with its identity.
    pub(crate) duplicate: Option<Arc<str>>,
    /// Problem: why the audit records of this node are not kept.
    pub(crate) audit: Option<Arc<str>>,
    /// Problem: why the watchdog does not run while an instance needs it.
    pub(crate) watchdog: Option<Arc<str>>,
    /// Problems: other processes that ran with the identity of a node.
    pub(crate) duplicates: Arc<Vec<String>>,
}
