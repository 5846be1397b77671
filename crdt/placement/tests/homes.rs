//! The homes of volumes, and the nodes that are to have copies.

#![allow(clippy::expect_used, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use vc_placement::{
    Copies, CopyView, LOST_AFTER, Node, Orders, PlanInput, RULES, Rules, ServiceDemand,
    copies_wanted, homes, plan,
};
use vc_protocol::spec::{Attribute, Constraint, ContainerSpec, OnPartition, ServiceSpec};
use vc_protocol::volume::{OnLoss, Origin, SnapshotId, VolumeCopy, VolumeSpec};
use vc_protocol::{NodeId, VolumeKey};

/// Nodes 0 to 3, in the order of their ids, and services `shop/sN` that mount the volumes named.
struct Cluster {
    input: PlanInput,
    copies: Copies,
    orders: Orders,
    ids: Vec<NodeId>,
}

fn volume(name: &str) -> VolumeKey {
    format!("shop/{name}").parse().expect("a volume")
}

impl Cluster {
    fn new(services: &[&[&str]]) -> Self {
        let ids: BTreeSet<NodeId> = (0..4).map(support::node_id).collect();
        let ids: Vec<NodeId> = ids.into_iter().collect();
        let node = |(n, id): (usize, &NodeId)| (*id, support::node(&format!("n{n}"), 4000, 4096));
        let nodes = ids.iter().enumerate().map(node).collect();
        let demand = |(n, volumes): (usize, &&[&str])| {
            let mounts = volumes.iter().map(|name| support::volume(name)).collect();
            let container = ContainerSpec { mounts, ..ContainerSpec::default() };
            let spec = ServiceSpec { container, ..ServiceSpec::default() };
            let (ended, due) = (BTreeSet::new(), BTreeMap::new());
            let (spec, needs) = (spec.into(), BTreeMap::new());
            let demand = ServiceDemand { spec, replicas: 1, needs, ended, due, revision: 1 };
            (format!("shop/s{n}").parse().expect("a service"), demand)
        };
        let services = services.iter().enumerate().map(demand).collect();
        let input = PlanInput { nodes, services, ..PlanInput::default() };
        Self { input, copies: Copies::new(), orders: Orders::new(), ids }
    }

    /// Gives a node a copy with the snapshot of this number, which it has written under this epoch.
    fn copy(&mut self, name: &str, node: usize, number: u64, written: Option<u64>) {
        let snapshot = (number > 0).then_some(SnapshotId { epoch: 1, number });
        let copy = VolumeCopy { snapshot, written, ..VolumeCopy::default() };
        let view = CopyView { lamport: 10 + node as u64, begun: 0, copy: Some(copy) };
        self.copies.entry(volume(name)).or_default().insert(self.ids[node], view);
    }

    fn spec(&mut self, name: &str, spec: VolumeSpec) {
        let service = self.input.services.first_entry().expect("a service").into_mut();
        service.spec.volumes.insert(volume(name).volume, spec);
    }

    fn node(&mut self, node: usize) -> &mut Node {
        self.input.nodes.get_mut(&self.ids[node]).expect("there")
    }

    fn index(&self, id: NodeId) -> usize {
        self.ids.iter().position(|it| *it == id).expect("there")
    }

    fn home(&self, name: &str) -> Option<usize> {
        let homes = homes(&self.input, &self.copies, &self.orders);
        homes.get(&volume(name)).map(|id| self.index(*id))
    }

    fn wanted(&mut self, name: &str) -> BTreeSet<usize> {
        self.input.volumes = homes(&self.input, &self.copies, &self.orders);
        let wanted = copies_wanted(&self.input, &self.copies, &self.orders, Rules::newest());
        wanted.nodes[&volume(name)].iter().map(|id| self.index(*id)).collect()
    }
}

#[test]
fn a_volume_stays_where_it_was_written_last() {
    let mut cluster = Cluster::new(&[&["data"]]);
    assert_eq!(cluster.home("data"), None);
    cluster.copy("data", 0, 9, None);
    cluster.copy("data", 1, 7, Some(2));
    cluster.copy("data", 2, 9, Some(1));
    assert_eq!(cluster.home("data"), Some(1), "the highest epoch, whatever was copied");
}

