//! What happened, as the difference between two views: nobody has to say that he did something, and what one machine sees
//! of another's doings is what the documents came to mean.

use vc_crdt::View;
use vc_protocol::control::{EventLevel, EventRow, RolloutState};
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::{InstanceId, Millis, NodeId};

use crate::report::unplaced_reason;
use crate::rollout::Rollout;

/// The longest reason that is told, in characters.
const MAX_REASON: usize = 200;

/// What happened between two views, told `now`: machines first, then services, then instances. Each fact once.
pub fn between(before: &View, after: &View, now: Millis) -> Vec<EventRow> {
    let mut told = Told { now, rows: Vec::new() };
    machines(before, after, &mut told);
    services(before, after, &mut told);
    slots(before, after, &mut told);
    instances(before, after, &mut told);
    told.rows
}

struct Told {
    now: Millis,
    rows: Vec<EventRow>,
}

impl Told {
    fn say(&mut self, level: EventLevel, subject: &impl ToString, text: impl Into<String>) {
        let (time, subject, text) = (self.now, subject.to_string(), text.into());
        self.rows.push(EventRow { time, level, subject, text });
    }

    fn info(&mut self, subject: &impl ToString, text: impl Into<String>) {
        self.say(EventLevel::Info, subject, text);
    }

    fn warning(&mut self, subject: &impl ToString, text: impl Into<String>) {
        self.say(EventLevel::Warning, subject, text);
    }

    fn error(&mut self, subject: &impl ToString, text: impl Into<String>) {
        self.say(EventLevel::Error, subject, text);
    }
}

/// The first line of a reason, cut where it is long: the instance's row has all of it.
fn brief(reason: &str) -> String {
    let line = reason.trim().lines().next().unwrap_or_default();
    let mut text: String = line.chars().take(MAX_REASON).collect();
    if text.len() < line.len() {
        text.push('…');
    }
    text
}

fn machines(before: &View, after: &View, told: &mut Told) {
    for (node, state) in &after.nodes {
        let name = after.name(*node);
        // Before it has said who it is, there is nothing to tell of it.
        if state.info.is_none() {
            continue;
        }
        let held = before.nodes.get(node).filter(|held| held.info.is_some());
        match (before.up.contains(node), after.up.contains(node)) {
            (_, true) if held.is_none() => told.info(&name, "joined the cluster"),
            (false, true) => told.info(&name, "is up again"),
            (true, false) if held.is_some() => {
                told.error(&name, "is down: the other machines cannot hear it");
            }
            _ => {}
        }
        let drained = |view: &View| view.cluster.drained.get(node).copied().unwrap_or(false);
        match (drained(before), drained(after)) {
            (false, true) => told.info(&name, "is being drained"),
            (true, false) => told.info(&name, "takes instances again"),
            _ => {}
        }
        match (held.and_then(|held| held.runtime_error.as_ref()), &state.runtime_error) {
            (None, Some(why)) => {
                told.error(&name, format!("cannot run instances: {}", brief(why)));
            }
            (Some(_), None) => told.info(&name, "can run instances again"),
            _ => {}
        }
    }
    for node in after.left.keys().filter(|node| !before.left.contains_key(node)) {
        told.info(&after.name(*node), "left the cluster");
    }
}

fn services(before: &View, after: &View, told: &mut Told) {
    for (key, record) in &after.cluster.services {
        let image = &record.spec.container.image;
        let wanted = after.cluster.replicas(key);
        let Some(held) = before.cluster.services.get(key) else {
            told.info(key, format!("deployed by {}: {wanted} of {image}", record.by));
            continue;
        };
        let had = before.cluster.replicas(key);
        if had != wanted {
            told.info(key, format!("scaled from {had} to {wanted}"));
        }
        let rollout = |view| Rollout::of(view, key).map(|it| it.report()).unwrap_or_default();
        let (was, is) = (rollout(before), rollout(after));
        if held.updated != record.updated {
            told.info(
                key,
                match is.state {
                    RolloutState::Updating => format!("{} updates it to {image}", record.by),
                    _ => format!("changed by {}", record.by),
                },
            );
        }
        if (was.state, held.updated) == (is.state, record.updated) {
            continue;
        }
        match is.state {
            RolloutState::Complete if was.state == RolloutState::Updating => {
                told.info(key, "the update is complete");
            }
            RolloutState::Paused => {
                told.error(key, format!("the update failed and is paused: {}", brief(&is.reason)));
            }
            RolloutState::RolledBack => {
                let reason = brief(&is.reason);
                told.error(key, format!("the update failed, the version before returns: {reason}"));
            }
            RolloutState::Complete | RolloutState::Updating => {}
        }
    }
    let gone =
        before.cluster.services.keys().filter(|key| !after.cluster.services.contains_key(key));
    for key in gone {
        told.info(key, "removed");
    }
}

