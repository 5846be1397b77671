//! What runs here, against what should: the reconcile loop of one machine.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::claims_of_slot;
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::spec::{ContainerSpec, RestartCondition};
use vc_protocol::{Millis, NodeId, Slot};

use crate::runtime::{InstanceId, Observed, Phase, RuntimeAction};

/// An action that nothing was seen of is asked for again after this time.
const REPEAT: Millis = 60_000;
/// The longest pause between restarts.
const MAX_PAUSE: Millis = 60_000;
/// An instance that ran so long has proven itself: the next pause is the first one again.
const PROVEN: Millis = 30_000;

/// What an instance gets to stop in that ran before this engine and is not wanted by it: Docker's default.
const DEFAULT_GRACE: Millis = 10_000;

/// A slot that the plan gives to this machine.
#[derive(Debug, Clone)]
pub(crate) struct Desired {
    pub(crate) spec: ContainerSpec,
    pub(crate) digest: String,
    /// What it waits for before it may start; empty: nothing.
    pub(crate) waits_for: String,
}

/// An instance of ours, as far as we know.
#[derive(Debug, Clone)]
struct Local {
    phase: Option<Phase>,
    address: String,
    /// When an action was last asked for; `None`: never.
    asked: Option<Millis>,
    removing: bool,
    /// From SIGTERM to SIGKILL, as it was last asked for; `None`: never by this engine.
    grace_ms: Option<Millis>,
    /// Exits and failures in a row.
    failures: u32,
    restarts: u32,
    retry_at: Option<Millis>,
    shown: (InstanceState, String),
    since: Millis,
}

/// All instances of this machine.
#[derive(Debug)]
pub(crate) struct Workload {
    /// This machine, for the log.
    node: NodeId,
    local: BTreeMap<InstanceId, Local>,
    /// Claims of our previous life: restarts go on counting, and what did not change keeps its time.
    inherited: BTreeMap<InstanceId, Claim>,
}

impl Workload {
    pub(crate) fn new(node: NodeId, inherited: BTreeMap<InstanceId, Claim>) -> Self {
        Self { node, local: BTreeMap::new(), inherited }
    }

    fn entry(&mut self, id: &InstanceId, now: Millis) -> &mut Local {
        if !self.local.contains_key(id) {
            let old = self.inherited.remove(id);
            let local = Local {
                phase: None,
                address: String::new(),
                asked: None,
                removing: false,
                grace_ms: None,
                failures: 0,
                restarts: old.as_ref().map_or(0, |claim| claim.restarts),
                retry_at: None,
                since: old.as_ref().map_or(now, |claim| claim.since),
                shown: old.map_or((InstanceState::Pending, String::new()), |claim| {
                    (claim.state, claim.reason)
                }),
            };
            self.local.insert(id.clone(), local);
        }
        #[allow(clippy::expect_used, reason = "inserted above when it was not there")]
        self.local.get_mut(id).expect("present")
    }

