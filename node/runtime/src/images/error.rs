//! Why an operation on images failed. Each error is one line for people.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vc_frames::FrameError;
use vc_protocol::image::{Digest, DigestError, ManifestError};
use vc_protocol::{ApiError, ErrorCode};

use super::reference::ReferenceError;
use crate::docker_error::DockerError;
use crate::error::api_error;

/// Why the image store did not read or write something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk has no space left.
    #[error("the disk of this node is full; free some space")]
    Full,
    /// An image of known size does not fit.
    #[error(
        "not enough disk space in {dir}: {needed_mb} MB needed, {free_mb} MB free; free some space"
    )]
    NoSpace {
        /// The store's directory.
        dir: PathBuf,
        /// What the image takes, in megabytes.
        needed_mb: u64,
        /// What is available to images, in megabytes.
        free_mb: u64,
    },
    /// Any other error of the disk.
    #[error("cannot access the image store on this node: {0}")]
    Io(io::Error),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        if is_full(&error) { Self::Full } else { Self::Io(error) }
    }
}

/// Returns whether the disk has no space left, or the quota is used up.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why a request to a member failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    #[error("cannot be reached ({0})")]
    Unreachable(io::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The member answered that it failed.
    #[error("{0}")]
    Refused(String),
    #[error("sent an unexpected response")]
    Protocol,
    #[error("sent an invalid manifest: {0}")]
    Manifest(#[from] ManifestError),
    #[error("sent the manifest of another image")]
    OtherImage,
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Why a blob could not be fetched from members.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// No member that has it is left; the failure of each. What was received is kept for the next attempt.
    #[error("{0}")]
    NoPeers(String),
    /// The received bytes do not match the digest, and were discarded.
    #[error("blob {blob} does not match its digest; retrying from one node at a time")]
    Corrupt { blob: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an image could not be transferred from members into Docker.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A blob does not contain the layer that the manifest says.
    #[error("the manifest does not match the layers")]
    Manifest,
    #[error("Docker cannot load it: {0}")]
    Docker(#[from] DockerError),
    #[error(
        "Docker did not load it, though it reported no error; see the log of Docker on this node"
    )]
    OtherId,
}

/// Why an archive was not packed. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The archive could not be read, or the store not written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The archive does not contain the expected image.
    #[error("the archive does not contain image {id}: {reason}")]
    Mismatch {
        /// The expected image.
        id: Digest,
        /// What does not match.
        reason: String,
    },
}

/// Why an image could not be exported from Docker into the store. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Neither the store nor Docker has it.
    #[error("image {0} is not on this node")]
    NotFound(String),
    /// Docker failed.
    #[error("Docker cannot export the image: {0}")]
    Docker(#[from] DockerError),
    /// Docker failed while it sent the archive.
    #[error("Docker cannot export the image: {0}")]
    Refused(String),
    /// The archive is not the image.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The work was interrupted.
    #[error("the export of the image from Docker was interrupted; try again")]
    Interrupted,
}

/// Why an image could not be brought into this node's Docker engine.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// This node runs no Docker engine.
    #[error("this node has no Docker engine")]
    NoDocker,
    /// The reference is malformed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// No node and no registry has it.
    #[error(
        "image {image} not found on any node or registry: not in Docker on this node{searched}; {registry}; push it \
         with 'vc image push {image}'"
    )]
    NotFound {
        /// Its canonical reference.
        image: String,
        /// Text after "on this node" that lists the members that do not have it or are down; may be empty.
        searched: String,
        /// Why no registry gave it.
        registry: RegistryMiss,
    },
    /// The registry has another image under this name than the one that the deployment is pinned to.
    #[error(
        "image {image} is {found} in the registry, but {pinned} was deployed and no node has it{searched}; deploy again"
    )]
    Moved {
        /// Its canonical reference.
        image: String,
        /// The short id of what the registry has now.
        found: String,
        /// The short id of what was deployed.
        pinned: String,
        /// Text after "on this node" that lists the members that do not have it or are down; may be empty.
        searched: String,
    },
    /// Members have it, but it could not be transferred.
    #[error("cannot load image {image}: {reason}")]
    Load {
        /// Its canonical reference.
        image: String,
        /// The cause, for people.
        reason: String,
    },
    /// Docker failed.
    #[error("Docker cannot pull the image: {0}")]
    Docker(#[from] DockerError),
}

/// Why no registry gave an image.
#[derive(Debug, thiserror::Error)]
pub enum RegistryMiss {
    /// It is requested by id alone.
    #[error("no registry was asked, since the image is named by its id alone")]
    NoName,
    /// The registry failed or refused.
    #[error("registry: {0}")]
    Failed(DockerError),
    /// Docker pulled something, but the reference still names no image.
    #[error("the registry returned another image")]
    OtherImage,
}

/// Why a pushed image was not taken. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The reference is malformed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The image id is malformed.
    #[error(transparent)]
    Id(#[from] DigestError),
    /// The limit of concurrent exports and uploads is reached.
    #[error("this node is receiving other images; try again in a moment")]
    Busy,
    /// The image could not be exported from this node's Docker engine.
    #[error(transparent)]
    Export(Arc<ExportError>),
    /// The client's stream broke.
    #[error(transparent)]
    Stream(#[from] FrameError),
}

impl From<ExportError> for PushError {
    fn from(error: ExportError) -> Self {
        Self::Export(Arc::new(error))
    }
}

impl From<PushError> for ApiError {
    fn from(error: PushError) -> Self {
        let code = match &error {
            PushError::Reference(_) | PushError::Id(_) => ErrorCode::InvalidArgument,
            PushError::Busy => ErrorCode::ResourceExhausted,
            PushError::Stream(_) => ErrorCode::Unavailable,
            PushError::Export(error) => match &**error {
                ExportError::NotFound(_) => ErrorCode::NotFound,
                ExportError::Pack(PackError::Mismatch { .. }) => ErrorCode::InvalidArgument,
                ExportError::Store(StoreError::Full | StoreError::NoSpace { .. }) => {
                    ErrorCode::ResourceExhausted
                }
                ExportError::Pack(PackError::Io(error)) if is_full(error) => {
                    ErrorCode::ResourceExhausted
                }
                ExportError::Docker(_) | ExportError::Refused(_) | ExportError::Interrupted => {
                    ErrorCode::Unavailable
                }
                ExportError::Pack(_) | ExportError::Store(_) => ErrorCode::Internal,
            },
        };
        api_error(code, &error.to_string())
    }
}

/// Returns the short form of a digest, for texts.
pub(super) fn short(id: &Digest) -> String {
    id.short().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_answers_resource_exhausted() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let errors = [
            ExportError::Store(StoreError::from(full())),
            ExportError::Pack(PackError::Io(full())),
        ];
        for error in errors {
            assert_eq!(ApiError::from(PushError::from(error)).code, ErrorCode::ResourceExhausted);
        }
    }
}
