//! Instances that have the network of another one.

use vc_protocol::Keypair;
use vc_protocol::spec::{ContainerSpec, NetworkMode};

use super::*;

/// One node with a VPN and a client that has its network.
struct Node {
    workload: Workload,
    desired: BTreeMap<Slot, Desired>,
}

fn id(service: &str) -> InstanceId {
    let slot = format!("shop/{service}.1").parse().expect("a slot");
    InstanceId { slot, digest: "d".to_owned() }
}

impl Node {
    fn new() -> Self {
        let vpn = NetworkMode::Service("vpn".parse().expect("a name"));
        let client = ContainerSpec { network_mode: Some(vpn), ..ContainerSpec::default() };
        let wanted = |spec: ContainerSpec| Desired { starts_first: false, ..tests::wanted(spec) };
        let desired = [
            (id("vpn").slot, wanted(ContainerSpec::default())),
            (id("client").slot, wanted(client)),
        ];
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let node = NodeId::of(&key.public()).expect("ed25519");
        Self { workload: Workload::new(node, BTreeMap::new()), desired: desired.into() }
    }

    fn reconcile(&mut self) -> (Vec<String>, BTreeMap<InstanceId, Claim>) {
        let (actions, claims) = tests::reconcile(&mut self.workload, &self.desired, 0);
        let actions = actions.into_iter().map(|action| match action {
            RuntimeAction::Start { id, .. } => format!("start {}", id.slot),
            RuntimeAction::Prepare { id, .. } => format!("prepare {}", id.slot),
            RuntimeAction::Remove { id, .. } => format!("remove {}", id.slot),
        });
        (actions.collect(), claims)
    }

    /// The runtime sees this. Returns what the node does.
    fn sees(&mut self, service: &str, phase: Phase) -> Vec<String> {
        let seen = Observed { id: id(service), phase, address: String::new() };
        self.workload.changed(seen, 0);
        self.reconcile().0
    }

    fn runs(&mut self, service: &str, started: Millis) -> Vec<String> {
        self.sees(service, Phase::Running { health: None, started, said: String::new() })
    }

    fn claim(&mut self, service: &str) -> (InstanceState, String) {
        let claims = self.reconcile().1;
        (claims[&id(service)].state, claims[&id(service)].reason.clone())
    }
}

#[test]
fn it_starts_when_the_other_runs() {
    let mut node = Node::new();
    assert_eq!(node.reconcile().0, ["start shop/vpn.1"]);
    let waits = "waits for vpn.1 to run, whose network it has".to_owned();
    assert_eq!(node.claim("client"), (InstanceState::Pending, waits));
    assert_eq!(node.runs("vpn", 10_000), ["start shop/client.1"]);
    assert_eq!(node.runs("client", 11_000), [""; 0]);
    // As a list says it, where Docker was busy.
    assert_eq!(node.runs("vpn", 9000), [""; 0]);
}

#[test]
fn it_is_stopped_when_the_other_ends_and_starts_with_its_next_run() {
    let mut node = Node::new();
    node.reconcile();
    node.runs("vpn", 10_000);
    node.runs("client", 11_000);
    let ended = Phase::Exited { code: 1, output: String::new(), out_of_memory: false };
    assert_eq!(node.sees("vpn", ended), ["remove shop/client.1"]);
    assert_eq!(node.claim("client").0, InstanceState::Stopping);
    assert_eq!(node.sees("client", Phase::Gone), [""; 0], "it waits");
    assert_eq!(node.runs("vpn", 20_000), ["start shop/client.1"]);
    node.runs("client", 21_000);
    // Another run that was not seen to end.
    assert_eq!(node.runs("vpn", 30_000), ["remove shop/client.1"]);
    assert_eq!(node.sees("client", Phase::Gone), ["start shop/client.1"]);
    assert_eq!(node.claim("client").0, InstanceState::Starting);
    assert_eq!(node.reconcile().1[&id("client")].restarts, 0, "none of these is its fault");
}

#[test]
fn while_the_other_does_not_run_it_waits_for_no_time() {
    let mut node = Node::new();
    node.reconcile();
    node.runs("vpn", 10_000);
    node.runs("client", 11_000);
    let ended = || Phase::Exited { code: 1, output: String::new(), out_of_memory: false };
    node.sees("client", ended());
    assert!(node.workload.poll_timeout().is_some(), "it is started again");
    node.desired.remove(&id("vpn").slot);
    node.sees("vpn", ended());
    node.sees("vpn", Phase::Gone);
    assert_eq!(node.workload.poll_timeout(), None);
}

#[test]
fn after_a_restart_of_the_node_it_goes_on_if_it_was_started_after_the_other() {
    for (started, actions) in [(11_000, vec![]), (8000, vec!["remove shop/client.1"])] {
        let mut node = Node::new();
        let running = |service, started| {
            let phase = Phase::Running { health: None, started, said: String::new() };
            Observed { id: id(service), phase, address: String::new() }
        };
        node.workload.listed(vec![running("client", started), running("vpn", 10_000)], 0);
        assert_eq!(node.reconcile().0, actions, "{started}");
    }
}
