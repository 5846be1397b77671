//! Signed changes, the only way to change a document.
//!
//! A signed change is an Automerge change of one document in an envelope that its author signed. A receiver checks size,
//! signature, membership and the right to write the document before it passes the payload to Automerge.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use libp2p_identity::Keypair;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest as _, Sha256};

use crate::wire::{self, MAX_CHANGE};
use crate::{ClusterId, Millis, NodeId};

/// Identifies one of the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentId {
    /// The cluster document: services, scale, drained nodes. Servers write it. A server drops the history by
    /// starting a new generation with a [`Checkpoint`]; the highest generation is the document.
    Cluster {
        /// 0, then as [`next_generation`] counts.
        generation: u64,
    },
    /// A node document, which only its node writes. The node drops the history by starting a new generation; the highest
    /// generation is the document.
    Node {
        /// The node that writes it.
        node: NodeId,
        /// As [`next_generation`] counts.
        generation: u64,
    },
}

/// The low bits of a generation that are random; the others count.
const GENERATION_NONCE_BITS: u32 = 16;

/// Returns the generation that follows another. The low 16 bits are those of `nonce`, a random number that is new at each
/// start: two processes never start the same generation.
pub fn next_generation(last: u64, nonce: u64) -> u64 {
    ((last >> GENERATION_NONCE_BITS) + 1) << GENERATION_NONCE_BITS
        | (nonce & ((1 << GENERATION_NONCE_BITS) - 1))
}

/// Returns how many generations there were before this one.
pub fn generation_count(generation: u64) -> u64 {
    generation >> GENERATION_NONCE_BITS
}

/// An Automerge actor id: 16 bytes of SHA-256 over the author's peer id, which bind it to the author, and 8 bytes that
/// distinguish the actors of one author.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor([u8; 24]);

impl Actor {
    /// Returns the actor of this author with this nonce: random for the cluster document, the generation for a node
    /// document.
    pub fn new(author: NodeId, nonce: u64) -> Self {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&Self::binding(author));
        bytes[16..].copy_from_slice(&nonce.to_be_bytes());
        Self(bytes)
    }

    /// Returns whether the actor is bound to this author.
    pub fn belongs_to(&self, author: NodeId) -> bool {
        self.0[..16] == Self::binding(author)
    }

    /// Returns whether two actors are bound to one author.
    pub fn is_same_author(&self, other: &Self) -> bool {
        self.0[..16] == other.0[..16]
    }

    /// Returns the bytes of the Automerge actor id.
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

/// The text is not an [`Actor`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an actor id: expected 48 lower-case hex digits")]
pub struct ParseActorError(String);

impl FromStr for Actor {
    type Err = ParseActorError;
    fn from_str(text: &str) -> Result<Self, ParseActorError> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| ParseActorError(text.chars().take(80).collect()))
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
        bytes.try_into().map(Self).map_err(|_| serde::de::Error::custom("an actor id has 24 bytes"))
    }
}

/// The content that the author signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeBody {
    /// The cluster: a change is invalid in any other.
    pub cluster: ClusterId,
    /// The document that is changed.
    pub document: DocumentId,
    /// The Automerge actor; bound to `author`.
    pub actor: Actor,
    /// Sequence number among the actor's changes, from 1, without gaps.
    pub seq: u64,
    /// The node that made and signed the change.
    pub author: NodeId,
    /// The user whose command caused the change; `None` for a change by the node itself.
    pub on_behalf_of: Option<Subject>,
    /// Time by the author's clock; for display only.
    pub timestamp: Millis,
    /// In the first change of a generation of the cluster document, except for generation 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// The uncompressed Automerge change.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

/// The start of a generation of the cluster document: its first changes, all by one actor, repeat the whole content without
/// its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The changes whose outcome the checkpoint contains; the last generation is the one that it follows.
    pub covers: ClusterVersions,
    /// The number of changes that the checkpoint consists of: the sequence numbers 1 to `parts` of its actor.
    pub parts: u64,
}

/// A user, identified by a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Name of the user (the `sub` claim).
    pub name: String,
    /// Id of the token (the `jti` claim).
    pub token_id: String,
    /// IP address that the command came from, as the node with the user's session saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// A change as it is sent and stored: the exact bytes of the CBOR-encoded [`ChangeBody`], and the author's Ed25519
