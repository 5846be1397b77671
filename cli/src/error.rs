//! How a command ends when it does not succeed.

use std::io;

use vc_protocol::{ApiError, ErrorCode};

/// The result of a command or a step of one.
pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

/// Why a command ended.
#[derive(Debug)]
pub(crate) enum Error {
    /// It ended without anything left to report.
    Stop(Stop),
    /// It failed; reported on standard error.
    Failed(ApiError),
    /// The options contradict each other, for this reason.
    Usage(&'static str),
}

/// An end that is not reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The user pressed Ctrl-C.
    Interrupted,
    /// The reader of standard output closed it.
    OutputClosed,
    /// The remote command exited with this code, a signal ends this program, or what was asked for has been shown.
    Exit(u8),
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// Every typed error says how it is reported: its code, message and hint.
impl<E: Into<ApiError>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Error {
    /// Puts what was attempted in front of the message: `cannot push web:1: …`.
    pub(crate) fn context(self, what: &str) -> Self {
        match self {
            Self::Failed(error) => {
                Self::Failed(ApiError { message: format!("{what}: {}", error.message), ..error })
            }
            other => other,
        }
    }
}

/// An operation of this computer's system failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {reason}", reason = describe_io(.source))]
pub(crate) struct SystemError {
    action: String,
    source: io::Error,
}

impl SystemError {
    /// Returns a closure for `map_err`; `action` completes "cannot …".
    pub(crate) fn doing(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self { action, source }
    }
}

impl From<SystemError> for ApiError {
    fn from(error: SystemError) -> Self {
        Self::new(io_code(&error.source), error.to_string())
    }
}

/// Returns the code for an error of the system.
pub(crate) fn io_code(error: &io::Error) -> ErrorCode {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorCode::NotFound,
        io::ErrorKind::AlreadyExists | io::ErrorKind::AddrInUse => ErrorCode::AlreadyExists,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorCode::PermissionDenied
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::ResourceExhausted,
        io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::InvalidFilename => ErrorCode::InvalidArgument,
        _ => ErrorCode::Internal,
    }
}

/// Describes an error of the system without its number.
pub(crate) fn describe_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::InvalidData => "not UTF-8 text".to_owned(),
        // Errors of libraries, which say more than their kind.
        io::ErrorKind::Other => error.to_string(),
        kind => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_names_the_action_and_the_cause() {
        let error = SystemError::doing("read x")(io::ErrorKind::NotFound.into());
        let error = ApiError::from(error);
        assert_eq!(error.message, "cannot read x: no such file or directory");
        assert_eq!(error.code, ErrorCode::NotFound);
    }

    #[test]
    fn context_precedes_the_message_and_keeps_code_and_hint() {
        let refused = ApiError::new(ErrorCode::NotFound, "no image").with_hint("build it");
        let Error::Failed(error) = Error::from(refused).context("cannot push web:1") else {
            panic!("stopped")
        };
        assert_eq!(error.to_string(), "cannot push web:1: no image: build it");
        assert_eq!(error.code, ErrorCode::NotFound);
    }
}
