//! Requests about tokens.

use vc_crdt::TokenRecord;
use vc_engine::{Mutation, report};
use vc_protocol::control::{Reply, TokenRequest, TokenSubject};
use vc_protocol::token::{
    Issuer, MAX_TTL, Permits, Scope, TokenError, UserLimits, UserRole, Validity,
};
use vc_protocol::{ApiError, ErrorCode, Millis};

use super::ControlService;
use crate::auth::{Audience, User};

/// Shortest lifetime of a token: tokens count in seconds.
const MIN_TTL: Millis = 1000;

/// Most projects of a token, which has to fit into a frame of the handshake.
const MAX_PROJECTS: usize = 32;

/// Why a token was not issued.
#[derive(Debug, thiserror::Error)]
enum TokenRequestError {
    #[error("this node is a worker and cannot issue tokens")]
    Worker,
    #[error("a token's lifetime must be between 1 second and 10 years")]
    Lifetime,
    #[error(
        "an admin changes nodes and tokens, which belong to no project: the role cannot be limited to projects"
    )]
    LimitedAdmin,
    #[error("a token is limited to at least one project, and at most {MAX_PROJECTS}")]
    Projects,
    #[error("no node that is up has an address that browsers can dial")]
    NoBrowserAddress,
    #[error("cannot sign the token: {0}")]
    Sign(#[from] TokenError),
    #[error("cannot draw a token id: {0}")]
    Random(#[from] getrandom::Error),
}

impl From<TokenRequestError> for ApiError {
    fn from(error: TokenRequestError) -> Self {
        use TokenRequestError as E;
        let (code, hint) = match &error {
            E::Worker => (ErrorCode::FailedPrecondition, "use a server with --peer"),
            E::Lifetime => (ErrorCode::InvalidArgument, "choose another --ttl"),
            E::LimitedAdmin => {
                (ErrorCode::InvalidArgument, "use --role deployer, or leave --project out")
            }
            E::Projects => (ErrorCode::InvalidArgument, "name other projects with --project"),
            E::NoBrowserAddress => (ErrorCode::FailedPrecondition, "see 'vc nodes --addresses'"),
            E::Sign(_) | E::Random(_) => (ErrorCode::Internal, ""),
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

/// Checks that a user may have these limits.
fn check_limits(role: UserRole, limits: &UserLimits) -> Result<(), TokenRequestError> {
    match &limits.projects {
        Some(_) if role >= UserRole::Admin => Err(TokenRequestError::LimitedAdmin),
        Some(projects) if !(1..=MAX_PROJECTS).contains(&projects.len()) => {
            Err(TokenRequestError::Projects)
        }
        _ => Ok(()),
    }
}

impl ControlService {
    /// Issues a join token or a user token, once the cluster document lists it.
    pub(super) async fn create_token(
        &self,
        user: &User,
        request: &TokenRequest,
    ) -> Result<Reply, ApiError> {
        let (token, id, record) = self.issue_token(user, request)?;
        self.cluster.mutate(user, Mutation::IssueToken { id, record }).await?;
        Ok(Reply::Token(token))
    }

    fn issue_token(
        &self,
        user: &User,
        request: &TokenRequest,
    ) -> Result<(String, String, TokenRecord), TokenRequestError> {
        let membership = self.cluster.membership();
        if membership.root.is_none() {
            return Err(TokenRequestError::Worker);
        }
        if !(MIN_TTL..=MAX_TTL).contains(&request.ttl_ms) {
            return Err(TokenRequestError::Lifetime);
        }
        let (permits, name, audience) = match &request.subject {
            TokenSubject::Node { name, role } => {
                (Permits::from(Scope::Join(*role)), name, Audience::Node)
            }
            TokenSubject::User { name, role, limits } => {
                check_limits(*role, limits)?;
                let audience = if request.browser { Audience::Browser } else { Audience::User };
                (Permits { scope: Scope::User(*role), limits: limits.clone() }, name, audience)
            }
        };
        let peers = self.cluster.peer_addresses(audience);
        if audience == Audience::Browser && peers.is_empty() {
            return Err(TokenRequestError::NoBrowserAddress);
        }
        let id = getrandom::u64()?;
        let certificate = membership.credentials.certificate();
        let issuer =
            Issuer { cluster: membership.cluster, key: &membership.key, certificate: &certificate };
        let issued = crate::clock::now();
        let uses =
            matches!(permits.scope, Scope::Join(_)).then(|| request.uses.unwrap_or(1).max(1));
        let validity = Validity { ttl: request.ttl_ms, uses };
        let token = issuer.issue(permits.clone(), name.as_str(), peers, id, issued, validity)?;
        let id = format!("{id:016x}");
        let Permits { scope, limits } = permits;
        let record = TokenRecord {
            name: name.to_string(),
            scope,
            limits,
            issued_by: user.name.clone(),
            issued,
            expires: issued.saturating_add(request.ttl_ms),
            uses,
        };
        tracing::info!(
            user = user.name,
            id,
            kind = scope.kind(),
            subject = name.as_str(),
            "token issued"
        );
        Ok((token, id, record))
    }

    /// Lists the tokens that have not expired.
    pub(super) fn tokens(&self) -> Reply {
        let view = self.cluster.latest().view;
        Reply::Tokens(report::tokens(&view, crate::clock::now()))
    }
}
