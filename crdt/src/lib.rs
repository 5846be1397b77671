//! Shared state: Automerge documents, the signed changes they are made of, and the view of the cluster they give.
//!
//! [`Replica`] holds one node's copy of every document and decides which changes enter it. [`View`] is the cluster as the
//! documents describe it: which nodes are up ([`liveness`]), which services are deployed, and where they run. A view is
//! a function of the documents alone, so nodes with the same changes have equal views.
//!
//! Everything stored is a scalar under one of the fixed maps that every document has from its first change on: if two
//! nodes write the same key at the same time, one value wins and nothing else is hidden. Pure: no clock, no randomness,
//! no I/O. `docs/formats.md` lists the maps, keys and values.

mod cluster_document;
mod document;
mod founding;
mod held;
mod history;
mod known;
mod limited;
pub mod liveness;
mod membership;
mod progress;
mod received;
mod receivers;
mod replica;
mod runs;
mod schema;
mod state;
mod trust;
mod view;
mod voters;
mod writes;

pub use document::{DocumentError, Schema, SchemaChange};
pub use founding::{Entries, EntriesError};
pub use held::Held;
pub use history::{ParseVersionKeyError, VersionKey, VersionRecord};
pub use known::KnownVersions;
pub use received::{EntryError, Received, Rejected, UnreadableEntry};
pub use receivers::{AlertKey, AlertRecord, ParseAlertKeyError, Receiver, ReceiverTarget};
pub use replica::{Loaded, NewGeneration, Replica};
pub use runs::{Run, Runs};
pub use state::{
    ClusterState, FileKey, ImageRecord, JoinKey, JoinRecord, MoveOrder, NodeState,
    ParseFileKeyError, ParseJoinKeyError, ParseRevocationKeyError, Revocation, RevocationKey,
    SealedFile, ServiceRecord, Silence, TokenRecord, Tombstone, UpdateResult, VolumeRecord,
};
pub use trust::{ParseTrustKeyError, Rotation, Trust, TrustEntry, TrustKey};
pub use view::{UpdateStatus, View, claims_of_slot};
pub use voters::{ParseVoterKeyError, VoterEntry, VoterKey};
pub use writes::{ClusterChange, Write};
