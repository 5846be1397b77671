use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{
    ClusterState, KnownVersions, NodeState, ServiceRecord, Tombstone, UpdateResult, VolumeRecord,
    VoterEntry, VoterKey,
};
use vc_protocol::lease::{LEASE_MS, VoterSet};
use vc_protocol::node::NodeInfo;
use vc_protocol::run::{DueRecord, RunRecord, Skipped};
use vc_protocol::spec::{FailureAction, Schedule, ServiceMode, ServiceSpec};
use vc_protocol::volume::{SnapshotId, VolumeCopy};
use vc_protocol::{Keypair, ServiceKey, Slot, VolumeKey};

use super::*;

/// Three nodes, and the view of the last call of `events`.
struct World {
    cluster: ClusterState,
    nodes: BTreeMap<NodeId, NodeState>,
    last: View,
}

fn id(n: u8) -> NodeId {
    NodeId::of(&Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes").public()).expect("ed25519")
}

fn key(text: &str) -> ServiceKey {
    text.parse().expect("a service")
}

fn node(n: u8) -> NodeState {
    NodeState {
        incarnation: 1,
        info: Some(NodeInfo::for_tests(&format!("n{n}"))),
        observed: (1..=3).map(id).collect::<BTreeSet<_>>(),
        ..NodeState::default()
    }
}

impl World {
    fn new() -> Self {
        let (cluster, nodes): (_, BTreeMap<_, _>) =
            (ClusterState::default(), (1..=3).map(|n| (id(n), node(n))).collect());
        let last = View::from_states(cluster.clone(), nodes.clone(), &KnownVersions::default());
        Self { cluster, nodes, last }
    }

    fn node(&mut self, n: u8) -> &mut NodeState {
        self.nodes.get_mut(&id(n)).expect("a node")
    }

    /// Returns the events since the last call: the first letter of the level, then the line.
    fn events(&mut self) -> Vec<String> {
        self.events_at(7)
    }

    fn events_at(&mut self, now: Millis) -> Vec<String> {
        let view =
            View::from_states(self.cluster.clone(), self.nodes.clone(), &KnownVersions::default());
        let rows = between(&self.last, &view, now);
        assert!(between(&view, &view, 8).is_empty(), "nothing changed");
        self.last = view;
        let level = |row: &EventRow| match row.level {
            EventLevel::Info => 'i',
            EventLevel::Warning => 'w',
            EventLevel::Error => 'e',
        };
        assert!(rows.iter().all(|row| row.time == now));
        rows.iter().map(|row| format!("{} {}: {}", level(row), row.subject, row.text)).collect()
    }

    fn deploy(&mut self, service: &str, image: &str, revision: Millis) {
        let mut spec = ServiceSpec::default();
        spec.container.image = image.to_owned();
        let held = self.cluster.services.get(&key(service)).map(|held| held.spec.clone());
        let record = ServiceRecord {
            spec: spec.into(),
            previous: held,
            revision,
            updated: revision,
            deployed_by: "ada".to_owned(),
            trace: None,
        };
        self.cluster.services.insert(key(service), record.into());
    }

    /// A node saw the end of the present update.
    fn ends(&mut self, service: &str, failed: Option<String>) {
        let record = &self.cluster.services[&key(service)];
        let (revision, digest) = (record.revision, record.spec.container_digest());
        let result = UpdateResult { revision, digest, failed };
        self.node(2).update_results.insert(key(service), result);
    }

    /// The digest of a service's spec.
    fn digest(&self, service: &str) -> String {
        self.cluster.services[&key(service)].spec.container.digest()
    }

    /// The node on which the plan places a slot.
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
            lamport: 1,
            started: 0,
            since: 1,
            available: false,
            prepared: false,
            restarted_unhealthy: false,
            epoch: None,
            terminal: false,
        };
        let id = format!("{slot}@{digest}").parse().expect("an instance");
        self.node(n).claims.insert(id, claim);
    }
}

#[test]
fn another_version_of_a_node_is_an_event_and_so_is_the_way_back() {
    let mut world = World::new();
    let info = |world: &mut World, change: fn(&mut NodeInfo)| {
        change(world.node(2).info.as_mut().expect("info"));
        world.events()
    };
    let newer = info(&mut world, |info| info.version = "0.2.0".to_owned());
    assert_eq!(newer, ["i n2: runs vc-node 0.2.0, before that 0.1.0"]);
    let failed = info(&mut world, |info| info.failed_upgrade = "it was taken back".to_owned());
    assert_eq!(failed, ["e n2: it was taken back"]);
    assert!(info(&mut world, |info| info.failed_upgrade.clear()).is_empty());
}

