//! Credentials: JSON Web Tokens (RFC 7519) signed with Ed25519 (RFC 8037).
//!
//! The cluster's id is its root public key. The *signing key*, which is the root key until it is rotated, signs a
//! *certificate* for each member, bound to the member's peer id: not secret, and verifiable offline with the cluster's id. A
//! later signing key is endorsed by the root, and its certificates include the endorsement. A server signs *tokens* (for
//! joining nodes and for users) with its own key and includes its certificate, so that the chain root -> signing key ->
//! server -> subject is verified offline too. Tokens are bearer secrets until they expire; certificates do not expire. All
//! servers hold the root and the signing key, as the managers of Docker Swarm do: any of them can admit a node when the
//! others are down.

mod signing;

use std::collections::BTreeSet;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use libp2p_identity::{Keypair, PublicKey};
use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::{ClusterId, Millis, Name, NodeId};

pub use signing::{
    Certificate, Signer, SigningKey, Succession, endorse, is_successor, read_endorsement,
    signing_key_of,
};

/// The largest token, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;
/// How far in the future a token may have been issued, in milliseconds, because clocks differ. Expiry has no leeway.
const CLOCK_SKEW: Millis = 60_000;

/// The role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeRole {
    /// Runs instances, and admits no nodes.
    Worker,
    /// Runs instances, admits nodes and issues tokens.
    Server,
}

impl NodeRole {
    /// Returns the name of the role.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Server => "server",
        }
    }
}

/// The role of a user. Each role includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserRole {
    /// May read, without environment values, and without logs unless the token says so.
    Viewer,
    /// May also change services and volumes.
    Deployer,
    /// May change nodes and create tokens.
    Admin,
}

impl UserRole {
    /// Returns the name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }
}

/// What a credential permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Joining as a node with this role.
    #[serde(rename = "node:join")]
    Join(NodeRole),
    /// Membership with this role; `sub` is the peer id.
    #[serde(rename = "node:member")]
    Member(NodeRole),
    /// Access as a user with this role; `sub` is the name.
    #[serde(rename = "user")]
    User(UserRole),
    /// A node that was a member with this role before the signing key was rotated: what it has written stays valid.
    #[serde(rename = "node:former")]
    Former(NodeRole),
    /// Signing certificates, in this epoch; `sub` is the peer id of the key.
    #[serde(rename = "signing")]
    Signing(u32),
}

/// What a user token says beside its role.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserLimits {
    /// The projects that the token is limited to; `None` for all projects and the cluster itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projects: Option<BTreeSet<Name>>,
    /// Whether a viewer may read logs. Deployers and admins may in any case.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub logs: bool,
}

impl UserLimits {
    /// Returns whether the token is for this project.
    pub fn include(&self, project: &Name) -> bool {
        self.projects.as_ref().is_none_or(|projects| projects.contains(project))
    }

    /// Returns whether a user with this role may read logs.
    pub fn may_read_logs(&self, role: UserRole) -> bool {
        self.logs || role >= UserRole::Deployer
    }
}

/// What a new token permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permits {
    /// The kind of the token, and its role.
    pub scope: Scope,
    /// Limits of a user.
    pub limits: UserLimits,
}

impl From<Scope> for Permits {
    fn from(scope: Scope) -> Self {
        Self { scope, limits: UserLimits::default() }
    }
}

/// The JWT claims of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Audience: the cluster's id.
    pub aud: ClusterId,
    /// Issuer: the root key's peer id (which equals the cluster's id), or the peer id of a server.
    pub iss: NodeId,
    /// Subject: a peer id or the name of a user.
    pub sub: String,
    /// Id of the credential.
    pub jti: String,
    /// Issued at, seconds since the epoch.
    pub iat: u64,
    /// Expires at, seconds since the epoch; `None` only for certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// What the credential permits.
    pub scope: Scope,
    /// How many nodes may join with the token; `None` for any number. Only in join tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Addresses at which members can be dialled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Multiaddr>,
    /// The issuer's certificate, or the endorsement of the signing key that is the issuer; `None` if that is the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Limits of a user.
    #[serde(flatten)]
    pub limits: UserLimits,
    /// In the endorsement of a signing key: the keys before it, the last one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub succession: Vec<Succession>,
}

/// Longest lifetime of a token in milliseconds: ten years.
pub const MAX_TTL: Millis = 10 * 365 * 24 * 3_600_000;

