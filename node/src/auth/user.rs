//! The authenticated user behind a session.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use libp2p::PeerId;
use tokio::sync::watch;
use vc_crdt::View;
use vc_protocol::change::Subject;
use vc_protocol::token::{
    NodeRole, Scope, SigningKey, TokenError, UserRole, Verified, decode_unverified, verify_chain,
};
use vc_protocol::wire::MAX_FRAME;
use vc_protocol::{ApiError, ClusterId, ErrorCode, Millis, NodeId, ServiceKey};

use super::quota::Quota;
use super::rights::Rights;
use crate::audit::{Audit, Origin};
use crate::snapshot::Snapshot;

/// Largest frame accepted from a viewer, in bytes. A token's streams may each hold one incomplete frame.
const MAX_VIEWER_FRAME: usize = 256 * 1024;

/// What a user token says, verified.
pub(crate) struct Grant {
    /// Name in the token.
    pub(crate) name: String,
    /// Id of the token.
    pub(crate) token: String,
    /// What it permits.
    pub(crate) rights: Rights,
    /// The node that issued it.
    pub(crate) issuer: NodeId,
    /// The signing key of that node's certificate in the token.
    pub(crate) signing: SigningKey,
    /// When it was issued, in milliseconds since the Unix epoch.
    pub(crate) issued: Millis,
    /// When it expires, in milliseconds since the Unix epoch.
    pub(crate) expires: Millis,
}

impl Grant {
    /// Returns whose token it is.
    pub(crate) fn origin(&self) -> Origin {
        let (user, token) = (Some(self.name.clone()), Some(self.token.clone()));
        Origin { user, token, ..Origin::default() }
    }
}

/// Why a token was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The tokens of a node that was removed end with its membership.
    #[error("the token was issued by {0}, which was removed from the cluster: ask for a new one")]
    RemovedIssuer(NodeId),
    /// A server that was removed knows the signing key of its time, and can make up servers that issue tokens.
    #[error(
        "the token was issued by {0}, which is no server of the cluster since the signing key was rotated: ask for a new one"
    )]
    UnknownIssuer(NodeId),
    #[error("the token was revoked: ask for a new one")]
    Revoked,
}

impl VerifyError {
    /// Returns whose token was refused, if its signature says so.
    pub(crate) fn origin(&self, token: &str) -> Origin {
        let is_signed = match self {
            Self::RemovedIssuer(_) | Self::Revoked => true,
            // Whoever made that issuer up has also made up the name.
            Self::UnknownIssuer(_) => false,
            Self::Token(error) => matches!(
                error,
                TokenError::Expired | TokenError::NotYetValid | TokenError::WrongScope { .. }
            ),
        };
        let claims = is_signed.then(|| decode_unverified(token).ok()).flatten();
        let (user, token) = claims.map(|claims| (claims.sub, claims.jti)).unzip();
        Origin { user, token, ..Origin::default() }
    }
}

/// Verifies tokens against the cluster's root and the latest view. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TokenVerifier {
    pub(crate) cluster: ClusterId,
    pub(crate) snapshot: watch::Receiver<Snapshot>,
    /// Records requests of members that are refused.
    pub(crate) audit: Audit,
}

impl TokenVerifier {
    /// Verifies a token of any kind.
    pub(crate) fn claims(&self, token: &str) -> Result<Verified, VerifyError> {
        let verified = verify_chain(token, self.cluster, crate::clock::now())?;
        let Verified { claims, signing } = &verified;
        let issued = claims.iat.saturating_mul(1000);
        let view = &self.snapshot.borrow().view;
        check_revocation(view, (claims.iss, *signing), &claims.jti, &claims.sub, issued)?;
        Ok(verified)
    }

    /// Returns whether a node was removed from the cluster.
    pub(crate) fn is_removed(&self, node: NodeId) -> bool {
        self.snapshot.borrow().view.left.contains_key(&node)
    }

