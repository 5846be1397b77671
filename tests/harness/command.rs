//! Programs that tests run, and their output.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::DEADLINE;

/// The output and exit code of a program that ended.
#[derive(Debug)]
pub struct CommandOutput {
    pub line: String,
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl CommandOutput {
    /// Asserts success and returns stdout.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{} failed: {}{}", self.line, self.out, self.err);
        self.out
    }

    /// Asserts success and returns stdout as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let line = self.line.clone();
        let out = self.done();
        serde_json::from_str(&out)
            .unwrap_or_else(|error| panic!("{line} printed no JSON ({error}): {out}"))
    }

    /// Asserts a refusal: as [`CommandOutput::failed`], with an empty stdout.
    #[track_caller]
    pub fn refused(self) -> String {
        assert_eq!(self.out, "", "{}: a refused command prints nothing on stdout", self.line);
        self.failed()
    }

    /// Asserts exit code 1 and one error line on stderr, and returns that line without `error: `. Stdout may have output.
    #[track_caller]
    pub fn failed(self) -> String {
        let Self { line, code, out, err } = self;
        assert_eq!(code, Some(1), "{line}: exit code; output: {out}{err}");
        let lines: Vec<&str> = err.lines().filter(|line| !line.starts_with('{')).collect();
        assert_eq!(lines.len(), 1, "{line}: expected one line on stderr: {err}");
        let error = lines[0]
            .strip_prefix("error: ")
            .unwrap_or_else(|| panic!("{line}: no 'error: ' in {err}"));
        assert!(
            !error.contains("panicked") && !super::log_check::has_token(error),
            "{line}: {error}"
        );
        error.to_owned()
    }

    /// Asserts a refusal whose line contains `words`.
    #[track_caller]
    pub fn refused_with(self, words: &str) {
        let line = self.line.clone();
        let error = self.refused();
        assert!(error.contains(words), "{line}: '{words}' is not in: {error}");
    }
}

/// Runs a program to its end. Panics after [`DEADLINE`].
pub fn run(command: Command) -> CommandOutput {
    run_for(DEADLINE, command)
}

/// Runs a program to its end. Panics after `deadline`.
pub fn run_for(deadline: Duration, mut command: Command) -> CommandOutput {
    let line = line(&command);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("{line}: {error}"));
    let pid = child.id();
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match ended.recv_timeout(deadline) {
        Ok(output) => {
            let output = output.expect("its output is readable");
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            CommandOutput {
                line,
                code: output.status.code(),
                out: text(&output.stdout),
                err: text(&output.stderr),
            }
        }
        Err(_) => {
            signal(pid, Signal::KILL);
            panic!("{line}: has not ended after {} s", deadline.as_secs());
        }
    }
}

/// Returns the command line without secrets.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let short = |word: &std::ffi::OsStr| {
        let word = word.to_string_lossy();
        let word = word.rsplit('/').next().unwrap_or_default();
        if word.starts_with("eyJ") { "TOKEN".to_owned() } else { word.to_owned() }
    };
    words.map(short).collect::<Vec<_>>().join(" ")
}

/// Signals a process that this test started. No effect if it has ended already.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = kill_process(pid, signal);
}

/// A running program whose stdout is read line by line; killed on drop.
pub struct Running {
    child: Child,
    /// Behind a lock, so that threads can share the program.
    lines: Mutex<Receiver<String>>,
}

impl Running {
    /// Starts a program with its stdout piped.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let out = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines: Mutex::new(lines) }
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the next line; `None` once the program has ended. Panics after `deadline`.
    pub fn next_line(&self, deadline: Duration) -> Option<String> {
        match self.lines.lock().expect("not poisoned").recv_timeout(deadline) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line for {} s", deadline.as_secs()),
        }
    }

    /// Discards the lines that were printed so far.
    pub fn discard_lines(&self) {
        let lines = self.lines.lock().expect("not poisoned");
        while lines.try_recv().is_ok() {}
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGTERM and returns the exit code. Panics after [`DEADLINE`].
    pub fn terminate(&mut self) -> Option<i32> {
        signal(self.child.id(), Signal::TERM);
        self.end()
    }

    /// Waits for the end and returns the exit code. Panics after [`DEADLINE`].
    pub fn end(&mut self) -> Option<i32> {
        let (status, _) =
            super::until("a program ends", DEADLINE, || match self.child.try_wait() {
                Ok(Some(status)) => Ok(status),
                other => Err(format!("{other:?}")),
            });
        status.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
