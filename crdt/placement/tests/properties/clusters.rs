//! Strategies for clusters: small ones with little room, few sizes and few ports, where much does not fit.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use vc_placement::{ClaimView, Node, PlanInput, Rules, ServiceDemand, node_slot, plan};
use vc_protocol::node::RuntimeKind;
use vc_protocol::spec::{
    ALL, Attribute, Constraint, DisconnectPolicy, Port, PortProtocol, Publish, ServiceMode,
};
use vc_protocol::{NodeId, ServiceKey, Slot, VolumeKey};

use crate::disconnect::a_policy;
use crate::rules::{is_global, volumes_of};
use crate::support::{claim, converge, node, node_id, service, volume};

/// A claim by index: node, service, replica; then running and current.
type RawClaim = (u16, u8, u32, bool, bool);

pub(crate) fn a_node() -> impl Strategy<Value = Node> {
    (0_u64..9, 0_u64..9, 0..3_u8, 0..12_u8).prop_map(|(cpu, mem, zone, fate)| {
        let mut it = node("m", cpu * 500, mem * 256);
        if zone > 0 {
            it.labels.insert("zone".to_owned(), zone.to_string());
        }
        if zone == 2 {
            it.generic_resources.insert("gpu".to_owned(), 1 + cpu % 2);
        }
        it.up = fate != 0;
        it.silent_ms = if it.up { 0 } else { cpu % 4 };
        it.draining = fate == 1;
        it.runtime_error = (fate == 2).then(|| "connection refused".to_owned());
        if fate == 3 {
            it.runtime = RuntimeKind::Process;
        }
        it
    })
}

fn a_service() -> impl Strategy<Value = ServiceDemand> {
    let port = (0..3_usize, 80..82_u16, 0..4_u8).prop_map(|(ip, published, publish)| {
        let host_ip = [None, Some([127, 0, 0, 1].into()), Some([10, 0, 0, 1].into())][ip];
        let publish = if publish == 0 { Publish::Cluster } else { Publish::Node };
        Port {
            host_ip,
            published,
            target: 80,
            protocol: PortProtocol::Tcp,
            publish,
            proxy_protocol: None,
        }
    });
    let ports = prop_oneof![3 => Just(Vec::new()), 1 => vec(port, 1..3)];
    let volumes = prop_oneof![3 => Just(Vec::new()), 2 => vec(0..4_usize, 1..3)];
    let policy = prop_oneof![2 => Just(DisconnectPolicy::default()), 1 => a_policy()];
    let mode = (prop::bool::weighted(0.2), prop::bool::weighted(0.2), 0..4_u32);
    let most_per_node = prop_oneof![3 => Just(0), 1 => 1..3_u32];
    let gpus = prop_oneof![4 => Just(None), 1 => (1..3_u64).prop_map(Some), 1 => Just(Some(ALL))];
    let modes = (mode, most_per_node, gpus);
    (0..6_u32, 0_u64..4, 0_u64..4, ports, volumes, 0..6_u8, 0..3_u64, policy, modes).prop_map(
        |(
            replicas,
            cpu,
            mem,
            ports,
            volumes,
            zone,
            updated,
            policy,
            (mode, most_per_node, gpus),
        )| {
            let (is_global, is_job, most) = mode;
            let mut it = service(replicas, cpu * 500, mem * 256);
            it.spec.ports = ports;
            it.spec.container.command = Some(vec!["run".to_owned()]);
            it.spec.container.mounts =
                volumes.into_iter().map(|number| volume(VOLUMES[number])).collect();
            if zone > 3 {
                let attribute = Attribute::Label("zone".to_owned());
                it.spec.constraints =
                    vec![Constraint { attribute, equal: zone == 5, value: "1".to_owned() }];
            }
            it.revision = updated;
            it.spec.disconnect = policy;
            it.spec.max_replicas_per_node = most_per_node;
            it.needs = gpus.map(|count| ("gpu".to_owned(), count)).into_iter().collect();
            if is_job {
                it.spec.mode = ServiceMode::ReplicatedJob;
                it.spec.max_concurrent = most;
                it.ended = (1..=replicas).filter(|number| number % 3 == most % 3).collect();
            }
            if is_global {
                it.ended.clear();
                it.spec.max_concurrent = 0;
                it.spec.mode = ServiceMode::Global;
                it.spec.container.mounts.clear();
            }
            it
        },
    )
}

