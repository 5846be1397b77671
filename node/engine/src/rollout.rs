//! Rolling updates, without a coordinator.
//!
//! Which version a slot runs at this moment is a function of the view. Slots are updated in their order, `parallelism` at a
//! time, each when those before it are available. Every node computes the same step and takes it for its own slots. A node
//! whose new instance fails writes that into its own document, and so does one that sees the update complete. These results
//! stay when the instances are removed, so a failed update does not start again by itself.

use std::collections::BTreeSet;

use vc_crdt::{UpdateStatus, View};
use vc_protocol::control::{Rollout as Report, RolloutState};
use vc_protocol::instance::InstanceState;
use vc_protocol::spec::ServiceSpec;
use vc_protocol::{ServiceKey, Slot, Stored};

/// Returns the digest of the version that a slot is to run now; `None` if its service does not exist.
pub fn version(view: &View, slot: &Slot) -> Option<String> {
    Some(Rollout::of(view, &slot.service)?.version(slot.replica).digest.clone())
}

/// The state of one service's update.
pub(crate) struct Rollout<'a> {
    /// The version that it leads to.
    goal: Version<'a>,
    /// The version of the slots that are not updated yet; `None` if all are to run the goal.
    before: Option<Version<'a>>,
    /// The replicas that are to run the goal now.
    started: BTreeSet<u32>,
    pub(crate) state: RolloutState,
    /// Replicas whose instance of the goal is available.
    available: u32,
    /// Replicas that have a node.
    placed: u32,
    reason: String,
}

/// One version of a service.
#[derive(Clone)]
pub(crate) struct Version<'a> {
    pub(crate) spec: &'a Stored<ServiceSpec>,
    pub(crate) digest: String,
}

impl<'a> Version<'a> {
    fn of(spec: &'a Stored<ServiceSpec>) -> Self {
        Self { spec, digest: spec.container_digest() }
    }
}

impl<'a> Rollout<'a> {
    /// Computes the update of a service; `None` if the service does not exist.
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
            Self { goal, before, started: BTreeSet::new(), state, available: 0, placed: 0, reason };
        rollout.step(view, service);
        Some(rollout)
    }

    fn step(&mut self, view: &View, service: &ServiceKey) {
        let mut waiting = Vec::new();
        let mut in_progress = 0;
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
                self.started.insert(replica);
                if of_goal.any(|(.., claim)| claim.available) {
                    self.available += 1;
                } else {
                    in_progress += 1;
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
            if self.state == RolloutState::Paused { 0 } else { most.saturating_sub(in_progress) };
        for (replica, serves) in waiting {
            // In a rollback, a slot that serves nothing need not wait.
            if self.state == RolloutState::RolledBack && !serves {
                self.started.insert(replica);
            } else if free > 0 {
                free -= 1;
                self.started.insert(replica);
            }
        }
    }

    /// Returns the version that a replica is to run now.
    pub(crate) fn version(&self, replica: u32) -> &Version<'a> {
        match &self.before {
            Some(before) if !self.started.contains(&replica) => before,
            _ => &self.goal,
        }
    }

    /// Returns whether every placed replica has an available instance of the goal.
    pub(crate) fn is_complete(&self) -> bool {
        self.available >= self.placed
    }

    /// Returns the digest of the goal.
    pub(crate) fn goal(&self) -> &str {
        &self.goal.digest
    }

    /// Returns the row for users.
    pub(crate) fn report(&self) -> Report {
        let (state, done, reason) = (self.state, self.available, self.reason.clone());
        Report { state, done, reason, ..Report::default() }
    }
}
