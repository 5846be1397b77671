//! Starting a process.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use vc_engine::runtime::InstanceId;
use vc_protocol::spec::ContainerSpec;

use super::output::{STDERR, STDOUT};
use super::procfs::{DIRECTORY_VARIABLE, ProcessIdentity, boot_id};
use super::state::{ProcessStatus, State};
use crate::clock::now;
use crate::identity::Identity;

/// Why a process was not started. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error("the process runtime needs a command: set 'command' or 'entrypoint'")]
    NoCommand,
    #[error("cannot write to {directory}: {reason}")]
    Disk { directory: PathBuf, reason: String },
    #[error("the process runtime needs a numeric user, not '{0}'")]
    User(String),
    #[error("cannot run it as user {user}: {reason}")]
    Owner { user: String, reason: String },
    #[error("cannot run {program}: its working directory {directory} does not exist")]
    WorkingDir { program: String, directory: PathBuf },
    #[error("cannot run {program}: {reason}")]
    Spawn { program: String, reason: String },
    #[error("cannot watch {0}: /proc does not show it")]
    Unwatchable(String),
}

/// Waits for a line on its input, then runs the program in its arguments as the same process. It ends if the input does.
const GATE: &str = r#"read -r line && exec "$@" </dev/null"#;

/// Starts the process of an instance. With an epoch, the process does not run the program until [`open_gate`]. The state is written before (about to start) and after (which process): a node
/// that crashes in between finds the process by its environment.
pub(super) fn launch(
    directory: &Path,
    identity: &Identity,
    id: &InstanceId,
    spec: &ContainerSpec,
    epoch: Option<u64>,
) -> Result<(State, ProcessIdentity, Child), LaunchError> {
    let words = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let mut words = words(&spec.entrypoint).into_iter().chain(words(&spec.command));
    let program =
        words.next().filter(|program| !program.is_empty()).ok_or(LaunchError::NoCommand)?;

    let disk = |error: io::Error| LaunchError::Disk {
        directory: directory.to_owned(),
        reason: without_code(&error),
    };
    let work = directory.join("work");
    DirBuilder::new().recursive(true).mode(0o755).create(&work).map_err(disk)?;
    let before = State::load(directory).ok();
    let mut state = State::new(id, now(), epoch);
    state.store(directory).map_err(disk)?;
    // Without a process the state is the previous one.
    let undo = |error: LaunchError| {
        let undone = before
            .as_ref()
            .map_or_else(|| State::remove(directory), |before| before.store(directory));
        if let Err(failed) = undone {
            tracing::warn!(instance = %id, error = %failed, "cannot write the state of a process");
        }
        error
    };

    let open = |name: &str| OpenOptions::new().append(true).create(true).open(directory.join(name));
    let (out, err) = (open(STDOUT).map_err(disk)?, open(STDERR).map_err(disk)?);
    // The process exists, but does not run the program yet.
    let (first, arguments) = match epoch {
        Some(_) => {
            let gate = ["-c", GATE, "sh"].map(str::to_owned);
            ("/bin/sh", gate.into_iter().chain([program.clone()]).chain(words).collect())
        }
        None => (program.as_str(), words.collect()),
    };
    let mut command = command(first, arguments, directory, identity, id, spec, (out, err));
    set_user(&mut command, &work, spec.user.as_deref()).map_err(undo)?;
    let cwd = spec.working_dir.as_deref().map_or(work.as_path(), Path::new);
    if !cwd.is_dir() {
        let directory = cwd.to_owned();
        return Err(undo(LaunchError::WorkingDir { program, directory }));
    }
    command.current_dir(cwd);
    if let Some(epoch) = epoch {
        command.env("VC_EPOCH", epoch.to_string()).stdin(Stdio::piped());
    }

    let child = command.spawn().map_err(|error| {
        undo(LaunchError::Spawn { program: program.clone(), reason: without_code(&error) })
    })?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let Some(process) = pid.and_then(|pid| ProcessIdentity::of(pid, &boot_id())) else {
        return Err(undo(LaunchError::Unwatchable(program)));
    };
    state.status = ProcessStatus::Running(process.clone());
    if let Err(error) = state.store(directory) {
        process.signal_group(Signal::KILL);
        return Err(undo(disk(error)));
    }
    Ok((state, process, child))
}

/// Lets the process of an instance with an epoch run its program.
pub(super) async fn open_gate(child: &mut Child) -> io::Result<()> {
    match child.stdin.take() {
        Some(mut gate) => gate.write_all(b"go\n").await,
        None => Ok(()),
    }
}

/// Builds the command. Of the node's environment only PATH and HOME are passed on.
fn command(
    program: &str,
    arguments: Vec<String>,
    directory: &Path,
    identity: &Identity,
    id: &InstanceId,
    spec: &ContainerSpec,
    (out, err): (File, File),
) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear();
    for name in ["PATH", "HOME"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let service = &id.slot.service;
    command
        .envs(&spec.environment)
        .env("VC_PROJECT", service.project.as_str())
        .env("VC_SERVICE", service.service.as_str())
        .env("VC_REPLICA", id.slot.replica.to_string())
        .env("VC_NODE", identity.node.to_string())
        .env(DIRECTORY_VARIABLE, directory)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        // Signals to the node's process group, as by ^C, do not reach it.
        .process_group(0);
    command
}

/// Sets a numeric user and group. Names would need the host's user database.
fn set_user(command: &mut Command, work: &Path, user: Option<&str>) -> Result<(), LaunchError> {
    let Some(user) = user else { return Ok(()) };
    let invalid = || LaunchError::User(user.to_owned());
    let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
    let uid: u32 = uid.parse().map_err(|_| invalid())?;
    let gid: u32 = gid.map_or(Ok(uid), str::parse).map_err(|_| invalid())?;
    chown(work, Some(uid), Some(gid)).map_err(|error| LaunchError::Owner {
        user: user.to_owned(),
        reason: without_code(&error),
    })?;
    command.uid(uid).gid(gid);
    Ok(())
}

/// Returns the text of an error without its code.
fn without_code(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(text, _)| text).to_owned()
}