#[test]
fn when_its_node_is_down_the_newest_snapshot_counts_and_then_the_oldest_copy() {
    let mut cluster = Cluster::new(&[&["data"]]);
    cluster.copy("data", 1, 9, Some(1));
    cluster.copy("data", 0, 7, None);
    cluster.copy("data", 2, 8, None);
    cluster.copy("data", 3, 8, None);
    cluster.node(1).up = false;
    assert_eq!(cluster.home("data"), Some(2));
    cluster.node(2).up = false;
    cluster.node(3).up = false;
    assert_eq!(cluster.home("data"), Some(0));
    cluster.node(0).up = false;
    assert_eq!(cluster.home("data"), Some(1), "it waits where it was written last");
}

#[test]
fn a_drained_node_gives_it_to_the_oldest_copy_whatever_was_copied_last() {
    let mut cluster = Cluster::new(&[&["data"]]);
    cluster.copy("data", 1, 9, Some(1));
    cluster.copy("data", 2, 8, None);
    cluster.copy("data", 3, 9, None);
    cluster.node(1).draining = true;
    assert_eq!(cluster.home("data"), Some(2));
    cluster.copies.get_mut(&volume("data")).expect("there").retain(|id, _| *id == cluster.ids[1]);
    assert_eq!(cluster.home("data"), Some(1), "there is no other copy yet");
    assert!(cluster.wanted("data").len() == 2, "one is made");
}

#[test]
fn volumes_that_are_mounted_together_move_together() {
    let mut cluster = Cluster::new(&[&["data", "logs"], &["logs", "mail"]]);
    for name in ["data", "logs", "mail"] {
        cluster.copy(name, 0, 5, Some(1));
        cluster.copy(name, 3, 4, None);
    }
    cluster.copy("data", 2, 5, None);
    cluster.node(0).up = false;
    for name in ["data", "logs", "mail"] {
        assert_eq!(cluster.home(name), Some(3), "{name}: the node with a copy of all");
    }
}

#[test]
fn a_service_or_volume_may_wait_for_the_node() {
    let mut cluster = Cluster::new(&[&["data"]]);
    cluster.copy("data", 0, 5, Some(1));
    cluster.copy("data", 1, 5, None);
    cluster.node(0).up = false;
    cluster.spec("data", VolumeSpec { on_loss: OnLoss::Wait, ..VolumeSpec::default() });
    assert_eq!(cluster.home("data"), Some(0));
    cluster.spec("data", VolumeSpec::default());
    assert_eq!(cluster.home("data"), Some(1));
    let service = cluster.input.services.first_entry().expect("a service").into_mut();
    service.spec.disconnect.lost_after_ms = 60_000;
    assert_eq!(cluster.home("data"), Some(0));
    cluster.node(0).silent_ms = 60_000;
    assert_eq!(cluster.home("data"), Some(1));
}

#[test]
fn an_order_moves_it_once_and_only_to_a_node_with_a_copy() {
    let mut cluster = Cluster::new(&[&["data"]]);
    cluster.copy("data", 0, 5, Some(1));
    cluster.copy("data", 1, 5, None);
    let slot: vc_protocol::Slot = "shop/s0.1".parse().expect("a slot");
    cluster.orders.insert(slot, (cluster.ids[0], cluster.ids[2], 100));
    assert_eq!((cluster.home("data"), cluster.wanted("data")), (Some(0), BTreeSet::from([0, 2])));
    cluster.copy("data", 2, 4, None);
    assert_eq!(cluster.home("data"), Some(2));
    cluster.copy("data", 2, 4, Some(2));
    assert_eq!(cluster.home("data"), Some(2), "it is written there");
    // Back on the first node, later than the order.
    cluster.copy("data", 0, 5, Some(3));
    let copies = cluster.copies.get_mut(&volume("data")).expect("there");
    copies.get_mut(&cluster.ids[0]).expect("there").begun = 101;
    assert_eq!(cluster.home("data"), Some(0));
}

