//! Restarts of unhealthy instances.

use vc_protocol::Keypair;
use vc_protocol::spec::{ContainerSpec, Healthcheck, RestartCondition, ServiceSpec};

use super::*;
use crate::lease::Gates;

/// One node with some replicas of a service that has a healthcheck.
struct Node {
    workload: Workload,
    desired: BTreeMap<Slot, Desired>,
    now: Millis,
}

fn slot(replica: u32) -> Slot {
    format!("shop/web.{replica}").parse().expect("a slot")
}

fn id(replica: u32) -> InstanceId {
    InstanceId { slot: slot(replica), digest: "d".to_owned() }
}

/// Returns what is to run, with nothing that it waits for.
pub(super) fn wanted(spec: ContainerSpec) -> Desired {
    Desired {
        spec,
        digest: "d".to_owned(),
        trace: None,
        waits_for: String::new(),
        stops_elsewhere: String::new(),
        lease: String::new(),
        is_run: false,
        once: false,
        may_begin: false,
        timeout_ms: 0,
        stop: None,
        reports_start: false,
        starts_first: true,
        update: ServiceSpec::default().update,
    }
}

/// Reconciles at a time, with nothing that holds it.
pub(super) fn reconcile(
    workload: &mut Workload,
    desired: &BTreeMap<Slot, Desired>,
    now: Millis,
) -> (Vec<RuntimeAction>, BTreeMap<InstanceId, Claim>) {
    let clock = Clock { monotonic: now, wall: now };
    let pass = Pass {
        hold: &|_| None,
        fault: None,
        kept: &BTreeSet::new(),
        former: &BTreeSet::new(),
        gates: &Gates::default(),
        lamport: 1,
        clock,
    };
    workload.reconcile(desired, &BTreeSet::new(), &pass)
}

impl Node {
    fn new(replicas: u32, restart: RestartCondition) -> Self {
        let check = Healthcheck {
            test: vec!["CMD".to_owned(), "true".to_owned()],
            interval_ms: None,
            timeout_ms: None,
            retries: None,
            start_period_ms: None,
            start_interval_ms: None,
        };
        let mut spec = ContainerSpec { healthcheck: Some(check), ..ContainerSpec::default() };
        spec.restart.condition = restart;
        let wanted = wanted(spec);
        let desired = (1..=replicas).map(|replica| (slot(replica), wanted.clone())).collect();
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let node = NodeId::of(&key.public()).expect("ed25519");
        let mut node = Self { workload: Workload::new(node, BTreeMap::new()), desired, now: 0 };
        node.reconcile();
        node
    }

    fn reconcile(&mut self) -> Vec<RuntimeAction> {
        reconcile(&mut self.workload, &self.desired, self.now).0
    }

    fn claim(&mut self, replica: u32) -> (InstanceState, String) {
        let claims = reconcile(&mut self.workload, &self.desired, self.now).1;
        (claims[&id(replica)].state, claims[&id(replica)].reason.clone())
    }

    /// The runtime sees this, and the node acts on it.
    fn sees(&mut self, replica: u32, phase: Phase) -> Vec<RuntimeAction> {
        let seen = Observed { id: id(replica), phase, address: String::new() };
        self.workload.changed(seen, self.now);
        self.reconcile()
    }

    fn health(&mut self, replica: u32, health: Option<bool>) -> Vec<RuntimeAction> {
        let said = if health == Some(false) { "no database" } else { "" };
        let phase = Phase::Running { health, started: 0, said: said.to_owned() };
        self.sees(replica, phase)
    }

    /// Lets time pass until the next action. Returns the time and the instances that are removed.
    fn next_removal(&mut self) -> Option<(Millis, Vec<u32>)> {
        while let Some(at) = self.workload.poll_timeout().filter(|at| *at < 1_000_000) {
            self.now = at.max(self.now);
            let removed: Vec<u32> = self
                .reconcile()
                .into_iter()
                .filter_map(|action| match action {
                    RuntimeAction::Remove { id, .. } => Some(id.slot.replica),
                    RuntimeAction::Prepare { .. } | RuntimeAction::Start { .. } => None,
                })
                .collect();
            if !removed.is_empty() {
                return Some((self.now, removed));
            }
        }
        None
    }
}

#[test]
fn an_unhealthy_instance_is_started_anew_and_says_why() {
    let mut node = Node::new(1, RestartCondition::Any);
    node.health(1, None);
    assert_eq!(node.health(1, Some(false)), []);
    let reason = "its healthcheck fails: no database";
    let (state, shown) = node.claim(1);
    assert_eq!(state, InstanceState::Unhealthy);
    assert_eq!(shown, format!("{reason}; restarts in 1 s"));
    assert_eq!(node.workload.failures().map(|(_, why, _)| why).collect::<Vec<_>>(), [reason]);
    assert_eq!(node.next_removal(), Some((1000, vec![1])));
    // How it ends does not count: it was stopped.
    assert_eq!(
        node.sees(1, Phase::Exited { code: 137, output: String::new(), out_of_memory: false }),
        []
    );
    let actions = node.sees(1, Phase::Gone);
    assert!(matches!(actions.as_slice(), [RuntimeAction::Start { .. }]), "{actions:?}");
    let restarted = format!("restarted, as it was unhealthy: {reason}");
    assert_eq!(node.claim(1), (InstanceState::Starting, restarted.clone()));
    node.health(1, None);
    assert_eq!(node.claim(1), (InstanceState::Running, restarted));
    node.health(1, Some(true));
    assert_eq!(node.claim(1), (InstanceState::Healthy, String::new()));
}

