//! Requests about projects.

use vc_engine::report;
use vc_protocol::control::Reply;

use super::ControlService;
use crate::auth::User;

impl ControlService {
    /// Lists the projects that a user may see, with their policies.
    pub(super) fn projects(&self, user: &User) -> Reply {
        Reply::Projects(report::projects(&self.cluster.view_of(user)))
    }
}