#[test]
fn copies_are_on_as_many_nodes_as_asked_and_stay_there() {
    let mut cluster = Cluster::new(&[&["data"]]);
    cluster.copy("data", 1, 5, Some(1));
    let two = cluster.wanted("data");
    assert!(two.len() == 2 && two.contains(&1), "{two:?}");
    let other = *two.iter().find(|it| **it != 1).expect("a second");
    cluster.copy("data", other, 4, None);
    cluster.spec("data", VolumeSpec { replicas: Some(3), ..VolumeSpec::default() });
    assert!(cluster.wanted("data").is_superset(&two));
    cluster.spec("data", VolumeSpec { replicas: Some(7), ..VolumeSpec::default() });
    assert_eq!(cluster.wanted("data").len(), 4, "as many as there are nodes");
    cluster.spec("data", VolumeSpec { replicas: Some(1), ..VolumeSpec::default() });
    assert_eq!(cluster.wanted("data"), BTreeSet::from([1]));
    // A node that is down for a while keeps its copy.
    cluster.spec("data", VolumeSpec::default());
    cluster.node(other).up = false;
    assert_eq!(cluster.wanted("data"), two);
    cluster.node(other).silent_ms = LOST_AFTER;
    let anew = cluster.wanted("data");
    assert!(anew.len() == 2 && !anew.contains(&other), "{anew:?}");
}

#[test]
fn a_volume_says_how_long_a_node_with_a_copy_may_be_down() {
    let mut cluster = Cluster::new(&[&["data"]]);
    cluster.copy("data", 1, 5, Some(1));
    let two = cluster.wanted("data");
    let other = *two.iter().find(|it| **it != 1).expect("a second");
    cluster.copy("data", other, 4, None);
    cluster.spec("data", VolumeSpec { lost_after_ms: 2 * LOST_AFTER, ..VolumeSpec::default() });
    cluster.node(other).up = false;
    cluster.node(other).silent_ms = LOST_AFTER;
    assert_eq!(cluster.wanted("data"), two);
    // Nodes that do not know the option wait as long as for all.
    let before = copies_wanted(&cluster.input, &cluster.copies, &cluster.orders, RULES[4]);
    assert!(!before.nodes[&volume("data")].contains(&cluster.ids[other]), "{before:?}");
    cluster.node(other).silent_ms = 2 * LOST_AFTER;
    assert!(!cluster.wanted("data").contains(&other));
    cluster.spec("data", VolumeSpec { lost_after_ms: 1000, ..VolumeSpec::default() });
    cluster.node(other).silent_ms = 1000;
    assert!(!cluster.wanted("data").contains(&other), "and sooner");
}

#[test]
fn copies_of_what_is_mounted_together_are_on_the_same_nodes() {
    let mut cluster = Cluster::new(&[&["data", "logs"], &["logs", "mail"], &["other"]]);
    for name in ["data", "logs", "mail", "other"] {
        cluster.copy(name, 0, 5, Some(1));
    }
    let of_all = cluster.wanted("data");
    assert_eq!(of_all.len(), 2);
    assert_eq!((cluster.wanted("logs"), cluster.wanted("mail")), (of_all.clone(), of_all.clone()));
    assert_ne!(cluster.wanted("other"), of_all, "spread: another node has fewer copies");
    // One volume has more copies, the others are among them.
    cluster.spec("data", VolumeSpec { replicas: Some(3), ..VolumeSpec::default() });
    assert!(cluster.wanted("data").len() == 3 && cluster.wanted("data").is_superset(&of_all));
    assert_eq!(cluster.wanted("mail"), of_all);
    // Copies that are apart come together.
    cluster.spec("data", VolumeSpec::default());
    cluster.copy("data", 1, 4, None);
    cluster.copy("data", 2, 4, None);
    cluster.copy("logs", 2, 4, None);
    cluster.copy("mail", 3, 4, None);
    for name in ["data", "logs", "mail"] {
        assert_eq!(cluster.wanted(name), BTreeSet::from([0, 2]), "{name}");
    }
}

#[test]
fn a_volume_leaves_a_node_that_may_not_run_its_services_any_more() {
    let mut cluster = Cluster::new(&[&["data"]]);
    cluster.copy("data", 0, 5, Some(1));
    cluster.copy("data", 1, 5, None);
    cluster.node(3).labels.insert("disk".to_owned(), "ssd".to_owned());
    let attribute = Attribute::Label("disk".to_owned());
    let constraint = Constraint { attribute, equal: true, value: "ssd".to_owned() };
    let service = cluster.input.services.first_entry().expect("a service").into_mut();
    service.spec.constraints.push(constraint);
    assert_eq!(cluster.home("data"), Some(0), "until another node has a copy");
    assert_eq!(cluster.wanted("data"), BTreeSet::from([0, 1, 3]));
    cluster.copy("data", 3, 4, None);
    assert_eq!(cluster.home("data"), Some(3));
    cluster.copy("data", 3, 6, Some(2));
    assert!(cluster.wanted("data").contains(&3));
    assert_eq!(cluster.wanted("data").len(), 2);
}

