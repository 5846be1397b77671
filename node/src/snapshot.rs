//! The driver's latest state, as other tasks see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use vc_crdt::View;
use vc_engine::{Problem, Vitals};
use vc_protocol::NodeId;
use vc_protocol::alert::ProblemKind;

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

impl Snapshot {
    /// Returns the problems of this process, `node`, which no document has.
    pub(crate) fn own_problems(&self, node: NodeId) -> Vec<Problem> {
        let problem =
            |kind, text: &str| Problem::new(kind, text.to_owned()).of_node(&self.view, node);
        let duplicates = self.duplicates.iter().zip(0..).map(|(text, number): (_, u32)| {
            // The text names the node that has two.
            let problem = Problem::new(ProblemKind::Duplicate, text.clone());
            problem.with("number", number.to_string())
        });
        let audit = self.audit.iter().map(|text| problem(ProblemKind::Audit, text));
        let watchdog = self.watchdog.iter().map(|text| problem(ProblemKind::Watchdog, text));
        duplicates.chain(audit).chain(watchdog).collect()
    }
}
