//! A command in an instance: what both sides send once it runs. Frames of bytes, each behind its length as 4 bytes, big
//! endian; the first byte says what it is.

use std::time::Duration;

/// The most bytes that either side puts into one frame; a frame of more than this and its kind is refused.
pub const MAX_EXEC_CHUNK: usize = 32 * 1024;
/// Who has had nothing to send for so long sends an empty [`ExecFrame::Stdin`] or [`ExecFrame::Stdout`]: it says that
/// there still is somebody.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Of whom nothing is heard for so long is gone.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a frame of a running command is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecFrame {
    /// Input for it.
    Stdin(Vec<u8>),
    /// No more input comes.
    StdinEnd,
    /// Its terminal has so many columns and rows now.
    Resize(u16, u16),
    /// What it wrote on standard output; with a terminal, everything it wrote.
    Stdout(Vec<u8>),
    /// What it wrote on standard error.
    Stderr(Vec<u8>),
    /// It ended with this exit code. The last frame.
    Exit(i64),
    /// It could not be run, or was lost; one line for people. The last frame.
    Failed(String),
}

impl ExecFrame {
    /// As bytes.
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
            Self::Failed(reason) => (6, reason.as_bytes()),
        };
        [&[kind], payload].concat()
    }

    /// From bytes; `None`: they are no frame.
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
            6 => Self::Failed(String::from_utf8(payload.to_vec()).ok()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_bytes_and_garbage_is_none() {
        for frame in [
            ExecFrame::Stdin(vec![0, 255]),
            ExecFrame::StdinEnd,
            ExecFrame::Resize(80, 24),
            ExecFrame::Stdout(vec![]),
            ExecFrame::Stderr(b"x".to_vec()),
            ExecFrame::Exit(-1),
            ExecFrame::Failed("no".to_owned()),
        ] {
            assert_eq!(ExecFrame::decode(&frame.encode()), Some(frame));
        }
        for garbage in [&[][..], &[9], &[1, 1], &[2, 0], &[5, 1], &[6, 0xff]] {
            assert_eq!(ExecFrame::decode(garbage), None);
        }
    }
}
