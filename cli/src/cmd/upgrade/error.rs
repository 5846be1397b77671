//! Why an upgrade stopped.

use vc_protocol::{ApiError, ErrorCode};

/// Why an upgrade stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpgradeError {
    #[error("no node is called {0}")]
    NoNode(String),
    #[error("{count} nodes are called {name}")]
    Ambiguous { name: String, count: usize },
    /// A node that was named is left out.
    #[error("{node} cannot be upgraded: {reason}")]
    LeftOut { node: String, reason: String },
    /// It can pass nothing of an upgrade on.
    #[error("{0}, which vc is connected to, runs a vc-node from before 'vc upgrade'")]
    AttachedIsOld(String),
    /// A node must not restart now.
    #[error("{node} must not restart now: {reason}")]
    MustWait { node: String, reason: String },
    /// A node did not take the program, and runs the one before.
    #[error("{node} was not upgraded: {}", .error.message)]
    Refused { node: String, error: ApiError },
    /// A node went back by itself.
    #[error("{node} went back to vc-node {version}: {reason}")]
    WentBack { node: String, version: String, reason: String },
    /// A node, or the cluster, was not well in time.
    #[error("{node} has the program, and {limit} later there is trouble: {reason}")]
    Trouble { node: String, limit: String, reason: String },
}

impl From<UpgradeError> for ApiError {
    fn from(error: UpgradeError) -> Self {
        let message = error.to_string();
        let (code, hint) = match error {
            UpgradeError::NoNode(_) => (ErrorCode::NotFound, "see 'vc nodes'".to_owned()),
            UpgradeError::Ambiguous { .. } => {
                (ErrorCode::InvalidArgument, "name its id, see 'vc nodes'".to_owned())
            }
            UpgradeError::LeftOut { .. } => (ErrorCode::FailedPrecondition, String::new()),
            UpgradeError::AttachedIsOld(_) => (
                ErrorCode::FailedPrecondition,
                "connect to a node with a newer one, with --peer, or upgrade it by hand".to_owned(),
            ),
            UpgradeError::MustWait { .. } => {
                (ErrorCode::FailedPrecondition, "run this again to go on".to_owned())
            }
            UpgradeError::Refused { error, .. } => (error.code, error.hint),
            UpgradeError::WentBack { node, .. } => (
                ErrorCode::Aborted,
                format!("see the log of vc-node on {node} ('journalctl -u vc-node')"),
            ),
            UpgradeError::Trouble { node, .. } => (
                ErrorCode::Aborted,
                format!(
                    "run this again to go on when it is well, or return it with 'vc upgrade --back --node {node}'"
                ),
            ),
        };
        match hint.as_str() {
            "" => Self::new(code, message),
            _ => Self::new(code, message).with_hint(hint),
        }
    }
}

/// Why a node does not say what it runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoProgram {
    #[error("it is not up")]
    NotUp,
    #[error("its vc-node is from before 'vc upgrade': upgrade it by hand")]
    TooOld,
    #[error("its answer is not understood")]
    Unexpected,
    /// It refuses, or is not reached.
    #[error("{0}")]
    Failed(String),
    #[error("interrupted")]
    Interrupted,
}
