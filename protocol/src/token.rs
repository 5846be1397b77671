//! Credentials: JSON Web Tokens (RFC 7519) signed with Ed25519 (RFC 8037).
//!
//! The cluster's id is its root public key. The root signs a *certificate* for each member, bound to the member's peer
//! id: not secret, and verifiable offline with the cluster's id. A server signs *tokens* (for joining nodes and for
//! users) with its own key and includes its certificate, so that the chain root -> server -> subject is verified offline
//! too. Tokens are bearer secrets until they expire; certificates do not expire. All servers hold the root key, as the
//! managers of Docker Swarm do: any of them can admit a node when the others are down.

use std::collections::BTreeSet;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use libp2p_identity::{Keypair, PublicKey};
use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::{ClusterId, Millis, Name, NodeId};

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
    /// The issuer's certificate, unless the issuer is the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Limits of a user.
    #[serde(flatten)]
    pub limits: UserLimits,
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
    #[error("the token expired; ask for a new one with 'vc token create'")]
    Expired,
    /// Issued in the future.
    #[error("the token is not valid yet: check the clocks of both nodes")]
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
}

impl Scope {
    /// Returns the display name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Join(_) => "node",
            Self::Member(_) => "membership",
            Self::User(_) => "user",
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
    let cluster = ClusterId::of(&root.public()).map_err(|_| TokenError::Malformed)?;
    let iss = NodeId::of(&root.public()).map_err(|_| TokenError::Malformed)?;
    let claims = Claims {
        aud: cluster,
        iss,
        sub: node.to_string(),
        jti: format!("member-{}", node.short()),
        iat: now / 1000,
        exp: None,
        scope: Scope::Member(role),
        uses: None,
        peers: Vec::new(),
        issuer: None,
        limits: UserLimits::default(),
    };
    sign(&claims, root)
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
        };
        sign(&claims, self.key)
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

/// Verifies a token or certificate of this cluster at time `now`, including the chain to the root.
pub fn verify(token: &str, cluster: ClusterId, now: Millis) -> Result<Claims, TokenError> {
    let claims = decode_unverified(token)?;
    if claims.aud != cluster {
        return Err(TokenError::WrongCluster(claims.aud));
    }
    let by_root = claims.iss.peer_id() == cluster.peer_id();
    if !by_root {
        // The root must have certified this issuer as a server.
        let certificate = claims.issuer.as_deref().ok_or(TokenError::IssuerNotPermitted)?;
        let issuer = decode_unverified(certificate)?;
        check_signature(certificate, cluster, &cluster.public_key())?;
        let is_server = issuer.aud == cluster && issuer.scope == Scope::Member(NodeRole::Server);
        if !is_server
            || issuer.sub != claims.iss.to_string()
            || matches!(claims.scope, Scope::Member(_))
        {
            return Err(TokenError::IssuerNotPermitted);
        }
    }
    let claims = check_signature(token, cluster, &claims.iss.public_key())?;
    let is_certificate = matches!(claims.scope, Scope::Member(_));
    match claims.exp {
        Some(exp) if now >= exp.saturating_mul(1000) => return Err(TokenError::Expired),
        None if !is_certificate => return Err(TokenError::Expired),
        _ => {}
    }
    if claims.iat.saturating_mul(1000) > now.saturating_add(CLOCK_SKEW) && !is_certificate {
        return Err(TokenError::NotYetValid);
    }
    Ok(claims)
}

