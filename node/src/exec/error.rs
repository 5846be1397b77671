//! Errors of commands and copies.

use vc_engine::FindError;
use vc_protocol::{ApiError, ErrorCode, ServiceKey, Slot};

use super::{MAX_LOCAL, MAX_RELAYED};
use crate::member_request::MemberError;
use vc_runtime::RuntimeError;

/// Why a command or copy did not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExecError {
    #[error(transparent)]
    Find(#[from] FindError),
    #[error("{service} has no replica {replica}")]
    NoReplica { service: ServiceKey, replica: u32 },
    #[error("{0} has no instances")]
    NoInstances(ServiceKey),
    #[error("{slot} is not running ({state})")]
    NotRunning { slot: Slot, state: String },
    #[error("the node of the instance runs {MAX_LOCAL} commands already, its limit")]
    TooManyLocal,
    #[error("this node relays {MAX_RELAYED} commands already, its limit")]
    TooManyRelayed,
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("{node}: {source}")]
    Member { node: String, source: MemberError },
}

impl From<ExecError> for ApiError {
    fn from(error: ExecError) -> Self {
        let message = error.to_string();
        let (code, hint) = match error {
            ExecError::Find(error) => return error.into(),
            ExecError::NoReplica { service, .. } => {
                (ErrorCode::NotFound, format!("see 'vc ps {service}'"))
            }
            ExecError::NoInstances(_) => {
                (ErrorCode::FailedPrecondition, "see 'vc services'".to_owned())
            }
            ExecError::NotRunning { slot, .. } => {
                (ErrorCode::FailedPrecondition, format!("see 'vc ps {}'", slot.service))
            }
            ExecError::TooManyLocal => {
                (ErrorCode::ResourceExhausted, "try again when one has ended".to_owned())
            }
            ExecError::TooManyRelayed => {
                (ErrorCode::ResourceExhausted, "use another node with --peer".to_owned())
            }
            ExecError::Runtime(error) => return error.into(),
            ExecError::Member { source, .. } => {
                let ApiError { code, hint, .. } = source.into();
                (code, hint)
            }
        };
        Self::new(code, message).with_hint(hint)
    }
}
