//! Requests about nodes and the cluster as a whole.

use vc_engine::{report, voters};
use vc_protocol::control::Reply;

use super::reports::status;
use super::{ControlService, mask};
use crate::auth::User;
use crate::snapshot::Snapshot;

impl ControlService {
    /// Lists nodes.
    pub(super) fn nodes(&self) -> Reply {
        let Snapshot { view, vitals, .. } = self.cluster.latest();
        Reply::Nodes(report::nodes(&view, &vitals))
    }

    /// Lists the servers, and which of them are voters.
    pub(super) fn voters(&self) -> Reply {
        Reply::Voters(voters::report(&self.cluster.latest().view))
    }

    /// Summarises the cluster.
    pub(super) fn status(&self, user: &User) -> Reply {
        let (cluster, node) = (self.cluster.membership().cluster, self.cluster.membership().node);
        let snapshot = self.cluster.latest();
        let limited = user.rights.projects().map(|projects| snapshot.view.limited_to(projects));
        let mut status = status(&snapshot, limited.as_ref(), cluster, node);
        mask::status(&user.rights, &mut status);
        Reply::Status(status)
    }
}
