//! The loop that both runtimes share: one lane an instance, in which one job runs at a time, and the one place that
//! knows what was last seen of each instance.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vc_engine::runtime::{InstanceId, Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_protocol::spec::ContainerSpec;

use super::Drain;

/// How many actions may wait to be taken up.
pub const ACTIONS: usize = 1024;
/// How many instances may have a job at a time.
pub const LANES: usize = 1024;
/// How many notes of jobs and watchers may wait; the writers wait then.
const NOTES: usize = 256;
/// What an instance has at least to stop in, however long its connections took.
const LEAST_GRACE: Duration = Duration::from_secs(1);

/// What a runtime can do to one instance. The loop never runs two of these for one instance at a time.
pub(super) trait Backend: Clone + Send + Sync + 'static {
    /// Performs [`RuntimeAction::Start`]; `cancel` says that it is no longer wanted.
    fn start(
        &self,
        id: InstanceId,
        spec: Box<ContainerSpec>,
        cancel: CancellationToken,
    ) -> impl Future<Output = ()> + Send;
    /// Performs [`RuntimeAction::Remove`].
    fn remove(&self, id: InstanceId, grace: Duration) -> impl Future<Output = ()> + Send;
    /// Looks how the instance is, and reports it.
    fn look(&self, id: InstanceId) -> impl Future<Output = ()> + Send;
}

/// What jobs and watchers tell the loop.
#[derive(Debug)]
enum Note {
    Look(InstanceId),
    Seen { observed: Observed, answer: bool },
    Listed { since: u64, all: Vec<Observed> },
    Unavailable(String),
}

/// The way to the loop.
#[derive(Debug, Clone)]
pub(super) struct Reports {
    notes: mpsc::Sender<Note>,
    /// Counts what was seen, so that a list knows what is newer than itself.
    clock: Arc<AtomicU64>,
}

/// The loop's end of [`Reports`].
#[derive(Debug)]
pub(super) struct Inbox {
    notes: mpsc::Receiver<Note>,
    clock: Arc<AtomicU64>,
}

/// A way to the loop, and its end.
pub(super) fn reports() -> (Reports, Inbox) {
    let (tx, rx) = mpsc::channel(NOTES);
    let clock = Arc::new(AtomicU64::new(0));
    (Reports { notes: tx, clock: Arc::clone(&clock) }, Inbox { notes: rx, clock })
}

impl Reports {
    /// Answers an action: always told.
    pub(super) async fn answer(&self, observed: Observed) {
        self.note(Note::Seen { observed, answer: true }).await;
    }

    /// What a look showed: told when it is new.
    pub(super) async fn saw(&self, observed: Observed) {
        self.note(Note::Seen { observed, answer: false }).await;
    }

    /// Something may have happened to this instance.
    pub(super) async fn look(&self, id: InstanceId) {
        self.note(Note::Look(id)).await;
    }

