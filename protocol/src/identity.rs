//! The identity check between members ([`IDENTITY_PROTOCOL`](crate::wire::IDENTITY_PROTOCOL)): finds two processes that run
//! with one identity, on copies of a data directory.
//!
//! Members send each other a [`Query`] on every connection; the answer is a [`SignedStatement`]. A member that has
//! statements of two processes with one peer id asks each for another one, with the number of the other process as the
//! challenge, and passes it on to that one. A process draws its number at its start, so a statement about it was made later:
//! both processes run. The connection to a process that has ended brings no statement.

use serde::{Deserialize, Serialize};

use crate::wire::{self, WireError};
use crate::{Keypair, Millis, Multiaddr, Name, NodeId};

/// The largest frame of the identity check, in bytes.
pub const MAX_IDENTITY_FRAME: usize = 4 * 1024;

/// A request for a statement.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Query {
    /// Comes back in the [`Statement`]; 0 without a meaning.
    #[serde(default)]
    pub challenge: u64,
    /// Another process with the receiver's identity.
    #[serde(default)]
    pub duplicate: Option<Duplicate>,
}

/// A process with the identity of another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicate {
    /// The process's statement; its challenge is the number of the process that receives this.
    pub statement: SignedStatement,
    /// Where the sender is connected to it.
    pub address: Multiaddr,
}

/// What a process says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// A random number, drawn at the start of the process.
    pub process: u64,
    /// How long the process has run.
    pub uptime: Millis,
    /// Display name of its node.
    pub name: Name,
    /// The challenge of the [`Query`].
    pub challenge: u64,
}

/// The CBOR-encoded [`Statement`], and the node's Ed25519 signature over `"vc identity 1\0"` and these bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedStatement {
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
    #[serde(with = "serde_bytes")]
    signature: Vec<u8>,
}

/// Why a statement is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// It does not decode.
    #[error(transparent)]
    Malformed(#[from] WireError),
    /// It was not signed by this node.
    #[error("the statement is not signed by {0}")]
    BadSignature(NodeId),
}

/// Domain separation: a signature over a statement is valid for nothing else.
const DOMAIN: &[u8] = b"vc identity 1\0";

impl SignedStatement {
    /// Encodes and signs a statement with the node's key.
    ///
    /// # Panics
    /// Never: Ed25519 signing does not fail.
    #[allow(clippy::expect_used, reason = "Ed25519 signing has no failing case")]
    pub fn sign(statement: &Statement, key: &Keypair) -> Self {
        let body = wire::encode(statement);
        let signature = key.sign(&[DOMAIN, &body].concat()).expect("ed25519");
        Self { body, signature }
    }

    /// Decodes the statement after checking that a process of `node` signed it.
    pub fn verify(&self, node: NodeId) -> Result<Statement, StatementError> {
        if !node.public_key().verify(&[DOMAIN, &self.body].concat(), &self.signature) {
            return Err(StatementError::BadSignature(node));
        }
        Ok(wire::decode(&self.body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_verifies_only_as_its_node_signed_it() {
        let [key, other] = [1, 2].map(|n| Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes"));
        let [node, other] =
            [&key, &other].map(|key| NodeId::of(&key.public()).expect("an Ed25519 key"));
        let name = "attic".parse().expect("a name");
        let statement = Statement { process: 7, uptime: 1000, name, challenge: 9 };
        let mut signed = SignedStatement::sign(&statement, &key);
        assert_eq!(signed.verify(node), Ok(statement));
        assert_eq!(signed.verify(other), Err(StatementError::BadSignature(other)));
        signed.body[10] ^= 1;
        assert_eq!(signed.verify(node), Err(StatementError::BadSignature(node)));
    }
}
