//! The handle to the watchdog.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;
use vc_protocol::{InstanceId, Millis};
use vc_watchdog::Target;

use super::client::{Config, run};
use super::wanted::{Waiter, Wanted};

/// How long a start waits until the watchdog holds its target.
const TARGET_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the watchdog does not hold a target. It must not be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchdogError {
    /// There is no watchdog; why.
    #[error("the watchdog does not run: {0}")]
    NotRunning(String),
    /// It is of a version that cannot.
    #[error("the watchdog refuses to watch it: {0}")]
    Refused(String),
    /// The deadline of the instance has passed.
    #[error("its lease ended before it was started")]
    Expired,
}

/// What the handles and the task share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    wanted: Mutex<Wanted>,
    pub(super) changed: Notify,
    pub(super) problem: watch::Sender<Option<String>>,
    /// Whether a watchdog that ran already has been asked for its deadlines.
    pub(super) asked: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what the watchdog is to hold.
    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.wanted());
        self.changed.notify_one();
    }
}

/// A handle to the watchdog of this node. A process is started when the first instance needs it.
#[derive(Debug, Clone)]
pub struct Watchdog {
    shared: Arc<Shared>,
    runs: bool,
}

impl Watchdog {
    /// Connects to the watchdog that runs, if one does, and keeps one running from the first deadline or target on. Spawns a task.
    pub fn start(config: Config) -> Self {
        let shared = Arc::<Shared>::default();
        tokio::spawn(run(config, Arc::clone(&shared)));
        Self { shared, runs: true }
    }

    /// Returns a handle without a watchdog: for runtimes that start nothing under a lease.
    pub fn none() -> Self {
        Self { shared: Arc::default(), runs: false }
    }

    /// Returns the deadlines that an earlier process of this node has set, from which the engine goes on: they are its full state then.
    /// There are none if no watchdog runs, or it does not answer.
    pub async fn inherited(&self) -> BTreeMap<InstanceId, Millis> {
        if self.runs {
            // The task that sends it never ends.
            let _ = self.shared.asked.subscribe().wait_for(|asked| *asked).await;
        }
        self.shared.wanted().take_inherited()
    }

    /// Sets the deadlines, in milliseconds of [`boottime`](super::boottime): the engine's full state. Instances that it does not name
    /// have no deadline, but for those of an earlier process of this node that [`inherited`](Self::inherited) has not returned. Never
    /// blocks.
    pub fn deadlines(&self, deadlines: &BTreeMap<InstanceId, Millis>) {
        let deadlines = deadlines.iter().map(|(id, &at)| (id.to_string(), at)).collect();
        self.shared.change(|wanted| wanted.set_deadlines(deadlines));
    }

    /// Says what is to be killed of an instance, and waits until the watchdog holds that.
    ///
    /// # Errors
    /// It does not hold it: the instance must not be started.
    pub async fn target(&self, id: &InstanceId, target: Target) -> Result<(), WatchdogError> {
        if !self.runs {
            return Err(WatchdogError::NotRunning("this process has none".to_owned()));
        }
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter { instance: id.to_string(), answer };
        self.shared.change(|wanted| wanted.add_target(target, waiter));
        match timeout(TARGET_TIMEOUT, answered).await {
            Ok(Ok(held)) => held,
            Ok(Err(_)) | Err(_) => {
                let problem = self.shared.problem.borrow().clone();
                let reason = || format!("it did not answer within {} s", TARGET_TIMEOUT.as_secs());
                Err(WatchdogError::NotRunning(problem.unwrap_or_else(reason)))
            }
        }
    }

    /// Says what exists, by a list of the runtime.
    pub(crate) fn listed(&self, all: impl IntoIterator<Item = (InstanceId, Target)>) {
        let all = all.into_iter().map(|(id, target)| (id.to_string(), target)).collect();
        self.shared.change(|wanted| wanted.set_listed(all));
    }

    /// Says that an instance was removed, so that nothing can start it again.
    pub(crate) fn removed(&self, id: &InstanceId) {
        self.shared.change(|wanted| wanted.remove(&id.to_string()));
    }

    /// Returns why the watchdog does not run, while it is needed and does not.
    pub fn problem(&self) -> watch::Receiver<Option<String>> {
        self.shared.problem.subscribe()
    }
}
