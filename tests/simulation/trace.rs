//! The trace of a world, including the engines' logs. Its tail is printed when a test fails.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::{Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Lines kept for a failing test.
const TAIL: usize = 250;

thread_local! {
    static LOGGED: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// The last [`TAIL`] lines.
pub(crate) struct Trace {
    lines: VecDeque<String>,
    live: bool,
    _subscriber: tracing::subscriber::DefaultGuard,
}

impl Trace {
    /// Returns an empty trace and captures the logs of this thread. `VC_SIM_TRACE=1` prints every line immediately.
    pub(crate) fn new() -> Self {
        LOGGED.with_borrow_mut(Vec::clear);
        Self {
            lines: VecDeque::new(),
            live: std::env::var_os("VC_SIM_TRACE").is_some(),
            _subscriber: tracing::subscriber::set_default(Capture),
        }
    }

    /// Appends a line.
    pub(crate) fn push(&mut self, line: String) {
        if self.live {
            show(&line);
        }
        if self.lines.len() == TAIL {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Returns the log lines since the last call.
    pub(crate) fn logged(&self) -> Vec<(Level, String)> {
        LOGGED.take()
    }

    /// Prints the kept lines, unless they were printed already.
    pub(crate) fn print(&self) {
        if !self.live {
            self.lines.iter().for_each(|line| show(line));
        }
    }
}

/// Prints a line on standard error.
#[allow(clippy::print_stderr, reason = "the output of a failing test")]
pub(crate) fn show(line: &str) {
    eprintln!("{line}");
}

/// Captures log events at INFO and above.
struct Capture;

impl Subscriber for Capture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        LOGGED.with_borrow_mut(|logged| logged.push((*event.metadata().level(), line.0)));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written = match field.name() {
            "message" => write!(self.0, "{value:?} "),
            name => write!(self.0, "{name}={value:?} "),
        };
        written.expect("memory");
    }
}