/// Why a credential is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT with the expected claims.
    #[error("this is not a token of a Virtual Cluster")]
    Malformed,
    /// The signature does not verify.
    #[error("the token's signature does not match: it was altered, or cut when it was copied")]
    BadSignature,
    /// Issued for another cluster.
    #[error("the token belongs to another cluster ({0})")]
    WrongCluster(ClusterId),
    /// The expiry time has passed.
    #[error("the token expired, by the node's clock: ask for a new one with 'vc token create'")]
    Expired,
    /// Issued in the future.
    #[error("the token is not valid yet, by the node's clock: set the clock that is wrong")]
    NotYetValid,
    /// The issuer is not a server of the cluster.
    #[error("the token was issued by a node that may not issue tokens")]
    IssuerNotPermitted,
    /// A credential of another kind.
    #[error("this is a {found} token; a {wanted} token is needed here")]
    WrongScope {
        /// The kind of the credential.
        found: &'static str,
        /// The kind that is needed.
        wanted: &'static str,
    },
    /// The certificate names another node.
    #[error("the certificate belongs to another node")]
    WrongNode,
    /// The signing key was rotated, and this credential depends on another one.
    #[error(
        "it was signed with a key that does not count any more, since the cluster's signing key was rotated ('vc trust show')"
    )]
    Superseded,
}

impl Scope {
    /// Returns the display name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Join(_) => "node",
            Self::Member(_) => "membership",
            Self::User(_) => "user",
            Self::Former(_) => "former membership",
            Self::Signing(_) => "signing key",
        }
    }
}

/// Issues the certificate of a member, signed with the cluster's root key.
pub fn issue_certificate(
    root: &Keypair,
    node: NodeId,
    role: NodeRole,
    now: Millis,
) -> Result<String, TokenError> {
    Signer::root(root)?.certify(node, Scope::Member(role), now)
}

/// A server that issues tokens.
pub struct Issuer<'a> {
    /// The cluster that the tokens are for.
    pub cluster: ClusterId,
    /// The server's own key.
    pub key: &'a Keypair,
    /// Membership certificate of the server.
    pub certificate: &'a str,
}

/// How long, and how often, a token is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Time until it expires.
    pub ttl: Millis,
    /// How many nodes may join with it; `None` for any number, and for user tokens.
    pub uses: Option<u32>,
}

impl From<Millis> for Validity {
    /// Limits the lifetime only.
    fn from(ttl: Millis) -> Self {
        Self { ttl, uses: None }
    }
}

impl Issuer<'_> {
    /// Issues a token for `sub`. `id` is random and becomes the token's id.
    pub fn issue(
        &self,
        permits: impl Into<Permits>,
        sub: &str,
        peers: Vec<Multiaddr>,
        id: u64,
        now: Millis,
        validity: impl Into<Validity>,
    ) -> Result<String, TokenError> {
        let Permits { scope, limits } = permits.into();
        let Validity { ttl, uses } = validity.into();
        let claims = Claims {
            aud: self.cluster,
            iss: NodeId::of(&self.key.public()).map_err(|_| TokenError::Malformed)?,
            sub: sub.to_owned(),
            jti: format!("{id:016x}"),
            iat: now / 1000,
            exp: Some(now.saturating_add(ttl) / 1000),
            scope,
            uses,
            peers,
            issuer: Some(self.certificate.to_owned()),
            limits,
            succession: Vec::new(),
        };
        sign(&claims, self.key)
    }
}

/// Signs the claims of a token again, with other addresses of members and all else as it is: the token keeps its id, its
/// certificate and its expiry.
///
/// # Errors
/// `key` is not that of the server that issued the token.
pub fn readdress(
    claims: Claims,
    peers: Vec<Multiaddr>,
    key: &Keypair,
) -> Result<String, TokenError> {
    match NodeId::of(&key.public()) {
        Ok(issuer) if issuer == claims.iss => sign(&Claims { peers, ..claims }, key),
        _ => Err(TokenError::IssuerNotPermitted),
    }
}

/// Decodes the claims without any check, to learn the cluster and its addresses from a token.
pub fn decode_unverified(token: &str) -> Result<Claims, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::Malformed);
    }
    let payload = token.split('.').nth(1).ok_or(TokenError::Malformed)?;
    let json = data_encoding::BASE64URL_NOPAD
        .decode(payload.as_bytes())
        .map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)
}

/// A credential that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What it says.
    pub claims: Claims,
    /// The signing key that it depends on.
    pub signing: SigningKey,
}

