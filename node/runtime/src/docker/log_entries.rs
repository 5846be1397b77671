//! The stream of a container's log entries.
//!
//! It is read over HTTP/1.0: over HTTP/1.1 an engine sends each entry as a chunk of its own, and to be handed chunk by chunk takes
//! longer than containers need to write them. An engine whose reader falls behind skips lines when it rotates its files.

use std::io;

use bollard::errors::Error;
use bytes::{Buf as _, Bytes, BytesMut};
use futures::TryFutureExt as _;
use futures::stream::{BoxStream, StreamExt as _, try_unfold};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::raw_http;

/// Limit of the bytes of an entry. Engines split lines at 16 KiB.
const MAX_ENTRY: usize = 1 << 20;
/// The length of the header of an entry: its output, three zeros and its length.
const HEADER: usize = 8;

/// A log entry: a line or, where it does not end with a line break, a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Whether it was written to standard error.
    pub(super) is_stderr: bool,
    pub(super) bytes: Bytes,
}

/// Log entries, those together that have arrived.
pub(super) type Entries = BoxStream<'static, Result<Vec<Entry>, Error>>;

/// Requests the entries at `path` of the engine at `host`. Engines before 23 answer a request to follow only when there is one.
pub(super) fn entries(host: &str, path: String) -> Entries {
    let host = host.to_owned();
    let opened = async move { raw_http::open(&host, &path).await };
    let read = |body| try_unfold((body, Decoder::default()), next);
    opened.map_ok(read).try_flatten_stream().boxed()
}

async fn next(
    (mut body, mut decoder): (Incoming, Decoder),
) -> Result<Option<(Vec<Entry>, (Incoming, Decoder))>, Error> {
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(io::Error::other)?.into_data() else { continue };
        let entries = decoder.push(&bytes)?;
        if !entries.is_empty() {
            return Ok(Some((entries, (body, decoder))));
        }
    }
    let last = decoder.finish();
    Ok((!last.is_empty()).then_some((last, (body, decoder))))
}

/// Splits a stream into entries: those of a container without a terminal have headers, those with one are lines.
#[derive(Debug, Default)]
struct Decoder {
    rest: BytesMut,
}

impl Decoder {
    /// Adds bytes; returns the entries that are complete. Errors: an entry is longer than [`MAX_ENTRY`].
    fn push(&mut self, bytes: &[u8]) -> io::Result<Vec<Entry>> {
        self.rest.extend_from_slice(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = self.take()? {
            entries.push(entry);
        }
        Ok(entries)
    }

    fn take(&mut self) -> io::Result<Option<Entry>> {
        let Some(&first) = self.rest.first() else { return Ok(None) };
        // Entries begin with a time, so this is no text.
        if first > 2 {
            let end = self.rest.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
            let end = end.or((self.rest.len() > MAX_ENTRY).then_some(self.rest.len()));
            let line = end.map(|end| self.rest.split_to(end).freeze());
            return Ok(line.map(|bytes| Entry { is_stderr: false, bytes }));
        }
        let Some(&length) = self.rest.get(4..HEADER).and_then(|it| it.first_chunk()) else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_ENTRY {
            return Err(io::Error::other(format!("a log entry of {length} bytes")));
        }
        if self.rest.len() < HEADER + length {
            return Ok(None);
        }
        let mut entry = self.rest.split_to(HEADER + length);
        entry.advance(HEADER);
        Ok(Some(Entry { is_stderr: first == 2, bytes: entry.freeze() }))
    }

    /// Returns a line without an end.
    fn finish(&mut self) -> Vec<Entry> {
        let rest = std::mem::take(&mut self.rest).freeze();
        let is_text = rest.first().is_some_and(|&first| first > 2);
        is_text.then_some(Entry { is_stderr: false, bytes: rest }).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    fn framed(output: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).expect("short").to_be_bytes();
        [&[output, 0, 0, 0], &length[..], text.as_bytes()].concat()
    }

    fn entry(is_stderr: bool, text: &str) -> Entry {
        Entry { is_stderr, bytes: text.to_owned().into() }
    }

    /// Decodes bytes in pieces of this size.
    fn decode(bytes: &[u8], size: usize) -> Vec<Entry> {
        let mut decoder = Decoder::default();
        let pieces = bytes.chunks(size).flat_map(|piece| decoder.push(piece).expect("short"));
        let mut entries: Vec<Entry> = pieces.collect();
        entries.extend(decoder.finish());
        entries
    }

    #[test]
    fn entries_are_independent_of_the_pieces_that_arrive() {
        let framed = [framed(1, "T one\n"), framed(2, "T two"), framed(1, ""), framed(2, "\n")];
        let expected =
            [entry(false, "T one\n"), entry(true, "T two"), entry(false, ""), entry(true, "\n")];
        let of_terminal = "2026-11-30T00:00:00Z a\r\n2026-11-30T00:00:01Z b";
        let lines =
            [entry(false, "2026-11-30T00:00:00Z a\r\n"), entry(false, "2026-11-30T00:00:01Z b")];
        for size in 1..40 {
            assert_eq!(decode(&framed.concat(), size), expected, "{size}");
            assert_eq!(decode(of_terminal.as_bytes(), size), lines, "{size}");
        }
        assert_eq!(decode(&framed.concat()[..20], 7), expected[..1], "cut off");
    }

    /// Answers one request; returns the address, and the request.
    async fn engine(answer: Vec<u8>) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = format!("tcp://{}", listener.local_addr().expect("an address"));
        let request = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.expect("a request");
            stream.write_all(&answer).await.expect("written");
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (host, request)
    }

    #[tokio::test]
    async fn an_engine_is_asked_not_to_send_chunks() {
        let head = b"HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n";
        let answer = [&head[..], &framed(1, "T one\n"), &framed(2, "T two\n")].concat();
        let (host, request) = engine(answer).await;
        let found: Vec<Vec<Entry>> =
            entries(&host, "/logs".to_owned()).map(|it| it.expect("entries")).collect().await;
        assert_eq!(found.concat(), [entry(false, "T one\n"), entry(true, "T two\n")]);
        let request = request.await.expect("no panic");
        assert!(request.starts_with("GET /logs HTTP/1.0\r\n"), "{request}");
    }

    #[tokio::test]
    async fn what_an_engine_refuses_is_an_error() {
        let answer = b"HTTP/1.0 404 Not Found\r\n\r\n{\"message\": \"No such container: x\"}";
        let (host, _) = engine(answer.to_vec()).await;
        let found = entries(&host, "/logs".to_owned()).next().await.expect("an answer");
        let error = found.expect_err("refused").to_string();
        assert!(error.contains("No such container: x"), "{error}");
    }

    #[test]
    fn an_entry_that_is_too_long_is_refused() {
        let length = u32::try_from(MAX_ENTRY + 1).expect("short").to_be_bytes();
        let header = [&[1, 0, 0, 0], &length[..]].concat();
        assert!(Decoder::default().push(&header).is_err());
    }
}
