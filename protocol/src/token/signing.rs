//! Signing keys: the root key, and the later ones that it endorses. Which one counts, the cluster document says
//! (`docs/formats.md`); a chain to the root alone proves nothing, since a server that was removed knows the root key.

use data_encoding::BASE64URL_NOPAD;
use libp2p_identity::{Keypair, PublicKey};
use serde::{Deserialize, Serialize};

use super::{
    Claims, NodeRole, Scope, TokenError, UserLimits, Verified, decode_unverified, sign,
    verify_chain,
};
use crate::{ClusterId, Millis, NodeId};

/// The most keys that an endorsement names before its own. A token that is older than so many rotations has to be replaced.
const MAX_SUCCESSION: usize = 8;
/// Domain separation: a signature over a successor is valid for nothing else.
const DOMAIN: &[u8] = b"vc successor 1\0";

/// Identifies a key that signs certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SigningKey {
    /// How many rotations there were before: 0 for the root key.
    pub epoch: u32,
    /// The peer id of the key.
    pub key: NodeId,
}

impl SigningKey {
    /// Returns the root key of a cluster.
    ///
    /// # Panics
    /// Never: a cluster's id is the id of an Ed25519 key.
    #[allow(clippy::expect_used, reason = "a cluster's id is the id of an Ed25519 key")]
    pub fn root(cluster: ClusterId) -> Self {
        let key = NodeId::of(&cluster.public_key()).expect("an Ed25519 key");
        Self { epoch: 0, key }
    }
}

/// A signing key's signature over the key that follows it. It is not in the power of a server that was removed before: the root
/// key, which that one knows, does not make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// The key that signs, by its peer id.
    pub key: NodeId,
    /// Ed25519 signature over `"vc successor 1\0"`, the cluster's id and the peer id of the next key, base64url.
    pub signature: String,
}

/// A certificate that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The node that it names.
    pub node: NodeId,
    /// Its role.
    pub role: NodeRole,
    /// Whether the node is no member any more.
    pub is_former: bool,
    /// The key that signed it.
    pub signing: SigningKey,
}

impl Certificate {
    /// Verifies a certificate, including the chain to the root.
    pub fn read(certificate: &str, cluster: ClusterId) -> Result<Self, TokenError> {
        let Verified { claims, signing } = verify_chain(certificate, cluster, 0)?;
        let (role, is_former) = match claims.scope {
            Scope::Member(role) => (role, false),
            Scope::Former(role) => (role, true),
            scope => {
                return Err(TokenError::WrongScope { found: scope.kind(), wanted: "membership" });
            }
        };
        let node = claims.sub.parse().map_err(|_| TokenError::Malformed)?;
        Ok(Self { node, role, is_former, signing })
    }
}

/// A key that signs certificates.
#[derive(Clone)]
pub struct Signer {
    cluster: ClusterId,
    signing: SigningKey,
    key: Keypair,
    endorsement: Option<String>,
}

impl Signer {
    /// Returns the root key as a signer.
    pub fn root(root: &Keypair) -> Result<Self, TokenError> {
        let cluster = ClusterId::of(&root.public()).map_err(|_| TokenError::Malformed)?;
        let signing = SigningKey::root(cluster);
        Ok(Self { cluster, signing, key: root.clone(), endorsement: None })
    }

    /// Returns a key with the endorsement of the root. Errors: they do not belong together.
    pub fn endorsed(
        cluster: ClusterId,
        key: &Keypair,
        endorsement: &str,
    ) -> Result<Self, TokenError> {
        let signing = read_endorsement(endorsement, cluster)?;
        if signing.key.public_key() != key.public() {
            return Err(TokenError::WrongNode);
        }
        Ok(Self { cluster, signing, key: key.clone(), endorsement: Some(endorsement.to_owned()) })
    }

    /// Returns which key it is.
    pub fn signing(&self) -> SigningKey {
        self.signing
    }