/// signature over `"vc change 1\0"` and these bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedChange {
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
    #[serde(with = "serde_bytes")]
    signature: Vec<u8>,
}

/// Why a change is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The change is larger than [`MAX_CHANGE`].
    #[error("a change of {0} bytes exceeds the limit of {MAX_CHANGE}")]
    TooLarge(usize),
    /// The body does not decode.
    #[error(transparent)]
    Malformed(#[from] wire::WireError),
    /// The signature does not verify.
    #[error("the signature of {0} does not verify")]
    BadSignature(NodeId),
    /// The change belongs to another cluster.
    #[error("the change belongs to cluster {0}")]
    WrongCluster(ClusterId),
    /// The author may not write the document, or the actor or sequence number is invalid.
    #[error("{author} may not write this document")]
    NotPermitted {
        /// The node that signed the change.
        author: NodeId,
    },
}

/// Domain separation: a signature over a change is valid for nothing else.
const DOMAIN: &[u8] = b"vc change 1\0";

impl SignedChange {
    /// Encodes and signs a body with its author's key.
    ///
    /// # Panics
    /// Never: Ed25519 signing does not fail.
    #[allow(clippy::expect_used, reason = "Ed25519 signing has no failing case")]
    pub fn sign(body: &ChangeBody, key: &Keypair) -> Self {
        let body = wire::encode(body);
        let signature = key.sign(&[DOMAIN, &body].concat()).expect("ed25519");
        Self { body, signature }
    }

    /// Decodes the body after checking everything that needs no state: size, encoding, signature, cluster, that the actor is
    /// bound to the author, and that a node document is written by its node. The caller checks membership.
    pub fn verify(&self, cluster: ClusterId) -> Result<ChangeBody, ChangeError> {
        if self.encoded_len() > MAX_CHANGE {
            return Err(ChangeError::TooLarge(self.encoded_len()));
        }
        let body = self.check_signature()?;
        if body.cluster != cluster {
            return Err(ChangeError::WrongCluster(body.cluster));
        }
        let owner = match body.document {
            DocumentId::Cluster { .. } => body.author,
            DocumentId::Node { node, .. } => node,
        };
        if owner != body.author || !body.actor.belongs_to(body.author) || body.seq == 0 {
            return Err(ChangeError::NotPermitted { author: body.author });
        }
        Ok(body)
    }

    /// Decodes the body after checking the signature alone: whether the change is as its author wrote it.
    pub fn check_signature(&self) -> Result<ChangeBody, ChangeError> {
        let body: ChangeBody = wire::decode(&self.body)?;
        match body.author.public_key().verify(&[DOMAIN, &self.body].concat(), &self.signature) {
            true => Ok(body),
            false => Err(ChangeError::BadSignature(body.author)),
        }
    }

    /// Decodes the body without checking anything: for changes from the own disk, which were verified before.
    pub fn decode_unverified(&self) -> Result<ChangeBody, wire::WireError> {
        wire::decode(&self.body)
    }

    /// Returns the encoded size in bytes, a few bytes more or less.
    pub fn encoded_len(&self) -> usize {
        self.body.len() + self.signature.len() + 16
    }
}

/// Changes, each after those it depends on, with the certificates of their authors: everything that is needed to verify
/// them with the cluster's id alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Batch {
    /// Membership certificates of the authors.
    pub certificates: Vec<String>,
    /// The changes, in dependency order.
    pub changes: Vec<SignedChange>,
}

/// Which changes a node has (a digest in the terms of Scuttlebutt reconciliation, van Renesse et al. 2008).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VersionVector {
    /// The cluster document.
    pub cluster: ClusterVersions,
    /// Generation of each node's document, and the highest sequence number in it.
    pub nodes: BTreeMap<NodeId, (u64, u64)>,
}

/// Which changes of the cluster document a node has: the highest sequence number of each actor, in the generation of the
/// document, which is the last key, and in the one before.
pub type ClusterVersions = BTreeMap<u64, BTreeMap<Actor, u64>>;

/// Returns the generation of the cluster document; 0 for an empty vector.
pub fn generation_of(versions: &ClusterVersions) -> u64 {
    versions.keys().next_back().copied().unwrap_or(0)
}

/// A range of changes of one actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChangeRange {
    /// The document of the changes.
    pub document: DocumentId,
    /// The actor; `None` for a node document, which has only one.
    pub actor: Option<Actor>,
    /// First sequence number of the range.
    pub from: u64,
    /// Last sequence number, inclusive.
    pub to: u64,
}

