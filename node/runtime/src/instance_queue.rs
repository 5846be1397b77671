//! The supervisor that both runtimes share: a job queue per instance, in which one job runs at a time, and the last
//! observation of each instance.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};
use vc_engine::runtime::{InstanceId, Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_protocol::NodeId;
use vc_protocol::node::Orphans;
use vc_protocol::spec::ContainerSpec;

use crate::drain::Drain;

/// How many actions may wait to be queued.
pub const MAX_PENDING_ACTIONS: usize = 1024;
/// How many instances may have a job at a time.
pub const MAX_ACTIVE_INSTANCES: usize = 1024;
/// How many messages of jobs and watchers may wait; senders wait for room.
const MAX_MESSAGES: usize = 256;
/// The minimum time that an instance has to stop in, however long draining its connections took.
const MIN_GRACE: Duration = Duration::from_secs(1);

/// What a runtime does to one instance. The supervisor never runs two of these for one instance at a time.
pub(super) trait Backend: Clone + Send + Sync + 'static {
    /// Performs [`RuntimeAction::Start`]; `cancel` is cancelled when the instance is to be removed.
    fn start(
        &self,
        id: InstanceId,
        spec: Box<ContainerSpec>,
        epoch: Option<u64>,
        cancel: CancellationToken,
    ) -> impl Future<Output = ()> + Send;
    /// Performs [`RuntimeAction::Prepare`]; `cancel` is cancelled when the instance is to be removed.
    fn prepare(
        &self,
        id: InstanceId,
        spec: Box<ContainerSpec>,
        epoch: Option<u64>,
        cancel: CancellationToken,
    ) -> impl Future<Output = ()> + Send;
    /// Performs [`RuntimeAction::Remove`].
    fn remove(&self, id: InstanceId, grace: Duration) -> impl Future<Output = ()> + Send;
    /// Inspects the instance and reports what it observes.
    fn inspect(&self, id: InstanceId) -> impl Future<Output = ()> + Send;
}

/// What jobs and watchers send to the supervisor.
#[derive(Debug)]
enum Message {
    Inspect(InstanceId),
    Observed { observed: Observed, is_answer: bool },
    Listed { since: u64, all: Vec<Observed> },
    Orphans(BTreeMap<NodeId, Orphans>),
    Unavailable { reason: String, hung: bool },
}

/// The sending side of the supervisor's messages.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    messages: mpsc::Sender<Message>,
    /// Counts observations, so that a list is ordered with respect to them.
    clock: Arc<AtomicU64>,
}

/// The receiving side of [`Reporter`].
#[derive(Debug)]
pub(super) struct Receiver {
    messages: mpsc::Receiver<Message>,
    clock: Arc<AtomicU64>,
}

/// Creates both sides of the channel to a supervisor.
pub(super) fn channel() -> (Reporter, Receiver) {
    let (tx, rx) = mpsc::channel(MAX_MESSAGES);
    let clock = Arc::new(AtomicU64::new(0));
    (Reporter { messages: tx, clock: Arc::clone(&clock) }, Receiver { messages: rx, clock })
}

impl Reporter {
    /// Answers an action with an observation, which is always reported to the engine.
    pub(super) async fn answer(&self, observed: Observed) {
        self.send(Message::Observed { observed, is_answer: true }).await;
    }

    /// Sends an observation, which is reported to the engine if it is new.
    pub(super) async fn observed(&self, observed: Observed) {
        self.send(Message::Observed { observed, is_answer: false }).await;
    }

    /// Requests that an instance be inspected.
    pub(super) async fn inspect(&self, id: InstanceId) {
        self.send(Message::Inspect(id)).await;
    }

