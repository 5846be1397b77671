//! Writes each event of the log as one line, whatever texts of users and peers it contains.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

/// Makes writers to `inner` that escape control characters.
#[derive(Debug, Clone, Copy)]
pub struct EscapeControls<M> {
    /// What the lines are written to.
    pub inner: M,
    /// Whether the log has colours, whose sequences are kept.
    pub ansi: bool,
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for EscapeControls<M> {
    type Writer = EscapeControls<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapeControls { inner: self.inner.make_writer(), ansi: self.ansi }
    }
}

impl<W: Write> Write for EscapeControls<W> {
    /// Writes one event, which the subscriber passes as a whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let mut escaped = String::with_capacity(event.len());
        for (at, c) in line.char_indices() {
            if c.is_control() && !(self.ansi && is_colour(&line[at..])) {
                escaped.extend(c.escape_default());
            } else {
                escaped.push(c);
            }
        }
        escaped.push('\n');
        self.inner.write_all(escaped.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Returns whether a text begins with a sequence that only sets colours and the like (SGR, ECMA-48).
fn is_colour(text: &str) -> bool {
    let parameters = text.strip_prefix("\u{1b}[");
    let end = parameters.and_then(|it| {
        it.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').chars().next()
    });
    end == Some('m')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Writes to memory.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_with_control_characters_is_one_line() {
        for ansi in [false, true] {
            let memory = Memory::default();
            let inner = {
                let memory = memory.clone();
                move || memory.clone()
            };
            let log = tracing_subscriber::fmt().with_ansi(ansi);
            let log = log.with_writer(EscapeControls { inner, ansi }).finish();
            tracing::subscriber::with_default(log, || {
                let user = "ann\n2026-01-01 INFO forged\r\u{9b}2J\u{1b}[2J";
                tracing::info!(user, shown = %user, "{user}");
            });
            let written = memory.0.lock().expect("not poisoned").clone();
            let text = String::from_utf8(written).expect("UTF-8");
            let line = text.strip_suffix('\n').expect("a line");
            assert!(line.contains("forged"), "{line:?}");
            let controls = line.chars().filter(|c| c.is_control());
            assert!(controls.clone().all(|c| ansi && c == '\u{1b}'), "{line:?}");
            assert!(!line.contains("\u{1b}[2J"), "{line:?}");
        }
    }
}