#[test]
fn node_changes_are_events() {
    let mut world = World::new();
    world.nodes.insert(id(4), NodeState { incarnation: 1, ..NodeState::default() });
    assert!(world.events().is_empty(), "a node without a document has no events");
    world.nodes.insert(id(4), node(4));
    assert_eq!(world.events(), ["i n4: joined the cluster"]);
    world.node(4).runtime_error = Some("Docker does not answer".to_owned());
    assert_eq!(world.events(), ["e n4: cannot run instances: Docker does not answer"]);
    world.node(4).runtime_error = None;
    world.cluster.drained.insert(id(4), true);
    assert_eq!(world.events(), ["i n4: is being drained", "i n4: can run instances again"]);
    world.cluster.drained.insert(id(4), false);
    assert_eq!(world.events(), ["i n4: takes instances again"]);
    for n in 1..=3 {
        world.node(n).observed.insert(id(4));
        world.node(n).unreachable.insert(id(4), 1);
    }
    assert_eq!(world.events(), ["e n4: is down: no heartbeat (reported by 3 of 3 observers)"]);
    world.node(4).incarnation = 2;
    assert_eq!(world.events(), ["i n4: is up again"]);
    world.cluster.left.insert(id(4), 1);
    assert_eq!(world.events(), ["i n4: left the cluster"]);
}

#[test]
fn changes_of_the_voters_are_events_and_say_by_whom() {
    let set = |number, voters: &[u8]| VoterSet {
        number,
        voters: voters.iter().map(|&n| id(n)).collect(),
        lease_ms: LEASE_MS,
        forced: false,
        by: String::new(),
    };
    let mut world = World::new();
    world.cluster.set_voters(set(1, &[1]));
    assert_eq!(
        world.events(),
        ["i n1: is a voter now (set 1): the first one, chosen by the cluster"]
    );
    world.cluster.voters.insert(VoterKey::Wish(id(2)), VoterEntry::Wish(true));
    assert_eq!(world.events(), ["i n2: is to be a voter, as a user wants it"]);
    // Two changes arrive at once.
    world.cluster.set_voters(set(2, &[1, 2]));
    world.cluster.set_voters(set(3, &[1, 2, 3]));
    assert_eq!(
        world.events(),
        [
            "i n2: is a voter now (set 2): decided by n1, as a user wants it",
            "i n3: is a voter now (set 3): decided by n1, n2"
        ]
    );
    world.cluster.voters.insert(VoterKey::Wish(id(2)), VoterEntry::Wish(false));
    world.cluster.set_voters(set(4, &[1, 3]));
    assert_eq!(
        world.events(),
        [
            "i n2: is to be no voter, as a user wants it",
            "i n2: is no voter any more (set 4): decided by n1, n2, n3, as a user wants it"
        ]
    );
    world.cluster.voters.remove(&VoterKey::Wish(id(2)));
    assert_eq!(world.events(), ["i n2: is a voter or not as the cluster decides again"]);
    let forced = VoterSet { forced: true, by: "ada".to_owned(), ..set(1004, &[3]) };
    world.cluster.set_voters(forced);
    let how = "(set 1004): forced by ada, without the consent of the voters before";
    assert_eq!(
        world.events(),
        [format!("w n3: is a voter {how}"), format!("w n1: is no voter any more {how}")]
    );
}

#[test]
fn a_service_is_deployed_scaled_updated_and_removed() {
    let mut world = World::new();
    world.cluster.scale.insert(key("shop/web"), 2);
    world.deploy("shop/web", "web:1", 1);
    assert_eq!(world.events(), ["i shop/web: deployed by ada: 2 of web:1"]);
    world.cluster.scale.insert(key("shop/web"), 1);
    assert_eq!(world.events(), ["i shop/web: scaled from 2 to 1"]);

    world.deploy("shop/web", "web:2", 2);
    assert_eq!(world.events(), ["i shop/web: updated to web:2 by ada"]);
    world.ends("shop/web", None);
    assert_eq!(world.events(), ["i shop/web: update complete"]);
    world.deploy("shop/web", "web:3", 3);
    let failed = Some("web.1 failed: exit code 1\nlast words".to_owned());
    world.events();
    world.ends("shop/web", failed);
    assert_eq!(
        world.events(),
        [
            "e shop/web: update failed, rolling back to the previous version: web.1 failed: exit code 1"
        ]
    );
    let record = world.cluster.services.get_mut(&key("shop/web")).expect("deployed");
    record.spec.update.failure_action = FailureAction::Pause;
    assert_eq!(world.events(), ["e shop/web: update failed and paused: web.1 failed: exit code 1"]);
    world.cluster.services.remove(&key("shop/web"));
    assert_eq!(world.events(), ["i shop/web: removed"]);
}

