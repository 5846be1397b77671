//! Backups of a cluster: one file with the cluster document, the secrets and configs, and the data of volumes, encrypted with a
//! passphrase.
//!
//! [`take`] makes one through a session with a node, [`BackupFile`] checks and reads it. The layout is in `docs/formats.md`: a header
//! in the clear, an [age](https://age-encryption.org/v1) file that holds a tar archive, and a checksum. So a person can open it without
//! this program. No key of the cluster is in it: a new cluster begins with keys of its own.

mod error;
mod format;
mod passphrase;
mod read;
mod take;
mod write;

pub use error::{BackupError, PassphraseError};
pub use format::{BackupSummary, Header, Manifest, VolumeEntry, VolumeSnapshot};
pub use passphrase::Passphrase;
pub use read::{BackupFile, Contents, Sink};
pub use take::{Destination, PART_PREFIX, Progress, Selection, TakeError, take};
pub use write::Writer;