    /// Returns the current count of observations, to be taken before a list is made and passed to
    /// [`listed`](Self::listed).
    pub(super) fn clock(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// Sends the list of everything that exists, as it was at or after `since`.
    pub(super) async fn listed(&self, since: u64, all: Vec<Observed>) {
        self.send(Message::Listed { since, all }).await;
    }

    /// Reports what other nodes have in the runtime.
    pub(super) async fn orphans(&self, orphans: BTreeMap<NodeId, Orphans>) {
        self.send(Message::Orphans(orphans)).await;
    }

    /// Reports that the runtime is unavailable; `hung`: it is there and does not answer.
    pub(super) async fn unavailable(&self, reason: String, hung: bool) {
        self.send(Message::Unavailable { reason, hung }).await;
    }

    /// The receiver is gone only when the runtime was dropped.
    async fn send(&self, message: Message) {
        let _ = self.messages.send(message).await;
    }
}

/// Returns the span of what is done to an instance, with the deployment that it is of.
fn span(id: &InstanceId, job: Option<&RuntimeAction>) -> Span {
    let trace = match job {
        Some(RuntimeAction::Start { trace, .. } | RuntimeAction::Prepare { trace, .. }) => *trace,
        Some(RuntimeAction::Remove { .. }) | None => None,
    };
    tracing::info_span!("instance", instance = %id, trace = trace.map(tracing::field::display))
}

/// Returns the instance that an action is about.
pub(super) fn id_of(action: &RuntimeAction) -> &InstanceId {
    match action {
        RuntimeAction::Start { id, .. }
        | RuntimeAction::Prepare { id, .. }
        | RuntimeAction::Remove { id, .. } => id,
    }
}

/// The running job of an instance, and those that follow.
struct InstanceQueue {
    /// `None`: an inspection.
    current: Option<RuntimeAction>,
    cancel: CancellationToken,
    next: Option<RuntimeAction>,
    inspect: bool,
}

/// The last observation of an instance, and its number.
struct LastObserved {
    observed: Observed,
    at: u64,
}

struct Supervisor<B> {
    backend: B,
    drain: Arc<dyn Drain>,
    clock: Arc<AtomicU64>,
    events: mpsc::Sender<RuntimeEvent>,
    queues: BTreeMap<InstanceId, InstanceQueue>,
    jobs: JoinSet<()>,
    tasks: HashMap<Id, InstanceId>,
    /// Includes removed instances, until a later list confirms it.
    known: BTreeMap<InstanceId, LastObserved>,
}

/// Runs until all handles are dropped or the receiver of events is; running jobs are aborted.
pub(super) async fn run<B: Backend>(
    backend: B,
    drain: Arc<dyn Drain>,
    mut receiver: Receiver,
    mut actions: mpsc::Receiver<RuntimeAction>,
    events: mpsc::Sender<RuntimeEvent>,
) {
    let mut this = Supervisor {
        backend,
        drain,
        clock: receiver.clock,
        events: events.clone(),
        queues: BTreeMap::new(),
        jobs: JoinSet::new(),
        tasks: HashMap::new(),
        known: BTreeMap::new(),
    };
    loop {
        // The order matters. Actions come first, so that a list finds the queue of each requested instance. Messages
        // come before ends of jobs, so that a job's last message is handled before its end: a list finds either a
        // running job or its result.
        tokio::select! {
            biased;
            () = events.closed() => return,
            action = actions.recv() => match action {
                Some(action) => this.enqueue(action),
                None => return,
            },
            Some(message) = receiver.messages.recv() => this.handle(message).await,
            Some(ended) = this.jobs.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        tracing::error!(%error, "a runtime job panicked");
                        error.id()
                    }
                };
                this.job_ended(id);
            }
        }
    }
}

impl<B: Backend> Supervisor<B> {
    fn enqueue(&mut self, action: RuntimeAction) {
        let id = id_of(&action);
        if let Some(queue) = self.queues.get_mut(id) {
            if queue.next.is_none() && queue.current.as_ref() == Some(&action) {
                return; // the end of the current one answers this one too
            }
            if matches!(action, RuntimeAction::Remove { .. }) {
                queue.cancel.cancel();
            }
            queue.next = Some(action);
        } else {
            self.start_job(id.clone(), Some(action));
        }
    }

    /// Starts a job in a free queue.
    fn start_job(&mut self, id: InstanceId, job: Option<RuntimeAction>) {
        if self.queues.len() >= MAX_ACTIVE_INSTANCES {
            tracing::warn!(instance = %id, "job dropped: too many instances are active");
            return;
        }
        let cancel = CancellationToken::new();
        let queue = InstanceQueue {
            current: job.clone(),
            cancel: cancel.clone(),
            next: None,
            inspect: false,
        };
        let (backend, drain, name) = (self.backend.clone(), Arc::clone(&self.drain), id.clone());
        let span = span(&id, job.as_ref());
        let work = async move {
            match job {
                Some(RuntimeAction::Start { id, spec, epoch, .. }) => {
                    drain.forget(&id);
                    backend.start(id, spec, epoch, cancel).await;
                }
                Some(RuntimeAction::Prepare { id, spec, epoch, .. }) => {
                    backend.prepare(id, spec, epoch, cancel).await
                }
                Some(RuntimeAction::Remove { id, drain_ms, grace_ms }) => {
                    let grace = Duration::from_millis(grace_ms);
                    let began = Instant::now();
                    drain.drain(&id, Duration::from_millis(drain_ms)).await;
                    let left = grace.saturating_sub(began.elapsed()).max(grace.min(MIN_GRACE));
                    backend.remove(id, left).await;
                    drain.forget(&name);
                }
                None => backend.inspect(name).await,
            }
        };
        let task = self.jobs.spawn(work.instrument(span));
        self.tasks.insert(task.id(), id.clone());
        self.queues.insert(id, queue);
    }