#[test]
fn instance_state_changes_are_events() {
    use InstanceState::{Failed, Healthy, Running, Starting, Stopping, Unhealthy};
    let mut world = World::new();
    world.deploy("shop/web", "web:1", 1);
    world.events();
    let (n, digest) = (world.place("shop/web.1"), world.digest("shop/web"));
    let life: [(InstanceState, u32, Option<&str>); 10] = [
        (Starting, 0, None),
        (Running, 0, Some("i runs on N")),
        (Healthy, 0, Some("i is healthy")),
        (Unhealthy, 0, Some("w is unhealthy: the check failed")),
        (Healthy, 0, Some("i is healthy")),
        (Healthy, 1, Some("w exited and was restarted on N")),
        (Failed, 1, Some("e failed on N: exit code 1")),
        (Failed, 2, Some("e failed again on N: exit code 1")),
        (Running, 3, Some("i runs on N")),
        (Stopping, 3, None),
    ];
    for (state, restarts, events) in life {
        world.claim(n, "shop/web.1", &digest, state, restarts);
        let events = events.map(|events| {
            let (level, text) = events.split_once(' ').expect("two words");
            format!("{level} shop/web.1: {}", text.replace('N', &format!("n{n}")))
        });
        assert_eq!(world.events(), Vec::from_iter(events), "{state:?}");
    }
    world.node(n).claims.clear();
    assert_eq!(world.events(), [format!("i shop/web.1: stopped on n{n}")]);
}

#[test]
fn an_update_names_the_version_that_stops() {
    let mut world = World::new();
    world.deploy("shop/web", "web:1", 1);
    world.events();
    let n = world.place("shop/web.1");
    let old = world.digest("shop/web");
    world.claim(n, "shop/web.1", &old, InstanceState::Running, 0);
    world.events();
    world.deploy("shop/web", "web:2", 2);
    let new = world.digest("shop/web");
    world.claim(n, "shop/web.1", &new, InstanceState::Running, 0);
    world.events();
    world.node(n).claims.remove(&format!("shop/web.1@{old}").parse().expect("an instance"));
    assert_eq!(world.events(), [format!("i shop/web.1: an earlier version stopped on n{n}")]);
}

#[test]
fn slots_of_a_dead_node_move_or_stay_unplaced() {
    let mut world = World::new();
    world.deploy("shop/web", "web:1", 1);
    world.events();
    let (n, digest) = (world.place("shop/web.1"), world.digest("shop/web"));
    world.claim(n, "shop/web.1", &digest, InstanceState::Running, 0);
    world.events();
    for by in (1..=3).filter(|by| *by != n) {
        world.node(by).unreachable.insert(id(n), 1);
    }
    let events = world.events();
    let to = world.place("shop/web.1");
    let expected = [
        format!("e n{n}: is down: no heartbeat (reported by 2 of 2 observers)"),
        format!("i shop/web.1: moves from n{n} to n{to}"),
    ];
    assert_eq!(events, expected, "the instances of a node that is down have no events");

    // No node may run it.
    for n in 1..=3 {
        world.cluster.drained.insert(id(n), true);
    }
    let events = world.events();
    let waits: Vec<_> = events.iter().filter(|line| line.contains("shop/web.1")).collect();
    assert_eq!(waits.len(), 1, "{events:?}");
    assert!(waits[0].starts_with("w shop/web.1: cannot be placed: "), "{events:?}");
    world.cluster.drained.clear();
    let events = world.events();
    let back = format!("i shop/web.1: placed on n{}", world.place("shop/web.1"));
    assert!(events.contains(&back), "{events:?}");
}

