//! One instance of this node: when to start it, when to restart it, and its claim.

use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::lease::Epoch;
use vc_protocol::run::{MAX_RUN_REASON, RunEnd};
use vc_protocol::spec::RestartCondition;
use vc_protocol::{Lamport, Millis, NodeId, TraceId, in_words};

use crate::desired::Desired;
use crate::interface::Clock;
use crate::output;
use crate::runtime::{InstanceId, Observed, Phase, RuntimeAction};
use crate::workload::missing_image::MissingImage;

/// An action without a visible effect is requested again after this time.
const REPEAT: Millis = 60_000;
/// The longest pause between restarts.
const MAX_PAUSE: Millis = 60_000;
/// After being available for this time an instance is stable: its backoff starts over.
const STABLE: Millis = 30_000;
/// Unhealthy replicas of a service are replaced by this time one after another: what makes all of them unhealthy at once, as a
/// database that is down, does not make all of them start at once.
const STAGGER: Millis = 2_000;
/// The most that a replica waits for those before it.
const MAX_STAGGER: Millis = 30_000;

/// By how much the times of starts may differ from what they are: in a list they are in whole seconds.
const START_GRAIN: Millis = 1_000;
/// Grace for instances from before the start whose spec is not known: Docker's default.
const DEFAULT_GRACE: Millis = 10_000;
/// How long connections of an instance that runs under a lease may take to close before it is told to stop.
const EXCLUSIVE_DRAIN: Millis = 1_000;

/// An instance of this node.
#[derive(Debug, Clone)]
pub(super) struct Local {
    phase: Option<Phase>,
    address: String,
    /// When an action was last requested; `None` if never.
    asked: Option<Millis>,
    removing: bool,
    /// Whether it is removed to be started anew, as it was unhealthy.
    replacing: bool,
    /// Why it was started anew as it was unhealthy, until it is healthy again.
    replaced: Option<String>,
    /// Since when it is available, by the monotonic clock.
    available_since: Option<Millis>,
    /// Time from SIGTERM to SIGKILL; `None` before this engine knows its spec.
    grace_ms: Option<Millis>,
    /// Exits and failures in a row.
    failures: u32,
    /// The reason of the last of them.
    failed_with: String,
    /// Whether it ended while this node did not run, as with its host: that says nothing about its version.
    ended_unseen: bool,
    restarts: u32,
    retry_at: Option<Millis>,
    /// Its image, while it is not found.
    missing: Option<MissingImage>,
    availability: Availability,
    shown: (InstanceState, String),
    /// When it entered the state, by the monotonic clock.
    entered: Millis,
    /// The same by the wall clock, for display.
    since: Millis,
    /// The timestamp of its claim; `None` before the first.
    lamport: Option<Lamport>,
    /// Since when it runs, by the monotonic clock: the time of a restart of this node counts as its start, unless it was
    /// available before, which gives 0.
    running_since: Option<Millis>,
    /// When it was started, by the timestamp of its first claim that said so.
    started: Option<Lamport>,
    /// Whether its claim says that.
    reports_start: bool,
    /// Whether its claim from before the start says that it is available.
    was_available: bool,
    /// Whether its last failure was a fault of the node.
    node_fault: bool,
    /// Whether it has run since the start of this node.
    has_run: bool,
    /// Epoch of the lease under which it was started; `None` for one without a lease.
    epoch: Option<Epoch>,
    /// Why it is removed, to start again later.
    fenced: Option<Fence>,
    /// The run of the instance whose network it has, if it has that of another.
    network: Option<Run>,
    /// Whether it is begun once only.
    once: bool,
    /// When it is stopped, as it takes too long.
    times_out: Option<Millis>,
    /// Whether more than time keeps it from being started again.
    blocked: bool,
    /// The deployment that it is of, for the log.
    trace: Option<TraceId>,
}

/// Why an instance may not go on, and starts again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fence {
    /// Its lease has ended.
    Lease,
    /// The instance whose network it has was stopped, or started anew.
    Network,
}

impl Fence {
    fn reason(self) -> &'static str {
        match self {
            Self::Lease => "its lease has ended",
            Self::Network => "the instance whose network it has was stopped",
        }
    }
}

