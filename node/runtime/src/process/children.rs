//! The processes of this node: adopting, watching and listing them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use vc_engine::runtime::{InstanceId, Observed, Phase};
use vc_protocol::Millis;

use super::log_rotation;
use super::procfs::{self, ProcessIdentity};
use super::state::{self, ProcessStatus, State, UNKNOWN_CODE};
use crate::identity::Identity;
use crate::instance_queue::Reporter;
use crate::watchdog::Watchdog;

/// The address of every process, which has none of its own.
pub(super) const LOCAL_ADDRESS: &str = "127.0.0.1";
/// How often all processes are listed.
const LIST_INTERVAL: Duration = Duration::from_secs(30);
/// How often logs are rotated.
const ROTATE_INTERVAL: Duration = Duration::from_secs(2);

/// A running process.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) process: ProcessIdentity,
    pub(super) started: Millis,
    /// The epoch of the lease under which it was started, if it was started under one.
    pub(super) epoch: Option<u64>,
    /// Becomes true when it has exited and its state is written.
    pub(super) ended: watch::Receiver<bool>,
}

impl Running {
    pub(super) fn phase(&self) -> Phase {
        Phase::Running { health: None, started: self.started, said: String::new() }
    }
}

/// The processes of this node.
#[derive(Debug, Clone)]
pub(super) struct Children {
    pub(super) dir: Arc<Path>,
    pub(super) identity: Identity,
    pub(super) reporter: Reporter,
    pub(super) watchdog: Watchdog,
    running: Arc<Mutex<BTreeMap<InstanceId, Running>>>,
    /// Cancelled when the runtime is dropped, which ends the watching tasks.
    pub(super) dropped: CancellationToken,
}

impl Children {
    pub(super) fn new(
        dir: PathBuf,
        identity: Identity,
        reporter: Reporter,
        watchdog: Watchdog,
    ) -> Self {
        let dropped = CancellationToken::new();
        Self { dir: dir.into(), identity, reporter, watchdog, running: Arc::default(), dropped }
    }

    pub(super) fn running(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn directory(&self, id: &InstanceId) -> PathBuf {
        state::directory(&self.dir, id)
    }

    /// Runs work that accesses the disk on a thread for blocking work; `None` when it panicked or the node is stopping.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let this = self.clone();
        spawn_blocking(move || work(&this)).await.ok()
    }

    /// Adopts the processes that an earlier node left running, and records those that exited meanwhile.
    pub(super) async fn adopt_all(&self) -> Vec<Observed> {
        let found = self.blocking(|this| {
            let boot = procfs::boot_id();
            let adopt = |mut state: State| {
                let directory = this.directory(&state.id());
                let process = match &state.status {
                    // The node stopped between starting the process and recording its id.
                    ProcessStatus::Starting => procfs::find_by_directory(&directory, &boot),
                    ProcessStatus::Running(process) => Some(process.clone()).filter(|process| process.is_alive(&boot)),
                    ProcessStatus::Exited(_) => None,
                };
                match (&process, &state.status) {
                    (Some(process), _) => state.status = ProcessStatus::Running(process.clone()),
                    (None, ProcessStatus::Running(_)) => state.status = ProcessStatus::Exited(UNKNOWN_CODE),
                    (None, _) => return (state, None),
                }
                if let Err(error) = state.store(&directory) {
                    tracing::warn!(instance = %state.id(), %error, "cannot write the state of a process");
                }
                (state, process)
            };
            state::scan(&this.dir).into_iter().map(adopt).collect::<Vec<_>>()
        });
        let mut all = Vec::new();
        for (state, process) in found.await.unwrap_or_default() {
            let id = state.id();
            let phase = match process {
                Some(process) => self.watch(state, process, None).phase(),
                None => state.phase(&self.directory(&id)),
            };
            all.push(Observed { id, phase, address: LOCAL_ADDRESS.to_owned() });
        }
        self.report_targets();
        tracing::info!(dir = %self.dir.display(), processes = all.len(), "process runtime started");
        all
    }

