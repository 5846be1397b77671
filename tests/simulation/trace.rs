//! The trace of a world, including the engines' logs. Its tail is printed when a test fails.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};
use vc_protocol::Millis;

use crate::marks::Mark;

/// Lines kept for a failing test.
const TAIL: usize = 2000;

thread_local! {
    static LOGGED: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
    static RECORDED: RefCell<Option<Option<Recorded>>> = const { RefCell::new(None) };
}

static PRINTS: AtomicBool = AtomicBool::new(false);

/// Has all worlds print every line of their traces immediately, or not.
pub fn print_trace(prints: bool) {
    PRINTS.store(prints, Ordering::Relaxed);
}

/// What is left of a world that has ended.
#[derive(Debug, Default)]
pub struct Recorded {
    /// A hash over all lines of the trace.
    pub hash: u64,
    /// Milliseconds of virtual time.
    pub simulated: Millis,
    pub marks: BTreeSet<Mark>,
    /// The end of the trace.
    pub lines: Vec<String>,
}

/// Has the worlds of this thread leave what they recorded to [`take_recorded`], and print nothing.
pub fn start_recording() {
    RECORDED.set(Some(None));
}

/// Returns what the last world left, and ends that.
pub fn take_recorded() -> Option<Recorded> {
    RECORDED.take().flatten()
}

/// Returns whether the worlds of this thread print nothing.
pub fn is_recording() -> bool {
    RECORDED.with_borrow(Option::is_some)
}

/// Leaves it to [`take_recorded`]; returns it if this thread does not record.
pub fn record(recorded: Recorded) -> Option<Recorded> {
    RECORDED.with_borrow_mut(|slot| match slot {
        Some(slot) => {
            *slot = Some(recorded);
            None
        }
        None => Some(recorded),
    })
}

/// The last lines of a run.
pub struct Trace {
    lines: VecDeque<String>,
    hasher: Fnv,
    live: bool,
    _subscriber: tracing::subscriber::DefaultGuard,
}

impl Trace {
    /// Returns an empty trace and captures the logs of this thread. `VC_SIM_TRACE=1` prints every line immediately.
    pub fn start() -> Self {
        LOGGED.with_borrow_mut(Vec::clear);
        Self {
            lines: VecDeque::new(),
            hasher: Fnv(0xcbf2_9ce4_8422_2325),
            live: PRINTS.load(Ordering::Relaxed) || std::env::var_os("VC_SIM_TRACE").is_some(),
            _subscriber: tracing::subscriber::set_default(Capture),
        }
    }

    /// Appends a line.
    pub fn push(&mut self, line: String) {
        if self.live {
            show(&line);
        }
        self.hasher.write(line.as_bytes());
        if self.lines.len() == TAIL {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Returns the log lines since the last call.
    pub fn logged(&self) -> Vec<(Level, String)> {
        LOGGED.take()
    }

    /// Returns the hash of all lines.
    pub fn hash(&self) -> u64 {
        self.hasher.0
    }

    /// Returns whether every line was printed.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Returns the kept lines.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines).into()
    }
}

/// The hash FNV-1a, which is the same on every computer.
struct Fnv(u64);

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Prints a line on standard error.
#[allow(clippy::print_stderr, reason = "the output of a failing test")]
pub fn show(line: &str) {
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
