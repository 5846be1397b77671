//! Which instances a node would no longer run, or start anew, after a change of its facts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use vc_crdt::{ClusterState, KnownVersions, NodeState, View};
use vc_engine::WITNESS;
use vc_protocol::node::NodeInfo;
use vc_protocol::{NodeId, Slot};

/// An instance that a change ends on this node. Displayed as `shop/web.2 moves to beta`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Eviction {
    pub(crate) slot: Slot,
    next: Next,
}

/// What becomes of the slot.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// The node of this name runs it.
    Moves(String),
    /// No node can run it, for these reasons.
    Unplaced(String),
    /// This node starts it anew in the other runtime.
    OtherRuntime,
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot = &self.slot;
        match &self.next {
            Next::Moves(node) => write!(f, "{slot} moves to {node}"),
            Next::Unplaced(reasons) => write!(f, "{slot} stops, as no node can run it ({reasons})"),
            Next::OtherRuntime => write!(f, "{slot} starts anew in the other runtime"),
        }
    }
}

/// Returns the instances that `node` runs by its document and that the change of its facts ends, as the plan of these
/// documents says: the documents of other nodes may be older than what they run now.
pub(crate) fn evictions(
    cluster: &ClusterState,
    nodes: &BTreeMap<NodeId, NodeState>,
    node: NodeId,
    (before, after): (NodeInfo, NodeInfo),
) -> Vec<Eviction> {
    let other_runtime = before.runtime != after.runtime;
    let view = |info: NodeInfo| {
        let mut nodes = nodes.clone();
        let own = nodes.entry(node).or_default();
        // As at its start: up, whatever other nodes said when it was not.
        let runtime_error = info.witness.then(|| WITNESS.to_owned());
        (own.info, own.incarnation, own.runtime_error) = (Some(info), u64::MAX, runtime_error);
        View::from_states(cluster.clone(), nodes, &KnownVersions::default())
    };
    let (before, after) = (view(before), view(after));
    let claims = nodes.get(&node).into_iter().flat_map(|state| state.claims.keys());
    let claimed: BTreeSet<&Slot> = claims.map(|id| &id.slot).collect();
    let runs = |slot: &&Slot| before.plan.placements.get(*slot).is_some_and(|it| it.node == node);
    let next = |slot: &Slot| match after.plan.placements.get(slot) {
        Some(placement) if placement.node != node => Some(Next::Moves(after.name(placement.node))),
        Some(_) => other_runtime.then_some(Next::OtherRuntime),
        None => {
            let refusals = after.plan.unplaced.get(slot).into_iter().flatten();
            let reasons = refusals.map(|it| format!("{}: {}", after.name(it.node), it.reason));
            Some(Next::Unplaced(reasons.collect::<Vec<_>>().join("; ")))
        }
    };
    let evicted = claimed.into_iter().filter(runs);
    evicted.filter_map(|slot| Some(Eviction { slot: slot.clone(), next: next(slot)? })).collect()
}

#[cfg(test)]
mod tests {
    use vc_crdt::ServiceRecord;
    use vc_protocol::instance::{Claim, InstanceState};
    use vc_protocol::node::RuntimeKind;
    use vc_protocol::spec::{Attribute, Constraint, ContainerSpec, ServiceSpec};
    use vc_protocol::{InstanceId, Keypair, Resources, ServiceKey, Stored};

    use super::*;

    fn id(n: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    fn info(name: &str, labels: &[(&str, &str)]) -> NodeInfo {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        NodeInfo { labels, ..NodeInfo::for_tests(name) }
    }

    /// A cluster of the nodes desk, which has an SSD, and attic. Desk runs `shop/db`, which needs an SSD and names
    /// its command, and `shop/web`, which reserves two cores.
    fn cluster() -> (ClusterState, BTreeMap<NodeId, NodeState>) {
        let mut cluster = ClusterState::default();
        let mut desk = NodeState { incarnation: 1, ..NodeState::default() };
        let mut run = |service: &str, spec: ServiceSpec| {
            let spec = Stored::from(spec);
            let key: ServiceKey = service.parse().expect("a service");
            let slot = Slot { service: key.clone(), replica: 1 };
            let claim = Claim {
                lamport: 1,
                started: 0,
                state: InstanceState::Running,
                reason: String::new(),
                address: String::new(),
                restarts: 0,
                since: 1,
                available: true,
                prepared: false,
                restarted_unhealthy: false,
                epoch: None,
                terminal: false,
            };
            desk.claims.insert(InstanceId { slot, digest: spec.container_digest() }, claim);
            let record = ServiceRecord {
                spec,
                previous: None,
                revision: 1,
                updated: 1,
                deployed_by: String::new(),
                trace: None,
            };
            cluster.services.insert(key, record.into());
        };
        let ssd = Constraint {
            attribute: Attribute::Label("disk".to_owned()),
            equal: true,
            value: "ssd".to_owned(),
        };
        let command = Some(vec!["postgres".to_owned()]);
        let container = ContainerSpec { command, ..ContainerSpec::default() };
        run("shop/db", ServiceSpec { container, constraints: vec![ssd], ..ServiceSpec::default() });
        let reservation = Resources { cpu_millis: 2000, memory_bytes: 0 };
        let container = ContainerSpec { reservation, ..ContainerSpec::default() };
        run("shop/web", ServiceSpec { container, ..ServiceSpec::default() });
        desk.info = Some(info("desk", &[("disk", "ssd")]));
        // Attic said that desk is down, when it was.
        let attic = NodeState {
            incarnation: 1,
            info: Some(info("attic", &[])),
            unreachable: BTreeMap::from([(id(1), 1)]),
            ..NodeState::default()
        };
        (cluster, BTreeMap::from([(id(1), desk), (id(2), attic)]))
    }

    fn evicted(after: NodeInfo) -> Vec<String> {
        let (cluster, nodes) = cluster();
        let before = info("desk", &[("disk", "ssd")]);
        let all = evictions(&cluster, &nodes, id(1), (before, after));
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_change_evicts_the_instances_that_the_node_can_no_longer_run() {
        let same = info("desk", &[("disk", "ssd")]);
        assert_eq!(evicted(same.clone()), [""; 0]);
        assert_eq!(evicted(info("shelf", &[("disk", "ssd"), ("zone", "a")])), [""; 0]);
        let lines = evicted(info("desk", &[("disk", "hdd")]));
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert!(
            line.starts_with("shop/db.1 stops, as no node can run it (") && line.contains("desk: "),
            "{line}"
        );
        let small = Resources { cpu_millis: 1000, ..same.capacity };
        assert_eq!(
            evicted(NodeInfo { capacity: small, ..same.clone() }),
            ["shop/web.1 moves to attic"]
        );
    }

    #[test]
    fn another_runtime_evicts_every_instance() {
        let process =
            NodeInfo { runtime: RuntimeKind::Process, ..info("desk", &[("disk", "ssd")]) };
        let expected = ["shop/db.1 starts anew in the other runtime", "shop/web.1 moves to attic"];
        assert_eq!(evicted(process), expected);
    }
}