impl VersionVector {
    /// Returns the changes that `self` has and `other` lacks.
    pub fn missing_in(&self, other: &Self) -> Vec<ChangeRange> {
        let newest = generation_of(&other.cluster);
        let is_kept =
            |generation: &u64| *generation >= newest || other.cluster.contains_key(generation);
        let kept = self.cluster.iter().filter(|(generation, _)| is_kept(generation));
        let cluster = kept.flat_map(|(&generation, actors)| {
            let theirs = other.cluster.get(&generation);
            actors.iter().filter_map(move |(actor, &to)| {
                let last = theirs.and_then(|actors| actors.get(actor)).copied().unwrap_or(0);
                let document = DocumentId::Cluster { generation };
                let range = ChangeRange { document, actor: Some(*actor), from: last + 1, to };
                (range.from <= to).then_some(range)
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

    /// Returns the [`wire::fingerprint`], to compare vectors in heartbeats.
    pub fn fingerprint(&self) -> u64 {
        wire::fingerprint(self)
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
            checkpoint: None,
            payload: vec![1, 2, 3],
        }
    }

    #[test]
    fn a_change_verifies_only_as_its_author_signed_it() {
        let (a, id) = key(1);
        let (b, other) = key(2);
        let cluster = ClusterId::of(&a.public()).expect("ed25519");
        let signed =
            SignedChange::sign(&body(id, DocumentId::Cluster { generation: 0 }, cluster), &a);
        assert_eq!(signed.verify(cluster).expect("genuine").author, id);

        for i in 0..signed.body.len() {
            let mut tampered = signed.clone();
            tampered.body[i] ^= 1;
            assert!(tampered.verify(cluster).is_err(), "byte {i}");
        }
        let forged =
            SignedChange::sign(&body(id, DocumentId::Cluster { generation: 0 }, cluster), &b);
        assert_eq!(forged.verify(cluster), Err(ChangeError::BadSignature(id)));
        let other_cluster = ClusterId::of(&b.public()).expect("ed25519");
        assert_eq!(signed.verify(other_cluster), Err(ChangeError::WrongCluster(cluster)));
        let document = DocumentId::Node { node: other, generation: 1 };
        let other_nodes_document = SignedChange::sign(&body(id, document, cluster), &a);
        assert_eq!(
            other_nodes_document.verify(cluster),
            Err(ChangeError::NotPermitted { author: id })
        );
        let mut stolen = body(id, DocumentId::Cluster { generation: 0 }, cluster);
        stolen.actor = Actor::new(other, 1);
        assert_eq!(
            SignedChange::sign(&stolen, &a).verify(cluster),
            Err(ChangeError::NotPermitted { author: id })
        );
    }

    #[test]
    fn a_newer_generation_is_sent_completely_and_an_older_one_never() {
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

        let actor = Actor::new(node, 1);
        let at = |generations: &[(u64, u64)]| {
            let actors = |&(generation, seq)| (generation, BTreeMap::from([(actor, seq)]));
            let cluster = generations.iter().map(actors).collect();
            VersionVector { cluster, ..VersionVector::default() }
        };
        let runs = at(&[(1, 9), (2, 5)]).missing_in(&at(&[(1, 8)]));
        let found: Vec<_> = runs.iter().map(|it| (it.document, it.from, it.to)).collect();
        let document = |generation| DocumentId::Cluster { generation };
        assert_eq!(found, [(document(1), 9, 9), (document(2), 1, 5)]);
        assert_eq!(
            at(&[(1, 9)]).missing_in(&at(&[(2, 5), (3, 1)])),
            vec![],
            "it was dropped there"
        );
        assert_eq!(at(&[(1, 9)]).missing_in(&at(&[(1, 7), (2, 5)])).len(), 1, "it came too late");
        assert_eq!(at(&[(0, 9)]).missing_in(&at(&[])).len(), 1);
    }

    #[test]
    fn generations_count_up_and_differ_by_their_nonce() {
        let first = next_generation(0, 0xabcd_1234);
        assert_eq!(first, 0x1_1234);
        assert_eq!(next_generation(first, 7), 0x2_0007);
        assert_eq!([0, first, 0x2_0007].map(generation_count), [0, 1, 2]);
    }
}
