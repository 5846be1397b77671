//! What a command prints: tables and lines for people, or one JSON document for programs.

mod detail;
#[cfg(test)]
pub(crate) mod golden;
mod lists;
mod plan;
mod qr;
mod status;
mod table;
mod units;

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;
use vc_client::text::one_line;

pub(crate) use detail::inspect;
pub(crate) use lists::{
    LogStyle, addresses, event_line, images, instances, log_line, nodes, services, volumes,
};
pub(crate) use plan::{diff, moves, plan};
pub(crate) use qr::qr;
pub(crate) use status::status;
pub(crate) use units::{minute, short_duration};

use crate::app::Stop;
use crate::args::Format;

/// How tables look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// Whether states have colours.
    pub(crate) colour: bool,
    /// What "ago" counts from.
    pub(crate) now: vc_protocol::Millis,
}

/// Where results go.
pub(crate) struct Output {
    format: Format,
    terminal: bool,
}

impl Output {
    /// Standard output in this format.
    pub(crate) fn new(format: Format) -> Self {
        Self { format, terminal: io::stdout().is_terminal() }
    }

    /// Whether a program reads it.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether a person watches it.
    pub(crate) fn is_live(&self) -> bool {
        self.format == Format::Table && self.terminal && io::stderr().is_terminal()
    }

    /// How tables look here and now. <https://no-color.org>
    pub(crate) fn style(&self) -> Style {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Style { colour: self.terminal && !no_colour && !dumb, now: crate::app::now() }
    }

    /// A result: as it is for programs, as `table` says for people.
    pub(crate) fn show<T: Serialize + ?Sized>(
        &self,
        value: &T,
        table: impl FnOnce(&T, Style) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => print(&table(value, self.style())),
        }
    }

    /// One JSON document on one line.
    pub(crate) fn json<T: Serialize + ?Sized>(&self, value: &T) -> anyhow::Result<()> {
        print(&format!("{}\n", serde_json::to_string(value)?))
    }

    /// Lines for people; an array of them for programs.
    pub(crate) fn lines(&self, lines: &[String]) -> anyhow::Result<()> {
        self.show(lines, |lines, _| {
            lines.iter().map(|line| format!("{}\n", one_line(line))).collect()
        })
    }
}

/// Writes to standard output. A reader that has left ends the program quietly.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Stop::OutputClosed.into()),
        result => Ok(result?),
    }
}

/// A line beside the result, for people.
pub(crate) fn note(text: &str) {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(io::stderr(), "{}", one_line(text));
}
