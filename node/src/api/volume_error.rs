//! Why a request about volumes failed.

use std::io;
use std::path::PathBuf;

use vc_protocol::control::MAX_DIRECTORY_ID;
use vc_protocol::volume::SnapshotId;
use vc_protocol::{ApiError, ErrorCode, ServiceKey, VolumeKey};
use vc_runtime::docker::SourceError;
use vc_runtime::{DockerError, RuntimeError};

use super::volume_archives::{MAX_ARCHIVES, MAX_PATH};
use crate::auth::privileges::CopyPrivilegeError;

/// Why a request about what a node keeps of a volume failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum VolumeError {
    #[error("this node runs plain processes, which have no volumes")]
    NoDocker,
    #[error("this node has just started, and reads its volumes")]
    Starting,
    #[error("the volume {volume} exists already, on {node}")]
    Exists { volume: VolumeKey, node: String },
    #[error("members are of a version that knows no snapshots of volumes")]
    OlderMembers,
    #[error("no node runs Docker and is up")]
    NoNode,
    #[error("this node makes or reads {MAX_ARCHIVES} archives of volumes already, its limit")]
    TooMany,
    #[error("volume {volume} has no snapshot {snapshot} on this node")]
    NoSnapshot { volume: VolumeKey, snapshot: SnapshotId },
    #[error("the volume is about to move to another node")]
    Moving,
    #[error("the path has more than {MAX_PATH} bytes")]
    LongPath,
    #[error("the archive cannot be read: {0}")]
    Archive(io::Error),
    #[error("no volume '{0}'")]
    NoVolume(VolumeKey),
    #[error("nothing of volume {0} is in the trash of this node")]
    NotInTrash(VolumeKey),
    #[error("volume {volume} is in use by {}", list(.services))]
    InUse { volume: VolumeKey, services: Vec<ServiceKey> },
    #[error("this node has never written volume {0}")]
    NotWritten(VolumeKey),
    #[error("another directory is uploaded for volume {0}")]
    Uploading(VolumeKey),
    #[error("the upload goes on in another session")]
    Superseded,
    #[error("the name of the directory has more than {MAX_DIRECTORY_ID} bytes")]
    LongDirectory,
    #[error("the node is stopping")]
    Stopping,
    #[error("cannot look for containers of the volume: {0}")]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the directory {} was replaced while it was copied", .0.display())]
    Replaced(PathBuf),
    #[error(transparent)]
    Privilege(#[from] CopyPrivilegeError),
    #[error(transparent)]
    Store(#[from] vc_volumes::Error),
}

fn list(services: &[ServiceKey]) -> String {
    services.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl From<VolumeError> for ApiError {
    fn from(error: VolumeError) -> Self {
        let message = error.to_string();
        let (code, hint) = match error {
            VolumeError::Uploading(_) => {
                (ErrorCode::Unavailable, "try again when that has ended".to_owned())
            }
            VolumeError::Superseded => (ErrorCode::Aborted, "see how that ends".to_owned()),
            VolumeError::LongDirectory => (ErrorCode::InvalidArgument, "shorten it".to_owned()),
            VolumeError::Moving => (ErrorCode::Unavailable, "try again".to_owned()),
            VolumeError::NoDocker | VolumeError::Starting | VolumeError::Stopping => {
                (ErrorCode::Unavailable, "try again, or use another node with --peer".to_owned())
            }
            VolumeError::Source(error) => return error.into(),
            VolumeError::Privilege(error) => return error.into(),
            VolumeError::Exists { volume, .. } => (
                ErrorCode::AlreadyExists,
                format!("choose another name, or remove it first: 'vc volume rm {volume}'"),
            ),
            VolumeError::OlderMembers => {
                (ErrorCode::FailedPrecondition, "upgrade them; see 'vc nodes'".to_owned())
            }
            VolumeError::NoSnapshot { volume, .. } => {
                (ErrorCode::NotFound, format!("see 'vc volume snapshots {volume}'"))
            }
            VolumeError::Replaced(_) => (ErrorCode::FailedPrecondition, "try again".to_owned()),
            VolumeError::LongPath => (ErrorCode::InvalidArgument, "shorten it".to_owned()),
            VolumeError::NoNode => (ErrorCode::Unavailable, "see 'vc nodes'".to_owned()),
            VolumeError::TooMany => (
                ErrorCode::ResourceExhausted,
                "try again when one has ended, or use another node with --peer".to_owned(),
            ),
            VolumeError::NoVolume(_) => (ErrorCode::NotFound, "see 'vc volume ls'".to_owned()),
            VolumeError::NotInTrash(_) => {
                (ErrorCode::NotFound, "what is removed stays for 24 h; see 'vc nodes'".to_owned())
            }
            VolumeError::InUse { services, .. } => {
                let scale = |it: &ServiceKey| format!("'vc scale {it}=0'");
                let commands: Vec<String> = services.iter().map(scale).collect();
                let hint = format!(
                    "stop it first with {}, and scale it up afterwards",
                    commands.join(", ")
                );
                (ErrorCode::FailedPrecondition, hint)
            }
            VolumeError::NotWritten(_) => {
                (ErrorCode::FailedPrecondition, "start its service once".to_owned())
            }
            VolumeError::Store(vc_volumes::Error::Missing { volume, .. }) => {
                let hint = format!(
                    "see 'vc volume snapshots {volume}' and 'vc volume conflicts {volume}'; 'vc volume move' takes the volume to \
                     the node that has it"
                );
                (ErrorCode::NotFound, hint)
            }
            VolumeError::Store(vc_volumes::Error::Exists { volume }) => {
                (ErrorCode::AlreadyExists, format!("remove it first: 'vc volume rm {volume}'"))
            }
            VolumeError::Store(vc_volumes::Error::Unpack { .. }) => {
                (ErrorCode::InvalidArgument, "correct that, and try again".to_owned())
            }
            VolumeError::Archive(_)
            | VolumeError::Store(vc_volumes::Error::Failed { program: "tar", .. }) => (
                ErrorCode::InvalidArgument,
                "an archive is what tar writes, plain or compressed with zstd; nothing was changed"
                    .to_owned(),
            ),
            VolumeError::Store(vc_volumes::Error::NoPath { volume, .. }) => (
                ErrorCode::NotFound,
                format!(
                    "the path is relative to the volume; list it with 'vc volume cp {volume}:/ DIR'"
                ),
            ),
            VolumeError::Store(
                vc_volumes::Error::NoSpace { .. } | vc_volumes::Error::Program { .. },
            ) => (ErrorCode::FailedPrecondition, "or use another node with --node".to_owned()),
            VolumeError::Docker(_) | VolumeError::Runtime(_) | VolumeError::Store(_) => {
                (ErrorCode::Internal, "see the log of the node".to_owned())
            }
        };
        Self::new(code, message).with_hint(hint)
    }
}
