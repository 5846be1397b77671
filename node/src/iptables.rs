//! Runs iptables, which changes the packet filter and the NAT rules of the host.

use std::io::{self, ErrorKind};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

/// How long a command may run, waiting for the xtables lock included.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);
/// Seconds that a command waits for the xtables lock.
const LOCK_TIMEOUT: &str = "10";
/// Limit of characters of a command's error output that an error carries.
const MAX_MESSAGE: usize = 200;

/// A command of iptables failed.
#[derive(Debug, thiserror::Error)]
pub enum IptablesError {
    /// The program is not installed.
    #[error("'{program}' not found on this host: install iptables")]
    NotInstalled {
        /// `iptables` or `iptables-restore`.
        program: &'static str,
    },
    /// The program did not start, or its output could not be read.
    #[error("cannot run {program}: {source}")]
    Run {
        /// `iptables` or `iptables-restore`.
        program: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The program did not exit in time.
    #[error("{program} did not finish within {} s; another program may hold the xtables lock", limit.as_secs())]
    Timeout {
        /// `iptables` or `iptables-restore`.
        program: &'static str,
        /// How long it may run.
        limit: Duration,
    },
    /// The program exited with an error.
    #[error("{program} failed: {message}")]
    Failed {
        /// `iptables` or `iptables-restore`.
        program: &'static str,
        /// The first line of its error output.
        message: String,
    },
}

/// Replaces the chains that are declared in `tables`, in the form of iptables-save, and leaves all others.
pub(crate) async fn restore(tables: &str) -> Result<(), IptablesError> {
    run("iptables-restore", &["--noflush", "--wait", LOCK_TIMEOUT], tables).await.map(drop)
}

/// Runs `iptables` in a table. Returns its output.
pub(crate) async fn iptables(table: &str, arguments: &[&str]) -> Result<String, IptablesError> {
    run("iptables", &[&["--wait", LOCK_TIMEOUT, "-t", table], arguments].concat(), "").await
}

/// Makes sure that a built-in chain has a rule, such as a jump: inserts it at the start where it is missing.
pub(crate) async fn ensure(table: &str, from: &str, rule: &[&str]) -> Result<(), IptablesError> {
    match iptables(table, &[&["-C", from], rule].concat()).await {
        Ok(_) => Ok(()),
        Err(_) => iptables(table, &[&["-I", from], rule].concat()).await.map(drop),
    }
}

/// Empties and removes a chain that nothing jumps to. Logs why it cannot.
pub(crate) async fn remove_chain(table: &str, chain: &str) {
    for action in ["-F", "-X"] {
        if let Err(error) = iptables(table, &[action, chain]).await {
            tracing::debug!(chain, %error, "cannot remove a chain");
        }
    }
}

/// Removes a chain with all jumps to it; there may be none. Logs why it cannot.
pub(crate) async fn remove_chain_and_jumps(table: &str, chain: &str) {
    let Ok(listed) = iptables(table, &["-S"]).await else { return };
    let jump = format!("-j {chain}");
    for rule in listed.lines().filter(|rule| rule.ends_with(&jump)) {
        let Some(rule) = rule.strip_prefix("-A ") else { continue };
        let words: Vec<&str> = ["-D"].into_iter().chain(rule.split(' ')).collect();
        if let Err(error) = iptables(table, &words).await {
            tracing::warn!(table, chain, %error, "cannot remove a jump to a chain");
        }
    }
    if listed.lines().any(|line| line.strip_prefix("-N ") == Some(chain)) {
        remove_chain(table, chain).await;
    }
}

async fn run(
    program: &'static str,
    arguments: &[&str],
    input: &str,
) -> Result<String, IptablesError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().map_err(|source| match source.kind() {
        ErrorKind::NotFound => IptablesError::NotInstalled { program },
        _ => IptablesError::Run { program, source },
    })?;
    let stdin = child.stdin.take();
    let exit = async move {
        if let Some(mut stdin) = stdin {
            // A program that exits before it has read everything explains itself on stderr.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = match timeout(COMMAND_TIMEOUT, exit).await {
        Ok(output) => output.map_err(|source| IptablesError::Run { program, source })?,
        Err(_) => return Err(IptablesError::Timeout { program, limit: COMMAND_TIMEOUT }),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut lines = stderr.lines().map(str::trim);
    let line = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    let message = match line {
        Some(line) => line.chars().take(MAX_MESSAGE).collect(),
        None => output.status.to_string(),
    };
    Err(IptablesError::Failed { program, message })
}