/// One run of an instance: from a start to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) id: InstanceId,
    /// When it was started, by the clock of the runtime.
    pub(super) started: Millis,
}

/// What an instance needs of the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Everything that can be done before the instance that it replaces is stopped.
    Prepare,
    Start,
}

/// Whether an instance is available, as its update policy defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Availability {
    /// It is not, and time alone does not make it so.
    No,
    /// It will be at this time, if it keeps running.
    At(Millis),
    /// It is; the policy's delay before the next step ends at this time.
    Delayed(Millis),
    /// It is, and the next step may follow.
    Available,
}

impl Local {
    /// An instance that was not observed yet; `old` is its claim from before the start.
    pub(super) fn new(old: Option<Claim>, now: Millis) -> Self {
        Self {
            phase: None,
            address: String::new(),
            asked: None,
            removing: false,
            replacing: false,
            replaced: old.as_ref().and_then(|claim| {
                let runs = claim.state == InstanceState::Running;
                (runs && claim.restarted_unhealthy).then(|| claim.reason.clone())
            }),
            available_since: None,
            grace_ms: None,
            failures: 0,
            failed_with: String::new(),
            ended_unseen: false,
            restarts: old.as_ref().map_or(0, |claim| claim.restarts),
            retry_at: None,
            missing: None,
            availability: Availability::No,
            entered: now,
            since: old.as_ref().map_or(0, |claim| claim.since),
            lamport: old.as_ref().map(|claim| claim.lamport),
            running_since: None,
            started: old.as_ref().map(|claim| claim.started).filter(|&at| at > 0),
            reports_start: false,
            node_fault: false,
            has_run: false,
            epoch: old.as_ref().and_then(|claim| claim.epoch),
            fenced: None,
            network: None,
            once: false,
            times_out: None,
            blocked: false,
            trace: None,
            was_available: old.as_ref().is_some_and(|claim| claim.available),
            shown: old.map_or((InstanceState::Pending, String::new()), |claim| {
                (claim.state, claim.reason)
            }),
        }
    }

    /// Returns whether the runtime may have it.
    pub(super) fn is_there(&self) -> bool {
        self.phase.is_some() || self.asked.is_some()
    }

    /// Returns whether it is being removed.
    pub(super) fn is_removing(&self) -> bool {
        self.removing
    }

    /// Returns whether it runs and is not being removed.
    pub(super) fn is_serving(&self) -> bool {
        matches!(self.phase, Some(Phase::Running { .. })) && !self.removing
    }

    /// Returns whether it runs, or is about to.
    pub(super) fn may_be_running(&self) -> bool {
        match self.phase {
            None => self.asked.is_some(),
            Some(Phase::Running { .. } | Phase::Pulling { .. } | Phase::Prepared) => true,
            Some(_) => false,
        }
    }

    /// Returns whether nothing that can fail beforehand keeps it from being started.
    pub(super) fn is_prepared(&self) -> bool {
        matches!(self.phase, Some(Phase::Prepared | Phase::Running { .. } | Phase::Exited { .. }))
    }

    /// Returns whether the instance that it replaces may be stopped.
    pub(super) fn is_ready(&self, wanted: &Desired) -> bool {
        self.is_prepared() && wanted.waits_for.is_empty()
    }

    /// Returns whether it has failed and will not run without a change from outside.
    pub(super) fn is_terminal(&self, wanted: &Desired) -> bool {
        let is_tried_again = self.missing.is_none() && self.retry_at.is_some();
        self.shown.0 == InstanceState::Failed && !is_tried_again && wanted.lease.is_empty()
    }