    /// The runtime told us everything that exists.
    pub(crate) fn listed(&mut self, all: Vec<Observed>, now: Millis) {
        let there: BTreeSet<&InstanceId> = all.iter().map(|seen| &seen.id).collect();
        // What was asked for a moment ago may not have been made when the list was.
        let gone: Vec<InstanceId> = self
            .local
            .iter()
            .filter(|(id, local)| {
                let fresh = local.asked.is_some_and(|asked| now < asked + REPEAT);
                let expected = match local.phase {
                    None => local.asked.is_some() && !fresh,
                    Some(Phase::Pulling { .. }) => !fresh,
                    Some(Phase::Running { .. } | Phase::Exited { .. }) => true,
                    // What could not be made is not there, and that is no news.
                    Some(Phase::NoImage { .. } | Phase::Failed { .. } | Phase::Gone) => {
                        local.removing
                    }
                };
                expected && !there.contains(id)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.changed(Observed { id, phase: Phase::Gone, address: String::new() }, now);
        }
        for seen in all {
            self.changed(seen, now);
        }
    }

    /// The runtime told us about one instance.
    pub(crate) fn changed(&mut self, seen: Observed, now: Millis) {
        let known = self.local.get(&seen.id);
        if seen.phase == Phase::Gone && known.is_none_or(|local| local.removing) {
            self.local.remove(&seen.id);
            return;
        }
        if known.is_some_and(|local| {
            local.phase.as_ref() == Some(&seen.phase) && local.address == seen.address
        }) {
            return;
        }
        let local = self.entry(&seen.id, now);
        let ran_since = match local.phase {
            Some(Phase::Running { started, .. }) => Some(started),
            _ => None,
        };
        if let Phase::Running { .. } = seen.phase {
            local.retry_at = None;
            if !seen.address.is_empty() {
                local.address = seen.address;
            }
        } else {
            local.address.clear();
            if ran_since.is_some_and(|started| now >= started + PROVEN) {
                local.failures = 0;
            }
            local.retry_at = None;
        }
        local.phase = Some(seen.phase);
    }

    /// The runtime was away: what was asked for and not seen to happen is asked for again.
    pub(crate) fn asked_in_vain(&mut self) {
        for local in self.local.values_mut().filter(|local| local.phase.is_none() || local.removing)
        {
            local.asked = None;
        }
    }

    /// The runtime is lost for good: nothing is known to run.
    pub(crate) fn forget(&mut self) {
        self.local.clear();
        self.inherited.clear();
    }

    /// The next time at which something is due.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        self.local.values().filter_map(|local| local.retry_at).min()
    }

    /// What to do so that `desired` runs, and what to claim meanwhile. With `hold`, `desired` may be yesterday's: nothing
    /// new is started, and nothing that runs is taken away.
    pub(crate) fn reconcile(
        &mut self,
        desired: &BTreeMap<Slot, Desired>,
        hold: bool,
        now: Millis,
    ) -> (Vec<RuntimeAction>, BTreeMap<InstanceId, Claim>) {
        let mut actions = Vec::new();
        let mut claims = BTreeMap::new();
        self.remove_unwanted(desired, hold, now, &mut actions, &mut claims);
        for (slot, wanted) in desired {
            // An earlier version goes first: it may hold the port or the name.
            if claims_of_slot(&claims, slot).next().is_some() {
                continue;
            }
            let id = InstanceId { slot: slot.clone(), digest: wanted.digest.clone() };
            let node = self.node;
            let local = self.entry(&id, now);
            local.grace_ms = Some(wanted.spec.stop_grace_ms);
            if local.step(wanted, hold, now) {
                local.asked = Some(now);
                actions.push(RuntimeAction::Start {
                    id: id.clone(),
                    spec: Box::new(wanted.spec.clone()),
                });
            }
            let (state, reason) = local.describe(wanted, hold, now);
            local.show(node, &id, state, reason, now);
            claims.insert(id.clone(), local.claim());
        }
        (actions, claims)
    }

    fn remove_unwanted(
        &mut self,
        desired: &BTreeMap<Slot, Desired>,
        hold: bool,
        now: Millis,
        actions: &mut Vec<RuntimeAction>,
        claims: &mut BTreeMap<InstanceId, Claim>,
    ) {
        let wanted = |id: &InstanceId| {
            desired.get(&id.slot).is_some_and(|wanted| wanted.digest == id.digest)
        };
        // Never asked for and never seen: nothing to take away.
        self.local.retain(|id, local| wanted(id) || local.phase.is_some() || local.asked.is_some());
        for (id, local) in &mut self.local {
            if wanted(id) && !local.removing {
                continue;
            }
            if hold && !local.removing {
                if let Some(Phase::Running { health, .. }) = local.phase {
                    let (state, reason) = running(health);
                    local.show(self.node, id, state, reason, now);
                    claims.insert(id.clone(), local.claim());
                }
                continue;
            }
            let repeat = local.asked.is_none_or(|asked| now >= asked + REPEAT);
            if !local.removing || repeat {
                local.removing = true;
                local.asked = Some(now);
                local.retry_at = Some(now + REPEAT);
                let grace_ms = local.grace_ms.unwrap_or(DEFAULT_GRACE);
                actions.push(RuntimeAction::Remove { id: id.clone(), grace_ms });
            }
            local.show(self.node, id, InstanceState::Stopping, String::new(), now);
            claims.insert(id.clone(), local.claim());
        }
    }
}