/// Where instances shall be.
fn slots(before: &View, after: &View, told: &mut Told) {
    for (slot, refusals) in &after.plan.unplaced {
        if !before.plan.unplaced.contains_key(slot) {
            let reason = brief(&unplaced_reason(after, slot, refusals));
            told.warning(slot, format!("has no machine: {reason}"));
        }
    }
    for (slot, placement) in &after.plan.placements {
        let to = after.name(placement.node);
        match before.plan.placements.get(slot) {
            Some(held) if held.node != placement.node => {
                told.info(slot, format!("moves from {} to {to}", after.name(held.node)));
            }
            None if before.plan.unplaced.contains_key(slot) => {
                told.info(slot, format!("has a machine: {to}"));
            }
            _ => {}
        }
    }
}

/// The claims of a machine in a view; none while it is down, for nobody knows then.
fn claims(view: &View, node: NodeId) -> impl Iterator<Item = (&InstanceId, &Claim)> {
    let state = view.nodes.get(&node).filter(|_| view.up.contains(&node));
    state.into_iter().flat_map(|state| &state.claims)
}

fn claim<'a>(view: &'a View, node: NodeId, id: &InstanceId) -> Option<&'a Claim> {
    view.nodes.get(&node).filter(|_| view.up.contains(&node))?.claims.get(id)
}

/// What instances do.
fn instances(before: &View, after: &View, told: &mut Told) {
    for &node in &after.up {
        let machine = after.name(node);
        for (id, claim) in claims(after, node) {
            instance(self::claim(before, node, id), id, claim, &machine, told);
        }
        for (id, held) in claims(before, node) {
            let ran = held.state.is_running() || held.state == InstanceState::Stopping;
            if ran && claim(after, node, id).is_none() {
                let wanted = after.wanted_digest(&id.slot.service);
                let old = if wanted.is_some_and(|wanted| wanted != id.digest) {
                    "an earlier version "
                } else {
                    ""
                };
                told.info(&id.slot, format!("{old}stopped on {machine}"));
            }
        }
    }
}

