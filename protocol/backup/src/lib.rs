//! Backups of a cluster: one file with the cluster document, the secrets and configs, and the data of volumes, encrypted with a
//! passphrase.
//!
//! [`take`] makes one through a session with a node, in a file or in object storage; [`BackupFile`] checks and reads it. The layout is in `docs/formats.md`: a header
//! in the clear, an [age](https://age-encryption.org/v1) file that holds a tar archive, and a checksum. So a person can open it without
//! this program. No key of the cluster is in it: a new cluster begins with keys of its own.

mod error;
mod format;
mod location;
mod passphrase;
mod read;
mod scheduled;
mod stored;
mod take;
mod target;
mod write;

pub use error::{BackupError, PassphraseError};
pub use format::{BackupSummary, Header, Manifest, VolumeEntry, VolumeSnapshot};
pub use location::Location;
pub use passphrase::Passphrase;
pub use read::{BackupFile, Contents, Sink};
pub use scheduled::{
    SCHEDULED_PREFIX, incomplete_name, is_incomplete, is_scheduled, scheduled_name,
};
pub use stored::{Download, Found, Stored, find_stored, list_stored};
pub use take::{Progress, Selection, TakeError, take};
pub use target::{FileTarget, PART_PREFIX, S3Target, Target};
pub use write::Writer;