#[test]
fn an_end_that_this_node_did_not_see_is_no_failure_of_the_version_and_the_next_one_is() {
    let exited = || Phase::Exited { code: 255, output: String::new(), out_of_memory: false };
    for (restart, failures) in [(RestartCondition::Any, 0), (RestartCondition::None, 1)] {
        let mut node = Node::new(1, restart);
        // As after a power cut: the container is there, and nothing was asked of the runtime.
        let own = node.workload.node;
        node.workload = Workload::new(own, BTreeMap::new());
        node.sees(1, exited());
        assert_eq!(node.workload.failures().count(), failures, "{restart:?}");
        if restart == RestartCondition::Any {
            node.now += 1000;
            let actions = node.reconcile();
            assert!(matches!(actions.as_slice(), [RuntimeAction::Start { .. }]), "{actions:?}");
            node.health(1, None);
            assert_eq!(node.workload.failures().count(), 0);
            node.sees(1, exited());
            assert_eq!(node.workload.failures().count(), 1);
        }
    }
}

#[test]
fn the_pause_grows_until_it_was_available_for_a_while() {
    let mut node = Node::new(1, RestartCondition::OnFailure);
    let mut pauses = Vec::new();
    for available_for in [0, 10_000, 10_000, STABLE_FOR] {
        node.health(1, Some(true));
        node.now += available_for;
        let from = node.now;
        node.health(1, Some(false));
        let (at, _) = node.next_removal().expect("it is restarted");
        pauses.push(at - from);
        node.sees(1, Phase::Gone);
    }
    assert_eq!(pauses, [1000, 2000, 4000, 1000]);
}

/// Longer than it takes to be stable.
const STABLE_FOR: Millis = 31_000;

#[test]
fn an_instance_that_recovers_before_its_restart_goes_on() {
    let mut node = Node::new(1, RestartCondition::Any);
    node.health(1, Some(false));
    node.now += 500;
    node.health(1, Some(true));
    assert_eq!(node.next_removal(), None);
}

#[test]
fn checks_that_go_on_failing_do_not_put_off_the_restart() {
    let mut node = Node::new(1, RestartCondition::Any);
    node.health(1, Some(false));
    node.now += 900;
    let said = "still no database".to_owned();
    node.sees(1, Phase::Running { health: Some(false), started: 0, said });
    assert_eq!(node.next_removal(), Some((1000, vec![1])));
}

#[test]
fn replicas_that_are_unhealthy_together_are_restarted_one_after_another() {
    let mut node = Node::new(3, RestartCondition::Any);
    for replica in 1..=3 {
        node.health(replica, Some(false));
    }
    let removals: Vec<_> = (0..3).map_while(|_| node.next_removal()).collect();
    assert_eq!(removals, [(1000, vec![1]), (3000, vec![2]), (5000, vec![3])]);
}

#[test]
fn an_unhealthy_instance_stays_where_its_policy_does_not_restart_it() {
    let mut node = Node::new(1, RestartCondition::None);
    node.health(1, Some(false));
    assert_eq!(node.next_removal(), None);
    let (state, reason) = node.claim(1);
    assert_eq!(state, InstanceState::Unhealthy);
    assert!(reason.ends_with("; not restarted, by its restart policy"), "{reason}");
}

#[test]
fn what_ends_without_its_lease_waits_for_the_next_one() {
    for (restart, expected) in [
        (RestartCondition::Any, (InstanceState::Pending, "waits for the lease")),
        (
            RestartCondition::None,
            (InstanceState::Failed, "exited with code 137; not restarted, by its restart policy"),
        ),
    ] {
        let mut node = Node::new(1, restart);
        node.health(1, Some(true));
        node.desired.get_mut(&slot(1)).expect("a slot").lease = "waits for the lease".to_owned();
        node.sees(1, Phase::Exited { code: 137, output: String::new(), out_of_memory: false });
        let (state, reason) = node.claim(1);
        assert_eq!((state, reason.as_str()), expected, "{restart:?}");
    }
}

#[test]
fn an_instance_goes_on_until_its_successor_is_ready_and_none_of_a_service_that_became_a_job() {
    for (is_run, expected) in [(false, 0), (true, 1)] {
        let mut node = Node::new(1, RestartCondition::Any);
        node.health(1, Some(true));
        let wanted = node.desired.get_mut(&slot(1)).expect("a slot");
        wanted.digest = "e".to_owned();
        wanted.waits_for = "waits for web to run".to_owned();
        wanted.is_run = is_run;
        let removes = |it: &&RuntimeAction| matches!(it, RuntimeAction::Remove { .. });
        assert_eq!(node.reconcile().iter().filter(removes).count(), expected, "is_run: {is_run}");
    }
}
