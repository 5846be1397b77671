//! Rolling updates, without a coordinator.
//!
//! Which slot runs which version at this moment is a function of the view: slots take their turn in their order, so many
//! at a time as the policy says, each when those before it have proven themselves. Every node computes the same step and
//! takes it for its own slots. A node that sees a new instance fail says so in its own document, and so does one that sees
//! the end: these words stay when the instances are gone, so an update that failed does not begin again by itself.

use std::collections::BTreeSet;

use vc_crdt::{UpdateStatus, View};
use vc_protocol::control::{Rollout as Report, RolloutState};
use vc_protocol::instance::InstanceState;
use vc_protocol::spec::ServiceSpec;
use vc_protocol::{ServiceKey, Slot};

/// Digest of what a slot is to run at this moment; `None`: its service is not wanted.
pub fn version(view: &View, slot: &Slot) -> Option<String> {
    Some(Rollout::of(view, &slot.service)?.version(slot.replica).digest.clone())
}

/// An update of one service, as far as it is.
pub(crate) struct Rollout<'a> {
    /// Where it leads.
    goal: Version<'a>,
    /// What slots run whose turn has not come; `None`: all are to run the goal.
    before: Option<Version<'a>>,
    /// The replicas whose turn has come.
    turn: BTreeSet<u32>,
    /// In which state.
    pub(crate) state: RolloutState,
    /// Replicas that run the goal and have proven themselves.
    settled: u32,
    /// Replicas that have a node.
    placed: u32,
    reason: String,
}

/// One version of a service.
#[derive(Clone)]
pub(crate) struct Version<'a> {
    pub(crate) spec: &'a ServiceSpec,
    pub(crate) digest: String,
}

impl<'a> Version<'a> {
    fn of(spec: &'a ServiceSpec) -> Self {
        Self { spec, digest: spec.container.digest() }
    }
}

impl<'a> Rollout<'a> {
    /// The update of a service; `None`: the service is not wanted.
    pub(crate) fn of(view: &'a View, service: &ServiceKey) -> Option<Self> {
        let record = view.cluster.services.get(service)?;
        let goal = Version::of(view.spec(service)?);
        let rolled_back = view.is_rolled_back(service);
        let before = match (&record.previous, view.updates.get(service)) {
            (_, Some(UpdateStatus::Complete)) => None,
            (_, Some(UpdateStatus::Failed(_))) if rolled_back => Some(Version::of(&record.spec)),
            (previous, _) => previous.as_ref().map(Version::of),
        };
        let before = before.filter(|before| before.digest != goal.digest);
        let state = match view.updates.get(service) {
            Some(UpdateStatus::Failed(_)) if rolled_back => RolloutState::RolledBack,
            Some(UpdateStatus::Failed(_)) => RolloutState::Paused,
            _ if before.is_some() => RolloutState::Updating,
            _ => RolloutState::Complete,
        };
        let reason = match view.updates.get(service) {
            Some(UpdateStatus::Failed(reason)) => reason.clone(),
            _ => String::new(),
        };
        let mut rollout =
            Self { goal, before, turn: BTreeSet::new(), state, settled: 0, placed: 0, reason };
        rollout.take_turns(view, service);
        Some(rollout)
    }

    fn take_turns(&mut self, view: &View, service: &ServiceKey) {
        let mut waiting = Vec::new();
        let mut on_their_way = 0;
        for replica in 1..=view.cluster.replicas(service) {
            let slot = Slot { service: service.clone(), replica };
            let placed = view.plan.placements.contains_key(&slot);
            let claims = || {
                view.claims_on(&slot).filter(|(.., claim)| claim.state != InstanceState::Stopping)
            };
            let mut of_goal =
                claims().filter(|(_, id, _)| id.digest == self.goal.digest).peekable();
            self.placed += u32::from(placed);
            if of_goal.peek().is_some() {
                self.turn.insert(replica);
                if of_goal.any(|(.., claim)| claim.available) {
                    self.settled += 1;
                } else {
                    on_their_way += 1;
                }
            } else if placed {
                let serves = claims().any(|(.., claim)| {
                    matches!(claim.state, InstanceState::Running | InstanceState::Healthy)
                });
                waiting.push((replica, serves));
            }
        }
        let most = match self.goal.spec.update.parallelism {
            0 => u32::MAX,
            most => most,
        };
        let mut free =
            if self.state == RolloutState::Paused { 0 } else { most.saturating_sub(on_their_way) };
        for (replica, serves) in waiting {
            // On the way back, who serves nobody has nothing to wait for.
            if self.state == RolloutState::RolledBack && !serves {
                self.turn.insert(replica);
            } else if free > 0 {
                free -= 1;
                self.turn.insert(replica);
            }
        }
    }

    /// What a replica is to run at this moment.
    pub(crate) fn version(&self, replica: u32) -> &Version<'a> {
        match &self.before {
            Some(before) if !self.turn.contains(&replica) => before,
            _ => &self.goal,
        }
    }

    /// Whether every replica that has a node runs the goal and has proven itself.
    pub(crate) fn has_arrived(&self) -> bool {
        self.settled >= self.placed
    }

    /// Digest of where it leads.
    pub(crate) fn goal(&self) -> &str {
        &self.goal.digest
    }

    /// For users.
    pub(crate) fn report(&self) -> Report {
        Report { state: self.state, done: self.settled, reason: self.reason.clone() }
    }
}
