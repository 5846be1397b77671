//! Commands in instances and copies of their files: the request between members, and the frames while they run.
//!
//! A client asks its node with [`Request::Exec`], [`Request::CopyOut`] or [`Request::CopyIn`] on its control stream. When
//! another member runs the instance, the node opens a stream to it with the protocol [`EXEC_PROTOCOL`] and sends an
//! [`InstanceRequest`] with the user's token ([`Delegated`](crate::auth::Delegated)) as a JSON frame. The answer to either is a [`Reply`] as a JSON frame: [`Reply::Ready`], or
//! [`Reply::Error`] and the end of the stream. After [`Reply::Ready`] both sides send [`ExecFrame`]s, which the node between
//! passes on. Each frame is preceded by its length as 4 bytes, big endian.
//!
//! [`EXEC_PROTOCOL`]: crate::wire::EXEC_PROTOCOL
//! [`Reply`]: crate::control::Reply
//! [`Reply::Error`]: crate::control::Reply::Error
//! [`Reply::Ready`]: crate::control::Reply::Ready
//! [`Request::CopyIn`]: crate::control::Request::CopyIn
//! [`Request::CopyOut`]: crate::control::Request::CopyOut
//! [`Request::Exec`]: crate::control::Request::Exec

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::{CopyRequest, ExecRequest};
use crate::{ApiError, InstanceId};

/// Most bytes of payload in one [`ExecFrame`]. A receiver closes the stream on a larger frame.
pub const MAX_EXEC_CHUNK: usize = 32 * 1024;
/// A side that has sent nothing for this long sends an empty [`ExecFrame::Stdin`] or [`ExecFrame::Stdout`].
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// A side from which nothing arrives for this long is considered lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A client's request about one instance, as its node passes it to the member that runs the instance. The `service` and
/// `replica` within are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum InstanceRequest {
    /// Runs a command: [`Request::Exec`](crate::control::Request::Exec).
    Exec {
        /// The instance to run it in.
        instance: InstanceId,
        /// The command.
        exec: ExecRequest,
    },
    /// Reads files: [`Request::CopyOut`](crate::control::Request::CopyOut).
    CopyOut {
        /// The instance to read from.
        instance: InstanceId,
        /// The files.
        copy: CopyRequest,
    },
    /// Writes files: [`Request::CopyIn`](crate::control::Request::CopyIn).
    CopyIn {
        /// The instance to write to.
        instance: InstanceId,
        /// Where to write.
        copy: CopyRequest,
    },
}

impl InstanceRequest {
    /// Returns the instance that the request is about.
    pub fn instance(&self) -> &InstanceId {
        match self {
            Self::Exec { instance, .. }
            | Self::CopyOut { instance, .. }
            | Self::CopyIn { instance, .. } => instance,
        }
    }
}

/// A frame of a running command or copy: its kind as 1 byte, then its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecFrame {
    /// Kind 0: bytes for the command's standard input.
    Stdin(Vec<u8>),
    /// Kind 1: the end of standard input.
    StdinEnd,
    /// Kind 2: the terminal's new size, columns and rows, each 2 bytes, big endian.
    Resize(u16, u16),
    /// Kind 3: bytes from standard output; with a terminal, all output.
    Stdout(Vec<u8>),
    /// Kind 4: bytes from standard error.
    Stderr(Vec<u8>),
    /// Kind 5: the exit code, 8 bytes, big endian. The last frame.
    Exit(i64),
    /// Kind 6: why the command could not be run or was lost, as JSON. The last frame.
    Failed(ApiError),
}

impl ExecFrame {
    /// Encodes the frame, without its length.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, payload): (u8, &[u8]) = match self {
            Self::Stdin(bytes) => (0, bytes),
            Self::StdinEnd => (1, &[]),
            Self::Resize(columns, rows) => {
                return [&[2], columns.to_be_bytes().as_slice(), &rows.to_be_bytes()].concat();
            }
            Self::Stdout(bytes) => (3, bytes),
            Self::Stderr(bytes) => (4, bytes),
            Self::Exit(code) => return [&[5], code.to_be_bytes().as_slice()].concat(),
            Self::Failed(error) => {
                #[allow(clippy::expect_used, reason = "a struct of strings is JSON")]
                let json = serde_json::to_vec(error).expect("JSON");
                return [&[6], json.as_slice()].concat();
            }
        };
        [&[kind], payload].concat()
    }

    /// Decodes a frame. Returns `None` for an unknown kind or a malformed payload.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&kind, payload) = bytes.split_first()?;
        Some(match kind {
            0 => Self::Stdin(payload.to_vec()),
            1 if payload.is_empty() => Self::StdinEnd,
            2 => {
                let [a, b, c, d] = payload.try_into().ok()?;
                Self::Resize(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
            }
            3 => Self::Stdout(payload.to_vec()),
            4 => Self::Stderr(payload.to_vec()),
            5 => Self::Exit(i64::from_be_bytes(payload.try_into().ok()?)),
            6 => Self::Failed(serde_json::from_slice(payload).ok()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[test]
    fn frames_round_trip_and_malformed_ones_are_rejected() {
        for frame in [
            ExecFrame::Stdin(vec![0, 255]),
            ExecFrame::StdinEnd,
            ExecFrame::Resize(80, 24),
            ExecFrame::Stdout(vec![]),
            ExecFrame::Stderr(b"x".to_vec()),
            ExecFrame::Exit(-1),
            ExecFrame::Failed(ApiError::new(ErrorCode::Unavailable, "no").with_hint("try again")),
        ] {
            assert_eq!(ExecFrame::decode(&frame.encode()), Some(frame));
        }
        for garbage in [&[][..], &[9], &[1, 1], &[2, 0], &[5, 1], &[6, 0xff]] {
            assert_eq!(ExecFrame::decode(garbage), None);
        }
    }

    #[test]
    fn the_encoding_of_a_request_is_fixed() {
        let copy = CopyRequest {
            service: "web".to_owned(),
            replica: None,
            path: "/srv".to_owned(),
            name: "site".to_owned(),
        };
        let instance =
            InstanceId { slot: "shop/web.1".parse().expect("a slot"), digest: "d".to_owned() };
        let instance_json = serde_json::to_string(&instance).expect("plain data");
        let request = InstanceRequest::CopyOut { instance, copy };
        let json = format!(
            r#"{{"op":"copy_out","instance":{instance_json},"copy":{{"service":"web","replica":null,"path":"/srv","name":"site"}}}}"#
        );
        assert_eq!(serde_json::to_string(&request).expect("plain data"), json);
        assert_eq!(serde_json::from_str::<InstanceRequest>(&json).expect("reads"), request);
    }
}
