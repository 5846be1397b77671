//! The entries of the cluster document that say which signing key counts, and the certificates that this key signed for the
//! nodes of before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vc_protocol::token::{NodeRole, SigningKey, read_endorsement};
use vc_protocol::{ClusterId, Millis, NodeId};

/// The key of an entry: `EPOCH`, or `KEY/NODE`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrustKey {
    /// The signing key of an epoch.
    Epoch(u32),
    /// The certificate of a node.
    Certificate {
        /// The peer id of the signing key.
        key: NodeId,
        /// The node.
        node: NodeId,
    },
}

impl Display for TrustKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Epoch(epoch) => write!(f, "{epoch}"),
            Self::Certificate { key, node } => write!(f, "{key}/{node}"),
        }
    }
}

/// The text is not a [`TrustKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the key of a signing key or certificate: expected EPOCH or KEY/NODE")]
pub struct ParseTrustKeyError(String);

impl FromStr for TrustKey {
    type Err = ParseTrustKeyError;
    fn from_str(text: &str) -> Result<Self, ParseTrustKeyError> {
        let bad = || ParseTrustKeyError(text.to_owned());
        match text.split_once('/') {
            None => Ok(Self::Epoch(text.parse().map_err(|_| bad())?)),
            Some((key, node)) => Ok(Self::Certificate {
                key: key.parse().map_err(|_| bad())?,
                node: node.parse().map_err(|_| bad())?,
            }),
        }
    }
}

/// The value of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TrustEntry {
    /// Of an epoch.
    Rotation(Rotation),
    /// Of a node: its certificate.
    Certificate(String),
}

/// A rotation of the signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The root's endorsement of the signing key.
    pub endorsement: String,
    /// When it was rotated, by the clock of the server that did it; for display.
    pub rotated: Millis,
    /// Name of the user that asked for it.
    pub rotated_by: String,
}

/// Whose certificates count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// The signing key whose certificates count; `None` if the view was made of documents alone.
    pub signing: Option<SigningKey>,
    /// The members that have not left.
    pub members: BTreeMap<NodeId, NodeRole>,
    /// The nodes with a certificate that counts: members, those that left, and former ones whose changes are kept.
    pub certified: BTreeSet<NodeId>,
    /// The nodes that have written a document which this node holds.
    pub authors: BTreeMap<NodeId, NodeRole>,
}

impl Trust {
    /// Returns how often the signing key was rotated.
    pub fn epoch(&self) -> u32 {
        self.signing.map_or(0, |signing| signing.epoch)
    }
}

/// Returns the last rotation, and the signing key since then. If two servers rotated at the same time, the document has one of
/// both. Entries without a valid endorsement do not count.
pub(crate) fn last_rotation(
    trust: &BTreeMap<TrustKey, TrustEntry>,
    cluster: ClusterId,
) -> Option<(SigningKey, &Rotation)> {
    let mut rotations = trust.iter().filter_map(|entry| match entry {
        (TrustKey::Epoch(epoch), TrustEntry::Rotation(rotation)) => {
            let signing = read_endorsement(&rotation.endorsement, cluster).ok()?;
            (signing.epoch == *epoch).then_some((signing, rotation))
        }
        _ => None,
    });
    rotations.next_back()
}

/// Returns the certificates in the entries.
pub(crate) fn certificates(
    trust: &BTreeMap<TrustKey, TrustEntry>,
) -> impl Iterator<Item = &String> {
    trust.values().filter_map(|entry| match entry {
        TrustEntry::Certificate(certificate) => Some(certificate),
        TrustEntry::Rotation(_) => None,
    })
}
