//! Instances as plain child processes: opt-in, for demos, tests and nodes without Docker (Nomad calls it raw_exec).
//!
//! No isolation and no image: `entrypoint` and `command` run as the node's user (or the spec's numeric one), in a process
//! group of their own. Limits, the published ports, the platform and the healthcheck are not enforced or run. The output
//! goes straight to files, so that the processes outlive the node; the next node on this directory adopts them. How an
//! adopted process ends only its parent would learn: its exit code is reported as [`UNKNOWN_CODE`].
//!
//! Linux only: it relies on pidfds and /proc.

mod launch;
mod logs;
mod procfs;
mod state;
mod trim;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use vc_engine::runtime::{InstanceId, Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_protocol::spec::ContainerSpec;
use vc_protocol::{Millis, Slot};

use self::procfs::Mark;
use self::state::{Life, State};
use super::lane::{self, Backend, Reports};
use super::{Drain, Identity, LogLines, LogQuery, RuntimeError};

/// The exit code of a process whose end nobody witnessed, or that was adopted.
pub const UNKNOWN_CODE: i64 = -1;

/// Where a process is reached from its own node: it has no address of its own.
const HERE: &str = "127.0.0.1";
/// How often everything is listed.
const LIST_EVERY: Duration = Duration::from_secs(30);
/// How often the logs are trimmed.
const TRIM_EVERY: Duration = Duration::from_secs(2);
/// How long a process may take to go after SIGKILL.
const KILL: Duration = Duration::from_secs(60);

/// Where instances are kept.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's directory; instances live in `instances/` in it.
    pub dir: PathBuf,
}

/// A handle to the process runtime.
#[derive(Debug, Clone)]
pub struct Process {
    actions: mpsc::Sender<RuntimeAction>,
    children: Children,
}

impl Process {
    pub(super) fn start(
        config: Config,
        identity: Identity,
        drain: Arc<dyn Drain>,
        events: mpsc::Sender<RuntimeEvent>,
    ) -> Self {
        let (reports, inbox) = lane::reports();
        let (actions, waiting) = mpsc::channel(lane::ACTIONS);
        let dir = std::path::absolute(&config.dir).unwrap_or(config.dir).join("instances");
        let children = Children {
            dir: dir.into(),
            identity,
            reports,
            running: Arc::default(),
            dropped: CancellationToken::new(),
        };
        let this = children.clone();
        let dropped = children.dropped.clone().drop_guard();
        tokio::spawn(async move {
            let _dropped = dropped;
            // Before any action, so that nothing is started twice.
            let adopted = this.adopt_all().await;
            tokio::select! {
                () = lane::run(this.clone(), drain, inbox, waiting, events) => {}
                () = this.tend(adopted) => {}
            }
        });
        Self { actions, children }
    }

    pub(super) fn actions(&self) -> &mpsc::Sender<RuntimeAction> {
        &self.actions
    }

    pub(super) async fn logs(
        &self,
        slot: &Slot,
        query: LogQuery,
    ) -> Result<LogLines, RuntimeError> {
        self.children.logs(slot, query).await
    }
}

/// A process that runs.
#[derive(Debug, Clone)]
struct Running {
    mark: Mark,
    started: Millis,
    /// Turns true when it has ended and that is written down.
    ended: watch::Receiver<bool>,
}

impl Running {
    fn phase(&self) -> Phase {
        Phase::Running { health: None, started: self.started, said: String::new() }
    }
}

/// The processes of this node.
#[derive(Debug, Clone)]
struct Children {
    dir: Arc<Path>,
    identity: Identity,
    reports: Reports,
    running: Arc<Mutex<BTreeMap<InstanceId, Running>>>,
    /// Ends the watches when the runtime is dropped.
    dropped: CancellationToken,
}

impl Children {
    fn running(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn home(&self, id: &InstanceId) -> PathBuf {
        state::home(&self.dir, id)
    }

    /// Runs something that touches the disk. `None`: it panicked, or the node is ending.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let this = self.clone();
        spawn_blocking(move || work(&this)).await.ok()
    }

    /// Takes over what an earlier node left running, and notes what ended meanwhile.
    async fn adopt_all(&self) -> Vec<Observed> {
        let found = self.blocking(|this| {
            let boot = procfs::boot_id();
            let adopt = |mut state: State| {
                let home = this.home(&state.id());
                let mark = match &state.life {
                    // The node ended between starting it and writing down which it is.
                    Life::Starting => procfs::find_by_home(&home, &boot),
                    Life::Running(mark) => Some(mark.clone()).filter(|mark| mark.lives(&boot)),
                    Life::Exited(_) => None,
                };
                match (&mark, &state.life) {
                    (Some(mark), _) => state.life = Life::Running(mark.clone()),
                    (None, Life::Running(_)) => state.life = Life::Exited(UNKNOWN_CODE),
                    (None, _) => return (state, None),
                }
                if let Err(error) = state.store(&home) {
                    tracing::warn!(instance = %state.id(), %error, "cannot write the state of a process");
                }
                (state, mark)
            };
            state::scan(&this.dir).into_iter().map(adopt).collect::<Vec<_>>()
        });
        let mut all = Vec::new();
        for (state, mark) in found.await.unwrap_or_default() {
            let id = state.id();
            let phase = match mark {
                Some(mark) => self.watch(state, mark, None).phase(),
                None => state.phase(&self.home(&id)),
            };
            all.push(Observed { id, phase, address: HERE.to_owned() });
        }
        tracing::info!(dir = %self.dir.display(), processes = all.len(), "the process runtime is ready");
        all
    }

