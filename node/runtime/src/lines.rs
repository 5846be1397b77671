//! Cuts a byte stream into lines of bounded length.

use vc_protocol::Millis;

/// The longest line, in bytes; longer ones are cut into pieces.
pub const MAX_LINE: usize = 16 * 1024;

/// The lines of one output.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
    time: Option<Millis>,
}

impl Lines {
    /// Takes the next bytes, written at `time`, and gives each line that they complete. A line has the time of its
    /// first byte.
    pub(super) fn push(
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

    /// Gives what is left without a line end.
    pub(super) fn finish(&mut self, mut each: impl FnMut(Option<Millis>, String)) {
        if !self.rest.is_empty() {
            emit(&self.rest, self.time, &mut each);
            self.rest.clear();
        }
    }

    /// Forgets what is left: what follows is not its continuation.
    pub(super) fn forget(&mut self) {
        self.rest.clear();
    }
}

/// The last place at or before [`MAX_LINE`] that splits no UTF-8 character. `bytes` is longer than that.
fn boundary(bytes: &[u8]) -> usize {
    (MAX_LINE - 3..=MAX_LINE).rev().find(|&at| bytes[at] & 0xC0 != 0x80).unwrap_or(MAX_LINE)
}

/// Bytes that are not UTF-8 grow when they are replaced: such a line is cut once more.
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
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for part in parts {
            lines.push(part, None, |_, line| out.push(line));
        }
        lines.finish(|_, line| out.push(line));
        out
    }

    #[test]
    fn lines_are_whole_whatever_the_chunks() {
        assert_eq!(cut(&[b"a\nb", b"c\r\n\n", b"d"]), ["a", "bc", "", "d"]);
        assert!(cut(&[b""]).is_empty());
    }

    #[test]
    fn long_lines_come_in_pieces_that_split_no_character() {
        let long = "é".repeat(MAX_LINE);
        let pieces = cut(&[b"x", long.as_bytes(), b"\n"]);
        assert!(pieces.iter().all(|piece| piece.len() <= MAX_LINE && !piece.contains('\u{fffd}')));
        assert_eq!(pieces.concat(), format!("x{long}"));
        assert_eq!(cut(&[&[b'y'; MAX_LINE], b"\n"]).len(), 1);
        assert!(cut(&[&[0xff; MAX_LINE]]).iter().all(|piece| piece.len() <= MAX_LINE));
    }
}
