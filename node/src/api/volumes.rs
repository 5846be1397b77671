//! Requests about named volumes.

use vc_engine::report;
use vc_protocol::control::Reply;

use super::ControlService;
use crate::auth::User;
use crate::clock;

impl ControlService {
    /// Lists volumes and the nodes that hold their data.
    pub(super) fn volumes(&self, user: &User) -> Reply {
        Reply::Volumes(report::volumes(&self.cluster.view_of(user), clock::now()))
    }
}
