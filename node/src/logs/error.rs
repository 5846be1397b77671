//! Errors of reading logs.

use vc_engine::FindError;
use vc_protocol::{ApiError, ErrorCode, ServiceKey};

use crate::member_request::MemberError;
use vc_runtime::RuntimeError;

/// Why the logs of an instance or a service cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error(transparent)]
    Find(#[from] FindError),
    #[error("{service} has no replica {replica}")]
    NoReplica { service: ServiceKey, replica: u32 },
    #[error("{0} has not started yet")]
    NotStarted(ServiceKey),
    #[error("no logs of {0} could be read")]
    Unreadable(ServiceKey),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Member(#[from] MemberError),
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        let message = error.to_string();
        let (code, hint) = match error {
            LogError::Find(error) => return error.into(),
            LogError::NoReplica { service, .. } => {
                (ErrorCode::NotFound, format!("see 'vc ps {service}'"))
            }
            LogError::NotStarted(service) => (
                ErrorCode::FailedPrecondition,
                format!("wait for it with -f, or see 'vc ps {service}'"),
            ),
            LogError::Unreadable(_) => {
                (ErrorCode::Unavailable, "the notes before this error say why".to_owned())
            }
            LogError::Runtime(error) => return error.into(),
            LogError::Member(error) => return error.into(),
        };
        Self::new(code, message).with_hint(hint)
    }
}