    /// To be taken before a list is made, and given with it.
    pub(super) fn clock(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// Everything that there is, as it was at or after `since`.
    pub(super) async fn listed(&self, since: u64, all: Vec<Observed>) {
        self.note(Note::Listed { since, all }).await;
    }

    /// The runtime is out of reach.
    pub(super) async fn unavailable(&self, why: String) {
        self.note(Note::Unavailable(why)).await;
    }

    /// The loop is gone only when the runtime was dropped: nobody misses the note.
    async fn note(&self, note: Note) {
        let _ = self.notes.send(note).await;
    }
}

/// Whom an action is about.
pub(super) fn id_of(action: &RuntimeAction) -> &InstanceId {
    match action {
        RuntimeAction::Start { id, .. } | RuntimeAction::Remove { id, .. } => id,
    }
}

/// The job at work for an instance, and what comes after it.
struct Lane {
    /// `None`: a look.
    current: Option<RuntimeAction>,
    cancel: CancellationToken,
    next: Option<RuntimeAction>,
    look: bool,
}

/// What was last seen of an instance, and when by the clock of [`Reports`].
struct Known {
    observed: Observed,
    at: u64,
}

struct Loop<B> {
    backend: B,
    drain: Arc<dyn Drain>,
    clock: Arc<AtomicU64>,
    events: mpsc::Sender<RuntimeEvent>,
    lanes: BTreeMap<InstanceId, Lane>,
    jobs: JoinSet<()>,
    names: HashMap<Id, InstanceId>,
    /// Also what is gone, until a list that began later confirms it.
    known: BTreeMap<InstanceId, Known>,
}

/// Runs until all handles are dropped, or nobody takes the events any more; jobs at work are broken off.
pub(super) async fn run<B: Backend>(
    backend: B,
    drain: Arc<dyn Drain>,
    mut inbox: Inbox,
    mut actions: mpsc::Receiver<RuntimeAction>,
    events: mpsc::Sender<RuntimeEvent>,
) {
    let mut this = Loop {
        backend,
        drain,
        clock: inbox.clock,
        events: events.clone(),
        lanes: BTreeMap::new(),
        jobs: JoinSet::new(),
        names: HashMap::new(),
        known: BTreeMap::new(),
    };
    loop {
        // Actions first: a list then finds the lane of each that was asked for. Notes before ends: a job's last note is
        // then taken in before its end, so that a list finds the lane busy or the note taken in, never neither.
        tokio::select! {
            biased;
            () = events.closed() => return,
            action = actions.recv() => match action {
                Some(action) => this.act(action),
                None => return,
            },
            Some(note) = inbox.notes.recv() => this.note(note).await,
            Some(ended) = this.jobs.join_next_with_id() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        tracing::error!(%error, "a job of the runtime broke down");
                        error.id()
                    }
                };
                this.ended(id);
            }
        }
    }
}

impl<B: Backend> Loop<B> {
    fn act(&mut self, action: RuntimeAction) {
        let id = id_of(&action);
        if let Some(lane) = self.lanes.get_mut(id) {
            if lane.next.is_none() && lane.current.as_ref() == Some(&action) {
                return; // Its end answers this one too.
            }
            if matches!(action, RuntimeAction::Remove { .. }) {
                lane.cancel.cancel();
            }
            lane.next = Some(action);
        } else {
            self.begin(id.clone(), Some(action));
        }
    }

    /// Starts a job in a lane that is free.
    fn begin(&mut self, id: InstanceId, job: Option<RuntimeAction>) {
        if self.lanes.len() >= LANES {
            tracing::warn!(instance = %id, "too many instances at work: one was left for later");
            return;
        }
        let cancel = CancellationToken::new();
        let lane = Lane { current: job.clone(), cancel: cancel.clone(), next: None, look: false };
        let (backend, drain, name) = (self.backend.clone(), Arc::clone(&self.drain), id.clone());
        let task = self.jobs.spawn(async move {
            match job {
                Some(RuntimeAction::Start { id, spec }) => {
                    drain.forget(&id);
                    backend.start(id, spec, cancel).await;
                }
                Some(RuntimeAction::Remove { id, grace_ms }) => {
                    let grace = Duration::from_millis(grace_ms);
                    let began = Instant::now();
                    drain.drain(&id, grace).await;
                    let left = grace.saturating_sub(began.elapsed()).max(grace.min(LEAST_GRACE));
                    backend.remove(id, left).await;
                    drain.forget(&name);
                }
                None => backend.look(name).await,
            }
        });
        self.names.insert(task.id(), id.clone());
        self.lanes.insert(id, lane);
    }

    fn ended(&mut self, task: Id) {
        let Some((id, lane)) =
            self.names.remove(&task).and_then(|id| self.lanes.remove(&id).map(|lane| (id, lane)))
        else {
            return;
        };
        if lane.next.is_some() {
            // Its answer is newer than any reason to look so far.
            self.begin(id, lane.next);
        } else if lane.look {
            self.begin(id, None);
        }
    }

    async fn note(&mut self, note: Note) {
        match note {
            Note::Look(id) => match self.lanes.get_mut(&id) {
                Some(lane) => lane.look = true,
                None => self.begin(id, None),
            },
            Note::Seen { observed, answer } => self.seen(observed, answer).await,
            Note::Listed { since, all } => self.listed(since, all).await,
            Note::Unavailable(why) => {
                tracing::warn!("{why}");
                self.tell(RuntimeEvent::Unavailable(why)).await;
            }
        }
    }

