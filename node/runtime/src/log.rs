//! Log lines of instances, and how a byte stream is split into them.

use futures::stream::BoxStream;
use vc_protocol::Millis;
use vc_protocol::control::{LogStream, LostLines};

/// Selects lines of an instance's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// The digest of the instance; `None` selects the running one, else the one that ran last.
    pub digest: Option<String>,
    /// Whether to continue until the instance exits.
    pub follow: bool,
    /// How many of the last lines to return; `None` returns all that are kept.
    pub tail: Option<u32>,
    /// The time of the earliest line.
    pub since: Option<Millis>,
}

/// A line that an instance wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written; `None` where the runtime does not know, since processes write to a file directly.
    pub time: Option<Millis>,
    /// The output that it was written to.
    pub stream: LogStream,
    /// The line without its end, at most [`MAX_LINE`] bytes; a longer one is split.
    pub line: String,
    /// Lines of this instance that were written before this one and could not be read.
    pub lost: Option<LostLines>,
}

impl LogLine {
    /// Returns a line before which none was lost.
    pub(crate) fn new(time: Option<Millis>, stream: LogStream, line: String) -> Self {
        Self { time, stream, line, lost: None }
    }
}

/// Log lines. Dropping the stream stops the reading.
pub type LogLines = BoxStream<'static, LogLine>;

/// The longest line, in bytes; longer ones are split. Escaped as JSON, which makes bytes six times as long at worst, it fits
/// into a frame.
pub const MAX_LINE: usize = 512 * 1024;
const _: () = assert!(6 * MAX_LINE + 4096 <= vc_protocol::wire::MAX_FRAME);

/// Splits one output into lines.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    rest: Vec<u8>,
    time: Option<Millis>,
}

impl LineSplitter {
    /// Adds bytes written at `time`, and calls `each` for every completed line, with the time of its first byte.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        time: Option<Millis>,
        mut each: impl FnMut(Option<Millis>, String),
    ) {
        for part in bytes.split_inclusive(|&b| b == b'\n') {
            if self.rest.is_empty() {
                self.time = time;
            }
            let (text, ended) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            // Most lines come whole.
            if ended && self.rest.is_empty() && text.len() <= MAX_LINE {
                emit(text.strip_suffix(b"\r").unwrap_or(text), time, &mut each);
                continue;
            }
            self.rest.extend_from_slice(text);
            while self.rest.len() > MAX_LINE {
                let tail = self.rest.split_off(boundary(&self.rest));
                emit(&self.rest, self.time, &mut each);
                self.rest = tail;
            }
            if ended {
                if self.rest.last() == Some(&b'\r') {
                    self.rest.pop();
                }
                emit(&self.rest, self.time, &mut each);
                self.rest.clear();
            }
        }
    }

    /// Calls `each` for an incomplete last line.
    pub(crate) fn finish(&mut self, mut each: impl FnMut(Option<Millis>, String)) {
        if !self.rest.is_empty() {
            emit(&self.rest, self.time, &mut each);
            self.rest.clear();
        }
    }

    /// Drops an incomplete line, when the bytes that follow do not continue it; returns its length in bytes.
    pub(crate) fn reset(&mut self) -> u64 {
        let length = self.rest.len() as u64;
        self.rest.clear();
        length
    }
}

/// Returns the last position at or before [`MAX_LINE`] that splits no UTF-8 character. `bytes` is longer than that.
fn boundary(bytes: &[u8]) -> usize {
    (MAX_LINE - 3..=MAX_LINE).rev().find(|&at| bytes[at] & 0xC0 != 0x80).unwrap_or(MAX_LINE)
}

/// Replacing invalid UTF-8 makes a line longer, so it may have to be split again.
fn emit(bytes: &[u8], time: Option<Millis>, each: &mut impl FnMut(Option<Millis>, String)) {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    while text.len() > MAX_LINE {
        let tail = text.split_off(text.floor_char_boundary(MAX_LINE));
        each(time, text);
        text = tail;
    }
    each(time, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[&[u8]]) -> Vec<String> {
        let mut lines = LineSplitter::default();
        let mut out = Vec::new();
        for part in parts {
            lines.push(part, None, |_, line| out.push(line));
        }
        lines.finish(|_, line| out.push(line));
        out
    }

    #[test]
    fn lines_are_independent_of_the_chunks() {
        assert_eq!(cut(&[b"a\nb", b"c\r\n\n", b"d"]), ["a", "bc", "", "d"]);
        assert!(cut(&[b""]).is_empty());
    }

    #[test]
    fn long_lines_are_split_between_characters() {
        let long = "é".repeat(MAX_LINE);
        let pieces = cut(&[b"x", long.as_bytes(), b"\n"]);
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_LINE && !piece.contains('\u{fffd}')));
        assert_eq!(pieces.concat(), format!("x{long}"));
        assert_eq!(cut(&[&[b'y'; MAX_LINE], b"\n"]).len(), 1);
        assert!(cut(&[&[0xff; MAX_LINE]]).iter().all(|piece| piece.len() <= MAX_LINE));
    }
}
