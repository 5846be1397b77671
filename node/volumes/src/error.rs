//! Why an operation on a volume failed.

use std::io;
use std::path::{Path, PathBuf};

use vc_protocol::lease::Epoch;
use vc_protocol::volume::SnapshotId;

use crate::pause::PauseError;

/// Why an operation on a volume failed. What was committed before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is missing or too old.
    #[error(
        "volume {volume} cannot be copied: {program} {problem}: install {program} {needed} or later on this host, 'apt-get install {program}'"
    )]
    Program {
        /// The volume.
        volume: String,
        /// The program.
        program: &'static str,
        /// What is wrong with it.
        problem: String,
        /// The first version that will do.
        needed: &'static str,
    },
    /// A disk is full, or would be.
    #[error(
        "volume {volume} cannot be copied: the disk of {} has {} free, and up to {} are needed: make room there, or keep the volume on one node with x-vc: {{replicas: 1}}",
        path.display(), in_bytes(*free_bytes), in_bytes(*needed_bytes)
    )]
    NoSpace {
        /// The volume.
        volume: String,
        /// Where there is no space left.
        path: PathBuf,
        /// What is free there.
        free_bytes: u64,
        /// The most that the operation needs.
        needed_bytes: u64,
    },
    /// Another node may write the volume by now.
    #[error("volume {volume} is written under epoch {fence} by now, and epoch {epoch} has ended")]
    Fenced {
        /// The volume.
        volume: String,
        /// The epoch of the caller.
        epoch: Epoch,
        /// The lowest epoch that may write.
        fence: Epoch,
    },
    /// The working directory does not belong to the epoch.
    #[error(
        "the working directory of volume {volume} is not written under epoch {epoch}: begin it first"
    )]
    NotBegun {
        /// The volume.
        volume: String,
        /// The epoch of the caller.
        epoch: Epoch,
    },
    /// A snapshot is no later one than that which is there.
    #[error("snapshot {id} of volume {volume} is not later than {newest}, which this node has")]
    NotNewer {
        /// The volume.
        volume: String,
        /// What was offered.
        id: SnapshotId,
        /// What is there.
        newest: SnapshotId,
    },
    /// A snapshot, a conflict or something in the trash is not there.
    #[error("volume {volume} has no {what} on this node: it was pruned, or another node has it")]
    Missing {
        /// The volume.
        volume: String,
        /// `snapshot 3-12`
        what: String,
    },
    /// A path is not in a snapshot.
    #[error("volume {volume} has no '{path}': {source}")]
    NoPath {
        /// The volume.
        volume: String,
        /// As it was asked for.
        path: String,
        /// The error of the system.
        source: io::Error,
    },
    /// A volume is there already.
    #[error("volume {volume} has data on this node: remove it first, or choose another name")]
    Exists {
        /// The volume.
        volume: String,
    },
    /// What was received is not the snapshot.
    #[error(
        "snapshot {id} of volume {volume} does not match its manifest after the transfer ({files} of {expected_files} entries); it was dropped and is transferred again"
    )]
    Digest {
        /// The volume.
        volume: String,
        /// The snapshot.
        id: SnapshotId,
        /// What arrived.
        files: u64,
        /// What should have.
        expected_files: u64,
    },
    /// The sender refused, or speaks another protocol.
    #[error("the other node does not send a snapshot of volume {volume}: {reason}")]
    Refused {
        /// The volume.
        volume: String,
        /// What it said.
        reason: String,
    },
    /// The stream to the other node broke.
    #[error(
        "the transfer of volume {volume} broke off: {source}; it continues with the next connection"
    )]
    Stream {
        /// The volume.
        volume: String,
        /// The error of the stream.
        source: io::Error,
    },
    /// A program that copies failed.
    #[error("{program} of volume {volume} failed ({status}): {message}")]
    Failed {
        /// The volume.
        volume: String,
        /// The program.
        program: &'static str,
        /// Its exit status.
        status: String,
        /// The end of what it wrote to stderr.
        message: String,
    },
    /// What a client sends could not be unpacked.
    #[error("cannot unpack into volume {volume}: {message}")]
    Unpack {
        /// The volume.
        volume: String,
        /// What is wrong with it.
        message: String,
    },
    /// The instances could not be paused.
    #[error("no snapshot of volume {volume}: {source}")]
    Pause {
        /// The volume.
        volume: String,
        /// Why not.
        source: PauseError,
    },
    /// A file or directory could not be read or written.
    #[error("cannot {action} '{}': {source}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The file or directory that it was to be done to.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// Returns an amount in the largest unit that it fills: `12 GiB`.
fn in_bytes(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes >> shift > 0);
    unit.map_or_else(
        || format!("{bytes} bytes"),
        |(shift, unit)| format!("{} {unit}", bytes >> shift),
    )
}

/// Names an action and a path in an error of the system.
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::Io { action, path: path.to_owned(), source: source.into() })
    }
}