    fn job_ended(&mut self, task: Id) {
        let Some((id, queue)) = self
            .tasks
            .remove(&task)
            .and_then(|id| self.queues.remove(&id).map(|queue| (id, queue)))
        else {
            return;
        };
        if queue.next.is_some() {
            // Its answer supersedes a requested inspection.
            self.start_job(id, queue.next);
        } else if queue.inspect {
            self.start_job(id, None);
        }
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Inspect(id) => match self.queues.get_mut(&id) {
                Some(queue) => queue.inspect = true,
                None => self.start_job(id, None),
            },
            Message::Observed { observed, is_answer } => self.observed(observed, is_answer).await,
            Message::Listed { since, all } => self.listed(since, all).await,
            Message::Orphans(orphans) => self.emit(RuntimeEvent::Orphans(orphans)).await,
            Message::Unavailable { reason, hung } => {
                tracing::warn!(reason, hung, "the runtime is unavailable");
                let event = if hung { RuntimeEvent::Hung } else { RuntimeEvent::Unavailable };
                self.emit(event(reason)).await;
            }
        }
    }

    async fn observed(&mut self, observed: Observed, is_answer: bool) {
        let at = self.clock.fetch_add(1, Ordering::SeqCst) + 1;
        let before = self.known.get(&observed.id).map(|known| &known.observed);
        if !is_answer && before.is_some_and(|before| failure_persists(before, &observed)) {
            return;
        }
        let changed = match before {
            Some(before) => *before != observed,
            None => observed.phase != Phase::Gone,
        };
        if changed {
            log(&observed);
        }
        self.known.insert(observed.id.clone(), LastObserved { observed: observed.clone(), at });
        if changed || is_answer {
            self.emit(RuntimeEvent::Changed(observed)).await;
        }
    }

    /// Merges a list into the last observations; those made after the list began are newer.
    async fn listed(&mut self, since: u64, all: Vec<Observed>) {
        let mut listed: BTreeMap<InstanceId, Observed> =
            all.into_iter().map(|seen| (seen.id.clone(), seen)).collect();
        let known = std::mem::take(&mut self.known);
        for (id, LastObserved { observed, at }) in known {
            let failed = matches!(observed.phase, Phase::Failed { .. } | Phase::NodeFault { .. });
            let stays = match listed.get(&id) {
                _ if at > since || self.is_starting(&id) => true,
                Some(seen) => failure_persists(&observed, seen),
                // Nothing of it exists, but the reason of its failure still holds.
                None => failed,
            };
            if stays {
                listed.remove(&id);
                self.known.insert(id, LastObserved { observed, at });
            } else if !listed.contains_key(&id) && observed.phase != Phase::Gone {
                log(&Observed { id, phase: Phase::Gone, address: String::new() });
            } else if let Some(seen) = listed.get(&id).filter(|seen| **seen != observed) {
                log(seen);
            }
        }
        for (id, observed) in listed {
            // It may be incomplete; its start job reports it.
            if !self.is_starting(&id) {
                self.known.insert(id, LastObserved { observed, at: since });
            }
        }
        let reported = |seen: &&Observed| match seen.phase {
            Phase::Gone => false,
            // Not an end that a start is about to undo.
            Phase::Prepared
            | Phase::NoImage { .. }
            | Phase::Failed { .. }
            | Phase::NodeFault { .. }
            | Phase::Exited { .. } => !self.is_starting(&seen.id),
            Phase::Running { .. } | Phase::Pulling { .. } => true,
        };
        let all =
            self.known.values().map(|known| &known.observed).filter(reported).cloned().collect();
        self.emit(RuntimeEvent::Listed(all)).await;
    }

    fn is_starting(&self, id: &InstanceId) -> bool {
        self.queues.get(id).is_some_and(|queue| {
            matches!(
                queue.current,
                Some(RuntimeAction::Start { .. } | RuntimeAction::Prepare { .. })
            )
        })
    }

    /// A closed channel ends the loop in `run`.
    async fn emit(&self, event: RuntimeEvent) {
        let _ = self.events.send(event).await;
    }
}

/// Reports whether a failure outlives a later observation. A failed start leaves nothing behind, or a container that
/// never started or had exited before; its reason says more. It holds until the next action, or until the instance runs
/// after all.
fn failure_persists(before: &Observed, seen: &Observed) -> bool {
    matches!(before.phase, Phase::Failed { .. } | Phase::NodeFault { .. } | Phase::NoImage { .. })
        && !matches!(seen.phase, Phase::Running { .. } | Phase::Pulling { .. })
}

/// Logs an observation; the engine logs the changes that follow from it.
fn log(observed: &Observed) {
    let (service, slot, instance) =
        (&observed.id.slot.service, &observed.id.slot, &observed.id.digest);
    let address = observed.address.as_str();
    let phase = match &observed.phase {
        Phase::Pulling { .. } => "pulling".to_owned(),
        Phase::Prepared => "prepared".to_owned(),
        Phase::Running { health: None, .. } => "running".to_owned(),
        Phase::Running { health: Some(true), .. } => "healthy".to_owned(),
        Phase::Running { health: Some(false), .. } => "unhealthy".to_owned(),
        Phase::Exited { code, .. } => format!("exited with code {code}"),
        Phase::NoImage { reason } | Phase::Failed { reason } | Phase::NodeFault { reason } => {
            format!("failed: {reason}")
        }
        Phase::Gone => "removed".to_owned(),
    };
    tracing::debug!(%service, %slot, %instance, address, phase, "instance observed");
}

#[cfg(test)]
mod tests;
