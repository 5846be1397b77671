//! One instance of this node, as far as we know: when to start it, when to give up, what to say of it.

use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::spec::RestartCondition;
use vc_protocol::{Millis, NodeId};

use super::Desired;
use crate::runtime::{InstanceId, Observed, Phase};

/// An action that nothing was seen of is asked for again after this time.
const REPEAT: Millis = 60_000;
/// The longest pause between restarts.
const MAX_PAUSE: Millis = 60_000;
/// An instance that ran so long has proven itself: the next pause is the first one again.
const PROVEN: Millis = 30_000;

/// An image that was nowhere is looked for again after this time.
const LOOK_FOR_IMAGE: Millis = 10_000;
/// Why an instance that runs is not well.
const UNHEALTHY: &str = "its healthcheck fails";

/// What an instance gets to stop in that ran before this engine and is not wanted by it: Docker's default.
const DEFAULT_GRACE: Millis = 10_000;

/// An instance of ours.
#[derive(Debug, Clone)]
pub(super) struct Local {
    phase: Option<Phase>,
    address: String,
    /// When an action was last asked for; `None`: never.
    asked: Option<Millis>,
    removing: bool,
    /// From SIGTERM to SIGKILL, as it was last asked for; `None`: never by this engine.
    grace_ms: Option<Millis>,
    /// Exits and failures in a row.
    failures: u32,
    /// What the last of them was.
    failed_with: String,
    restarts: u32,
    retry_at: Option<Millis>,
    proof: Proof,
    shown: (InstanceState, String),
    since: Millis,
}

/// Whether an instance has proven itself, in the sense of its update policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// It has not, and it is not a matter of time.
    Open,
    /// It will have at this time, if nothing happens.
    At(Millis),
    /// It has; the next step may follow at this time.
    Given(Millis),
    /// It has, and the next step may follow.
    Available,
}

impl Local {
    /// One that nothing is known of but what we claimed of it in our previous life.
    pub(super) fn new(old: Option<Claim>, now: Millis) -> Self {
        Self {
            phase: None,
            address: String::new(),
            asked: None,
            removing: false,
            grace_ms: None,
            failures: 0,
            failed_with: String::new(),
            restarts: old.as_ref().map_or(0, |claim| claim.restarts),
            retry_at: None,
            proof: Proof::Open,
            since: old.as_ref().map_or(now, |claim| claim.since),
            shown: old.map_or((InstanceState::Pending, String::new()), |claim| {
                (claim.state, claim.reason)
            }),
        }
    }

    /// Whether anything of it may be there.
    pub(super) fn is_there(&self) -> bool {
        self.phase.is_some() || self.asked.is_some()
    }

    /// Whether it is on its way out.
    pub(super) fn is_removing(&self) -> bool {
        self.removing
    }

    /// Whether it runs, and is not on its way out.
    pub(super) fn is_serving(&self) -> bool {
        matches!(self.phase, Some(Phase::Running { .. })) && !self.removing
    }

    /// Whether it has proven itself.
    pub(super) fn is_proven(&self) -> bool {
        matches!(self.proof, Proof::Given(_) | Proof::Available)
    }

    /// Whether a list of all instances should have it.
    pub(super) fn is_expected(&self, now: Millis) -> bool {
        let fresh = self.asked.is_some_and(|asked| now < asked + REPEAT);
        match self.phase {
            None => self.asked.is_some() && !fresh,
            Some(Phase::Pulling { .. }) => !fresh,
            Some(Phase::Running { .. } | Phase::Exited { .. }) => true,
            // What could not be made is not there, and that is no news.
            Some(Phase::NoImage { .. } | Phase::Failed { .. } | Phase::Gone) => self.removing,
        }
    }

    /// Whether this is what we know.
    pub(super) fn shows(&self, seen: &Observed) -> bool {
        self.phase.as_ref() == Some(&seen.phase) && self.address == seen.address
    }

