//! Volumes on disk: snapshots of a working directory, copies between nodes, archives.
//!
//! A [`Store`] keeps the volumes of a node under `DATA_DIR/volumes`. Each [`Volume`] has *snapshots*, which never change and
//! share what they have in common (`rsync --link-dest`), and belongs to a *working directory* elsewhere, which instances write
//! (on the primary) or which is kept equal to the newest snapshot (on a replica).
//!
//! - **A snapshot is whole or not there**: it is made in a directory of its own, synced, and published by one rename.
//! - **Writes are fenced** by epochs of the volume's lease: what is below [`Volume::raise_fence`] is refused.
//! - **Nothing that was written is dropped in silence**: what a working directory has that is in no snapshot is put aside as a
//!   *conflict* before other content replaces it.
//! - **Operations are futures that may be dropped**: their processes are killed then, and the store stays usable. So it does
//!   after SIGKILL and power cuts.
//! - rsync does the copying, in processes that are confined to the directories that they copy (`helper`).
//!
//! The format on disk is in `docs/volumes.md`.

mod archive;
mod attributes;
mod capabilities;
mod changes;
mod child;
mod conflict;
mod create;
mod descriptor;
mod error;
mod file_list;
mod follow;
pub mod helper;
mod keep;
mod layout;
mod listing;
mod manifest;
mod pause;
mod rsync;
mod snapshot;
mod state;
mod store;
mod transfer;
mod trash;
mod tree;
mod unpack;
mod upload;
mod volume;

pub use conflict::Conflict;
pub use error::Error;
pub use follow::{Begun, Source};
pub use keep::prunable;
pub use manifest::{MAX_HISTORY, Manifest};
pub use pause::{NoPause, Pause, PauseError};
pub use snapshot::Outcome;
pub use store::Store;
pub use trash::Trashed;
pub use upload::{Replaced, Uploading};
pub use volume::Volume;
