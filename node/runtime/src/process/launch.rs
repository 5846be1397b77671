//! Starting a process.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::Signal;
use tokio::process::{Child, Command};
use vc_engine::runtime::InstanceId;
use vc_protocol::spec::ContainerSpec;

use super::procfs::{HOME_VARIABLE, Mark, boot_id};
use super::state::{Life, State};
use super::{UNKNOWN_CODE, logs};
use crate::Identity;
use crate::clock::now;

/// The code of an exit, as shells and Docker give it.
pub(super) fn code(status: ExitStatus) -> i64 {
    let signal = status.signal().map(|signal| 128 + i64::from(signal));
    status.code().map(i64::from).or(signal).unwrap_or(UNKNOWN_CODE)
}

/// Starts the process of an instance. That it is about to start is written down before, and which process it is after:
/// a node that is killed in between finds it by its environment. Errors: one line for people.
pub(super) fn launch(
    home: &Path,
    identity: &Identity,
    id: &InstanceId,
    spec: &ContainerSpec,
) -> Result<(State, Mark, Child), String> {
    let words = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let mut words = words(&spec.entrypoint).into_iter().chain(words(&spec.command));
    let program = words
        .next()
        .filter(|program| !program.is_empty())
        .ok_or("the process runtime needs a command")?;

    let disk = |error: io::Error| format!("cannot write to {}: {}", home.display(), plain(&error));
    let work = home.join("work");
    DirBuilder::new().recursive(true).mode(0o755).create(&work).map_err(disk)?;
    let before = State::load(home).ok();
    let mut state = State::new(id, now());
    state.store(home).map_err(disk)?;
    // Without a process the instance is what it was before.
    let undo = |reason: String| {
        let undone =
            before.as_ref().map_or_else(|| State::forget(home), |before| before.store(home));
        if let Err(error) = undone {
            tracing::warn!(instance = %id, %error, "cannot write the state of a process");
        }
        reason
    };

    let open = |name: &str| OpenOptions::new().append(true).create(true).open(home.join(name));
    let (out, err) = (open(logs::STDOUT).map_err(disk)?, open(logs::STDERR).map_err(disk)?);
    let mut command = command(&program, words.collect(), home, identity, id, spec, (out, err));
    set_user(&mut command, &work, spec.user.as_deref()).map_err(undo)?;
    let cwd = spec.working_dir.as_deref().map_or(work.as_path(), Path::new);
    if !cwd.is_dir() {
        return Err(undo(format!(
            "cannot run {program}: its working directory {} does not exist",
            cwd.display()
        )));
    }
    command.current_dir(cwd);

    let child = command
        .spawn()
        .map_err(|error| undo(format!("cannot run {program}: {}", plain(&error))))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let Some(mark) = pid.and_then(|pid| Mark::of(pid, &boot_id())) else {
        return Err(undo(format!("cannot watch {program}: /proc does not show it")));
    };
    state.life = Life::Running(mark.clone());
    if let Err(error) = state.store(home) {
        mark.signal_group(Signal::KILL);
        return Err(undo(disk(error)));
    }
    Ok((state, mark, child))
}

/// Of the node's environment only PATH and HOME are passed on.
fn command(
    program: &str,
    arguments: Vec<String>,
    home: &Path,
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
        .env(HOME_VARIABLE, home)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        // Signals to the node's group, as from ^C, are not for it.
        .process_group(0);
    command
}

/// Names would need the node's user database; numbers say what they mean.
fn set_user(command: &mut Command, work: &Path, user: Option<&str>) -> Result<(), String> {
    let Some(user) = user else { return Ok(()) };
    let wrong = || format!("the process runtime takes a numeric user, not '{user}'");
    let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
    let uid: u32 = uid.parse().map_err(|_| wrong())?;
    let gid: u32 = gid.map_or(Ok(uid), str::parse).map_err(|_| wrong())?;
    chown(work, Some(uid), Some(gid))
        .map_err(|error| format!("cannot run it as user {user}: {}", plain(&error)))?;
    command.uid(uid).gid(gid);
    Ok(())
}

/// An error without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(text, _)| text).to_owned()
}
