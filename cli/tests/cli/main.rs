//! Runs the program `vc` against minimal nodes on loopback, which complete the handshake and send the replies of the
//! test.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::new_without_default,
    missing_docs,
    reason = "tests"
)]

mod backup;
mod commands;
mod completions;
mod connecting;
mod console;
mod deploy;
mod following;
mod json;
mod moving;
mod node;
mod volumes;
mod voters;
mod waiting;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A home directory in which the program runs.
pub struct Home(TempDir);

/// The output of a command.
pub struct CommandOutput {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    }

    /// Returns a command without the environment of this test.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vc"));
        command.args(args).env_clear().env("HOME", self.path()).current_dir(self.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn vc(&self, args: &[&str]) -> CommandOutput {
        self.command(args).output().expect("started").into()
    }

    /// Runs `vc` on a terminal on which a user types a line; returns what the terminal shows.
    pub fn vc_on_terminal(&self, args: &[&str], typed: &str) -> String {
        let command = [&[env!("CARGO_BIN_EXE_vc")], args].concat().join(" ");
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
        script.env("HOME", self.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().expect("script(1) of util-linux");
        let mut keyboard = script.stdin.take().expect("piped");
        writeln!(keyboard, "{typed}").expect("typed");
        let output = script.wait_with_output().expect("ended");
        drop(keyboard);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }
}

impl From<Output> for CommandOutput {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl CommandOutput {
    /// Asserts success with an empty standard error; returns standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{}", self.stdout);
        self.stdout
    }

    /// Asserts exit code 1 with one line on standard error; returns it without its prefix.
    #[track_caller]
    pub fn error(self) -> String {
        assert_eq!(self.code, Some(1), "{}{}", self.stdout, self.stderr);
        let line = self.stderr.strip_prefix("error: ").and_then(|rest| rest.strip_suffix('\n'));
        let line = line.unwrap_or_else(|| panic!("no error line: {:?}", self.stderr));
        assert!(!line.contains('\n'), "more than a line: {line}");
        line.to_owned()
    }
}
