//! Signed changes: the only way in which shared state moves.
//!
//! A change is an Automerge change of one document inside an envelope that its author signed. A receiver checks size,
//! signature, membership and the right to write that document before Automerge sees a byte.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use libp2p_identity::Keypair;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest as _, Sha256};

use crate::wire::{self, MAX_CHANGE};
use crate::{ClusterId, Millis, NodeId};

/// Which document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentId {
    /// What users want: services, scale, drained nodes. Every member may write it.
    Cluster,
    /// What one node says of itself. Only that node writes it. It starts a new generation to leave its history
    /// behind: the highest generation is the document.
    Node {
        /// Its owner.
        node: NodeId,
        /// Which generation.
        generation: u64,
    },
}

/// The writer of a run of changes, in Automerge's sense: 16 bytes that bind it to its author, 8 that tell the author's
/// installations apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor([u8; 24]);

impl Actor {
    /// An actor of this author; `nonce` is random, once for an installation.
    pub fn new(author: NodeId, nonce: u64) -> Self {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&Self::binding(author));
        bytes[16..].copy_from_slice(&nonce.to_be_bytes());
        Self(bytes)
    }

    /// Whether it is one of this author's.
    pub fn belongs_to(&self, author: NodeId) -> bool {
        self.0[..16] == Self::binding(author)
    }

    /// As Automerge takes it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn binding(author: NodeId) -> [u8; 16] {
        let hash = Sha256::digest(author.peer_id().to_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        bytes
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Actor {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|e| e.to_string())?;
        bytes.try_into().map(Self).map_err(|_| "an actor has 24 bytes".to_owned())
    }
}

impl Serialize for Actor {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Actor {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = ByteBuf::deserialize(d)?.into_vec();
        bytes.try_into().map(Self).map_err(|_| serde::de::Error::custom("an actor has 24 bytes"))
    }
}

/// What an author signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeBody {
    /// Of which cluster: a change means nothing in another.
    pub cluster: ClusterId,
    /// Of which document.
    pub document: DocumentId,
    /// Automerge's actor.
    pub actor: Actor,
    /// Its place among the actor's changes, from 1, without gaps.
    pub seq: u64,
    /// Who wrote and signed it.
    pub author: NodeId,
    /// The user on whose behalf, and the id of the token; `None`: the node itself.
    pub on_behalf_of: Option<Subject>,
    /// When, by the author's clock. For people: no decision reads it.
    pub timestamp: Millis,
    /// The Automerge change.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

/// A user as a token names him.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// His name.
    pub name: String,
    /// The id of the token that let him in.
    pub token_id: String,
}

/// A change as it travels and as it is stored: the body's exact bytes, and the author's Ed25519 signature over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedChange {
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
    #[serde(with = "serde_bytes")]
    signature: Vec<u8>,
}

/// Why a change is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Larger than any honest change.
    #[error("a change of {0} bytes is larger than {MAX_CHANGE}")]
    TooLarge(usize),
    /// Not a change.
    #[error(transparent)]
    Malformed(#[from] wire::WireError),
    /// The signature is not the author's.
    #[error("the signature is not {0}'s")]
    BadSignature(NodeId),
    /// Made for another cluster.
    #[error("made for cluster {0}")]
    WrongCluster(ClusterId),
    /// The author may not write there.
    #[error("{author} may not write this document")]
    NotPermitted {
        /// Who tried.
        author: NodeId,
    },
}

/// Signatures over changes are good for nothing else.
const DOMAIN: &[u8] = b"vc change 1\0";

impl SignedChange {
    /// Signs a body with its author's key.
    ///
    /// # Panics
    /// Never: Ed25519 keys sign anything.
    #[allow(clippy::expect_used, reason = "Ed25519 signing has no failing case")]
    pub fn sign(body: &ChangeBody, key: &Keypair) -> Self {
        let body = wire::encode(body);
        let signature = key.sign(&[DOMAIN, &body].concat()).expect("ed25519");
        Self { body, signature }
    }

    /// Reads the body after checking all that can be checked without state: size, form, signature, cluster, that the
    /// actor is the author's, and that a node's document is written by its owner. Membership is the caller's question.
    pub fn verify(&self, cluster: ClusterId) -> Result<ChangeBody, ChangeError> {
        if self.encoded_len() > MAX_CHANGE {
            return Err(ChangeError::TooLarge(self.encoded_len()));
        }
        let body: ChangeBody = wire::decode(&self.body)?;
        if !body.author.public_key().verify(&[DOMAIN, &self.body].concat(), &self.signature) {
            return Err(ChangeError::BadSignature(body.author));
        }
        if body.cluster != cluster {
            return Err(ChangeError::WrongCluster(body.cluster));
        }
        let owner = match body.document {
            DocumentId::Cluster => body.author,
            DocumentId::Node { node, .. } => node,
        };
        if owner != body.author || !body.actor.belongs_to(body.author) || body.seq == 0 {
            return Err(ChangeError::NotPermitted { author: body.author });
        }
        Ok(body)
    }

    /// Reads the body without checking anything: for changes from our own disk, checked before they came there.
    pub fn decode_unverified(&self) -> Result<ChangeBody, wire::WireError> {
        wire::decode(&self.body)
    }