    /// Issues a certificate; `scope` is [`Scope::Member`] or [`Scope::Former`].
    pub fn certify(&self, node: NodeId, scope: Scope, now: Millis) -> Result<String, TokenError> {
        let claims = Claims {
            aud: self.cluster,
            iss: self.signing.key,
            sub: node.to_string(),
            jti: format!("member-{}", node.short()),
            iat: now / 1000,
            exp: None,
            scope,
            peers: Vec::new(),
            issuer: self.endorsement.clone(),
            succession: Vec::new(),
            limits: UserLimits::default(),
            uses: None,
        };
        sign(&claims, &self.key)
    }

    /// Returns the signatures from this key to `next`, the last one first.
    fn succession(&self, next: NodeId) -> Result<Vec<Succession>, TokenError> {
        let Some(endorsement) = &self.endorsement else { return Ok(Vec::new()) };
        let text = successor(self.cluster, next);
        let signature = self.key.sign(&text).map_err(|_| TokenError::Malformed)?;
        let signature = BASE64URL_NOPAD.encode(&signature);
        let mut links = vec![Succession { key: self.signing.key, signature }];
        links.extend(decode_unverified(endorsement)?.succession);
        links.truncate(MAX_SUCCESSION);
        Ok(links)
    }
}

/// Endorses a signing key with the root key. `previous` is the signing key before it, if this server has it: otherwise clients
/// whose tokens depend on that one need new ones.
pub fn endorse(
    root: &Keypair,
    key: &PublicKey,
    epoch: u32,
    previous: Option<&Signer>,
    now: Millis,
) -> Result<String, TokenError> {
    let cluster = ClusterId::of(&root.public()).map_err(|_| TokenError::Malformed)?;
    let key = NodeId::of(key).map_err(|_| TokenError::Malformed)?;
    let succession = previous.map(|previous| previous.succession(key)).transpose()?;
    let claims = Claims {
        aud: cluster,
        iss: SigningKey::root(cluster).key,
        sub: key.to_string(),
        jti: format!("signing-{epoch}"),
        iat: now / 1000,
        exp: None,
        scope: Scope::Signing(epoch),
        peers: Vec::new(),
        issuer: None,
        succession: succession.unwrap_or_default(),
        limits: UserLimits::default(),
        uses: None,
    };
    sign(&claims, root)
}

/// Verifies the endorsement of a signing key.
pub fn read_endorsement(endorsement: &str, cluster: ClusterId) -> Result<SigningKey, TokenError> {
    let scope = decode_unverified(endorsement)?.scope;
    let Scope::Signing(epoch) = scope else { return Err(TokenError::IssuerNotPermitted) };
    let claims = verify_chain(endorsement, cluster, 0)?.claims;
    let key = claims.sub.parse().map_err(|_| TokenError::Malformed)?;
    if epoch == 0 { Err(TokenError::IssuerNotPermitted) } else { Ok(SigningKey { epoch, key }) }
}

/// Returns the signing key that a token of this cluster, which the caller trusts, depends on.
pub fn signing_key_of(token: &str, cluster: ClusterId) -> SigningKey {
    let endorsement = || {
        let issuer = decode_unverified(token).ok()?.issuer?;
        let endorsement = decode_unverified(&issuer).ok()?.issuer?;
        read_endorsement(&endorsement, cluster).ok()
    };
    endorsement().unwrap_or_else(|| SigningKey::root(cluster))
}

/// Returns whether a node with this valid `certificate` is trusted with a token that depends on `known`: its signing key is
/// that one, or follows from it. Everything follows from the root.
pub fn is_successor(certificate: &str, cluster: ClusterId, known: SigningKey) -> bool {
    let found = decode_unverified(certificate).ok().and_then(|claims| {
        let endorsement = claims.issuer?;
        let key = read_endorsement(&endorsement, cluster).ok()?.key;
        // The root signs what it likes beside the endorsement of another key.
        (claims.iss == key).then_some((key, decode_unverified(&endorsement).ok()?.succession))
    });
    let (mut next, succession) = match found {
        _ if known.epoch == 0 => return true,
        None => return false,
        Some(found) => found,
    };
    let mut links = succession.iter().take(MAX_SUCCESSION);
    loop {
        if next == known.key {
            return true;
        }
        let Some(Succession { key, signature }) = links.next() else { return false };
        let Ok(signature) = BASE64URL_NOPAD.decode(signature.as_bytes()) else { return false };
        if !key.public_key().verify(&successor(cluster, next), &signature) {
            return false;
        }
        next = *key;
    }
}