    /// Returns how a run ended at `at`, by the wall clock; `None` while it has not, or is tried again.
    pub(super) fn end(&self, wanted: &Desired, at: Millis, now: Millis) -> Option<RunEnd> {
        let is_over =
            |ended: &Phase| self.retry_at.is_none() && !may_restart(wanted, ended, self.failures);
        let code = match self.phase.as_ref()? {
            _ if self.removing || self.replacing => return None,
            ended @ Phase::Exited { code, .. } if is_over(ended) => Some(*code),
            ended @ (Phase::Failed { .. } | Phase::Gone) if is_over(ended) => None,
            // It was looked for long enough.
            Phase::NoImage { .. } if wanted.once && self.shown.0 == InstanceState::Failed => None,
            Phase::Running { .. } if self.times_out.is_some_and(|at| now >= at) => {
                let reason = format!("stopped after {} (timeout)", in_words(wanted.timeout_ms));
                return Some(RunEnd { at, code: None, reason, restarts: self.restarts });
            }
            _ => return None,
        };
        let reason = if code == Some(0) { String::new() } else { brief(&self.failed_with) };
        Some(RunEnd { at, code, reason, restarts: self.restarts })
    }

    /// Returns whether it is made and was never started.
    pub(super) fn is_unstarted(&self) -> bool {
        self.phase == Some(Phase::Prepared)
    }

    /// Returns whether it runs, and is not being removed: a run that an earlier deployment has begun.
    pub(super) fn goes_on(&mut self) -> bool {
        let goes_on = self.is_serving();
        if goes_on {
            self.retry_at = None;
            self.stay();
        }
        goes_on
    }

    /// Returns how it ended at `at`, by the wall clock, if its policy is not known any more; `None` while it runs.
    pub(super) fn end_of_former(&self, at: Millis, now: Millis) -> Option<RunEnd> {
        if self.is_serving() && self.times_out.is_some_and(|end| now >= end) {
            let reason = "stopped after its timeout".to_owned();
            return Some(RunEnd { at, code: None, reason, restarts: self.restarts });
        }
        let code = match self.phase.as_ref()? {
            Phase::Exited { code, .. } => Some(*code),
            Phase::Failed { .. } | Phase::Gone => None,
            _ => return None,
        };
        let reason = if code == Some(0) { String::new() } else { brief(&self.failed_with) };
        Some(RunEnd { at, code, reason, restarts: self.restarts })
    }

    /// Returns whether it is a run whose container is kept for its log.
    pub(super) fn keep(&mut self) -> bool {
        let is_there = matches!(self.phase, Some(Phase::Exited { .. } | Phase::Failed { .. }));
        if !is_there || self.removing {
            return false;
        }
        self.retry_at = None;
        self.stay();
        true
    }

    /// Returns the state and reason of one that is kept.
    pub(super) fn shown_end(&self) -> (InstanceState, String) {
        match self.phase {
            Some(Phase::Exited { code: 0, .. }) => (InstanceState::Completed, String::new()),
            _ if self.shown.0 == InstanceState::Failed => self.shown.clone(),
            _ => (InstanceState::Failed, self.failed_with.clone() + output::NOT_RESTARTED),
        }
    }

    /// Returns the removal of the instance. Nothing takes over the connections of one that runs under a lease while it is there: only what is
    /// under way may finish, and a database whose clients stay gets its grace for stopping.
    pub(super) fn removal(&self, id: &InstanceId, grace_ms: Millis) -> RuntimeAction {
        // Where the lease ends, most of what is left is for stopping.
        let drain_ms =
            if self.epoch.is_some() { EXCLUSIVE_DRAIN.min(grace_ms / 4) } else { grace_ms };
        RuntimeAction::Remove { id: id.clone(), drain_ms, grace_ms }
    }

    /// Returns the epoch of the lease under which it was started.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Notes that the service of an instance that was started without a lease has one now: it goes on under it.
    pub(super) fn adopt_lease(&mut self, epoch: Epoch) {
        if self.epoch.is_none() && self.is_serving() {
            self.epoch = Some(epoch);
        }
    }

    /// Returns the grace if it is to be removed now, because the lease ends under which it was started, or its network; it starts again
    /// with the next one. One that does not run needs no removal.
    pub(super) fn fence(&mut self, why: Fence, grace: Millis, now: Millis) -> Option<Millis> {
        let may_run = matches!(
            (&self.phase, self.asked),
            (Some(Phase::Running { .. } | Phase::Pulling { .. }), _) | (None, Some(_))
        );
        let asks = self.fenced.is_some() && self.asked.is_some_and(|asked| now < asked + REPEAT);
        if !may_run || self.removing || asks {
            return None;
        }
        (self.replacing, self.fenced, self.asked) = (true, Some(why), Some(now));
        self.availability = Availability::No;
        Some(grace.min(self.grace_ms.unwrap_or(DEFAULT_GRACE)))
    }