    async fn seen(&mut self, observed: Observed, answer: bool) {
        let at = self.clock.fetch_add(1, Ordering::SeqCst) + 1;
        let before = self.known.get(&observed.id).map(|known| &known.observed);
        if !answer && before.is_some_and(|before| keeps_reason(before, &observed)) {
            return;
        }
        let changed = match before {
            Some(before) => *before != observed,
            None => observed.phase != Phase::Gone,
        };
        if changed {
            log(&observed);
        }
        self.known.insert(observed.id.clone(), Known { observed: observed.clone(), at });
        if changed || answer {
            self.tell(RuntimeEvent::Changed(observed)).await;
        }
    }

    /// Merges a list into what is known: where something was seen after the list began, that is newer.
    async fn listed(&mut self, since: u64, all: Vec<Observed>) {
        let mut listed: BTreeMap<InstanceId, Observed> =
            all.into_iter().map(|seen| (seen.id.clone(), seen)).collect();
        let known = std::mem::take(&mut self.known);
        for (id, Known { observed, at }) in known {
            let failed = matches!(observed.phase, Phase::Failed { .. });
            let stays = match listed.get(&id) {
                _ if at > since || self.is_starting(&id) => true,
                Some(seen) => keeps_reason(&observed, seen),
                // Nothing of it exists, but its reason still holds.
                None => failed,
            };
            if stays {
                listed.remove(&id);
                self.known.insert(id, Known { observed, at });
            } else if !listed.contains_key(&id) && observed.phase != Phase::Gone {
                log(&Observed { id, phase: Phase::Gone, address: String::new() });
            } else if let Some(seen) = listed.get(&id).filter(|seen| **seen != observed) {
                log(seen);
            }
        }
        for (id, observed) in listed {
            // Half made: its start will tell.
            if !self.is_starting(&id) {
                self.known.insert(id, Known { observed, at: since });
            }
        }
        let shown = |seen: &&Observed| match seen.phase {
            Phase::Gone => false,
            // An end that a start is about to undo is no news.
            Phase::NoImage { .. } | Phase::Failed { .. } | Phase::Exited { .. } => {
                !self.is_starting(&seen.id)
            }
            Phase::Running { .. } | Phase::Pulling { .. } => true,
        };
        let all = self.known.values().map(|known| &known.observed).filter(shown).cloned().collect();
        self.tell(RuntimeEvent::Listed(all)).await;
    }

    fn is_starting(&self, id: &InstanceId) -> bool {
        self.lanes
            .get(id)
            .is_some_and(|lane| matches!(lane.current, Some(RuntimeAction::Start { .. })))
    }

    /// The loop ends by itself when nobody listens.
    async fn tell(&self, event: RuntimeEvent) {
        let _ = self.events.send(event).await;
    }
}

/// A failed start leaves behind nothing, or what never started, or what had exited before: its reason says more. It
/// holds until the next action, or until it runs after all.
fn keeps_reason(before: &Observed, seen: &Observed) -> bool {
    matches!(before.phase, Phase::Failed { .. } | Phase::NoImage { .. })
        && !matches!(seen.phase, Phase::Running { .. } | Phase::Pulling { .. })
}

/// What was seen, for whoever looks for a fault: the engine tells of the changes that follow.
fn log(observed: &Observed) {
    let (service, slot, instance) =
        (&observed.id.slot.service, &observed.id.slot, &observed.id.digest);
    let address = observed.address.as_str();
    let phase = match &observed.phase {
        Phase::Pulling { .. } => "pulling".to_owned(),
        Phase::Running { health: None, .. } => "running".to_owned(),
        Phase::Running { health: Some(true), .. } => "healthy".to_owned(),
        Phase::Running { health: Some(false), .. } => "unhealthy".to_owned(),
        Phase::Exited { code, .. } => format!("exited with code {code}"),
        Phase::NoImage { reason } | Phase::Failed { reason } => format!("failed: {reason}"),
        Phase::Gone => "gone".to_owned(),
    };
    tracing::debug!(%service, %slot, %instance, address, "instance is {phase}");
}

#[cfg(test)]
mod tests;