/// Returns the text that a key signs about the next one.
fn successor(cluster: ClusterId, next: NodeId) -> Vec<u8> {
    [DOMAIN, cluster.to_string().as_bytes(), b" ", next.to_string().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::super::{Issuer, UserRole, issue_certificate, verify, verify_certificate};
    use super::*;

    const NOW: Millis = 1_800_000_000_000;
    const MEMBER: Scope = Scope::Member(NodeRole::Server);

    fn key(n: u8) -> Keypair {
        Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes")
    }

    fn id(n: u8) -> NodeId {
        NodeId::of(&key(n).public()).expect("ed25519")
    }

    fn cluster() -> ClusterId {
        ClusterId::of(&key(1).public()).expect("ed25519")
    }

    fn root() -> Signer {
        Signer::root(&key(1)).expect("a signer")
    }

    /// The signing key `n`, endorsed by key `by` for this epoch.
    fn signer(by: u8, n: u8, epoch: u32, previous: Option<&Signer>) -> Result<Signer, TokenError> {
        let endorsement = endorse(&key(by), &key(n).public(), epoch, previous, NOW)?;
        Signer::endorsed(cluster(), &key(n), &endorsement)
    }

    fn user_token(certificate: &str, server: u8) -> String {
        Issuer { cluster: cluster(), key: &key(server), certificate }
            .issue(Scope::User(UserRole::Admin), "ada", vec![], 7, NOW, 1000)
            .expect("signed")
    }

    #[test]
    fn chains_lead_from_the_root_over_a_signing_key_to_a_token() {
        let rotated = signer(1, 10, 1, None).expect("endorsed");
        assert_eq!(rotated.signing(), SigningKey { epoch: 1, key: id(10) });
        for (signer, epoch) in [(root(), 0), (rotated, 1)] {
            let certificate = signer.certify(id(2), MEMBER, NOW).expect("signed");
            let read = Certificate::read(&certificate, cluster()).expect("valid");
            let (node, role, signing) = (id(2), NodeRole::Server, signer.signing());
            assert_eq!(read, Certificate { node, role, is_former: false, signing });
            assert_eq!(verify_certificate(&certificate, cluster(), Some(id(2))), Ok((node, role)));
            let token = user_token(&certificate, 2);
            assert!(token.len() < 3000, "{}", token.len());
            let verified = verify_chain(&token, cluster(), NOW).expect("valid");
            assert_eq!(
                (verified.signing.epoch, signing_key_of(&token, cluster())),
                (epoch, signing)
            );
        }
    }

    #[test]
    fn certificates_of_the_root_are_as_they_were() {
        let certificate = issue_certificate(&key(1), id(2), NodeRole::Worker, NOW).expect("signed");
        let payload = certificate.split('.').nth(1).expect("a payload");
        let json = BASE64URL_NOPAD.decode(payload.as_bytes()).expect("base64url");
        let (cluster, node) = (cluster(), id(2));
        let short = node.short();
        let expected = format!(
            r#"{{"aud":"{cluster}","iss":"{cluster}","sub":"{node}","jti":"member-{short}","iat":1800000000,"scope":{{"node:member":"worker"}}}}"#
        );
        assert_eq!(String::from_utf8(json).expect("text"), expected);
    }

    #[test]
    fn broken_chains_are_rejected() {
        let refused = |token: &str| verify(token, cluster(), NOW).expect_err("refused");
        // A key that the root has not endorsed, and a signing key that endorses another.
        assert!(signer(3, 10, 1, None).is_err());
        assert!(signer(1, 10, 0, None).is_err(), "epoch 0 is the root's");
        let rotated = signer(1, 10, 1, None).expect("endorsed");
        assert!(signer(10, 11, 2, Some(&rotated)).is_err());
        let endorsement = endorse(&key(1), &key(10).public(), 1, None, NOW).expect("signed");
        assert!(Signer::endorsed(cluster(), &key(11), &endorsement).is_err());

        // An endorsement is no certificate, and a server's certificate endorses nothing.
        let member = rotated.certify(id(2), MEMBER, NOW).expect("signed");
        assert!(matches!(
            Certificate::read(&endorsement, cluster()),
            Err(TokenError::WrongScope { .. })
        ));
        assert_eq!(refused(&user_token(&endorsement, 10)), TokenError::IssuerNotPermitted);
        let by_server = Signer {
            cluster: cluster(),
            signing: SigningKey { epoch: 1, key: id(2) },
            key: key(2),
            endorsement: Some(member.clone()),
        };
        let forged = by_server.certify(id(3), MEMBER, NOW).expect("signed");
        assert_eq!(refused(&forged), TokenError::IssuerNotPermitted);

        // The endorsement of another key.
        let stranger = Signer { key: key(11), ..rotated.clone() };
        assert_eq!(
            refused(&stranger.certify(id(3), MEMBER, NOW).expect("signed")),
            TokenError::BadSignature
        );
        let signing = SigningKey { epoch: 1, key: id(11) };
        let other = Signer { signing, ..stranger };
        assert_eq!(
            refused(&other.certify(id(3), MEMBER, NOW).expect("signed")),
            TokenError::IssuerNotPermitted
        );

        // Workers, former members and other servers issue no tokens.
        for scope in [Scope::Member(NodeRole::Worker), Scope::Former(NodeRole::Server)] {
            let certificate = rotated.certify(id(2), scope, NOW).expect("signed");
            assert_eq!(refused(&user_token(&certificate, 2)), TokenError::IssuerNotPermitted);
        }
        assert_eq!(refused(&user_token(&member, 3)), TokenError::IssuerNotPermitted);
        let former = rotated.certify(id(2), Scope::Former(NodeRole::Server), NOW).expect("signed");
        assert!(verify_certificate(&former, cluster(), None).is_err());
        assert!(Certificate::read(&former, cluster()).expect("valid").is_former);
    }

    #[test]
    fn a_key_follows_those_that_signed_it_or_their_successors() {
        let first = signer(1, 10, 1, Some(&root())).expect("endorsed");
        let second = signer(1, 11, 2, Some(&first)).expect("endorsed");
        let third = signer(1, 12, 3, Some(&second)).expect("endorsed");
        // Made with the root key alone, as by a server that was removed before the first rotation.
        let forged = signer(1, 13, 9, None).expect("endorsed");
        let certified = |signer: &Signer| signer.certify(id(2), MEMBER, NOW).expect("signed");
        let follows = |signer: &Signer, known: &Signer| {
            is_successor(&certified(signer), cluster(), known.signing())
        };
        for known in [&first, &second, &third] {
            assert!(follows(&third, known) && follows(known, &root()));
            assert!(!follows(&forged, known) && !follows(&root(), known));
        }
        assert!(!follows(&first, &second), "a node that does not know the rotation yet");
        // The links of another key prove nothing, nor does its endorsement beside a signature of the root.
        let borrowed = Signer { endorsement: third.endorsement.clone(), ..root() };
        assert!(!follows(&borrowed, &first));
        assert!(follows(&borrowed, &root()));
        let stolen = decode_unverified(third.endorsement.as_deref().expect("endorsed"));
        let claims = decode_unverified(forged.endorsement.as_deref().expect("endorsed"));
        let claims =
            Claims { succession: stolen.expect("claims").succession, ..claims.expect("claims") };
        let endorsement = sign(&claims, &key(1)).expect("signed");
        let forged = Signer::endorsed(cluster(), &key(13), &endorsement).expect("endorsed");
        assert!(!follows(&forged, &first));
    }

    #[test]
    fn a_token_stays_small_after_many_rotations() {
        let mut last = root();
        for n in 1..40 {
            last = signer(1, 100 + n, u32::from(n), Some(&last)).expect("endorsed");
        }
        let token = user_token(&last.certify(id(2), MEMBER, NOW).expect("signed"), 2);
        assert!(token.len() < super::super::MAX_TOKEN, "{}", token.len());
        verify(&token, cluster(), NOW).expect("valid");
    }
}