    /// Returns its run, if it runs and is not being removed.
    pub(super) fn run(&self, id: &InstanceId) -> Option<Run> {
        match self.phase {
            Some(Phase::Running { started, .. }) if !self.removing && self.fenced.is_none() => {
                Some(Run { id: id.clone(), started })
            }
            _ => None,
        }
    }

    /// Returns whether it runs without the network that it has to have, which is that of `owner`: of another instance than when it was
    /// started, or of one that was started later than it.
    pub(super) fn lacks_network(&mut self, owner: Option<&Run>) -> bool {
        let Some(Phase::Running { started, .. }) = self.phase else { return false };
        let Some(owner) = owner.filter(|it| it.started <= started + START_GRAIN) else {
            return true;
        };
        // One that ran before this node was started.
        let joined = self.network.get_or_insert_with(|| owner.clone());
        joined.id != owner.id
    }

    /// Notes that it is about to be started in the network of `owner`.
    pub(super) fn join_network(&mut self, owner: Option<Run>) {
        self.network = owner;
    }

    /// Returns whether it is available.
    pub(super) fn is_available(&self) -> bool {
        matches!(self.availability, Availability::Delayed(_) | Availability::Available)
    }

    /// Returns whether a list of all instances must contain it.
    pub(super) fn is_expected(&self, now: Millis) -> bool {
        let fresh = self.asked.is_some_and(|asked| now < asked + REPEAT);
        match self.phase {
            None => self.asked.is_some() && !fresh,
            Some(Phase::Pulling { .. }) => !fresh,
            Some(Phase::Running { .. } | Phase::Exited { .. }) => true,
            // An instance that could not be created is missing without news.
            Some(
                Phase::Prepared
                | Phase::NoImage { .. }
                | Phase::Failed { .. }
                | Phase::NodeFault { .. }
                | Phase::Gone,
            ) => self.removing,
        }
    }

    /// Returns whether the observation is known already.
    pub(super) fn shows(&self, seen: &Observed) -> bool {
        self.phase.as_ref() == Some(&seen.phase) && self.address == seen.address
    }

    /// Takes in an observation of the runtime.
    pub(super) fn observe(&mut self, seen: Observed, now: Millis) {
        let is_same_run = match (&self.phase, &seen.phase) {
            (Some(Phase::Running { started: was, .. }), Phase::Running { started: is, .. }) => {
                was == is
            }
            _ => false,
        };
        let is_unhealthy =
            |phase: &Phase| matches!(phase, Phase::Running { health: Some(false), .. });
        if self.fenced.is_some() && !matches!(seen.phase, Phase::Gone) {
            // It is being removed: what happens on the way says nothing.
            return;
        }
        if self.replacing && !self.removing {
            match seen.phase {
                Phase::Gone => return self.replaced(),
                // How it ended says nothing: it was stopped.
                Phase::Exited { .. } | Phase::Failed { .. } => return,
                _ => {}
            }
        }
        let is_first = self.phase.is_none() && self.asked.is_none();
        self.ended_unseen = is_first && matches!(seen.phase, Phase::Exited { .. });
        let goes_on = is_same_run && is_unhealthy(&seen.phase) && self.is_unhealthy();
        if !goes_on
            && (!matches!(seen.phase, Phase::Running { .. }) || is_unhealthy(&seen.phase))
            && self.available_since.take().is_some_and(|since| now >= since + STABLE)
        {
            self.failures = 0;
        }
        if !is_same_run {
            if self.phase.is_some() {
                self.started = None;
            }
            let adopted = self.phase.is_none() && self.asked.is_none() && self.was_available;
            let since = if adopted { 0 } else { now };
            self.running_since = matches!(seen.phase, Phase::Running { .. }).then_some(since);
        }
        if let Phase::Running { .. } = seen.phase {
            if !seen.address.is_empty() {
                self.address = seen.address;
            }
        } else {
            self.address.clear();
        }
        // An unhealthy one is restarted at its time, whatever its checks say meanwhile.
        if !self.removing && !goes_on {
            self.retry_at = None;
            self.replacing = false;
        }
        match &seen.phase {
            Phase::NodeFault { .. } => self.node_fault = true,
            Phase::Running { .. } | Phase::Exited { .. } => {
                (self.node_fault, self.has_run) = (false, true);
            }
            Phase::Failed { .. } | Phase::Prepared => self.node_fault = false,
            Phase::NoImage { .. } | Phase::Pulling { .. } | Phase::Gone => {}
        }
        match &seen.phase {
            Phase::Exited { code, output, out_of_memory } => {
                self.failed_with = output::exited(*code, *out_of_memory, output);
            }
            Phase::Failed { reason } | Phase::NodeFault { reason } => {
                self.failed_with.clone_from(reason);
            }
            Phase::Gone => "was removed outside the cluster".clone_into(&mut self.failed_with),
            Phase::NoImage { reason } => self.miss_image(reason.clone(), now),
            Phase::Running { health: Some(false), said, .. } if !goes_on => {
                self.failed_with = output::unhealthy(said);
            }
            Phase::Running { health: Some(true), .. } => self.replaced = None,
            Phase::Prepared | Phase::Pulling { .. } | Phase::Running { .. } => {}
        }
        if !matches!(seen.phase, Phase::NoImage { .. } | Phase::Pulling { .. }) {
            self.missing = None;
        }
        self.phase = Some(seen.phase);
    }

