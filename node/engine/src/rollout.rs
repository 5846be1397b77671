//! Rolling updates, without a coordinator.
//!
//! Which version a slot runs at this moment is a function of the view. Slots are updated in their order, `parallelism` at a
//! time, each when those before it are available. Every node computes the same step and takes it for its own slots. A node
//! whose new instance fails writes that into its own document, and so does one that sees the update complete. These results
//! stay when the instances are removed, so a failed update does not start again by itself.
//!
//! The plan places slots by the new version. One that gets another node before its turn starts the old version there only if that
//! node has the room for it, and may run it; else its turn has come.

use std::collections::BTreeSet;

use vc_crdt::{UpdateStatus, View};
use vc_placement::may_run;
use vc_protocol::control::{Rollout as Report, RolloutState};
use vc_protocol::instance::InstanceState;
use vc_protocol::spec::{Publish, ServiceSpec};
use vc_protocol::{NodeId, Resources, ServiceKey, Slot, Stored};

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

/// Returns the spec of the version that slots run which are not updated yet; `None` if all are to run the one in effect.
fn spec_before<'a>(view: &'a View, service: &ServiceKey) -> Option<&'a Stored<ServiceSpec>> {
    let record = view.cluster.services.get(service)?;
    match view.updates.get(service) {
        Some(UpdateStatus::Complete) => None,
        Some(UpdateStatus::Failed(_)) if view.is_rolled_back(service) => Some(&record.spec),
        _ => record.previous.as_ref(),
    }
}