/// What a node says of its copy of `shop/data`: snapshot `epoch-number`, taken at a time, and under which epoch it was written.
fn copy(epoch: u64, number: u64, taken: Millis, written: Option<u64>) -> VolumeCopy {
    let snapshot = Some(SnapshotId { epoch, number });
    VolumeCopy { snapshot, taken, written, ..VolumeCopy::default() }
}

impl World {
    fn says(&mut self, n: u8, copy: VolumeCopy) {
        let record = VolumeRecord { lamport: 5, since: 0, begun: 0, copy: Some(copy) };
        self.node(n).volumes.insert("shop/data".parse().expect("a volume"), record.into());
    }

    fn is_accused(&mut self, n: u8, is_accused: bool) {
        for by in (1..=3).filter(|by| *by != n) {
            match is_accused {
                true => self.node(by).unreachable.insert(id(n), 1),
                false => self.node(by).unreachable.remove(&id(n)),
            };
        }
    }
}

/// n1 writes a volume, n2 has a copy.
fn with_volume() -> World {
    let mut world = World::new();
    world.says(1, copy(3, 9, 1000, Some(3)));
    world.says(2, copy(3, 9, 1000, None));
    world.events();
    world
}

#[test]
fn a_replica_is_told_once_it_has_a_copy() {
    let mut world = World::new();
    world.says(1, copy(3, 1, 1000, Some(3)));
    world.says(2, VolumeCopy::default());
    assert!(world.events().is_empty(), "the first snapshot of the primary is no news");
    world.says(2, copy(3, 1, 1000, None));
    assert_eq!(world.events(), ["i shop/data: volume has a copy on n2 now"]);
    world.says(1, copy(3, 2, 6000, Some(3)));
    world.says(2, copy(3, 2, 6000, None));
    assert!(world.events().is_empty(), "later ones neither");
}

#[test]
fn a_volume_that_goes_on_after_a_loss_says_from_which_snapshot() {
    let mut world = with_volume();
    world.is_accused(1, true);
    world.events();
    world.says(2, copy(3, 9, 1000, Some(4)));
    assert_eq!(
        world.events_at(43_000),
        [
            "w shop/data: volume goes on from snapshot 3-9 on n2, taken 42 s ago, as n1 is down: what was written there later is \
          kept aside when n1 returns"
        ]
    );
    world.is_accused(1, false);
    world.events();
    let returned = VolumeCopy { conflicts: 1, closed: true, ..copy(4, 10, 50_000, Some(3)) };
    world.says(2, copy(4, 10, 50_000, Some(4)));
    world.says(1, returned);
    assert_eq!(
        world.events(),
        [
            "w shop/data: what n1 wrote last is kept aside for 7 days, as another node's writes replace it: see 'vc volume \
          conflicts shop/data'"
        ]
    );
}

#[test]
fn a_move_that_has_everything_is_complete() {
    let mut world = with_volume();
    world.says(1, VolumeCopy { closed: true, ..copy(3, 10, 2000, Some(3)) });
    world.says(2, copy(3, 10, 2000, None));
    assert!(world.events().is_empty());
    world.says(2, copy(3, 10, 2000, Some(4)));
    assert_eq!(world.events(), ["i shop/data: volume moved from n1 to n2 with everything in it"]);
}

#[test]
fn a_volume_whose_writer_has_left_goes_on_or_is_lost() {
    let mut world = with_volume();
    world.cluster.left.insert(id(1), 1);
    assert_eq!(world.events(), ["i n1: left the cluster"]);
    world.says(2, copy(3, 9, 1000, Some(4)));
    assert_eq!(
        world.events_at(5000),
        [
            "w shop/data: volume goes on from snapshot 3-9 on n2, taken 4 s ago, as the node that wrote it has left the cluster"
        ]
    );
    world.cluster.left.insert(id(2), 1);
    assert_eq!(
        world.events(),
        ["i n2: left the cluster", "e shop/data: volume lost: n2 left the cluster with its data"]
    );
    world.says(3, VolumeCopy { written: Some(5), ..VolumeCopy::default() });
    assert!(world.events().is_empty(), "a new volume");
}

