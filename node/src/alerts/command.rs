//! Receivers that are commands on the node.

use std::process::Stdio;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use vc_engine::alerts::Message;

use super::SendError;

/// Kills the processes of a command that is given up.
struct KillOnDrop(Option<Pid>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Runs a command, as the user of this process, without a shell and with `PATH` as its environment. It gets the message on its standard
/// input. What it writes to standard error goes to the log of the node; its standard output is discarded.
///
/// # Errors
/// It cannot be started, or ends with another code than 0.
pub(super) async fn run(command: &[String], message: Message) -> Result<(), SendError> {
    let (program, arguments) = command.split_first().map_or(("", &[][..]), |(a, b)| (a, b));
    let failed = |error| SendError::Command(program.to_owned(), error);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", path)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut kill = KillOnDrop(group);
    if let Some(mut input) = child.stdin.take() {
        // A command need not read it.
        let _ = input.write_all(message.body.as_bytes()).await;
    }
    let status = child.wait().await.map_err(failed)?;
    // Its id may be that of another process from now on.
    kill.0 = None;
    match status.success() {
        true => Ok(()),
        false => Err(SendError::Failed(program.to_owned(), status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> Message {
        Message { content_type: "text/plain", body: body.to_owned() }
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn a_command_gets_the_message_and_no_environment() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("out");
        let script = dir.path().join("script");
        std::fs::write(&script, format!("cat > {0}; env >> {0}\n", file.display()))
            .expect("written");
        run(&words(&format!("sh {}", script.display())), message("hello\n")).await.expect("ran");
        let written = std::fs::read_to_string(&file).expect("read");
        assert!(written.starts_with("hello\n"), "{written}");
        assert!(!written.contains("CARGO"), "{written}");
    }

    #[tokio::test]
    async fn a_command_that_fails_or_is_missing_is_named() {
        let error = run(&words("false"), message("")).await.expect_err("fails").to_string();
        assert!(error.starts_with("false ended with exit status: 1"), "{error}");
        let error = run(&words("no-such-program"), message("")).await.expect_err("fails");
        assert!(error.to_string().starts_with("cannot run no-such-program"), "{error}");
        // One that reads nothing has not failed.
        run(&words("true"), message(&"x".repeat(1 << 20))).await.expect("ran");
    }
}