    fn miss_image(&mut self, reason: String, now: Millis) {
        let missing = self.missing.get_or_insert_with(|| MissingImage::new(reason, now));
        if let Some(reason) = missing.not_found(now) {
            reason.clone_into(&mut self.failed_with);
        }
    }

    /// Notes that it is gone and is to be started anew.
    fn replaced(&mut self) {
        (self.phase, self.asked, self.retry_at) = (None, None, None);
        (self.replacing, self.running_since) = (false, None);
        self.address.clear();
        self.network = None;
        if let Some(fence) = self.fenced.take() {
            self.epoch = None;
            if self.once {
                format!("was stopped: {}", fence.reason()).clone_into(&mut self.failed_with);
                self.phase = Some(Phase::Gone);
            }
            return;
        }
        self.replaced = Some(output::restarted_unhealthy(&self.failed_with));
    }

    fn is_unhealthy(&self) -> bool {
        matches!(self.phase, Some(Phase::Running { health: Some(false), .. }))
    }

    /// Forgets the requests to the runtime that had no visible effect, so that they are made again.
    pub(super) fn retry_pending(&mut self) {
        if self.phase.is_none() || self.removing {
            self.asked = None;
        }
    }

    /// The next time at which something is due.
    pub(super) fn poll_timeout(&self) -> Option<Millis> {
        let availability = match self.availability {
            Availability::At(at) | Availability::Delayed(at) if !self.removing => Some(at),
            _ => None,
        };
        let times_out = self.times_out.filter(|_| self.is_serving());
        // What ends a hold, or brings the lease, is an event.
        let retry = self.retry_at.filter(|_| self.removing || !self.blocked);
        retry.into_iter().chain(availability).chain(times_out).min()
    }

    /// Returns why it failed, unless it has been stable since.
    pub(super) fn failure(&self) -> Option<&str> {
        match self.phase {
            _ if self.ended_unseen && self.retry_at.is_some() => None,
            Some(Phase::Running { health: Some(false), .. }) => Some(self.failed_with.as_str()),
            _ if self.shown.0 == InstanceState::Failed || self.failures > 0 => {
                Some(self.failed_with.as_str())
            }
            _ => None,
        }
    }

    /// Returns whether its last failure was a fault of the node.
    pub(super) fn is_node_fault(&self) -> bool {
        self.node_fault
    }

    /// Returns the fault of the node that keeps it from being started, right after the attempt.
    pub(super) fn node_fault(&self) -> Option<&str> {
        match &self.phase {
            Some(Phase::NodeFault { reason }) => Some(reason),
            _ => None,
        }
    }

