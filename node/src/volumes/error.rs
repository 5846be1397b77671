//! Why a copy is not up to date.

use vc_protocol::volume::SnapshotId;
use vc_runtime::{DockerError, RuntimeError};

use crate::frames::FrameError;

/// Why a copy is not up to date; tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error(transparent)]
    Store(#[from] vc_volumes::Error),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("Docker cannot list the containers of the volume: {0}")]
    Docker(#[from] DockerError),
    #[error("cannot get snapshot {id} from {node}: {source}; see 'vc nodes'")]
    Transfer { id: SnapshotId, node: String, source: TransferError },
    #[error("snapshot {0} is on no node that is up; see 'vc volume ls' and 'vc nodes'")]
    NoSource(SnapshotId),
}

impl CopyError {
    /// Returns whether it may be over in a moment: another node starts, or has something newer.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::NoSource(_) => true,
            Self::Transfer { source, .. } => !matches!(source, TransferError::Store(_)),
            _ => false,
        }
    }

    /// Returns whether this node's disk has no room for what it was to do.
    pub(super) fn needs_room(&self) -> bool {
        matches!(self, Self::Store(vc_volumes::Error::NoSpace { .. }))
    }
}

/// Why a snapshot did not come from another node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    #[error("it cannot be reached ({0})")]
    Unreachable(#[from] libp2p_stream::OpenStreamError),
    #[error("the stream broke ({0})")]
    Broken(#[from] FrameError),
    #[error("no answer within {0} s")]
    TimedOut(u64),
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Store(#[from] vc_volumes::Error),
}
