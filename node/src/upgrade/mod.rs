//! Replaces the program of this node by another build, at the request of an admin (`vc upgrade`).
//!
//! 1. The program is received into a file beside the present one, and compared with its digest ([`install`]).
//! 2. It is run to check that it can read this data directory, and that it knows what the cluster uses ([`check`]).
//! 3. The node announces a restart and leaves its sockets, as at any restart ([`crate::restart`]).
//! 4. The present program becomes the previous one, the new one takes its path, and this process executes it ([`switch`]): the process id
//!    stays, so that no supervisor sees a process end.
//! 5. A process of the present program, the guard ([`guard`]), waits until the node says that it is ready. If it does not, the guard puts the
//!    previous program back and has the node started again.

mod check;
mod error;
mod guard;
mod install;
mod program;
mod reap;
mod record;
mod switch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Mutex, OnceCell, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use vc_protocol::NodeId;
use vc_protocol::control::{FailedUpgrade, ProgramId};

pub(crate) use check::check;
pub(crate) use error::UpgradeError;
pub(crate) use guard::{Guarded, guard};
pub(crate) use install::Staged;
pub(crate) use reap::reap;
pub(crate) use record::{describe, take_failed};
pub use switch::Switch;

use program::FileVersion;

/// Upgrades at a time.
const MAX_UPGRADES: usize = 1;

/// The process with which all others of a container end, and which none of them can kill (`pid_namespaces(7)`).
const FIRST_PROCESS: u32 = 1;

/// A switch that is ready, once the client has its answer.
pub(crate) struct PendingSwitch {
    pub(crate) switch: Switch,
    /// Cancelled when the client has been answered.
    pub(crate) answered: CancellationToken,
}

/// What requests about the program of this node need. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Upgrades(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    node: NodeId,
    /// Path of the program that runs.
    path: PathBuf,
    /// Whether the operator of the node lets admins replace it.
    allowed: bool,
    failed: Option<FailedUpgrade>,
    running: OnceCell<ProgramId>,
    /// What the program before was, as long as the file is the same.
    previous: Mutex<Option<(FileVersion, ProgramId)>>,
    permits: Arc<Semaphore>,
    switches: mpsc::Sender<PendingSwitch>,
}

impl Upgrades {
    /// Returns the handle of a node, and the queue of switches for the task that stops it. `failed` is the upgrade that it went back from.
    ///
    /// # Errors
    /// The path of this program is not known.
    pub(crate) fn new(
        dir: &Path,
        node: NodeId,
        allowed: bool,
        failed: Option<FailedUpgrade>,
    ) -> std::io::Result<(Self, mpsc::Receiver<PendingSwitch>)> {
        let (switches, pending) = mpsc::channel(MAX_UPGRADES);
        let shared = Shared {
            dir: dir.to_owned(),
            node,
            path: program::path()?,
            allowed,
            failed,
            running: OnceCell::new(),
            previous: Mutex::new(None),
            permits: Arc::new(Semaphore::new(MAX_UPGRADES)),
            switches,
        };
        Ok((Self(Arc::new(shared)), pending))
    }

    /// Returns the data directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Returns the path of the program that runs.
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns the path of a file of this node beside the program: other nodes of the host may run the same.
    fn own_file(&self, suffix: &str) -> PathBuf {
        install::beside(&self.0.path, &format!("{suffix}-{}", self.0.node))
    }

    /// Returns the upgrade that the node went back from at its start, unless another one is under way: that may be to the same program.
    pub(crate) fn failed(&self) -> Option<&FailedUpgrade> {
        self.0.failed.as_ref().filter(|_| self.0.permits.available_permits() > 0)
    }

    /// Returns what the program that runs is.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) async fn running(&self) -> Result<&ProgramId, UpgradeError> {
        let identify = || program::identify(Path::new(program::RUNNING).to_owned());
        self.0.running.get_or_try_init(identify).await
    }

    /// Returns what the program before it is; `None` if there is none beside it.
    pub(crate) async fn previous(&self) -> Option<ProgramId> {
        let path = install::previous(&self.0.path);
        let version = FileVersion::of(&path).ok()?;
        let mut known = self.0.previous.lock().await;
        if let Some((of, id)) = &*known
            && *of == version
        {
            return Some(id.clone());
        }
        let id = program::identify(path).await.ok()?;
        *known = Some((version, id.clone()));
        Some(id)
    }

    /// Returns the Debian package that the program belongs to.
    pub(crate) fn package(&self) -> Option<&'static str> {
        program::package(&self.0.path)
    }

    /// Returns the right to upgrade the node, which the switch keeps.
    ///
    /// # Errors
    /// Its operator does not allow it, it is the first process of a container, or an upgrade is under way.
    pub(crate) fn permit(&self) -> Result<OwnedSemaphorePermit, UpgradeError> {
        if !self.0.allowed {
            return Err(UpgradeError::NotAllowed);
        }
        if std::process::id() == FIRST_PROCESS {
            return Err(UpgradeError::FirstProcess);
        }
        Arc::clone(&self.0.permits).try_acquire_owned().map_err(|_| UpgradeError::UnderWay)
    }

    /// Has the node restart with another program once `answered` is cancelled.
    ///
    /// # Errors
    /// The node is stopping.
    pub(crate) async fn switch(
        &self,
        switch: Switch,
        answered: CancellationToken,
    ) -> Result<(), UpgradeError> {
        let pending = PendingSwitch { switch, answered };
        self.0.switches.send(pending).await.map_err(|_| UpgradeError::Stopping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_file_in_place_of_the_previous_program_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = vc_protocol::Keypair::ed25519_from_bytes([7; 32]).expect("32 bytes");
        let node = NodeId::of(&key.public()).expect("ed25519");
        let (mut upgrades, _pending) = Upgrades::new(dir.path(), node, true, None).expect("made");
        let shared = Arc::get_mut(&mut upgrades.0).expect("the only one");
        shared.path = dir.path().join("vc-node");
        let path = install::previous(&shared.path);
        assert_eq!(upgrades.previous().await, None);
        std::fs::write(&path, "one").expect("written");
        let one = upgrades.previous().await.expect("there");
        assert_eq!(upgrades.previous().await, Some(one.clone()));
        std::fs::write(dir.path().join("new"), "two").expect("written");
        std::fs::rename(dir.path().join("new"), &path).expect("renamed");
        assert_ne!(upgrades.previous().await, Some(one));
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(upgrades.previous().await, None);
    }
}