/// Verifies a token or certificate of this cluster at time `now`, including the chain to the root.
pub fn verify(token: &str, cluster: ClusterId, now: Millis) -> Result<Claims, TokenError> {
    verify_chain(token, cluster, now).map(|verified| verified.claims)
}

/// The same, and returns the signing key in the chain: whether it counts, only the cluster document says.
pub fn verify_chain(token: &str, cluster: ClusterId, now: Millis) -> Result<Verified, TokenError> {
    let claims = decode_unverified(token)?;
    if claims.aud != cluster {
        return Err(TokenError::WrongCluster(claims.aud));
    }
    let signing = if claims.iss.peer_id() == cluster.peer_id() {
        SigningKey::root(cluster)
    } else {
        let issuer = claims.issuer.as_deref().ok_or(TokenError::IssuerNotPermitted)?;
        match claims.scope {
            Scope::Signing(_) => return Err(TokenError::IssuerNotPermitted),
            Scope::Member(_) | Scope::Former(_) => {
                let signing = read_endorsement(issuer, cluster)?;
                if signing.key != claims.iss {
                    return Err(TokenError::IssuerNotPermitted);
                }
                signing
            }
            Scope::Join(_) | Scope::User(_) => {
                let issuer = match Certificate::read(issuer, cluster) {
                    Err(TokenError::WrongScope { .. }) => Err(TokenError::IssuerNotPermitted),
                    issuer => issuer,
                }?;
                if issuer.node != claims.iss || issuer.role != NodeRole::Server || issuer.is_former
                {
                    return Err(TokenError::IssuerNotPermitted);
                }
                issuer.signing
            }
        }
    };
    let claims = check_signature(token, cluster, &claims.iss.public_key())?;
    let is_permanent =
        matches!(claims.scope, Scope::Member(_) | Scope::Former(_) | Scope::Signing(_));
    match claims.exp {
        Some(exp) if now >= exp.saturating_mul(1000) => return Err(TokenError::Expired),
        None if !is_permanent => return Err(TokenError::Expired),
        _ => {}
    }
    if claims.iat.saturating_mul(1000) > now.saturating_add(CLOCK_SKEW) && !is_permanent {
        return Err(TokenError::NotYetValid);
    }
    Ok(Verified { claims, signing })
}

/// Verifies the certificate of a member and, unless `peer` is `None`, that it names this peer. Certificates are valid at
/// any time, so a node with a wrong clock stays a member.
pub fn verify_certificate(
    certificate: &str,
    cluster: ClusterId,
    peer: Option<NodeId>,
) -> Result<(NodeId, NodeRole), TokenError> {
    let Certificate { node, role, is_former, .. } = Certificate::read(certificate, cluster)?;
    if is_former {
        let found = Scope::Former(role).kind();
        return Err(TokenError::WrongScope { found, wanted: "membership" });
    }
    if peer.is_some_and(|peer| peer != node) {
        return Err(TokenError::WrongNode);
    }
    Ok((node, role))
}

fn sign(claims: &Claims, key: &Keypair) -> Result<String, TokenError> {
    let secret = key.clone().try_into_ed25519().map_err(|_| TokenError::Malformed)?.secret();
    // PKCS #8 around an Ed25519 seed (RFC 8410, section 7): the prefix is constant.
    let mut der = data_encoding::HEXLOWER
        .decode(b"302e020100300506032b657004220420")
        .map_err(|_| TokenError::Malformed)?;
    der.extend_from_slice(secret.as_ref());
    jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &EncodingKey::from_ed_der(&der))
        .map_err(|_| TokenError::Malformed)
}

fn check_signature(token: &str, cluster: ClusterId, key: &PublicKey) -> Result<Claims, TokenError> {
    let key = key.clone().try_into_ed25519().map_err(|_| TokenError::Malformed)?.to_bytes();
    let mut validation = Validation::new(Algorithm::EdDSA);
    // Time is an argument here: `verify` checks it.
    validation.validate_exp = false;
    validation.set_required_spec_claims(&["aud", "iss", "sub"]);
    validation.set_audience(&[cluster.to_string()]);
    jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_ed_der(&key), &validation)
        .map(|data| data.claims)
        .map_err(|error| match error.kind() {
            // The payload is readable, so the token was truncated or altered.
            ErrorKind::InvalidSignature | ErrorKind::Base64(_) => TokenError::BadSignature,
            _ => TokenError::Malformed,
        })
}

#[cfg(test)]
mod tests;