/// Verifies the certificate of a member and, unless `peer` is `None`, that it names this peer. Certificates are valid at
/// any time, so a node with a wrong clock stays a member.
pub fn verify_certificate(
    certificate: &str,
    cluster: ClusterId,
    peer: Option<NodeId>,
) -> Result<(NodeId, NodeRole), TokenError> {
    let claims = verify(certificate, cluster, 0)?;
    let Scope::Member(role) = claims.scope else {
        return Err(TokenError::WrongScope { found: claims.scope.kind(), wanted: "membership" });
    };
    let node: NodeId = claims.sub.parse().map_err(|_| TokenError::Malformed)?;
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
mod tests {
    use super::*;

    const NOW: Millis = 1_800_000_000_000;
    const HOUR: Millis = 3_600_000;

    fn key(n: u8) -> Keypair {
        Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes")
    }

    fn id(key: &Keypair) -> NodeId {
        NodeId::of(&key.public()).expect("ed25519")
    }

    fn cluster(root: &Keypair) -> ClusterId {
        ClusterId::of(&root.public()).expect("ed25519")
    }

    fn issue(root: &Keypair, server: &Keypair, role: NodeRole, scope: Scope) -> String {
        let certificate = issue_certificate(root, id(server), role, NOW).expect("signed");
        Issuer { cluster: cluster(root), key: server, certificate: &certificate }
            .issue(scope, "ada", vec![], 7, NOW, HOUR)
            .expect("signed")
    }

    #[test]
    fn a_token_is_valid_for_its_cluster_until_it_expires() {
        let (root, server) = (key(1), key(2));
        let token = issue(&root, &server, NodeRole::Server, Scope::User(UserRole::Admin));
        let claims = verify(&token, cluster(&root), NOW + 1).expect("valid");
        assert_eq!((claims.sub.as_str(), claims.scope), ("ada", Scope::User(UserRole::Admin)));
        assert_eq!(verify(&token, cluster(&root), NOW + HOUR), Err(TokenError::Expired));
        assert_eq!(verify(&token, cluster(&root), NOW - HOUR), Err(TokenError::NotYetValid));
        let other = cluster(&key(9));
        assert_eq!(verify(&token, other, NOW), Err(TokenError::WrongCluster(cluster(&root))));
    }

    #[test]
    fn the_claims_of_a_token_without_limits_are_as_they_were() {
        let (root, server) = (key(1), key(2));
        let token = issue(&root, &server, NodeRole::Server, Scope::User(UserRole::Viewer));
        let claims = decode_unverified(&token).expect("claims");
        let json = serde_json::to_value(&claims).expect("plain data");
        let fields: Vec<&String> = json.as_object().expect("an object").keys().collect();
        let mut expected = ["aud", "iss", "sub", "jti", "iat", "exp", "scope", "issuer"];
        expected.sort_unstable();
        assert_eq!(fields, expected);
        assert_eq!(claims.limits, UserLimits::default());
    }

    #[test]
    fn limits_are_part_of_what_is_signed() {
        let (root, server) = (key(1), key(2));
        let certificate =
            issue_certificate(&root, id(&server), NodeRole::Server, NOW).expect("signed");
        let limits = UserLimits {
            projects: Some(BTreeSet::from(["shop".parse().expect("a name")])),
            logs: true,
        };
        let permits = Permits { scope: Scope::User(UserRole::Deployer), limits: limits.clone() };
        let token = Issuer { cluster: cluster(&root), key: &server, certificate: &certificate }
            .issue(permits, "ada", vec![], 7, NOW, HOUR)
            .expect("signed");
        let claims = verify(&token, cluster(&root), NOW).expect("valid");
        assert_eq!(claims.limits, limits);
        assert!(limits.include(&"shop".parse().expect("a name")));
        assert!(!limits.include(&"bank".parse().expect("a name")));
        let payload = token.split('.').nth(1).expect("a payload");
        let json = data_encoding::BASE64URL_NOPAD.decode(payload.as_bytes()).expect("base64");
        let text = String::from_utf8(json).expect("JSON").replace("\"shop\"", "\"bank\"");
        let other = data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
        assert!(verify(&token.replace(payload, &other), cluster(&root), NOW).is_err());
    }

    #[test]
    fn a_worker_cannot_issue_and_a_server_cannot_certify() {
        let (root, node) = (key(1), key(2));
        let by_worker = issue(&root, &node, NodeRole::Worker, Scope::User(UserRole::Viewer));
        assert_eq!(verify(&by_worker, cluster(&root), NOW), Err(TokenError::IssuerNotPermitted));
        let member = issue(&root, &node, NodeRole::Server, Scope::Member(NodeRole::Server));
        assert_eq!(verify(&member, cluster(&root), NOW), Err(TokenError::IssuerNotPermitted));
    }

    #[test]
    fn altered_tokens_are_rejected() {
        let (root, server) = (key(1), key(2));
        let token = issue(&root, &server, NodeRole::Server, Scope::Join(NodeRole::Worker));
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(bytes).expect("ascii");
            // The last character of base64 has unused bits.
            if data_encoding::BASE64URL_NOPAD
                .decode(altered.rsplit('.').next().unwrap_or("").as_bytes())
                .is_err()
            {
                continue;
            }
            assert!(verify(&altered, cluster(&root), NOW).is_err(), "character {at}");
        }
        for cut in 0..token.len() {
            assert!(verify(&token[..cut], cluster(&root), NOW).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_foreign_root_is_rejected() {
        let (root, foreign) = (key(1), key(3));
        let own = issue_certificate(&foreign, id(&foreign), NodeRole::Server, NOW).expect("signed");
        let token = Issuer { cluster: cluster(&root), key: &foreign, certificate: &own }
            .issue(Scope::User(UserRole::Admin), "eve", vec![], 7, NOW, HOUR)
            .expect("signed");
        assert!(verify(&token, cluster(&root), NOW).is_err());
    }

    #[test]
    fn a_certificate_is_bound_to_its_node_and_valid_at_any_time() {
        let (root, node) = (key(1), key(2));
        let certificate =
            issue_certificate(&root, id(&node), NodeRole::Worker, NOW).expect("signed");
        let member = verify_certificate(&certificate, cluster(&root), Some(id(&node)));
        assert_eq!(member, Ok((id(&node), NodeRole::Worker)));
        let other = verify_certificate(&certificate, cluster(&root), Some(id(&key(4))));
        assert_eq!(other, Err(TokenError::WrongNode));
        let token = issue(&root, &node, NodeRole::Server, Scope::User(UserRole::Admin));
        assert!(verify_certificate(&token, cluster(&root), None).is_err());
    }

    #[test]
    fn a_token_without_a_signature_is_rejected() {
        let (root, server) = (key(1), key(2));
        let token = issue(&root, &server, NodeRole::Server, Scope::User(UserRole::Admin));
        let payload = token.split('.').nth(1).expect("payload");
        let none = data_encoding::BASE64URL_NOPAD.encode(br#"{"alg":"none","typ":"JWT"}"#);
        assert!(verify(&format!("{none}.{payload}."), cluster(&root), NOW).is_err());
    }
}
