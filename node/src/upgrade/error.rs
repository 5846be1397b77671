//! Why a program cannot be replaced.

use std::io;
use std::path::PathBuf;

use vc_protocol::{ApiError, ErrorCode, Supports};

/// Why the program of this node was not replaced. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// The operator of the node does not allow it.
    #[error("this node takes no program from 'vc upgrade'")]
    NotAllowed,
    /// A guard would end with it.
    #[error("this node is the first process of its container, which ends with it")]
    FirstProcess,
    /// Another request upgrades it.
    #[error("an upgrade of this node is under way")]
    UnderWay,
    /// The node is about to end.
    #[error("this node is stopping")]
    Stopping,
    /// It is larger than any build of vc-node.
    #[error("the program has {0} bytes, more than {max}", max = vc_protocol::control::MAX_PROGRAM)]
    TooLarge(u64),
    /// The disk is too full.
    #[error("the disk of {path} has {free} MiB free, and the program needs {needed} MiB")]
    NoRoom {
        /// The directory of the program.
        path: PathBuf,
        /// What is free.
        free: u64,
        /// What is needed.
        needed: u64,
    },
    /// The directory of the program cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The present or the previous program cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The stream broke.
    #[error("the program did not arrive: {0}")]
    Stream(io::Error),
    /// What arrived is something else.
    #[error("the program that arrived has the digest {found}, not {wanted}")]
    Digest {
        /// What the client announced.
        wanted: String,
        /// What it sent.
        found: String,
    },
    /// It did not run, or says that it cannot run this node.
    #[error("the program cannot run this node: {0}")]
    Check(String),
    /// It writes data directories that this version cannot read.
    #[error(
        "vc-node {version} writes format {format} of data directories, which the present one cannot read: this node could not go back"
    )]
    Format {
        /// Its version.
        version: String,
        /// The format.
        format: u32,
    },
    /// It knows less than the cluster uses.
    #[error("vc-node {version} does not support what the cluster may use: {}", missing(*.supports, *.needed))]
    TooOld {
        /// Its version.
        version: String,
        /// What it supports.
        supports: Supports,
        /// What all members support.
        needed: Supports,
    },
}

/// Lists what is needed and not supported.
fn missing(supports: Supports, needed: Supports) -> String {
    let schema = format!("schema {} of the documents (it has {})", needed.schema, supports.schema);
    let plan = format!("version {} of placement (it has {})", needed.plan, supports.plan);
    let all = [
        (supports.schema < needed.schema, schema.as_str()),
        (supports.plan < needed.plan, plan.as_str()),
        (
            needed.prepares && !supports.prepares,
            "updates that start an instance before the one that it replaces ends",
        ),
        (needed.volumes && !supports.volumes, "how volumes are kept"),
        (needed.forgets && !supports.forgets, "keeping the data of volumes that are forgotten"),
    ];
    let missing: Vec<&str> =
        all.into_iter().filter_map(|(is_missing, what)| is_missing.then_some(what)).collect();
    missing.join(", ")
}

impl From<UpgradeError> for ApiError {
    fn from(error: UpgradeError) -> Self {
        let (code, hint) = match &error {
            UpgradeError::NotAllowed => (
                ErrorCode::PermissionDenied,
                "its operator can change that: 'vc-node run --unset no-remote-upgrade'",
            ),
            UpgradeError::FirstProcess => {
                (ErrorCode::FailedPrecondition, "upgrade it with a new image")
            }
            UpgradeError::UnderWay => (ErrorCode::FailedPrecondition, "see 'vc nodes'"),
            UpgradeError::Stopping => (ErrorCode::Unavailable, "try again"),
            UpgradeError::TooLarge(_) => (ErrorCode::InvalidArgument, "name a build of vc-node"),
            UpgradeError::NoRoom { .. } => (ErrorCode::ResourceExhausted, "free some space"),
            UpgradeError::Write { source, .. } => match source.kind() {
                io::ErrorKind::ReadOnlyFilesystem => (
                    ErrorCode::FailedPrecondition,
                    "the node sees that directory read-only: take ProtectSystem= out of its unit, or replace the program by hand",
                ),
                io::ErrorKind::PermissionDenied => (
                    ErrorCode::FailedPrecondition,
                    "the node runs as a user that cannot replace its program: replace it by hand and restart the node",
                ),
                _ => (ErrorCode::Internal, "replace the program by hand and restart the node"),
            },
            UpgradeError::Read { .. } => (ErrorCode::Internal, "see the log of the node"),
            UpgradeError::Stream(_) | UpgradeError::Digest { .. } => {
                (ErrorCode::Internal, "try again")
            }
            UpgradeError::Check(_) => (
                ErrorCode::InvalidArgument,
                "was it built for the architecture and the libc of that host?",
            ),
            UpgradeError::Format { .. } => (
                ErrorCode::FailedPrecondition,
                "upgrade this node by hand, after a backup of its data directory",
            ),
            UpgradeError::TooOld { .. } => {
                (ErrorCode::FailedPrecondition, "upgrade to a build that supports it")
            }
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_program_is_refused_with_what_it_lacks() {
        let needed = Supports { schema: 7, plan: 3, volumes: true, ..Supports::default() };
        let supports = Supports { schema: 6, plan: 3, prepares: true, ..Supports::default() };
        let error = UpgradeError::TooOld { version: "0.1.0".to_owned(), supports, needed };
        assert_eq!(
            error.to_string(),
            "vc-node 0.1.0 does not support what the cluster may use: schema 7 of the documents (it has 6), how volumes are kept"
        );
    }
}
