//! Requests about nodes and the cluster as a whole.

use vc_engine::report;
use vc_protocol::control::Reply;

use super::ControlService;
use crate::snapshot::Snapshot;

impl ControlService {
    /// Lists nodes.
    pub(super) fn nodes(&self) -> Reply {
        let Snapshot { view, vitals, .. } = self.cluster.latest();
        Reply::Nodes(report::nodes(&view, &vitals))
    }

    /// Summarises the cluster.
    pub(super) fn status(&self) -> Reply {
        let Snapshot { view, vitals, .. } = self.cluster.latest();
        let (cluster, node) = (self.cluster.membership().cluster, self.cluster.membership().node);
        Reply::Status(report::status(&view, &vitals, cluster, node))
    }
}
