//! The authenticated user behind a session.

use std::sync::Arc;

use vc_protocol::Millis;
use vc_protocol::change::Subject;
use vc_protocol::token::UserRole;
use vc_protocol::wire::MAX_FRAME;

use super::quota::Quota;

/// Largest frame accepted from a viewer, in bytes. A token's streams may each hold one incomplete frame.
const MAX_VIEWER_FRAME: usize = 256 * 1024;

/// The subject of a verified user token.
#[derive(Debug, Clone)]
pub(crate) struct User {
    /// Name in the token.
    pub(crate) name: String,
    /// Id of the token.
    pub(crate) token: String,
    /// The token's role.
    pub(crate) role: UserRole,
    /// When the token expires, in milliseconds since the Unix epoch.
    pub(crate) expires: Millis,
    /// Limits shared by all sessions that use the token.
    pub(crate) quota: Arc<Quota>,
}

impl User {
    /// Returns the largest frame accepted from this user, in bytes.
    pub(crate) fn max_frame(&self) -> usize {
        if self.role < UserRole::Deployer { MAX_VIEWER_FRAME } else { MAX_FRAME }
    }

    /// Returns the author that signed changes name.
    pub(crate) fn subject(&self) -> Subject {
        Subject { name: self.name.clone(), token_id: self.token.clone() }
    }
}