    /// Lists and trims from time to time.
    async fn tend(&self, adopted: Vec<Observed>) {
        self.reports.listed(self.reports.clock(), adopted).await;
        let (mut list, mut trim) = (interval(LIST_EVERY), interval(TRIM_EVERY));
        list.set_missed_tick_behavior(MissedTickBehavior::Delay);
        trim.set_missed_tick_behavior(MissedTickBehavior::Delay);
        list.tick().await; // The first is now.
        loop {
            tokio::select! {
                _ = list.tick() => {
                    let since = self.reports.clock();
                    if let Some(all) = self.blocking(Self::list).await {
                        self.reports.listed(since, all).await;
                    }
                }
                _ = trim.tick() => {
                    self.blocking(|this| {
                        let homes: Vec<PathBuf> = this.running().keys().map(|id| this.home(id)).collect();
                        homes.iter().for_each(|home| trim::trim(home));
                    }).await;
                }
            }
        }
    }

    fn list(&self) -> Vec<Observed> {
        let states = state::scan(&self.dir);
        let running: BTreeMap<InstanceId, Phase> =
            self.running().iter().map(|(id, run)| (id.clone(), run.phase())).collect();
        let phase = |state: State| {
            let id = state.id();
            let phase = match (running.get(&id), &state.life) {
                (Some(phase), _) => phase.clone(),
                // About to be started, or ended just now: its job will tell.
                (None, Life::Running(_) | Life::Starting) => return None,
                (None, Life::Exited(_)) => state.phase(&self.home(&id)),
            };
            Some(Observed { id, phase, address: HERE.to_owned() })
        };
        states.into_iter().filter_map(phase).collect()
    }

    /// Waits for the end of a process in the background.
    fn watch(&self, state: State, mark: Mark, child: Option<Child>) -> Running {
        let (end, ended) = watch::channel(false);
        let run = Running { mark: mark.clone(), started: state.started, ended };
        self.running().insert(state.id(), run.clone());
        tokio::spawn(self.clone().wait(state, mark, child, end));
        run
    }

    async fn wait(
        self,
        mut state: State,
        mark: Mark,
        child: Option<Child>,
        end: watch::Sender<bool>,
    ) {
        tokio::select! {
            () = self.dropped.cancelled() => return,
            () = mark.ended() => {}
        }
        // As with a container, nothing is left of it when its first process ends. A child of ours is not reaped yet: its
        // id, and so its group's, cannot be another's.
        mark.signal_group(Signal::KILL);
        let code = match child {
            Some(mut child) => child.wait().await.map_or(UNKNOWN_CODE, launch::code),
            None => UNKNOWN_CODE,
        };
        let id = state.id();
        state.life = Life::Exited(code);
        let home = self.home(&id);
        if let Some(Err(error)) = self.blocking(move |_| state.store(&home)).await {
            tracing::warn!(instance = %id, %error, "cannot write the state of a process");
        }
        self.running().remove(&id);
        end.send_replace(true);
        self.reports.look(id).await;
    }

    /// How it is, by the map and the disk. Only for a job in its lane.
    async fn phase(&self, id: &InstanceId) -> Phase {
        if let Some(run) = self.running().get(id) {
            return run.phase();
        }
        let home = self.home(id);
        let phase =
            self.blocking(move |_| State::load(&home).map(|state| state.phase(&home))).await;
        phase.and_then(Result::ok).unwrap_or(Phase::Gone)
    }
}

impl Backend for Children {
    async fn start(&self, id: InstanceId, spec: Box<ContainerSpec>, _: CancellationToken) {
        let run = self.running().get(&id).cloned();
        let phase = match run {
            Some(run) => run.phase(),
            None => {
                let name = id.clone();
                let launched = self.blocking(move |this| {
                    launch::launch(&this.home(&name), &this.identity, &name, &spec)
                });
                match launched.await {
                    Some(Ok((state, mark, child))) => self.watch(state, mark, Some(child)).phase(),
                    Some(Err(reason)) => Phase::Failed { reason },
                    None => return,
                }
            }
        };
        self.reports.answer(Observed { id, phase, address: HERE.to_owned() }).await;
    }

    async fn remove(&self, id: InstanceId, grace: Duration) {
        let run = self.running().get(&id).cloned();
        if let Some(Running { mark, mut ended, .. }) = run {
            mark.signal_group(Signal::TERM);
            if timeout(grace, ended.wait_for(|ended| *ended)).await.is_err() {
                mark.signal_group(Signal::KILL);
                if timeout(KILL, ended.wait_for(|ended| *ended)).await.is_err() {
                    tracing::warn!(instance = %id, pid = mark.pid, "a process does not even go after SIGKILL");
                    return;
                }
            }
        }
        let home = self.home(&id);
        match self.blocking(move |_| std::fs::remove_dir_all(home)).await {
            Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(instance = %id, %error, "cannot remove the directory of a process");
            }
            Some(_) => {
                self.reports
                    .answer(Observed { id, phase: Phase::Gone, address: String::new() })
                    .await
            }
            None => {}
        }
    }

    async fn look(&self, id: InstanceId) {
        let phase = self.phase(&id).await;
        self.reports.saw(Observed { id, phase, address: HERE.to_owned() }).await;
    }
}
