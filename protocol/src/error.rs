//! Errors as the control protocol carries them and as `vc --output json` prints them.

use serde::{Deserialize, Serialize};

/// The class of an error, for programs. The names and meanings are those of gRPC's canonical status codes
/// (<https://grpc.io/docs/guides/status-codes/>); `docs/json.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed or inconsistent, or a name in it matches several things.
    InvalidArgument,
    /// The named service, node, volume, image or file does not exist.
    NotFound,
    /// What the request is to create exists already.
    AlreadyExists,
    /// The cluster is not in the state that the request needs.
    FailedPrecondition,
    /// The token's role does not allow the request.
    PermissionDenied,
    /// The token or certificate is missing, expired or invalid.
    Unauthenticated,
    /// A limit was reached, or a disk is full; the same request may succeed later.
    ResourceExhausted,
    /// A node, an instance or the Docker engine does not answer; the same request may succeed later or elsewhere.
    Unavailable,
    /// The time limit passed before the request completed.
    DeadlineExceeded,
    /// The operation was interrupted after part of it was done.
    Aborted,
    /// This version does not support the request.
    Unimplemented,
    /// The node failed in a way that the request did not cause, such as a full disk.
    Internal,
    /// A code that this version does not know.
    #[serde(other)]
    Unknown,
}

/// An error that a node answers with. Nothing has changed unless the code is [`ErrorCode::Aborted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}{}", if hint.is_empty() { String::new() } else { format!(": {hint}") })]
pub struct ApiError {
    /// The class of the error.
    pub code: ErrorCode,
    /// What failed and why, in one line.
    pub message: String,
    /// What to do about it, in one line; empty where there is nothing to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl ApiError {
    /// Returns an error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: String::new() }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_code_is_read_as_unknown() {
        let error: ApiError =
            serde_json::from_str(r#"{"code":"data_loss","message":"m","more":1}"#).expect("reads");
        assert_eq!(error, ApiError::new(ErrorCode::Unknown, "m"));
    }

    #[test]
    fn the_hint_follows_the_message() {
        let error =
            ApiError::new(ErrorCode::NotFound, "no service 'web'").with_hint("see 'vc services'");
        assert_eq!(error.to_string(), "no service 'web': see 'vc services'");
    }
}