    /// Returns whether it has run since the start of this node.
    pub(super) fn has_run(&self) -> bool {
        self.has_run
    }

    /// Returns its state and reason if it runs.
    pub(super) fn running(&self) -> Option<(InstanceState, String)> {
        match self.phase {
            Some(Phase::Running { health, ref said, .. }) => Some(self.shown_running(health, said)),
            _ => None,
        }
    }

    fn shown_running(&self, health: Option<bool>, said: &str) -> (InstanceState, String) {
        match health {
            None => (InstanceState::Running, self.replaced.clone().unwrap_or_default()),
            Some(true) => (InstanceState::Healthy, String::new()),
            // The output may change with every check, and the document must not.
            Some(false) if self.shown.0 == InstanceState::Unhealthy => self.shown.clone(),
            Some(false) => (InstanceState::Unhealthy, output::unhealthy(said)),
        }
    }

    /// Notes that it is replaced and keeps running for now: its availability does not change any more.
    pub(super) fn stay(&mut self) {
        self.availability = match self.availability {
            Availability::Delayed(_) | Availability::Available => Availability::Available,
            Availability::No | Availability::At(_) => Availability::No,
        };
    }

    /// Notes that it is held: whether it should run, and how, is not known. It stays available as long as it runs and is not
    /// unhealthy.
    pub(super) fn hold(&mut self) {
        let was_available = self.is_available() || self.running_since == Some(0);
        self.availability = match self.phase {
            Some(Phase::Running { health: Some(true), .. }) => Availability::Available,
            Some(Phase::Running { health: None, .. }) if was_available => Availability::Available,
            _ => Availability::No,
        };
    }

    /// Notes that it is to be removed. Returns the grace if the removal is to be requested now.
    pub(super) fn remove(&mut self, now: Millis) -> Option<Millis> {
        let repeat = self.asked.is_none_or(|asked| now >= asked + REPEAT);
        if self.removing && !repeat {
            return None;
        }
        self.removing = true;
        self.replacing = false;
        self.availability = Availability::No;
        self.asked = Some(now);
        self.retry_at = Some(now + REPEAT);
        Some(self.grace_ms.unwrap_or(DEFAULT_GRACE))
    }

    /// Updates its availability: it is healthy or, without a healthcheck, has run for `monitor`; or it is a job that has
    /// completed.
    pub(super) fn update_availability(&mut self, wanted: &Desired, now: Millis) {
        let policy = &wanted.update;
        let since = match &self.phase {
            // A run is when it has succeeded.
            Some(Phase::Running { .. }) if wanted.is_run => None,
            Some(Phase::Running { health: Some(true), .. }) => match self.shown.0 {
                InstanceState::Healthy => Some(self.entered),
                _ => Some(now),
            },
            Some(Phase::Running { health: None, .. }) if !wanted.spec.has_healthcheck() => Some(
                self.running_since.map_or(now, |since| since.saturating_add(policy.monitor_ms)),
            ),
            Some(Phase::Exited { code: 0, .. }) if !restarts(wanted, 0) => Some(self.entered),
            _ => None,
        };
        self.availability = match since {
            None => Availability::No,
            Some(at) if now < at => Availability::At(at),
            Some(at) if now < at + policy.delay_ms => Availability::Delayed(at + policy.delay_ms),
            Some(_) => Availability::Available,
        };
        self.available_since = self.is_available().then(|| self.available_since.unwrap_or(now));
    }

    /// Advances its restart policy where it is unhealthy; `replica` is the number of its slot. Returns the grace if it is to be
    /// removed now, to be started anew: its healthcheck has failed `retries` times, and `restart` allows it.
    pub(super) fn replace(
        &mut self,
        wanted: &Desired,
        replica: u32,
        hold: bool,
        now: Millis,
    ) -> Option<Millis> {
        if hold || !self.is_unhealthy() || !restarts(wanted, 1) {
            return None;
        }
        match self.retry_at {
            Some(at) if now >= at => {
                self.restarts += u32::from(!self.replacing);
                self.replacing = true;
                self.retry_at = Some(now + REPEAT);
                Some(wanted.spec.stop_grace_ms)
            }
            Some(_) => None,
            None => {
                self.plan_restart(wanted, now);
                let before = Millis::from(replica.saturating_sub(1)).saturating_mul(STAGGER);
                self.retry_at = self.retry_at.map(|at| at + before.min(MAX_STAGGER));
                None
            }
        }
    }