    /// Verifies a user token.
    pub(crate) fn user(&self, token: &str) -> Result<Grant, VerifyError> {
        let Verified { claims, signing } = self.claims(token)?;
        let Scope::User(role) = claims.scope else {
            let (found, wanted) = (claims.scope.kind(), "user");
            return Err(TokenError::WrongScope { found, wanted }.into());
        };
        let [issued, expires] =
            [claims.iat, claims.exp.unwrap_or(0)].map(|seconds| seconds.saturating_mul(1000));
        let (name, token, issuer) = (claims.sub, claims.jti, claims.iss);
        let rights = Rights { name: name.clone(), role, limits: claims.limits };
        Ok(Grant { name, token, rights, issuer, signing, issued, expires })
    }

    /// Returns the name of a node.
    pub(crate) fn name(&self, node: NodeId) -> String {
        self.snapshot.borrow().view.name(node)
    }

    /// Returns whether a node is a server.
    pub(crate) fn is_server(&self, node: NodeId) -> bool {
        self.snapshot.borrow().view.servers.contains(&node)
    }

    /// Verifies the token that another member sends with the request of a user, and that the user may make it.
    pub(crate) fn delegated<E: Into<ApiError>>(
        &self,
        peer: PeerId,
        token: &str,
        may: impl FnOnce(&Rights) -> Result<(), E>,
    ) -> Result<Grant, ApiError> {
        let via = NodeId::try_from(peer).ok();
        let refused = |origin: Origin, error: ApiError| {
            self.audit.refused(Origin { via, ..origin }, &error.message);
            tracing::warn!(%peer, %error, "refused the request of a member for a user");
            error
        };
        let grant = self.user(token).map_err(|error| {
            let message = ApiError::new(ErrorCode::PermissionDenied, error.to_string());
            refused(error.origin(token), message)
        })?;
        may(&grant.rights).map_err(|error| refused(grant.origin(), error.into()))?;
        Ok(grant)
    }
}

/// Errors: the cluster refuses a token, although it is signed and has not expired. `issued` in milliseconds since the Unix
/// epoch.
fn check_revocation(
    view: &View,
    (issuer, signing): (NodeId, SigningKey),
    id: &str,
    user: &str,
    issued: Millis,
) -> Result<(), VerifyError> {
    if view.left.contains_key(&issuer) {
        return Err(VerifyError::RemovedIssuer(issuer));
    }
    // A server that joined a moment ago may not be known here, and tokens outlive the certificates of their issuers.
    let is_server = view.trust.members.get(&issuer) == Some(&NodeRole::Server);
    if !is_server && view.trust.signing.is_some_and(|present| present.key != signing.key) {
        return Err(VerifyError::UnknownIssuer(issuer));
    }
    match view.cluster.is_revoked(id, user, issued) {
        true => Err(VerifyError::Revoked),
        false => Ok(()),
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
    /// What the token permits.
    pub(crate) rights: Rights,
    /// The node that issued the token.
    pub(crate) issuer: NodeId,
    /// The signing key of that node's certificate in the token.
    pub(crate) signing: SigningKey,
    /// When the token was issued, in milliseconds since the Unix epoch.
    pub(crate) issued: Millis,
    /// When the token expires, in milliseconds since the Unix epoch.
    pub(crate) expires: Millis,
    /// IP address of the client.
    pub(crate) address: Option<String>,
    /// The worker that passes on its request, and says what the address is.
    pub(crate) via: Option<NodeId>,
    /// Services that the session has sent HTTP requests to.
    pub(crate) opened: Arc<Mutex<BTreeSet<ServiceKey>>>,
    /// Limits shared by all sessions that use the token.
    pub(crate) quota: Arc<Quota>,
}

impl User {
    /// Returns the largest frame accepted from this user, in bytes.
    pub(crate) fn max_frame(&self) -> usize {
        if self.rights.role < UserRole::Deployer { MAX_VIEWER_FRAME } else { MAX_FRAME }
    }

    /// Returns whether the cluster refuses the token now, although it was accepted and has not expired.
    pub(crate) fn is_revoked(&self, view: &View) -> bool {
        check_revocation(view, (self.issuer, self.signing), &self.token, &self.name, self.issued)
            .is_err()
    }

    /// Returns the IP address of the client.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.address.as_deref()?.parse().ok()
    }

    /// Returns the author that signed changes name.
    pub(crate) fn subject(&self) -> Subject {
        Subject {
            name: self.name.clone(),
            token_id: self.token.clone(),
            address: self.address.clone(),
        }
    }
}