    /// Takes in what the runtime saw.
    pub(super) fn see(&mut self, seen: Observed, now: Millis) {
        let ran_since = match self.phase {
            Some(Phase::Running { started, .. }) => Some(started),
            _ => None,
        };
        if let Phase::Running { .. } = seen.phase {
            if !seen.address.is_empty() {
                self.address = seen.address;
            }
        } else {
            self.address.clear();
            if ran_since.is_some_and(|started| now >= started + PROVEN) {
                self.failures = 0;
            }
        }
        if !self.removing {
            self.retry_at = None;
        }
        match &seen.phase {
            Phase::Exited { code, output } if output.is_empty() => {
                self.failed_with = format!("exited with code {code}");
            }
            Phase::Exited { code, output } => {
                self.failed_with = format!("exited with code {code}: {output}");
            }
            Phase::Failed { reason } => self.failed_with.clone_from(reason),
            Phase::Gone => "was removed by somebody else".clone_into(&mut self.failed_with),
            Phase::NoImage { .. } | Phase::Pulling { .. } | Phase::Running { .. } => {}
        }
        self.phase = Some(seen.phase);
    }

    /// The runtime was away: what was asked for and not seen to happen is asked for again.
    pub(super) fn asked_in_vain(&mut self) {
        if self.phase.is_none() || self.removing {
            self.asked = None;
        }
    }