#[test]
fn the_only_copy_of_a_drained_node_goes_to_another() {
    let mut cluster = Cluster::new(&[&["data"]]);
    cluster.copy("data", 0, 5, Some(1));
    cluster.spec("data", VolumeSpec { replicas: Some(1), ..VolumeSpec::default() });
    assert_eq!(cluster.wanted("data"), BTreeSet::from([0]));
    cluster.node(0).draining = true;
    assert_eq!(cluster.wanted("data").len(), 2);
    cluster.node(0).up = false;
    assert_eq!(cluster.wanted("data"), BTreeSet::from([0]), "nothing can be copied from it");
}

#[test]
fn a_volume_reserves_its_room_on_every_node_with_a_copy() {
    let mut cluster = Cluster::new(&[&["data"]]);
    cluster.copy("data", 0, 5, Some(1));
    for (node, room) in [(0, 50), (1, 9), (2, 10), (3, 9)] {
        cluster.node(node).volume_room = Some(room);
    }
    cluster.spec("data", VolumeSpec { size_bytes: 10, ..VolumeSpec::default() });
    assert_eq!(cluster.wanted("data"), BTreeSet::from([0, 2]), "the only node with room");
    let room =
        copies_wanted(&cluster.input, &cluster.copies, &cluster.orders, Rules::newest()).room;
    let left: Vec<u64> = cluster.ids.iter().map(|id| room[id]).collect();
    assert_eq!(left, [40, 9, 0, 9]);
    cluster.spec("data", VolumeSpec { size_bytes: 11, ..VolumeSpec::default() });
    assert_eq!(cluster.wanted("data"), BTreeSet::from([0]));
}

#[test]
fn a_new_volume_goes_where_there_is_room_for_it() {
    let mut cluster = Cluster::new(&[&["data"], &["logs"]]);
    for service in cluster.input.services.values_mut() {
        for name in service.spec.volumes().cloned().collect::<Vec<_>>() {
            let spec = VolumeSpec { size_bytes: 10, ..VolumeSpec::default() };
            service.spec.volumes.insert(name, spec);
        }
    }
    for (node, room) in [(0, 9), (1, 9), (2, 9), (3, 15)] {
        cluster.node(node).volume_room = Some(room);
    }
    let plan = plan(&cluster.input, Rules::newest());
    let placed: Vec<NodeId> = plan.placements.values().map(|it| it.node).collect();
    assert_eq!(placed, [cluster.ids[3]], "the second finds its room taken");
    let refusals = plan.unplaced.values().next().expect("one is unplaced");
    assert!(refusals[0].reason.ends_with("10 bytes required"), "{refusals:?}");
}

#[test]
fn what_is_written_on_both_sides_of_a_partition_is_not_copied() {
    let mut cluster = Cluster::new(&[&["data"]]);
    cluster.copy("data", 1, 5, Some(1));
    let service = cluster.input.services.first_entry().expect("a service").into_mut();
    service.spec.on_partition = Some(OnPartition::Available);
    assert_eq!(cluster.wanted("data"), BTreeSet::from([1]));
}

#[test]
fn a_directory_is_at_home_where_it_was_found() {
    let mut cluster = Cluster::new(&[&["data"]]);
    let node = Some(cluster.ids[2]);
    let origin = Some(Origin::Directory { must_exist: false, path: "/srv".to_owned(), node });
    cluster.spec("data", VolumeSpec { origin, ..VolumeSpec::default() });
    assert_eq!(cluster.home("data"), Some(2));
    cluster.copy("data", 3, 0, None);
    assert_eq!(cluster.home("data"), Some(2), "another node is about to get a copy");
    cluster.copy("data", 3, 1, Some(1));
    assert_eq!(cluster.home("data"), Some(3), "it was moved since");
}