#[test]
fn a_copy_that_falls_behind_or_fails_is_told_once_and_when_it_recovers() {
    let mut world = with_volume();
    world.says(1, copy(3, 10, 300_000, Some(3)));
    assert!(world.events().is_empty(), "it gets the next one, however long that takes");
    world.says(1, copy(3, 11, 305_000, Some(3)));
    assert_eq!(world.events(), ["w shop/data: the copy of the volume on n2 is 5 min 4 s behind"]);
    world.says(1, copy(3, 12, 310_000, Some(3)));
    assert!(world.events().is_empty());
    let failing =
        |why: &str| VolumeCopy { error: Some(why.to_owned()), ..copy(3, 12, 310_000, None) };
    world.says(2, failing("no space"));
    assert_eq!(
        world.events(),
        [
            "w shop/data: the copy of the volume on n2 is not up to date: no space",
            "i shop/data: the copy of the volume on n2 has caught up"
        ]
    );
    world.says(2, failing("less space"));
    assert!(world.events().is_empty(), "another reason is no other event");
    world.says(2, copy(3, 12, 310_000, None));
    assert_eq!(world.events(), ["i shop/data: the copy of the volume on n2 is in order again"]);
}

#[test]
fn a_volume_is_restored_removed_and_undeleted() {
    let mut world = with_volume();
    let closed = |number| VolumeCopy { closed: true, ..copy(3, number, 2000, Some(3)) };
    world.says(1, closed(10));
    assert!(world.events().is_empty(), "its last snapshot");
    world.says(1, closed(12));
    assert_eq!(world.events(), ["i shop/data: volume restored on n1: snapshot 3-12 is the newest"]);
    let volume: VolumeKey = "shop/data".parse().expect("a volume");
    let removed = Tombstone { lamport: 9, at: 9000, forgotten: false };
    world.cluster.tombstones.insert(volume.clone(), removed);
    assert_eq!(
        world.events(),
        ["i shop/data: volume removed: its last snapshot is in the trash for 24 h"]
    );
    for n in [1, 2] {
        world.node(n).volumes.clear();
    }
    assert!(world.events().is_empty());
    let record = VolumeRecord { lamport: 11, since: 0, begun: 0, copy: Some(closed(12)) };
    world.node(1).volumes.insert(volume.clone(), record.into());
    assert_eq!(world.events(), ["i shop/data: volume is back on n1, with snapshot 3-12"]);
    world.cluster.tombstones.insert(volume, Tombstone { lamport: 12, at: 9000, forgotten: true });
    assert_eq!(world.events(), ["i shop/data: volume forgotten: its nodes keep the data aside"]);
}

#[test]
fn times_of_a_schedule_at_which_nothing_runs_are_events() {
    let mut world = World::new();
    let due = |missed, skipped| DueRecord { at: 0, missed, skipped, by: String::new() };
    let slot = |time: u32| format!("shop/backup.{time}").parse::<Slot>().expect("a slot");
    world.deploy("shop/backup", "backup:1", 1);
    let record = world.cluster.services.get_mut(&key("shop/backup")).expect("deployed");
    let mut changed = (**record).clone();
    changed.spec.mode = ServiceMode::ReplicatedJob;
    changed.spec.schedule = Some(Schedule::new("* * * * *"));
    *record = changed.into();
    world.node(1).due.insert(slot(60), due(3, Some(Skipped::Missed)));
    assert_eq!(world.events(), ["i shop/backup: deployed by ada: 1 of backup:1"]);

    world.node(2).due.insert(slot(60), due(3, Some(Skipped::Missed)));
    world.node(2).due.insert(slot(120), due(0, Some(Skipped::Overlap)));
    world.node(2).due.insert(slot(180), due(0, Some(Skipped::Stopped)));
    world.node(2).due.insert(slot(240), due(2, Some(Skipped::Missed)));
    // One node skips what another has begun.
    world.node(2).due.insert(slot(300), due(0, Some(Skipped::Missed)));
    let id = format!("{}@d", slot(300)).parse().expect("an instance");
    world.node(1).runs.insert(id, RunRecord { started: 1, end: None });
    let expected = [
        "w shop/backup.120: skipped: an earlier run was under way (overlap: forbid)",
        "w shop/backup.240: 2 times before it passed while no node could begin a run",
        "w shop/backup.240: missed: its time had passed when a node could begin it",
    ];
    let events = world.events();
    let of_times = |it: &&String| it.starts_with("w shop/backup.") && !it.contains("be placed");
    assert_eq!(events.iter().filter(of_times).collect::<Vec<_>>(), expected);
}