    /// The next time at which something is due.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let proof = match self.proof {
            Proof::At(at) | Proof::Given(at) if !self.removing => Some(at),
            _ => None,
        };
        self.retry_at.into_iter().chain(proof).min()
    }

    /// Why it failed, if it did since it was made, and has not run long enough since to be forgiven.
    pub(super) fn failure(&self) -> Option<&str> {
        match self.phase {
            Some(Phase::Running { health: Some(false), .. }) => Some(self.shown.1.as_str()),
            _ if self.shown.0 == InstanceState::Failed || self.failures > 0 => {
                Some(self.failed_with.as_str())
            }
            _ => None,
        }
    }

    /// What it shows while it runs; `None`: it does not.
    pub(super) fn running(&self) -> Option<(InstanceState, String)> {
        match self.phase {
            Some(Phase::Running { health, ref said, .. }) => Some(self.shown_running(health, said)),
            _ => None,
        }
    }

    fn shown_running(&self, health: Option<bool>, said: &str) -> (InstanceState, String) {
        match health {
            None => (InstanceState::Running, String::new()),
            Some(true) => (InstanceState::Healthy, String::new()),
            // What it says may change all the time, and the document must not.
            Some(false) if self.shown.0 == InstanceState::Unhealthy => self.shown.clone(),
            Some(false) if said.is_empty() => (InstanceState::Unhealthy, UNHEALTHY.to_owned()),
            Some(false) => (InstanceState::Unhealthy, format!("{UNHEALTHY}: {said}")),
        }
    }

    /// It is not wanted any more and goes on for a while: nobody waits for its proof.
    pub(super) fn stay(&mut self) {
        self.proof = match self.proof {
            Proof::Given(_) | Proof::Available => Proof::Available,
            Proof::Open | Proof::At(_) => Proof::Open,
        };
    }

    /// It is not wanted any more: asks for its removal, with this grace, if that is due.
    pub(super) fn remove(&mut self, now: Millis) -> Option<Millis> {
        let repeat = self.asked.is_none_or(|asked| now >= asked + REPEAT);
        if self.removing && !repeat {
            return None;
        }
        self.removing = true;
        self.proof = Proof::Open;
        self.asked = Some(now);
        self.retry_at = Some(now + REPEAT);
        Some(self.grace_ms.unwrap_or(DEFAULT_GRACE))
    }

    /// Looks whether it has proven itself: it is healthy or, without a healthcheck, has run for as long as the policy
    /// asks; or it is a job that is done.
    pub(super) fn judge(&mut self, wanted: &Desired, now: Millis) {
        let policy = &wanted.update;
        let since = match &self.phase {
            Some(Phase::Running { health: Some(true), .. }) => match self.shown.0 {
                InstanceState::Healthy => Some(self.since),
                _ => Some(now),
            },
            Some(Phase::Running { health: None, started, .. })
                if !wanted.spec.has_healthcheck() =>
            {
                Some((*started).min(now) + policy.monitor_ms)
            }
            Some(Phase::Exited { code: 0, .. }) if !restarts(wanted, 0) => Some(self.since),
            _ => None,
        };
        self.proof = match since {
            None => Proof::Open,
            Some(at) if now < at => Proof::At(at),
            Some(at) if now < at + policy.delay_ms => Proof::Given(at + policy.delay_ms),
            Some(_) => Proof::Available,
        };
    }

    /// Moves on; `true`: it is to be started now.
    pub(super) fn step(&mut self, wanted: &Desired, hold: bool, now: Millis) -> bool {
        self.grace_ms = Some(wanted.spec.stop_grace_ms);
        let start = match &self.phase {
            Some(Phase::Running { .. } | Phase::Pulling { .. }) => false,
            None => {
                !hold
                    && wanted.waits_for.is_empty()
                    && self.asked.is_none_or(|asked| now >= asked + REPEAT)
            }
            Some(_) if hold => false,
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
        if start {
            self.asked = Some(now);
        }
        start
    }

    fn plan_restart(&mut self, wanted: &Desired, now: Millis) {
        if matches!(self.phase, Some(Phase::NoImage { .. })) {
            // It may come any time, and nobody is to blame.
            self.retry_at = Some(now + LOOK_FOR_IMAGE);
            return;
        }
        if self.phase.as_ref().is_some_and(|ended| may_restart(wanted, ended, self.failures)) {
            self.failures += 1;
            let first = wanted.spec.restart.delay_ms.unwrap_or(1000).clamp(100, MAX_PAUSE);
            let pause = first.saturating_mul(1 << (self.failures - 1).min(16)).min(MAX_PAUSE);
            self.retry_at = Some(now + pause);
        }
    }

    /// What to show of it.
    pub(super) fn describe(
        &self,
        wanted: &Desired,
        hold: bool,
        now: Millis,
    ) -> (InstanceState, String) {
        let next = |what: String| match self.retry_at {
            Some(at) => {
                format!("{what}; starts again after {} s", (at - now.min(at)).div_ceil(1000))
            }
            None => format!("{what}; its restart policy leaves it so"),
        };
        match &self.phase {
            Some(Phase::Pulling { .. } | Phase::Running { .. }) => {}
            _ if hold && self.asked.is_none() => {
                return (InstanceState::Pending, "waits for word from the other nodes".to_owned());
            }
            _ => {}
        }
        match &self.phase {
            None if self.asked.is_none() => (InstanceState::Pending, wanted.waits_for.clone()),
            None => (InstanceState::Starting, String::new()),
            Some(Phase::Pulling { progress }) => (InstanceState::Pulling, progress.clone()),
            Some(Phase::Running { health, said, .. }) => self.shown_running(*health, said),
            Some(Phase::NoImage { reason }) => (InstanceState::Pending, reason.clone()),
            Some(Phase::Exited { code: 0, .. }) if !restarts(wanted, 0) => {
                (InstanceState::Completed, String::new())
            }
            // A reason must not change as time goes by, or the document would with it.
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

    /// Shows it, and tells the log what has changed.
    pub(super) fn show(
        &mut self,
        node: NodeId,
        id: &InstanceId,
        state: InstanceState,
        reason: String,
        now: Millis,
    ) {
        if (state, &reason) == (self.shown.0, &self.shown.1) {
            return;
        }
        tracing::info!(
            node = %node,
            service = %id.slot.service,
            instance = %id,
            from = self.shown.0.as_str(),
            to = state.as_str(),
            reason = reason.as_str(),
            "instance changed"
        );
        self.shown = (state, reason);
        self.since = now;
    }

    /// Our claim on it.
    pub(super) fn claim(&self) -> Claim {
        Claim {
            available: self.proof == Proof::Available,
            state: self.shown.0,
            reason: self.shown.1.clone(),
            address: self.address.clone(),
            restarts: self.restarts,
            since: self.since,
        }
    }
}

/// Whether its policy starts it again after it exited with this code.
fn restarts(wanted: &Desired, code: i64) -> bool {
    match wanted.spec.restart.condition {
        RestartCondition::Any => true,
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
        _ => true,
    }
}