impl Local {
    /// Moves on; `true`: it is to be started now.
    fn step(&mut self, wanted: &Desired, hold: bool, now: Millis) -> bool {
        match &self.phase {
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
                    self.phase = None;
                    self.restarts += 1;
                    true
                }
                Some(_) => false,
                None => {
                    if may_restart(wanted, ended, self.failures) {
                        self.failures += 1;
                        let first =
                            wanted.spec.restart.delay_ms.unwrap_or(1000).clamp(100, MAX_PAUSE);
                        let pause =
                            first.saturating_mul(1 << (self.failures - 1).min(16)).min(MAX_PAUSE);
                        self.retry_at = Some(now + pause);
                    }
                    false
                }
            },
        }
    }

    fn describe(&self, wanted: &Desired, hold: bool, now: Millis) -> (InstanceState, String) {
        let next = |what: String| match self.retry_at {
            Some(at) => {
                format!("{what}; starts again after {} s", (at - now.min(at)).div_ceil(1000))
            }
            None => format!("{what}; its restart policy leaves it so"),
        };
        match &self.phase {
            Some(Phase::Pulling { .. } | Phase::Running { .. }) => {}
            _ if hold && self.asked.is_none() => {
                return (
                    InstanceState::Pending,
                    "waits for word from the other machines".to_owned(),
                );
            }
            _ => {}
        }
        match &self.phase {
            None if self.asked.is_none() => (InstanceState::Pending, wanted.waits_for.clone()),
            None => (InstanceState::Starting, String::new()),
            Some(Phase::Pulling { .. }) => (InstanceState::Pulling, String::new()),
            Some(Phase::Running { health, .. }) => running(*health),
            // A reason must not change as time goes by, or the document would with it.
            Some(_)
                if self.retry_at.is_some()
                    && !self.shown.1.is_empty()
                    && self.shown.0 == InstanceState::Failed =>
            {
                self.shown.clone()
            }
            Some(Phase::Exited { code, .. }) => {
                (InstanceState::Failed, next(format!("exited with code {code}")))
            }
            Some(Phase::NoImage { reason } | Phase::Failed { reason }) => {
                (InstanceState::Failed, next(reason.clone()))
            }
            Some(Phase::Gone) => {
                (InstanceState::Failed, next("was removed by somebody else".to_owned()))
            }
        }
    }

    fn show(
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

    fn claim(&self) -> Claim {
        Claim {
            settled: false,
            state: self.shown.0,
            reason: self.shown.1.clone(),
            address: self.address.clone(),
            restarts: self.restarts,
            since: self.since,
        }
    }
}

fn running(health: Option<bool>) -> (InstanceState, String) {
    match health {
        None => (InstanceState::Running, String::new()),
        Some(true) => (InstanceState::Healthy, String::new()),
        Some(false) => (InstanceState::Unhealthy, "its healthcheck fails".to_owned()),
    }
}

fn may_restart(wanted: &Desired, ended: &Phase, failures: u32) -> bool {
    let policy = &wanted.spec.restart;
    if policy.max_attempts.is_some_and(|most| failures >= most) {
        return false;
    }
    match (policy.condition, ended) {
        (RestartCondition::None, Phase::Exited { .. }) => false,
        (RestartCondition::OnFailure, Phase::Exited { code, .. }) => *code != 0,
        _ => true,
    }
}
