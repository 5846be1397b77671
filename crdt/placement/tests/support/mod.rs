//! Builders of clusters to plan for.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::expect_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock};

use vc_placement::{ClaimView, Node, Plan, PlanInput, ServiceDemand};
use vc_protocol::node::{Faults, Holds, RuntimeKind};
use vc_protocol::spec::{ContainerSpec, Mount, Port, PortProtocol, Publish, ServiceSpec};
use vc_protocol::{Keypair, NodeId, Resources, Slot};

pub(crate) const MIB: u64 = 1 << 20;

/// Returns the id of the n-th node. Keys are cached: making one is slow without optimisation.
pub(crate) fn node_id(number: u16) -> NodeId {
    static IDS: OnceLock<Mutex<BTreeMap<u16, NodeId>>> = OnceLock::new();
    let mut ids = IDS.get_or_init(Mutex::default).lock().expect("no panic while held");
    *ids.entry(number).or_insert_with(|| {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        NodeId::of(&Keypair::ed25519_from_bytes(seed).expect("32 bytes").public()).expect("ed25519")
    })
}

/// Returns an empty node that is up.
pub(crate) fn node(name: &str, cpu_millis: u64, mib: u64) -> Node {
    Node {
        name: name.parse().expect("a name"),
        os: "linux".to_owned(),
        arch: "amd64".to_owned(),
        runtime: RuntimeKind::Docker,
        labels: BTreeMap::new(),
        capacity: Resources { cpu_millis, memory_bytes: mib * MIB },
        generic_resources: BTreeMap::new(),
        volume_room: None,
        up: true,
        silent_ms: 0,
        witness: false,
        draining: false,
        runtime_error: None,
        holds: Holds::default(),
        faults: Faults::default(),
        claims: BTreeMap::new(),
    }
}

/// Returns a service with this reservation per replica.
pub(crate) fn service(replicas: u32, cpu_millis: u64, mib: u64) -> ServiceDemand {
    let reservation = Resources { cpu_millis, memory_bytes: mib * MIB };
    let container =
        ContainerSpec { image: "app:1".to_owned(), reservation, ..ContainerSpec::default() };
    let spec = ServiceSpec { container, ..ServiceSpec::default() };
    ServiceDemand {
        spec: spec.into(),
        replicas,
        needs: BTreeMap::new(),
        ended: BTreeSet::new(),
        due: BTreeMap::new(),
        revision: 0,
    }
}

/// Returns a TCP port on all addresses of the nodes that run an instance.
pub(crate) fn port(published: u16) -> Port {
    let protocol = PortProtocol::Tcp;
    Port {
        host_ip: None,
        published,
        target: 80,
        protocol,
        publish: Publish::Node,
        proxy_protocol: None,
    }
}

/// Returns a mount of a named volume.
pub(crate) fn volume(name: &str) -> Mount {
    let name = name.parse().expect("a name");
    Mount::volume(name, "/data", false)
}

/// Adds a running claim of the current spec.
pub(crate) fn claim(input: &mut PlanInput, node: NodeId, slot: &Slot) {
    let digest = input.services.get(&slot.service).map(|service| service.spec.container_digest());
    let view =
        ClaimView { digest: digest.unwrap_or_default(), running: true, lamport: 0, started: 0 };
    input.nodes.get_mut(&node).expect("a member").claims.insert(slot.clone(), view);
}

/// Makes every node that is up claim exactly what the plan gives it; the others keep their claims.
pub(crate) fn converge(input: &mut PlanInput, plan: &Plan) {
    for node in input.nodes.values_mut().filter(|node| node.up) {
        node.claims.clear();
    }
    for (slot, placement) in &plan.placements {
        claim(input, placement.node, slot);
    }
}
