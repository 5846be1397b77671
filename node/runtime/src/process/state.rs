//! What is written down of each process, in `instances/PROJECT.SERVICE.REPLICA-DIGEST/state.json`.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vc_engine::runtime::{InstanceId, Phase};
use vc_protocol::{Millis, Slot};

use super::logs;
use super::procfs::Mark;

const FILE: &str = "state.json";

/// One process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    slot: Slot,
    digest: String,
    /// When it was last started.
    pub(super) started: Millis,
    pub(super) life: Life,
}

/// How far it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Life {
    /// Written before the process exists.
    Starting,
    /// Which process it is.
    Running(Mark),
    /// With which code.
    Exited(i64),
}

/// The directory of an instance. Neither projects nor services nor digests have dots.
pub(super) fn home(dir: &Path, id: &InstanceId) -> PathBuf {
    let service = &id.slot.service;
    // The digest came over the network: it must not lead elsewhere.
    let digest: String = id.digest.chars().filter(char::is_ascii_alphanumeric).collect();
    dir.join(format!("{}.{}.{}-{digest}", service.project, service.service, id.slot.replica))
}

impl State {
    pub(super) fn new(id: &InstanceId, started: Millis) -> Self {
        Self { slot: id.slot.clone(), digest: id.digest.clone(), started, life: Life::Starting }
    }

    pub(super) fn id(&self) -> InstanceId {
        InstanceId { slot: self.slot.clone(), digest: self.digest.clone() }
    }

    /// Of a process that does not run, whose directory is `home`.
    pub(super) fn phase(&self, home: &Path) -> Phase {
        let code = match &self.life {
            // The node ended before anything came of it.
            Life::Starting => return Phase::Gone,
            Life::Running(_) => super::UNKNOWN_CODE,
            Life::Exited(code) => *code,
        };
        Phase::Exited { code, output: logs::last_words(home, self.started) }
    }

    pub(super) fn load(home: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(home.join(FILE))?)?)
    }

    /// Replaces the record on disk.
    pub(super) fn store(&self, home: &Path) -> io::Result<()> {
        vc_atomic_file::write(&home.join(FILE), &serde_json::to_vec(self)?, 0o600)
    }

    pub(super) fn forget(home: &Path) -> io::Result<()> {
        std::fs::remove_file(home.join(FILE))
    }
}

/// All that is written down.
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
        Ok(state) if home(dir, &state.id()) == path => Some(state),
        Ok(_) => {
            tracing::warn!(path = %path.display(), "a process's directory has another one's state: it is left alone");
            None
        }
        // It never started, or is being removed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a process with a broken state is left alone");
            None
        }
    };
    entries.flatten().filter_map(|entry| load(entry.path())).collect()
}
