//! The driver's latest state, as other tasks see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use vc_crdt::View;
use vc_engine::{Problem, Vitals, report};
use vc_protocol::alert::ProblemKind;
use vc_protocol::control::StatusReport;
use vc_protocol::node::NodeProblem;
use vc_protocol::{ClusterId, NodeId};

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
}

impl Snapshot {
    /// Adds the problems that this process, `node`, alone sees, where its document does not have them.
    pub(crate) fn add_own_problems(
        &self,
        node: NodeId,
        cluster: ClusterId,
        status: &mut StatusReport,
    ) {
        let own = self.own_problems(node);
        let own = own.iter().map(|problem| Problem::of_process(&self.view, problem));
        report::add_problems(status, cluster, own);
    }

    /// Returns the problems of this process, `node`, as its document has them; or may not have them, as its disk fails.
    pub(crate) fn own_problems(&self, node: NodeId) -> Vec<NodeProblem> {
        let name = self.view.name(node);
        let audit = self.audit.iter().map(|why| NodeProblem {
            kind: ProblemKind::Audit,
            node,
            text: format!("audit records of node {name} are not kept: {why}"),
        });
        let watchdog = self.watchdog.iter().map(|why| NodeProblem {
            kind: ProblemKind::Watchdog,
            node,
            text: format!(
                "the watchdog of node {name} does not run: {why}; it starts no exclusive service until it does"
            ),
        });
        audit.chain(watchdog).collect()
    }
}
