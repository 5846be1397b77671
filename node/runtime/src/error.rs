//! Why a request about an instance failed.

use std::path::PathBuf;

use vc_protocol::{ApiError, ErrorCode, Slot};

use crate::docker_error::DockerError;

/// Why logs, a command or files of an instance cannot be had. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The slot has no instance on this node.
    #[error("{0} is not on this node; see 'vc ps'")]
    NoInstance(Slot),
    /// The instance exists, but does not run.
    #[error("{0} is not running; see 'vc ps {service}'", service = .0.service)]
    NotRunning(Slot),
    /// The instance does not wait for a client: it was not created yet, or one is attached to it, or was.
    #[error("{0} does not wait for a client to attach")]
    NotWaiting(Slot),
    /// The Docker engine does not answer.
    #[error("Docker at {host} does not answer: {reason}")]
    DockerUnavailable {
        /// The address of the engine.
        host: String,
        /// Why, in one line.
        reason: String,
    },
    /// The Docker engine refused.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// The Docker engine did not start a command within the time limit.
    #[error("Docker did not start the command within {0} s; try again")]
    ExecTimeout(u64),
    /// The connection for a command's input and output could not be set up.
    #[error("cannot run the command: {0}")]
    Exec(#[source] std::io::Error),
    /// There is no file at this path of the instance.
    #[error("there is no {path} in {slot}")]
    NoPath {
        /// The requested path.
        path: String,
        /// The slot of the instance.
        slot: Slot,
    },
    /// A file cannot be created at this path, since its directory does not exist.
    #[error("there is no directory {path} in {slot}")]
    NoDirectory {
        /// The directory, or a path in it.
        path: String,
        /// The slot of the instance.
        slot: Slot,
    },
    /// The request is possible for containers only; its name.
    #[error("{0} needs Docker; this node runs plain processes (--runtime process)")]
    NeedsDocker(&'static str),
    /// The processes of an instance could not be stopped for a snapshot.
    #[error("cannot pause {0} for a snapshot: {1}")]
    Pause(Slot, #[source] std::io::Error),
    /// The data of volumes is not on this host.
    #[error("snapshots of volumes need a Docker engine on this host, but it is at {0}")]
    RemoteVolumes(String),
    /// The directory of a volume cannot be created.
    #[error("cannot create the directory {} of a volume: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The error of the disk.
        source: std::io::Error,
    },
    /// The log files cannot be read.
    #[error("cannot read the logs of {slot}: {source}")]
    ReadLogs {
        /// The slot of the instance.
        slot: Slot,
        /// The error of the disk.
        source: std::io::Error,
    },
}

impl From<RuntimeError> for ApiError {
    fn from(error: RuntimeError) -> Self {
        let code = match &error {
            RuntimeError::NoInstance(_)
            | RuntimeError::NoPath { .. }
            | RuntimeError::NoDirectory { .. } => ErrorCode::NotFound,
            RuntimeError::NotRunning(_)
            | RuntimeError::NotWaiting(_)
            | RuntimeError::Docker(_)
            | RuntimeError::RemoteVolumes(_) => ErrorCode::FailedPrecondition,
            RuntimeError::DockerUnavailable { .. } | RuntimeError::Exec(_) => {
                ErrorCode::Unavailable
            }
            RuntimeError::ExecTimeout(_) => ErrorCode::DeadlineExceeded,
            RuntimeError::NeedsDocker(_) => ErrorCode::Unimplemented,
            RuntimeError::ReadLogs { .. }
            | RuntimeError::Pause(..)
            | RuntimeError::Directory { .. } => ErrorCode::Internal,
        };
        api_error(code, &error.to_string())
    }
}

/// Makes an error for clients of a text `CAUSE; FIX`.
pub(crate) fn api_error(code: ErrorCode, text: &str) -> ApiError {
    match text.rsplit_once("; ") {
        Some((message, hint)) => ApiError::new(code, message).with_hint(hint),
        None => ApiError::new(code, text),
    }
}