fn instance(held: Option<&Claim>, id: &InstanceId, claim: &Claim, machine: &str, told: &mut Told) {
    use InstanceState::{
        Completed, Failed, Healthy, Pending, Pulling, Running, Starting, Stopping, Unhealthy,
    };
    let ran = held.is_some_and(|held| held.state.is_running());
    let again = held.is_some_and(|held| claim.restarts > held.restarts);
    let same = held.is_some_and(|held| held.state == claim.state);
    let slot = &id.slot;
    match claim.state {
        Running | Healthy if same && again => {
            told.warning(slot, format!("ended and was started again on {machine}"));
        }
        Failed if same && again => {
            told.error(slot, format!("failed again on {machine}: {}", brief(&claim.reason)));
        }
        _ if same => {}
        Running if !ran => told.info(slot, format!("runs on {machine}")),
        Healthy if !ran => told.info(slot, format!("runs on {machine} and is healthy")),
        Healthy => told.info(slot, "is healthy"),
        Unhealthy => told.warning(slot, format!("is unhealthy: {}", brief(&claim.reason))),
        Failed => told.error(slot, format!("failed on {machine}: {}", brief(&claim.reason))),
        Completed => told.info(slot, format!("is done on {machine}")),
        Running | Pending | Pulling | Starting | Stopping => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use vc_crdt::{ClusterState, NodeState, Outcome, ServiceRecord};
    use vc_protocol::node::{NodeInfo, RuntimeKind};
    use vc_protocol::spec::{FailureAction, ServiceSpec};
    use vc_protocol::{Keypair, Resources, ServiceKey};

    use super::*;

    /// Three machines, and what was told of them so far.
    struct World {
        cluster: ClusterState,
        nodes: BTreeMap<NodeId, NodeState>,
        last: View,
    }

    fn id(n: u8) -> NodeId {
        NodeId::of(&Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes").public())
            .expect("ed25519")
    }

    fn key(text: &str) -> ServiceKey {
        text.parse().expect("a service")
    }

    fn node(n: u8) -> NodeState {
        let info = NodeInfo {
            name: format!("n{n}").parse().expect("a name"),
            version: String::new(),
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
            runtime: RuntimeKind::Docker,
            capacity: Resources { cpu_millis: 4000, memory_bytes: 1 << 32 },
            labels: BTreeMap::new(),
            addresses: Vec::new(),
        };
        NodeState {
            incarnation: 1,
            info: Some(info),
            heard: (1..=3).map(id).collect::<BTreeSet<_>>(),
            ..NodeState::default()
        }
    }

    impl World {
        fn new() -> Self {
            let (cluster, nodes): (_, BTreeMap<_, _>) =
                (ClusterState::default(), (1..=3).map(|n| (id(n), node(n))).collect());
            let last = View::from_states(cluster.clone(), nodes.clone());
            Self { cluster, nodes, last }
        }

        fn node(&mut self, n: u8) -> &mut NodeState {
            self.nodes.get_mut(&id(n)).expect("a machine")
        }

        /// What is told of what has changed since this was asked before: the first letter of the level, then the line.
        fn told(&mut self) -> Vec<String> {
            let view = View::from_states(self.cluster.clone(), self.nodes.clone());
            let rows = between(&self.last, &view, 7);
            assert!(between(&view, &view, 8).is_empty(), "nothing changed");
            self.last = view;
            let level = |row: &EventRow| match row.level {
                EventLevel::Info => 'i',
                EventLevel::Warning => 'w',
                EventLevel::Error => 'e',
            };
            assert!(rows.iter().all(|row| row.time == 7));
            rows.iter().map(|row| format!("{} {}: {}", level(row), row.subject, row.text)).collect()
        }

        fn deploy(&mut self, service: &str, image: &str, revision: Millis) {
            let mut spec = ServiceSpec::default();
            spec.container.image = image.to_owned();
            let held = self.cluster.services.get(&key(service)).map(|held| held.spec.clone());
            let record =
                ServiceRecord { spec, previous: held, updated: revision, by: "ada".to_owned() };
            self.cluster.services.insert(key(service), record);
        }

        /// The digest of what a service is to run.
        fn digest(&self, service: &str) -> String {
            self.cluster.services[&key(service)].spec.container.digest()
        }

        /// Where the plan wants a slot.
        fn place(&self, slot: &str) -> u8 {
            let node = self.last.plan.placements[&slot.parse().expect("a slot")].node;
            (1..=3).find(|n| id(*n) == node).expect("one of three")
        }

        fn claim(&mut self, n: u8, slot: &str, digest: &str, state: InstanceState, restarts: u32) {
            let reason = match state {
                InstanceState::Failed => "exit code 1\nlast words",
                InstanceState::Unhealthy => "the check failed",
                _ => "",
            };
            let claim = Claim {
                state,
                reason: reason.to_owned(),
                address: String::new(),
                restarts,
                since: 1,
                settled: false,
            };
            let id = format!("{slot}@{digest}").parse().expect("an instance");
            self.node(n).claims.insert(id, claim);
        }
    }

    #[test]
    fn machines_come_and_go() {
        let mut world = World::new();
        world.nodes.insert(id(4), NodeState { incarnation: 1, ..NodeState::default() });
        assert!(world.told().is_empty(), "who has not said his name is nobody yet");
        world.nodes.insert(id(4), node(4));
        assert_eq!(world.told(), ["i n4: joined the cluster"]);
        world.node(4).runtime_error = Some("Docker does not answer".to_owned());
        assert_eq!(world.told(), ["e n4: cannot run instances: Docker does not answer"]);
        world.node(4).runtime_error = None;
        world.cluster.drained.insert(id(4), true);
        assert_eq!(world.told(), ["i n4: is being drained", "i n4: can run instances again"]);
        world.cluster.drained.insert(id(4), false);
        assert_eq!(world.told(), ["i n4: takes instances again"]);
        for n in 1..=3 {
            world.node(n).heard.insert(id(4));
            world.node(n).unreachable.insert(id(4), 1);
        }
        assert_eq!(world.told(), ["e n4: is down: the other machines cannot hear it"]);
        world.node(4).incarnation = 2;
        assert_eq!(world.told(), ["i n4: is up again"]);
        world.cluster.left.insert(id(4), 1);
        assert_eq!(world.told(), ["i n4: left the cluster"]);
    }

    #[test]
    fn a_service_is_deployed_scaled_updated_and_removed() {
        let mut world = World::new();
        world.cluster.scale.insert(key("shop/web"), 2);
        world.deploy("shop/web", "web:1", 1);
        assert_eq!(world.told(), ["i shop/web: deployed by ada: 2 of web:1"]);
        world.cluster.scale.insert(key("shop/web"), 1);
        assert_eq!(world.told(), ["i shop/web: scaled from 2 to 1"]);

        world.deploy("shop/web", "web:2", 2);
        assert_eq!(world.told(), ["i shop/web: ada updates it to web:2"]);
        world.node(2).outcomes.insert(key("shop/web"), Outcome { revision: 2, failed: None });
        assert_eq!(world.told(), ["i shop/web: the update is complete"]);
        world.deploy("shop/web", "web:3", 3);
        let failed = Some("web.1 failed: exit code 1\nlast words".to_owned());
        world.told();
        world.node(2).outcomes.insert(key("shop/web"), Outcome { revision: 3, failed });
        assert_eq!(
            world.told(),
            [
                "e shop/web: the update failed, the version before returns: web.1 failed: exit code 1"
            ]
        );
        let record = world.cluster.services.get_mut(&key("shop/web")).expect("deployed");
        record.spec.update.failure_action = FailureAction::Pause;
        assert_eq!(
            world.told(),
            ["e shop/web: the update failed and is paused: web.1 failed: exit code 1"]
        );
        world.cluster.services.remove(&key("shop/web"));
        assert_eq!(world.told(), ["i shop/web: removed"]);
    }

    #[test]
    fn an_instance_lives_its_life() {
        use InstanceState::{Failed, Healthy, Running, Starting, Stopping, Unhealthy};
        let mut world = World::new();
        world.deploy("shop/web", "web:1", 1);
        world.told();
        let (n, digest) = (world.place("shop/web.1"), world.digest("shop/web"));
        let life: [(InstanceState, u32, Option<&str>); 10] = [
            (Starting, 0, None),
            (Running, 0, Some("i runs on N")),
            (Healthy, 0, Some("i is healthy")),
            (Unhealthy, 0, Some("w is unhealthy: the check failed")),
            (Healthy, 0, Some("i is healthy")),
            (Healthy, 1, Some("w ended and was started again on N")),
            (Failed, 1, Some("e failed on N: exit code 1")),
            (Failed, 2, Some("e failed again on N: exit code 1")),
            (Running, 3, Some("i runs on N")),
            (Stopping, 3, None),
        ];
        for (state, restarts, told) in life {
            world.claim(n, "shop/web.1", &digest, state, restarts);
            let told = told.map(|told| {
                let (level, text) = told.split_once(' ').expect("two words");
                format!("{level} shop/web.1: {}", text.replace('N', &format!("n{n}")))
            });
            assert_eq!(world.told(), Vec::from_iter(told), "{state:?}");
        }
        world.node(n).claims.clear();
        assert_eq!(world.told(), [format!("i shop/web.1: stopped on n{n}")]);
    }

    #[test]
    fn an_update_names_the_version_that_stops() {
        let mut world = World::new();
        world.deploy("shop/web", "web:1", 1);
        world.told();
        let n = world.place("shop/web.1");
        let old = world.digest("shop/web");
        world.claim(n, "shop/web.1", &old, InstanceState::Running, 0);
        world.told();
        world.deploy("shop/web", "web:2", 2);
        let new = world.digest("shop/web");
        world.claim(n, "shop/web.1", &new, InstanceState::Running, 0);
        world.told();
        world.node(n).claims.remove(&format!("shop/web.1@{old}").parse().expect("an instance"));
        assert_eq!(world.told(), [format!("i shop/web.1: an earlier version stopped on n{n}")]);
    }

    #[test]
    fn what_a_dead_machine_held_moves_or_waits() {
        let mut world = World::new();
        world.deploy("shop/web", "web:1", 1);
        world.told();
        let (n, digest) = (world.place("shop/web.1"), world.digest("shop/web"));
        world.claim(n, "shop/web.1", &digest, InstanceState::Running, 0);
        world.told();
        for by in (1..=3).filter(|by| *by != n) {
            world.node(by).unreachable.insert(id(n), 1);
        }
        let told = world.told();
        let to = world.place("shop/web.1");
        let expected = [
            format!("e n{n}: is down: the other machines cannot hear it"),
            format!("i shop/web.1: moves from n{n} to n{to}"),
        ];
        assert_eq!(told, expected, "that nobody hears its instances is no news");

        // Nobody is left who may run it.
        for n in 1..=3 {
            world.cluster.drained.insert(id(n), true);
        }
        let told = world.told();
        let waits: Vec<_> = told.iter().filter(|line| line.contains("shop/web.1")).collect();
        assert_eq!(waits.len(), 1, "{told:?}");
        assert!(waits[0].starts_with("w shop/web.1: has no machine: "), "{told:?}");
        world.cluster.drained.clear();
        let told = world.told();
        let back = format!("i shop/web.1: has a machine: n{}", world.place("shop/web.1"));
        assert!(told.contains(&back), "{told:?}");
    }
}