    /// Advances its restart policy. Returns what the runtime is to do now. With `replaces`, another instance, here or on another
    /// node, must be gone before this one starts.
    pub(super) fn step(
        &mut self,
        wanted: &Desired,
        replaces: bool,
        hold: bool,
        epoch: Option<Epoch>,
        now: Millis,
    ) -> Option<Step> {
        self.trace = wanted.trace;
        self.grace_ms = Some(wanted.spec.stop_grace_ms);
        self.once = wanted.once;
        let timeout = Some(wanted.timeout_ms).filter(|&timeout| timeout > 0);
        self.times_out = timeout.and_then(|it| Some(self.running_since?.saturating_add(it)));
        self.reports_start = wanted.reports_start;
        let may_begin = !wanted.once || wanted.may_begin;
        let may_start = !replaces && !wanted.is_waiting() && may_begin;
        self.blocked = hold || !wanted.lease.is_empty() || !may_begin && !replaces;
        let due = match &self.phase {
            Some(Phase::Running { .. } | Phase::Pulling { .. }) => false,
            None => {
                !hold
                    && (replaces || may_start)
                    && match self.asked {
                        // It may have run since, unseen.
                        Some(_) if wanted.once => false,
                        asked => asked.is_none_or(|asked| now >= asked + REPEAT),
                    }
            }
            Some(_) if hold => false,
            Some(Phase::Prepared) => {
                if may_start {
                    self.phase = None;
                }
                may_start
            }
            Some(_) if !wanted.lease.is_empty() || !may_begin && !replaces => {
                if self.retry_at.is_none() && wanted.lease.is_empty() {
                    self.plan_restart(wanted, now);
                }
                false
            }
            Some(ended) => match self.retry_at {
                Some(at) if now >= at => {
                    self.retry_at = None;
                    self.restarts += u32::from(!matches!(ended, Phase::NoImage { .. }));
                    self.phase = None;
                    true
                }
                Some(_) => false,
                None => {
                    self.plan_restart(wanted, now);
                    false
                }
            },
        };
        if !due {
            return None;
        }
        self.asked = Some(now);
        self.epoch = epoch;
        Some(if replaces { Step::Prepare } else { Step::Start })
    }

    fn plan_restart(&mut self, wanted: &Desired, now: Millis) {
        if let (Some(Phase::NoImage { .. }), Some(missing)) = (&self.phase, &self.missing) {
            // Not a failure of the instance, which does not count as a restart.
            self.retry_at = Some(now + missing.pause());
            return;
        }
        if self.phase.as_ref().is_some_and(|ended| may_restart(wanted, ended, self.failures)) {
            self.failures += u32::from(!self.ended_unseen);
            let first = wanted.spec.restart.delay_ms.unwrap_or(1000).clamp(100, MAX_PAUSE);
            let doublings = self.failures.saturating_sub(1).min(16);
            let pause = first.saturating_mul(1 << doublings).min(MAX_PAUSE);
            self.retry_at = Some(now + pause);
        }
    }