    /// Lists processes and rotates their logs periodically.
    pub(super) async fn maintain(&self, adopted: Vec<Observed>) {
        self.reporter.listed(self.reporter.clock(), adopted).await;
        let (mut list, mut rotate) = (interval(LIST_INTERVAL), interval(ROTATE_INTERVAL));
        list.set_missed_tick_behavior(MissedTickBehavior::Delay);
        rotate.set_missed_tick_behavior(MissedTickBehavior::Delay);
        list.tick().await; // the first tick is immediate
        loop {
            tokio::select! {
                _ = list.tick() => {
                    let since = self.reporter.clock();
                    if let Some(all) = self.blocking(Self::list).await {
                        self.report_targets();
                        self.reporter.listed(since, all).await;
                    }
                }
                _ = rotate.tick() => {
                    self.blocking(|this| {
                        let directories: Vec<PathBuf> = this.running().keys().map(|id| this.directory(id)).collect();
                        directories.iter().for_each(|directory| log_rotation::rotate(directory));
                    }).await;
                }
            }
        }
    }

    /// Tells the watchdog which processes run.
    fn report_targets(&self) {
        let running = self.running();
        self.watchdog.listed(running.iter().map(|(id, run)| (id.clone(), run.process.target())));
    }

    fn list(&self) -> Vec<Observed> {
        let states = state::scan(&self.dir);
        let running: BTreeMap<InstanceId, Phase> =
            self.running().iter().map(|(id, run)| (id.clone(), run.phase())).collect();
        let phase = |state: State| {
            let id = state.id();
            let phase = match (running.get(&id), &state.status) {
                (Some(phase), _) => phase.clone(),
                // It is being started, or exited just now; its job reports it.
                (None, ProcessStatus::Running(_) | ProcessStatus::Starting) => return None,
                (None, ProcessStatus::Exited(_)) => state.phase(&self.directory(&id)),
            };
            Some(Observed { id, phase, address: LOCAL_ADDRESS.to_owned() })
        };
        states.into_iter().filter_map(phase).collect()
    }

    /// Watches a process in a task of its own.
    pub(super) fn watch(
        &self,
        state: State,
        process: ProcessIdentity,
        child: Option<Child>,
    ) -> Running {
        let (end, ended) = watch::channel(false);
        let (started, epoch) = (state.started, state.epoch);
        let run = Running { process: process.clone(), started, epoch, ended };
        self.running().insert(state.id(), run.clone());
        tokio::spawn(self.clone().wait(state, process, child, end));
        run
    }

    async fn wait(
        self,
        mut state: State,
        process: ProcessIdentity,
        child: Option<Child>,
        end: watch::Sender<bool>,
    ) {
        tokio::select! {
            () = self.dropped.cancelled() => return,
            () = process.wait_exit() => {}
        }
        // As with a container, its whole group ends with its first process. A child is not reaped yet, so its id, and
        // that of its group, cannot belong to another process.
        process.signal_group(Signal::KILL);
        let code = match child {
            Some(mut child) => child.wait().await.map_or(UNKNOWN_CODE, state::exit_code),
            None => UNKNOWN_CODE,
        };
        let id = state.id();
        state.status = ProcessStatus::Exited(code);
        let directory = self.directory(&id);
        if let Some(Err(error)) = self.blocking(move |_| state.store(&directory)).await {
            tracing::warn!(instance = %id, %error, "cannot write the state of a process");
        }
        self.running().remove(&id);
        self.watchdog.removed(&id);
        end.send_replace(true);
        self.reporter.inspect(id).await;
    }

    /// Returns the phase of an instance. To be called only from its job.
    pub(super) async fn phase(&self, id: &InstanceId) -> Phase {
        if let Some(run) = self.running().get(id) {
            return run.phase();
        }
        let directory = self.directory(id);
        let phase = self
            .blocking(move |_| State::load(&directory).map(|state| state.phase(&directory)))
            .await;
        phase.and_then(Result::ok).unwrap_or(Phase::Gone)
    }
}
