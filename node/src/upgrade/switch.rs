//! The step from one program to the next, when the tasks of the node have ended.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::ValueEnum as _;
use tokio::sync::OwnedSemaphorePermit;

use super::guard;
use super::install::previous;
use super::program::RUNNING;
use super::record::Record;
use crate::args::LogFormat;
use crate::service_manager;

/// Time for the guard to start.
const GUARD_TIMEOUT: Duration = Duration::from_secs(10);

/// systemd leaves a program that is not ready to its guard.
const WATCHDOG: Duration = guard::READY_TIMEOUT.saturating_add(Duration::from_secs(30));

/// A program that this process is to execute in its place.
#[derive(Debug)]
pub struct Switch {
    pub(super) dir: PathBuf,
    /// Path of the program.
    pub(super) path: PathBuf,
    /// The file of the new one.
    pub(super) staged: PathBuf,
    /// The name of the present one until it is that of the previous one.
    pub(super) kept: PathBuf,
    pub(super) version: String,
    pub(super) digest: String,
    /// Kept so that no other upgrade begins.
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Drop for Switch {
    fn drop(&mut self) {
        // The node was told to stop instead, or the file has its place already.
        let _ = fs::remove_file(&self.staged);
    }
}

impl Switch {
    /// Returns the version of the new program.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Returns the digest of the new program.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// Puts the new program in place of the present one and executes it, watched by a guard; where that cannot be, executes the present one.
    /// Returns only with an error; the guard then puts things right when this process ends.
    pub fn perform(self, format: LogFormat) -> io::Error {
        let (mut child, connection) = match self.start_guard(format) {
            Ok(started) => started,
            Err(error) => {
                return self.go_on(format!("cannot start the guard: {error}"), format);
            }
        };
        if let Err(error) = self.replace() {
            let _ = guard::dismiss(&connection);
            let _ = child.wait();
            return self.go_on(format!("cannot replace {}: {error}", self.path.display()), format);
        }
        service_manager::extend_watchdog(WATCHDOG);
        let mut node = run(&self.path, &self.dir, format);
        node.arg("--upgraded").stdin(Stdio::from(OwnedFd::from(connection))).exec()
    }

    /// Executes the present program again, whose file is untouched, and has it say why.
    fn go_on(&self, reason: String, format: LogFormat) -> io::Error {
        tracing::warn!(reason, "the upgrade has failed: restarting with the present program");
        let _ = fs::remove_file(&self.staged);
        if let Err(error) = self.record(Some(reason)).save(&self.dir) {
            tracing::warn!(%error, "cannot write why the upgrade failed");
        }
        run(Path::new(RUNNING), &self.dir, format).exec()
    }

    /// Starts the guard, and returns the connection on which it waits for a node that is ready.
    fn start_guard(&self, format: LogFormat) -> io::Result<(Child, UnixStream)> {
        self.record(None).save(&self.dir)?;
        let (mut ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(GUARD_TIMEOUT))?;
        let mut guard = command(Path::new(RUNNING), "guard-upgrade", &self.dir, format);
        guard.stdin(Stdio::from(OwnedFd::from(theirs)));
        // A signal for the node's process group is not for the guard.
        let mut child = guard.process_group(0).spawn()?;
        if let Err(error) = ours.read_exact(&mut [0]).and_then(|()| ours.set_read_timeout(None)) {
            // One that starts later would take the present program for one that has failed.
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        Ok((child, ours))
    }

    fn record(&self, reason: Option<String>) -> Record {
        let (path, version, digest) =
            (self.path.clone(), self.version.clone(), self.digest.clone());
        Record { path, version, digest, reason }
    }

    /// Keeps the present program as the previous one, and gives its path to the new one. After an error, the file at the path is what it was.
    fn replace(&self) -> io::Result<()> {
        keep(Path::new(RUNNING), &self.path, &self.kept)?;
        fs::rename(&self.kept, previous(&self.path))?;
        fs::rename(&self.staged, &self.path)?;
        if let Err(error) = sync_directory(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the new program may not be there after a power cut");
        }
        Ok(())
    }
}

/// Gives a program that runs another name beside its path: a copy of it, where something else is at the path by now.
fn keep(running: &Path, path: &Path, kept: &Path) -> io::Result<()> {
    match fs::remove_file(kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = |path| fs::metadata(path).map(|it| (it.dev(), it.ino()));
    if file(path).ok() == Some(file(running)?) {
        return fs::hard_link(path, kept);
    }
    let copied = fs::copy(running, kept).and_then(|_| File::open(kept)?.sync_all());
    if copied.is_err() {
        let _ = fs::remove_file(kept);
    }
    copied
}

/// Makes the names in the directory of a file durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Returns the command that runs the node of a data directory.
pub(super) fn run(program: &Path, dir: &Path, format: LogFormat) -> Command {
    command(program, "run", dir, format)
}

fn command(program: &Path, what: &str, dir: &Path, format: LogFormat) -> Command {
    let mut command = Command::new(program);
    command.arg0("vc-node").args([what, "--data-dir"]).arg(dir);
    if let Some(value) = format.to_possible_value() {
        command.args(["--log-format", value.get_name()]);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_that_runs_is_kept_and_not_what_replaced_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let [path, running, kept] =
            ["vc-node", "running", "kept"].map(|name| dir.path().join(name));
        let inode = |path: &Path| fs::metadata(path).expect("there").ino();
        fs::write(&path, "old").expect("written");
        fs::hard_link(&path, &running).expect("linked");
        keep(&running, &path, &kept).expect("kept");
        assert_eq!(inode(&kept), inode(&running), "without a copy");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "of a package").expect("written");
        keep(&running, &path, &kept).expect("kept");
        assert_eq!(fs::read_to_string(&kept).expect("read"), "old");
        fs::remove_file(&path).expect("removed");
        keep(&running, &path, &kept).expect("kept where nothing is at the path");
    }
}
