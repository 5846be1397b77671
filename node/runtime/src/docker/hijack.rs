//! The connection that carries a command's input and output.
//!
//! bollard's reader guesses from the first byte of each read whether the output has headers: a control character on a
//! terminal is taken for a header, whose length is then waited for. Here the caller says whether there is a terminal,
//! and thus whether there are headers.

use std::io;

use hyper::StatusCode;
use hyper::header::{CONNECTION, UPGRADE};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadHalf, WriteHalf};
use vc_protocol::exec::MAX_EXEC_CHUNK;

use crate::raw_http::{connect, json_post, refusal};
use vc_protocol::control::LogStream;

/// The length of the header before each chunk of output: which output, three zeros, and the chunk's length.
const HEADER: usize = 8;

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// Posts `body` to `path` and takes over the connection.
///
/// # Errors
/// The engine is unreachable, or refuses with the returned message.
pub(super) async fn hijack(
    host: &str,
    path: &str,
    body: String,
) -> io::Result<(WriteHalf<Upgraded>, ReadHalf<Upgraded>)> {
    let request = json_post(path)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "tcp")
        .body(body)
        .map_err(io::Error::other)?;
    let response = connect(host).await?.send_request(request).await.map_err(io::Error::other)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(io::Error::other(refusal(response).await?));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(io::Error::other)?;
    let (read, write) = tokio::io::split(TokioIo::new(upgraded));
    Ok((write, read))
}

/// The output of a command. Nothing is read ahead, so Docker, and with it the command, waits for the reader.
pub struct ExecOutput {
    read: Box<dyn AsyncRead + Send + Unpin>,
    tty: bool,
    /// What was read of the next header.
    header: Vec<u8>,
    /// How many bytes are left of the current chunk, and the output that it belongs to.
    chunk: (u32, LogStream),
}

impl ExecOutput {
    /// Returns the output that a connection carries, with headers unless there is a terminal.
    pub fn new(read: impl AsyncRead + Send + Unpin + 'static, tty: bool) -> Self {
        Self {
            read: Box::new(read),
            tty,
            header: Vec::with_capacity(HEADER),
            chunk: (0, LogStream::Stdout),
        }
    }

    /// Returns the next bytes, at most [`MAX_EXEC_CHUNK`]; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> io::Result<Option<(LogStream, Vec<u8>)>> {
        if self.tty {
            let bytes = self.read(MAX_EXEC_CHUNK).await?;
            return Ok((!bytes.is_empty()).then_some((LogStream::Stdout, bytes)));
        }
        while self.chunk.0 == 0 {
            let bytes = self.read(HEADER - self.header.len()).await?;
            if bytes.is_empty() {
                let cut = || io::Error::other("Docker ended the output within a chunk");
                return if self.header.is_empty() { Ok(None) } else { Err(cut()) };
            }
            self.header.extend(bytes);
            if let [stream, _, _, _, a, b, c, d] = self.header[..] {
                let stream = if stream == 2 { LogStream::Stderr } else { LogStream::Stdout };
                self.chunk = (u32::from_be_bytes([a, b, c, d]), stream);
                self.header.clear();
            }
        }
        let left = usize::try_from(self.chunk.0).unwrap_or(MAX_EXEC_CHUNK);
        let bytes = self.read(left.min(MAX_EXEC_CHUNK)).await?;
        if bytes.is_empty() {
            return Err(io::Error::other("Docker ended the output within a chunk"));
        }
        self.chunk.0 = self.chunk.0.saturating_sub(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        Ok(Some((self.chunk.1, bytes)))
    }

    async fn read(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; most];
        let count = self.read.read(&mut bytes).await?;
        bytes.truncate(count);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(bytes: &[u8], tty: bool) -> io::Result<Vec<(LogStream, Vec<u8>)>> {
        let mut output = ExecOutput::new(io::Cursor::new(bytes.to_vec()), tty);
        let mut chunks = Vec::new();
        while let Some(chunk) = output.next().await? {
            chunks.push(chunk);
        }
        Ok(chunks)
    }

    #[tokio::test]
    async fn both_outputs_are_separated_and_a_truncated_chunk_is_an_error() {
        let out = [1, 0, 0, 0, 0, 0, 0, 2, 0, 1];
        let err = [2, 0, 0, 0, 0, 0, 0, 3, b'a', b'b', b'c'];
        let chunks =
            all(&[&out[..], &[1, 0, 0, 0, 0, 0, 0, 0], &err].concat(), false).await.expect("whole");
        assert_eq!(chunks, [(LogStream::Stdout, vec![0, 1]), (LogStream::Stderr, b"abc".to_vec())]);
        for cut in [&err[..5], &err[..8], &err[..9]] {
            assert!(all(cut, false).await.is_err());
        }
        // The length in a header allocates nothing.
        assert!(all(&[1, 0, 0, 0, 255, 255, 255, 255], false).await.is_err());
    }

    #[tokio::test]
    async fn a_terminal_passes_any_byte() {
        let bytes: Vec<u8> = (0..=255).collect();
        let chunks = all(&bytes, true).await.expect("whole");
        assert_eq!(chunks, [(LogStream::Stdout, bytes)]);
    }
}
