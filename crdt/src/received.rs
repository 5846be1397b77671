//! What came of a batch that somebody sent.

use vc_protocol::NodeId;
use vc_protocol::change::{ChangeError, DocumentId, SignedChange};
use vc_protocol::token::TokenError;

use crate::document::DocumentError;

/// What a batch brought.
#[derive(Debug, Default)]
pub struct Received {
    /// Changes that entered, to be made durable.
    pub accepted: Vec<SignedChange>,
    /// Certificates that were new, to be made durable.
    pub certificates: Vec<String>,
    /// Documents that a newer generation replaced: their changes can go from the disk.
    pub replaced: Vec<DocumentId>,
    /// What was refused, for the log. Whoever sent it is broken or hostile.
    pub rejected: Vec<Rejected>,
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The certificate does not hold.
    #[error("certificate refused: {0}")]
    Certificate(#[from] TokenError),
    /// The envelope does not hold.
    #[error("change refused: {0}")]
    Change(#[from] ChangeError),
    /// The author is no member.
    #[error("change refused: {0} is not a member")]
    NotAMember(NodeId),
    /// The author sent a poisonous change before.
    #[error("change refused: {0} is in quarantine")]
    Quarantined(NodeId),
    /// The document would not take it.
    #[error("change of {author} refused: {error}")]
    Document {
        /// Who signed it.
        author: NodeId,
        /// Why.
        error: DocumentError,
    },
}