    /// Returns its state and reason.
    pub(super) fn describe(
        &self,
        wanted: &Desired,
        hold: Option<&str>,
        now: Millis,
    ) -> (InstanceState, String) {
        let next = |what: String| match self.retry_at {
            Some(at) => what + &output::restarts_in((at - now.min(at)).div_ceil(1000)),
            None => what + output::NOT_RESTARTED,
        };
        match (&self.phase, hold) {
            (Some(Phase::Pulling { .. } | Phase::Running { .. }), _) | (_, None) => {}
            (_, Some(reason)) if self.asked.is_none() => {
                return (InstanceState::Pending, reason.to_owned());
            }
            _ => {}
        }
        if let Some(fence) = self.fenced {
            return (InstanceState::Stopping, fence.reason().to_owned());
        }
        let waits = || (InstanceState::Pending, wanted.waits());
        let starting = || (InstanceState::Starting, self.replaced.clone().unwrap_or_default());
        let missing = || self.missing.as_ref().map_or_else(starting, MissingImage::shown);
        match &self.phase {
            None if self.asked.is_none() => waits(),
            None => missing(),
            // The next search, of which nothing is known yet.
            Some(Phase::Pulling { progress }) if progress.is_empty() && self.missing.is_some() => {
                missing()
            }
            Some(Phase::Pulling { progress }) => (InstanceState::Pulling, progress.clone()),
            Some(Phase::Prepared) if wanted.is_waiting() => waits(),
            Some(Phase::Prepared) => (InstanceState::Starting, String::new()),
            Some(Phase::Running { health, said, .. }) => {
                let (state, reason) = self.shown_running(*health, said);
                // Once, as above.
                match state {
                    InstanceState::Unhealthy if self.shown.0 != state => (state, next(reason)),
                    _ => (state, reason),
                }
            }
            Some(Phase::NoImage { .. }) => missing(),
            Some(Phase::Exited { code: 0, .. }) if !restarts(wanted, 0) => {
                (InstanceState::Completed, String::new())
            }
            // It starts again with the lease: the watchdog may have ended it with the last one.
            Some(ended)
                if !wanted.lease.is_empty()
                    && self.retry_at.is_none()
                    && may_restart(wanted, ended, self.failures) =>
            {
                waits()
            }
            // The reason must not change with time, or the document would.
            Some(_)
                if self.retry_at.is_some()
                    && !self.shown.1.is_empty()
                    && self.shown.0 == InstanceState::Failed =>
            {
                self.shown.clone()
            }
            Some(_) => (InstanceState::Failed, next(self.failed_with.clone())),
        }
    }

    /// Sets its state and reason, and logs the change.
    pub(super) fn show(
        &mut self,
        node: NodeId,
        id: &InstanceId,
        state: InstanceState,
        reason: String,
        clock: Clock,
    ) {
        if (state, &reason) == (self.shown.0, &self.shown.1) {
            return;
        }
        tracing::info!(
            trace = self.trace.map(tracing::field::display),
            node = %node,
            service = %id.slot.service,
            instance = %id,
            from = self.shown.0.as_str(),
            to = state.as_str(),
            reason = reason.as_str(),
            "instance changed"
        );
        self.shown = (state, reason);
        (self.entered, self.since) = (clock.monotonic, clock.wall);
    }

    /// Returns this node's claim on it; `lamport` is the timestamp of its first one.
    pub(super) fn claim(&mut self, lamport: Lamport) -> Claim {
        let runs = matches!(self.phase, Some(Phase::Running { .. }));
        self.started = runs.then(|| self.started.unwrap_or(lamport));
        Claim {
            started: self.started.filter(|_| self.reports_start).unwrap_or(0),
            lamport: *self.lamport.get_or_insert(lamport),
            available: self.availability == Availability::Available,
            state: self.shown.0,
            reason: self.shown.1.clone(),
            address: self.address.clone(),
            restarts: self.restarts,
            since: self.since,
            prepared: false,
            restarted_unhealthy: self.replaced.is_some(),
            epoch: self.epoch,
            terminal: false,
        }
    }
}

/// Cuts the reason of a failure to what a run keeps of it.
fn brief(reason: &str) -> String {
    reason[..reason.floor_char_boundary(MAX_RUN_REASON)].to_owned()
}

/// Returns whether its policy restarts it after this exit code.
fn restarts(wanted: &Desired, code: i64) -> bool {
    match wanted.spec.restart.condition {
        RestartCondition::Any => code != 0 || !wanted.is_run,
        RestartCondition::OnFailure => code != 0,
        RestartCondition::None => false,
    }
}

fn may_restart(wanted: &Desired, ended: &Phase, failures: u32) -> bool {
    if wanted.spec.restart.max_attempts.is_some_and(|most| failures >= most) {
        return false;
    }
    match ended {
        Phase::Exited { code, .. } => restarts(wanted, *code),
        // It may have run.
        Phase::Gone => !wanted.once,
        _ => true,
    }
}
