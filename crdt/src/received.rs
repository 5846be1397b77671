//! The results of receiving changes, and the errors of reading documents.

use vc_protocol::NodeId;
use vc_protocol::change::{ChangeError, DocumentId, SignedChange};
use vc_protocol::token::TokenError;

use crate::document::DocumentError;

/// The result of [`Replica::receive`](crate::Replica::receive).
#[derive(Debug, Default)]
pub struct Received {
    /// The changes that were applied, to be made durable.
    pub accepted: Vec<SignedChange>,
    /// The new certificates, to be made durable.
    pub certificates: Vec<String>,
    /// Documents that a newer generation replaced: their changes can be deleted from the disk.
    pub replaced: Vec<DocumentId>,
    /// What was rejected: the sender is broken or hostile.
    pub rejected: Vec<Rejected>,
    /// Entries that became unreadable with these changes.
    pub unreadable: Vec<UnreadableEntry>,
}

/// Why a certificate or a change was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The certificate is not a valid one of this cluster.
    #[error("invalid certificate: {0}")]
    Certificate(#[from] TokenError),
    /// The envelope of the change is invalid.
    #[error("invalid change: {0}")]
    Change(#[from] ChangeError),
    /// The author has no certificate of this cluster.
    #[error("change by {0}, which is not a member")]
    NotAMember(NodeId),
    /// A change of this author made Automerge panic; all further ones are rejected until this node restarts.
    #[error("change by {0}, whose changes are quarantined since one made Automerge panic")]
    Quarantined(NodeId),
    /// A change on the disk follows, or depends on, one that is missing there.
    #[error("change {seq} of {author} follows or depends on one that is missing on the disk")]
    Gap {
        /// The node that signed the change.
        author: NodeId,
        /// Its sequence number.
        seq: u64,
    },
    /// The document does not accept the change.
    #[error("invalid change by {author}: {error}")]
    Document {
        /// The node that signed the change.
        author: NodeId,
        /// Why the document does not accept it.
        error: DocumentError,
    },
}

/// An entry of a document that this version cannot read: written by a newer version, or by a byzantine member. Every
/// node leaves it out of the view alike, and it stays in the document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unreadable entry '{key}' in map {map}: {error}")]
pub struct UnreadableEntry {
    /// The document that contains the entry.
    pub document: DocumentId,
    /// The map of the document.
    pub map: &'static str,
    /// The key in the map.
    pub key: String,
    /// What does not parse.
    pub error: EntryError,
}

/// Why an entry of a document is unreadable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The key is not one of this map.
    #[error("{0}")]
    Key(String),
    /// The value is another scalar, or a nested object.
    #[error("the value is not a string")]
    NotAString,
    /// The value is not the JSON of this map's type.
    #[error("{0}")]
    Value(String),
}
