//! The authenticated user behind a session.

use std::sync::Arc;

use vc_protocol::change::Subject;
use vc_protocol::token::{Scope, TokenError, UserRole, verify};
use vc_protocol::wire::MAX_FRAME;
use vc_protocol::{ApiError, ClusterId, ErrorCode, Millis};

use super::quota::Quota;

/// Largest frame accepted from a viewer, in bytes. A token's streams may each hold one incomplete frame.
const MAX_VIEWER_FRAME: usize = 256 * 1024;

/// What a user token says, verified.
pub(crate) struct Grant {
    /// Name in the token.
    pub(crate) name: String,
    /// Id of the token.
    pub(crate) token: String,
    /// The token's role.
    pub(crate) role: UserRole,
    /// When the token expires, in milliseconds since the Unix epoch.
    pub(crate) expires: Millis,
}

impl Grant {
    /// Verifies a user token.
    pub(crate) fn verify(token: &str, cluster: ClusterId) -> Result<Self, TokenError> {
        let claims = verify(token, cluster, crate::clock::now())?;
        let Scope::User(role) = claims.scope else {
            return Err(TokenError::WrongScope { found: claims.scope.kind(), wanted: "user" });
        };
        let expires = claims.exp.unwrap_or(0).saturating_mul(1000);
        Ok(Self { name: claims.sub, token: claims.jti, role, expires })
    }

    /// Verifies the token that another member sends with the request of a user, which needs a role.
    pub(crate) fn verify_delegated(
        token: &str,
        cluster: ClusterId,
        needs: UserRole,
    ) -> Result<Self, ApiError> {
        let refused = |message: String| ApiError::new(ErrorCode::PermissionDenied, message);
        let grant = Self::verify(token, cluster).map_err(|error| refused(error.to_string()))?;
        if grant.role < needs {
            let (name, role) = (&grant.name, grant.role.as_str());
            let needs = needs.as_str();
            return Err(refused(format!("'{name}' has the role {role}, and this needs {needs}")));
        }
        Ok(grant)
    }
}

/// The subject of a verified user token.
#[derive(Debug, Clone)]
pub(crate) struct User {
    /// Name in the token.
    pub(crate) name: String,
    /// Id of the token.
    pub(crate) token: String,
    /// The token itself, for the members that perform requests of the user.
    pub(crate) credential: Arc<str>,
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