const VOLUMES: [&str; 4] = ["a", "b", "c", "d"];

pub(crate) fn volume_key(name: &str) -> VolumeKey {
    format!("p/{name}").parse().expect("a volume")
}

pub(crate) fn key(number: u8) -> ServiceKey {
    format!("p/s{number}").parse().expect("a service")
}

prop_compose! {
    /// Nodes and services without claims. Some volumes have data already.
    pub(crate) fn empty_cluster()(
        nodes in vec(a_node(), 1..7),
        services in vec(a_service(), 0..7),
        held in vec((0..VOLUMES.len(), 0..7_u16), 0..3),
    ) -> PlanInput {
        let nodes: BTreeMap<_, _> = (0..).map(node_id).zip(nodes).collect();
        // Sometimes on a node of which nothing else is known.
        let volumes = held.into_iter().map(|(number, at)| (volume_key(VOLUMES[number]), node_id(at)));
        let services = (0..).map(key).zip(services).collect();
        PlanInput { volumes: volumes.collect(), nodes, services, ..PlanInput::default() }
    }
}

prop_compose! {
    /// A cluster with arbitrary claims (duplicates, too many for a node, of removed services) and move orders, some of
    /// them invalid.
    pub(crate) fn messy_cluster()(
        mut input in empty_cluster(),
        claims in vec((0..7_u16, 0..8_u8, 1..7_u32, any::<bool>(), any::<bool>()), 0..30),
        orders in vec((0..7_u16, 0..7_u16, any::<u16>()), 0..6),
    ) -> PlanInput {
        claims.into_iter().for_each(|raw| add_claim(&mut input, raw));
        for (from, to, which) in orders {
            let claims: Vec<Slot> =
                input.nodes.get(&node_id(from)).into_iter().flat_map(|it| it.claims.keys()).cloned().collect();
            if let Some(slot) = claims.get(usize::from(which) % claims.len().max(1)) {
                input.moves.insert(slot.clone(), (node_id(from), node_id(to)));
            }
        }
        input
    }
}

prop_compose! {
    /// A cluster where every node claims what the plan gives it and holds the volumes that its slots mount.
    pub(crate) fn converged_cluster()(mut input in messy_cluster()) -> PlanInput {
        for node in input.nodes.values_mut() {
            node.claims.clear();
        }
        input.moves.clear();
        let decided = plan(&input, Rules::newest());
        converge(&mut input, &decided);
        for (slot, placement) in &decided.placements {
            hold(&mut input, slot, placement.node);
        }
        input
    }
}

/// Puts the data of the volumes that the slot mounts on the node.
pub(crate) fn hold(input: &mut PlanInput, slot: &Slot, node: NodeId) {
    for volume in volumes_of(&input.services[&slot.service]) {
        input.volumes.insert(volume, node);
    }
}

pub(crate) fn add_claim(
    input: &mut PlanInput,
    (node, service, replica, running, current): RawClaim,
) {
    let is_global = input.services.get(&key(service)).is_some_and(is_global);
    let number = node_slot(input, node_id(node)).filter(|_| is_global && replica % 3 > 0);
    let slot = Slot { service: key(service), replica: number.unwrap_or(replica) };
    if input.nodes.contains_key(&node_id(node)) {
        claim(input, node_id(node), &slot);
        let claims = &mut input.nodes.get_mut(&node_id(node)).expect("a member").claims;
        let digest = if current { claims[&slot].digest.clone() } else { "old".to_owned() };
        claims
            .insert(slot, ClaimView { digest, running, lamport: u64::from(node) % 3, started: 0 });
    }
}