    /// Its size on the wire, in bytes, to within a few.
    pub fn encoded_len(&self) -> usize {
        self.body.len() + self.signature.len() + 16
    }
}

/// Changes in an order in which each follows those it builds on, with the certificates of their authors, so that
/// whoever knows the cluster's id can check them without asking anybody.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Batch {
    /// Membership certificates.
    pub certificates: Vec<String>,
    /// The changes.
    pub changes: Vec<SignedChange>,
}

/// How much of each actor's changes somebody has (a summary in the sense of Scuttlebutt reconciliation, van Renesse
/// et al. 2008).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VersionVector {
    /// Highest sequence number of each actor of the cluster document.
    pub cluster: BTreeMap<Actor, u64>,
    /// Generation of each node's document, and the highest sequence number in it.
    pub nodes: BTreeMap<NodeId, (u64, u64)>,
}

/// A run of changes of one actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChangeRange {
    /// Of which document.
    pub document: DocumentId,
    /// Of which actor; `None` for a node's document, which has one.
    pub actor: Option<Actor>,
    /// The first sequence number.
    pub from: u64,
    /// The last one.
    pub to: u64,
}

impl VersionVector {
    /// What `self` has and `other` lacks.
    pub fn missing_in(&self, other: &Self) -> Vec<ChangeRange> {
        let cluster = self.cluster.iter().filter_map(|(actor, &to)| {
            let from = other.cluster.get(actor).copied().unwrap_or(0) + 1;
            (from <= to).then_some(ChangeRange {
                document: DocumentId::Cluster,
                actor: Some(*actor),
                from,
                to,
            })
        });
        let nodes = self.nodes.iter().filter_map(|(&node, &(generation, to))| {
            let from = match other.nodes.get(&node) {
                Some(&(theirs, seq)) if theirs == generation => seq + 1,
                Some(&(theirs, _)) if theirs > generation => return None,
                _ => 1,
            };
            let document = DocumentId::Node { node, generation };
            (from <= to).then_some(ChangeRange { document, actor: None, from, to })
        });
        cluster.chain(nodes).collect()
    }

    /// A short fingerprint: equal vectors have equal ones.
    pub fn fingerprint(&self) -> u64 {
        let hash = Sha256::digest(wire::encode(self));
        hash[..8].iter().fold(0, |sum, &byte| (sum << 8) | u64::from(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> (Keypair, NodeId) {
        let key = Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes");
        let id = NodeId::of(&key.public()).expect("ed25519");
        (key, id)
    }

    fn body(author: NodeId, document: DocumentId, cluster: ClusterId) -> ChangeBody {
        let actor = Actor::new(author, 1);
        ChangeBody {
            cluster,
            document,
            actor,
            seq: 1,
            author,
            on_behalf_of: None,
            timestamp: 0,
            payload: vec![1, 2, 3],
        }
    }

    #[test]
    fn a_change_opens_only_as_its_author_signed_it() {
        let (a, id) = key(1);
        let (b, other) = key(2);
        let cluster = ClusterId::of(&a.public()).expect("ed25519");
        let signed = SignedChange::sign(&body(id, DocumentId::Cluster, cluster), &a);
        assert_eq!(signed.verify(cluster).expect("genuine").author, id);

        for i in 0..signed.body.len() {
            let mut tampered = signed.clone();
            tampered.body[i] ^= 1;
            assert!(tampered.verify(cluster).is_err(), "byte {i}");
        }
        let forged = SignedChange::sign(&body(id, DocumentId::Cluster, cluster), &b);
        assert_eq!(forged.verify(cluster), Err(ChangeError::BadSignature(id)));
        let elsewhere = ClusterId::of(&b.public()).expect("ed25519");
        assert_eq!(signed.verify(elsewhere), Err(ChangeError::WrongCluster(cluster)));
        let document = DocumentId::Node { node: other, generation: 1 };
        let trespass = SignedChange::sign(&body(id, document, cluster), &a);
        assert_eq!(trespass.verify(cluster), Err(ChangeError::NotPermitted { author: id }));
        let mut stolen = body(id, DocumentId::Cluster, cluster);
        stolen.actor = Actor::new(other, 1);
        assert_eq!(
            SignedChange::sign(&stolen, &a).verify(cluster),
            Err(ChangeError::NotPermitted { author: id })
        );
    }

    #[test]
    fn a_newer_generation_is_sent_whole_and_an_older_one_not_at_all() {
        let (_, node) = key(3);
        let at = |generation, seq| VersionVector {
            nodes: BTreeMap::from([(node, (generation, seq))]),
            ..VersionVector::default()
        };
        let runs = at(2, 5).missing_in(&at(1, 9));
        assert_eq!(runs.len(), 1);
        assert_eq!((runs[0].from, runs[0].to), (1, 5));
        assert_eq!(at(1, 9).missing_in(&at(2, 5)), vec![]);
        assert_eq!(at(2, 5).missing_in(&at(2, 3))[0].from, 4);
        assert_eq!(at(2, 5).missing_in(&at(2, 5)), vec![]);
    }
}