/// Returns whether a node may run a slot by another spec than that of the plan, and has room for it beside the other slots that
/// the plan gives it. Of a service with an update, the larger version counts.
fn has_room(view: &View, slot: &Slot, node: NodeId, spec: &Stored<ServiceSpec>) -> bool {
    let mut input = view.input.clone();
    let demand = input.services.get_mut(&slot.service);
    if demand.map(|demand| demand.spec = spec.clone()).is_none()
        || !may_run(&input, &slot.service, node)
    {
        return false;
    }
    let ports = |spec: &ServiceSpec| -> BTreeSet<u16> {
        let on_node = spec.ports.iter().filter(|port| port.publish == Publish::Node);
        on_node.map(|port| port.published).collect()
    };
    let wanted = ports(spec);
    let mut reserved = spec.container.reservation;
    for other in view.plan.slots_of(node).filter(|other| *other != slot) {
        let specs = [view.spec(&other.service), spec_before(view, &other.service)];
        let mut most = Resources::default();
        for spec in specs.into_iter().flatten() {
            if !ports(spec).is_disjoint(&wanted) {
                return false;
            }
            most = most.larger_of_each(spec.container.reservation);
        }
        reserved = reserved.plus(most);
    }
    input.nodes.get(&node).is_some_and(|node| reserved.fits(node.capacity))
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
        let goal = Version::of(view.spec(service)?);
        let rolled_back = view.is_rolled_back(service);
        let before = spec_before(view, service).map(Version::of);
        let is_job = goal.spec.mode.is_job();
        let before = before.filter(|before| before.digest != goal.digest && !is_job);
        let state = match view.updates.get(service) {
            Some(UpdateStatus::Failed(_)) if rolled_back => RolloutState::RolledBack,
            Some(UpdateStatus::Failed(_)) => RolloutState::Paused,
            None if is_job => RolloutState::Updating,
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
        for slot in view.plan.slots_of_service(service) {
            let replica = slot.replica;
            let placed = view.plan.placements.contains_key(slot);
            let claims = || {
                view.claims_on(slot).filter(|(.., claim)| claim.state != InstanceState::Stopping)
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
            } else if !self.may_start_before(view, &Slot { service: service.clone(), replica }) {
                self.started.insert(replica);
            }
        }
    }

    /// Returns whether the node of a slot has an instance of the version before, or may start one.
    fn may_start_before(&self, view: &View, slot: &Slot) -> bool {
        let (Some(before), Some(placement)) = (&self.before, view.plan.placements.get(slot)) else {
            return true;
        };
        let mut claims = view.claims_on(slot);
        claims.any(|(node, id, _)| node == placement.node && id.digest == before.digest)
            || match self.state {
                RolloutState::RolledBack => false,
                // The new version has failed: it is not started anywhere else.
                RolloutState::Paused => true,
                RolloutState::Updating | RolloutState::Complete => {
                    has_room(view, slot, placement.node, before.spec)
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

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use vc_crdt::{ClusterState, KnownVersions, NodeState, ServiceRecord, UpdateResult};
    use vc_protocol::instance::Claim;
    use vc_protocol::node::NodeInfo;
    use vc_protocol::spec::{Attribute, Constraint};
    use vc_protocol::{InstanceId, Keypair};

    use super::*;

    fn id(byte: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    fn spec(image: &str, cpu_millis: u64) -> ServiceSpec {
        let mut spec = ServiceSpec::default();
        spec.container.image = image.to_owned();
        spec.container.reservation = Resources { cpu_millis, memory_bytes: 0 };
        spec.update.parallelism = 1;
        spec
    }

    fn record(spec: ServiceSpec, previous: Option<ServiceSpec>) -> Stored<ServiceRecord> {
        let previous = previous.map(Stored::from);
        let deployed_by = "ada".to_owned();
        let record = ServiceRecord {
            spec: spec.into(),
            previous,
            revision: 1,
            updated: 1,
            deployed_by,
            trace: None,
        };
        record.into()
    }

    fn claim(slot: &str, spec: &ServiceSpec, state: InstanceState) -> (InstanceId, Claim) {
        let slot = slot.parse().expect("a slot");
        let claim = Claim {
            state,
            reason: String::new(),
            address: String::new(),
            restarts: 0,
            lamport: 1,
            started: 0,
            since: 1,
            available: false,
            prepared: false,
            restarted_unhealthy: false,
            epoch: None,
            terminal: false,
        };
        (InstanceId { slot, digest: spec.container.digest() }, claim)
    }

    /// Returns the image that a slot is to run which was given another node, while another slot of its service is updated from the
    /// first version to the second, or rolled back to the first. The node has 2000 thousandths of a core.
    fn image_of_moved(versions: [ServiceSpec; 2], failed: bool, beside: ServiceSpec) -> String {
        let web: ServiceKey = "shop/web".parse().expect("a key");
        let [before, goal] = if failed { [1, 0] } else { [0, 1] }.map(|it| versions[it].clone());
        let [previous, deployed] = versions;
        let mut cluster = ClusterState::default();
        cluster.services.insert(web.clone(), record(deployed.clone(), Some(previous)));
        cluster.services.insert("shop/db".parse().expect("a key"), record(beside.clone(), None));
        cluster.scale.insert(web.clone(), 2);
        cluster.drained.insert(id(3), true);
        let node = |name: &str, claim| {
            let mut info = NodeInfo::for_tests(name);
            info.capacity = Resources { cpu_millis: 2000, memory_bytes: 1 << 30 };
            let claims = BTreeMap::from([claim]);
            NodeState { incarnation: 1, info: Some(info), claims, ..NodeState::default() }
        };
        let mut nodes = BTreeMap::from([
            (id(1), node("n1", claim("shop/web.1", &goal, InstanceState::Starting))),
            (id(2), node("n2", claim("shop/db.1", &beside, InstanceState::Running))),
            (id(3), node("n3", claim("shop/web.2", &before, InstanceState::Running))),
        ]);
        if failed {
            let failed = Some("exited".to_owned());
            let result = UpdateResult { revision: 1, digest: deployed.container.digest(), failed };
            let of_n1 = nodes.get_mut(&id(1)).expect("n1");
            of_n1.update_results.insert(web.clone(), result);
        }
        let view = View::from_states(cluster, nodes, &KnownVersions::default());
        let moved: Slot = "shop/web.2".parse().expect("a slot");
        assert_eq!(view.plan.placements[&moved].node, id(2));
        let rollout = Rollout::of(&view, &web).expect("the service");
        rollout.version(2).spec.container.image.clone()
    }

    #[test]
    fn a_moved_slot_runs_the_old_version_until_its_turn_only_where_there_is_room() {
        let update = |before, beside| image_of_moved([before, spec("web:2", 100)], false, beside);
        assert_eq!(update(spec("web:1", 1500), spec("db", 500)), "web:1");
        assert_eq!(update(spec("web:1", 1500), spec("db", 600)), "web:2");
        let mut constrained = spec("web:1", 100);
        let attribute = Attribute::Label("disk".to_owned());
        let value = "ssd".to_owned();
        constrained.constraints.push(Constraint { attribute, equal: true, value });
        assert_eq!(update(constrained, spec("db", 600)), "web:2");
    }

    #[test]
    fn a_moved_slot_does_not_start_the_version_that_failed() {
        let versions = [spec("web:1", 100), spec("web:2", 100)];
        assert_eq!(image_of_moved(versions, true, spec("db", 500)), "web:1");
    }
}
