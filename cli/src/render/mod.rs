//! Prints results: tables and lines, or JSON.

mod backup;
mod detail;
#[cfg(test)]
pub(crate) mod golden;
mod jobs;
mod lists;
mod plan;
mod qr;
mod status;
mod table;
mod units;
mod usage;

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use vc_client::text::one_line;
use vc_protocol::control::Change;
use vc_protocol::{ApiError, Millis};

pub(crate) use backup::{backup, backups};
pub(crate) use detail::inspect;
pub(crate) use jobs::{jobs, runs};
pub(crate) use lists::{
    LogStyle, addresses, audit_checks, audit_line, disk_usage, event_line, images, instances,
    log_line, lost_lines, nodes, projects, receivers, services, snapshots, tokens, trust,
    unavailable, versions, volumes, voters,
};
pub(crate) use plan::{diff, moves, plan};
pub(crate) use qr::qr;
pub(crate) use status::status;
pub(crate) use units::{ago, bytes, cores, cores_used, minute, percent, short_duration};
pub(crate) use usage::usage;

use crate::args::Format;
use crate::error::{Result, Stop, SystemError};

/// How tables look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    /// Whether states are coloured.
    pub(crate) colour: bool,
    /// The time that `3m ago` counts from.
    pub(crate) now: Millis,
}

/// Prints results on standard output, notes and errors on standard error.
pub(crate) struct Output {
    format: Format,
    terminal: bool,
    now: Millis,
}

impl Output {
    /// Returns an output of this format; `now` is the present time.
    pub(crate) fn new(format: Format, now: Millis) -> Self {
        Self { format, terminal: io::stdout().is_terminal(), now }
    }

    /// Returns whether results are printed as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Returns the progress bar of a transfer of so many bytes, or of an unknown number; hidden unless on a terminal.
    pub(crate) fn transfer_bar(&self, of: &str, bytes: Option<u64>) -> ProgressBar {
        if !self.is_live() {
            return ProgressBar::with_draw_target(bytes, ProgressDrawTarget::hidden());
        }
        let template = match bytes {
            Some(_) => {
                "{prefix} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}"
            }
            None => "{prefix} {spinner} {binary_bytes} {binary_bytes_per_sec}",
        };
        let bar = bytes.map_or_else(ProgressBar::no_length, ProgressBar::new);
        let bar = bar.with_prefix(of.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }

    /// Shows that a node works on something; hidden unless on a terminal.
    pub(crate) fn spinner(&self, what: &str) -> ProgressBar {
        if !self.is_live() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new_spinner().with_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// Returns whether results are printed as tables on a terminal, with progress.
    pub(crate) fn is_live(&self) -> bool {
        self.format == Format::Table && self.terminal && io::stderr().is_terminal()
    }

    /// Returns how tables look on this terminal. <https://no-color.org>
    pub(crate) fn style(&self) -> Style {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Style { colour: self.terminal && !no_colour && !dumb, now: self.now }
    }

    /// Prints a result: as JSON, or as `table` renders it.
    pub(crate) fn show<T: Serialize + ?Sized>(
        &self,
        value: &T,
        table: impl FnOnce(&T, Style) -> String,
    ) -> Result {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => print(&table(value, self.style())),
        }
    }

    /// Prints one JSON document on one line.
    pub(crate) fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result {
        print(&json_line(value)?)
    }

    /// Prints lines: as they are, or as a JSON array.
    pub(crate) fn lines(&self, lines: &[String]) -> Result {
        self.show(lines, |lines, _| {
            lines.iter().map(|line| format!("{}\n", one_line(line))).collect()
        })
    }

    /// Prints changes: one line each, or a JSON array.
    pub(crate) fn changes(&self, changes: &[Change]) -> Result {
        self.show(changes, |changes, _| {
            changes.iter().map(|change| format!("{}\n", one_line(&change.to_string()))).collect()
        })?;
        for change in changes {
            if let Change::Left { node_name, majority_lost: true, .. } = change {
                note(&one_line(&format!(
                    "{node_name} was a voter, and no majority of the voters is left: exclusive services stop until 'vc voters force' names \
                     others"
                )));
            }
            if let Change::Left { node_name, knows_key: true, .. } = change {
                note(&one_line(&format!(
                    "{node_name} was a server and knows the keys of the cluster: end that with 'vc trust rotate'"
                )));
            }
        }
        Ok(())
    }

    /// Prints an error on standard error: as JSON `{"error": …}`, or as one line.
    pub(crate) fn error(&self, error: &ApiError) {
        #[derive(Serialize)]
        struct Document<'a> {
            error: ErrorObject<'a>,
        }
        /// As [`ApiError`], with the hint also when it is empty: programs find every field.
        #[derive(Serialize)]
        struct ErrorObject<'a> {
            code: vc_protocol::ErrorCode,
            message: &'a str,
            hint: &'a str,
        }
        let (message, hint) = (one_line(&error.message), one_line(&error.hint));
        let text = match self.format {
            Format::Json => {
                let error = ErrorObject { code: error.code, message: &message, hint: &hint };
                serde_json::to_string(&Document { error }).unwrap_or_default()
            }
            Format::Table if hint.is_empty() => format!("error: {message}"),
            Format::Table => format!("error: {message}; {hint}"),
        };
        // When standard error is closed too, the exit code still tells.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Renders a JSON document on one line.
pub(crate) fn json_line<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    let text = serde_json::to_string(value);
    Ok(text.map_err(|error| SystemError::doing("write JSON")(error.into()))? + "\n")
}

/// Writes to standard output. When its reader has closed it, the program ends without an error.
pub(crate) fn print(text: &str) -> Result {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Stop::OutputClosed.into()),
        result => Ok(result.map_err(SystemError::doing("write to standard output"))?),
    }
}

/// Prints a line for people on standard error, beside the result.
pub(crate) fn note(text: &str) {
    // It fails when standard error is closed; the result counts.
    let _ = writeln!(io::stderr(), "{}", one_line(text));
}

/// As [`note`], for a line that belongs to the one before.
pub(crate) fn indented_note(text: &str) {
    let indent = text.len() - text.trim_start().len();
    let _ = writeln!(io::stderr(), "{}{}", &text[..indent], one_line(text.trim_start()));
}
