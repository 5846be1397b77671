//! The state of each process on disk, in `instances/PROJECT.SERVICE.REPLICA-DIGEST/state.json`.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};
use vc_engine::runtime::{InstanceId, Phase};
use vc_protocol::{Millis, Slot};

use super::output::last_output;
use super::procfs::ProcessIdentity;

/// The exit code of a process that was adopted, or whose exit was not observed.
pub const UNKNOWN_CODE: i64 = -1;

/// Returns the exit code as shells and Docker do: 128 plus the signal when one ended the process.
pub(super) fn exit_code(status: ExitStatus) -> i64 {
    let signal = status.signal().map(|signal| 128 + i64::from(signal));
    status.code().map(i64::from).or(signal).unwrap_or(UNKNOWN_CODE)
}

const FILE: &str = "state.json";

/// The state of one process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    slot: Slot,
    digest: String,
    /// When it was last started.
    pub(super) started: Millis,
    /// The epoch of the lease under which it was started, if it was started under one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<u64>,
    pub(super) status: ProcessStatus,
}

/// The status of a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProcessStatus {
    /// It is about to be started.
    Starting,
    /// It runs as this process.
    Running(ProcessIdentity),
    /// It exited with this code.
    Exited(i64),
}

/// Returns the directory of an instance. Projects, services and digests have no dots.
pub(super) fn directory(dir: &Path, id: &InstanceId) -> PathBuf {
    let service = &id.slot.service;
    // The digest comes over the network, and must not lead elsewhere.
    let digest: String = id.digest.chars().filter(char::is_ascii_alphanumeric).collect();
    dir.join(format!("{}.{}.{}-{digest}", service.project, service.service, id.slot.replica))
}

impl State {
    pub(super) fn new(id: &InstanceId, started: Millis, epoch: Option<u64>) -> Self {
        Self {
            slot: id.slot.clone(),
            digest: id.digest.clone(),
            started,
            epoch,
            status: ProcessStatus::Starting,
        }
    }

    pub(super) fn id(&self) -> InstanceId {
        InstanceId { slot: self.slot.clone(), digest: self.digest.clone() }
    }

    /// Returns the phase of a process that does not run.
    pub(super) fn phase(&self, directory: &Path) -> Phase {
        let code = match &self.status {
            // The node stopped before the process existed.
            ProcessStatus::Starting => return Phase::Gone,
            ProcessStatus::Running(_) => UNKNOWN_CODE,
            ProcessStatus::Exited(code) => *code,
        };
        Phase::Exited { code, output: last_output(directory, self.started), out_of_memory: false }
    }

    pub(super) fn load(directory: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(directory.join(FILE))?)?)
    }

    /// Replaces the state on disk.
    pub(super) fn store(&self, directory: &Path) -> io::Result<()> {
        vc_atomic_file::write(&directory.join(FILE), &serde_json::to_vec(self)?, 0o600)
    }

    pub(super) fn remove(directory: &Path) -> io::Result<()> {
        std::fs::remove_file(directory.join(FILE))
    }
}

/// Reads the states of all instances.
pub(super) fn scan(dir: &Path) -> Vec<State> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(dir = %dir.display(), %error, "cannot list the processes of this node");
            }
            return Vec::new();
        }
    };
    let load = |path: PathBuf| match State::load(&path) {
        Ok(state) if directory(dir, &state.id()) == path => Some(state),
        Ok(_) => {
            tracing::warn!(path = %path.display(), "ignoring a directory with the state of another instance");
            None
        }
        // It never started, or is being removed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "ignoring a process with an unreadable state");
            None
        }
    };
    entries.flatten().filter_map(|entry| load(entry.path())).collect()
}
