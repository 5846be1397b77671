//! Shared state: Automerge documents, the signed changes they are made of, and what they say together.
//!
//! [`Replica`] holds one node's copy of every document and decides which changes enter it; [`View`] is what the
//! documents say: who is up ([`liveness`]), what is wanted, and where it goes. A view is a function of the documents
//! alone, so nodes that have the same changes see the same.
//!
//! Everything stored is a scalar under one of the fixed maps that a document is born with: two nodes that write the
//! same key at the same time give one winner and hide nothing else. Pure: no clock, no randomness, no I/O.

mod document;
pub mod liveness;
mod received;
mod replica;
mod state;
mod view;

pub use document::DocumentError;
pub use received::{Received, Rejected};
pub use replica::Replica;
pub use state::{
    ClusterState, FileKey, ImageRecord, MoveOrder, NodeState, SealedFile, ServiceRecord,
    UpdateResult,
};
pub use view::{UpdateStatus, View, claims_of_slot};
