//! What users see of volumes: where the copies are, and how old.

use std::collections::BTreeMap;

use vc_crdt::{NodeState, View, VolumeRecord};
use vc_placement::volume_spec;
use vc_protocol::alert::ProblemKind;
use vc_protocol::control::{InstanceRow, ReplicaRow, ReplicaState, VolumeRow};
use vc_protocol::volume::{DEFAULT_REPLICAS, OnLoss, SnapshotId, VolumeCopy, VolumeSpec};
use vc_protocol::{Millis, NodeId, VolumeKey, in_words};

use crate::interface::WallClocks;
use crate::mutation::volumes::mounting;
use crate::problem::Problem;
use crate::report::is_witness;

/// A replica that is further behind is a problem.
pub(crate) const MAX_LAG: Millis = 60_000;

/// Returns a row for every named volume that has data on a node. How old snapshots are is by the clock of the primary, which took the
/// newest.
pub fn volumes(view: &View, clocks: WallClocks<'_>) -> Vec<VolumeRow> {
    let all = view.input.volumes.iter();
    all.map(|(volume, &home)| row(view, volume, home, clocks.of(home))).collect()
}

/// The copy of a volume on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyStatus {
    /// The volume.
    pub volume: VolumeKey,
    /// Whether the services of the volume follow this copy.
    pub primary: bool,
    /// What the node says of it.
    pub copy: VolumeCopy,
    /// Of how many milliseconds the writes are missing from its newest snapshot, at most; `None` while it has none.
    pub lag_ms: Option<Millis>,
}

/// Returns the copies on a node.
pub fn copies(view: &View, node: NodeId, clocks: WallClocks<'_>) -> Vec<CopyStatus> {
    let status = |(volume, &home): (&VolumeKey, &NodeId)| {
        let records: BTreeMap<NodeId, &VolumeRecord> = records(view, volume).collect();
        let of = |node: NodeId| records.get(&node)?.copy.as_ref();
        let newest = records.keys().filter_map(|&it| of(it)?.snapshot).max();
        let (copy, now) = (of(node)?.clone(), clocks.of(home));
        let lag_ms = lag(of(home).filter(|_| view.up.contains(&home)), &copy, newest, now);
        Some(CopyStatus { volume: volume.clone(), primary: home == node, copy, lag_ms })
    };
    view.input.volumes.iter().filter_map(status).collect()
}

fn row(view: &View, volume: &VolumeKey, home: NodeId, now: Millis) -> VolumeRow {
    let records: BTreeMap<NodeId, &VolumeRecord> = records(view, volume).collect();
    let copies = || records.values().filter_map(|record| record.copy.as_ref());
    let newest = copies().filter_map(|copy| copy.snapshot).max();
    let own = records.get(&home).and_then(|record| record.copy.clone()).unwrap_or_default();
    let replicas = records.iter().filter(|(node, _)| **node != home);
    let replicas = replicas.map(|(&node, record)| {
        let copy = record.copy.clone().unwrap_or_default();
        let lag = lag(view.up.contains(&home).then_some(&own), &copy, newest, now);
        replica(view, node, &copy, newest, lag)
    });
    let epochs = copies().filter_map(|copy| copy.written.max(copy.snapshot.map(|it| it.epoch)));
    VolumeRow {
        volume: volume.clone(),
        project: volume.project.to_string(),
        node: home,
        node_name: view.name(home),
        primary: view.name(home),
        up: view.up.contains(&home),
        services: mounting(&view.cluster, volume).cloned().collect(),
        since: records.get(&home).map_or(0, |record| record.since),
        replicas: replicas.collect(),
        wanted: wanted(view, volume),
        snapshot: own.snapshot.map(|it| it.to_string()),
        taken: own.taken,
        epoch: epochs.max().unwrap_or(0),
        bytes: copies().map(|copy| copy.bytes).max().unwrap_or(0),
        conflicts: copies().map(|copy| copy.conflicts).sum(),
        problem: own.error.unwrap_or_default(),
    }
}

/// Returns of how many milliseconds the writes are missing from a copy, at most; `None` while it has nothing. `home`: the copy
/// that is written, if its node is up.
fn lag(
    home: Option<&VolumeCopy>,
    copy: &VolumeCopy,
    newest: Option<SnapshotId>,
    now: Millis,
) -> Option<Millis> {
    let is_written = |home: &VolumeCopy| home.written.is_some() && !home.closed && !home.unchanged;
    match copy.snapshot {
        None => newest.is_none().then_some(0),
        Some(_) if copy.snapshot == newest && !home.is_some_and(is_written) => Some(0),
        Some(_) => Some(now.saturating_sub(copy.taken)),
    }
}

fn replica(
    view: &View,
    node: NodeId,
    copy: &VolumeCopy,
    newest: Option<SnapshotId>,
    lag_ms: Option<Millis>,
) -> ReplicaRow {
    let state = match copy.snapshot {
        _ if !view.up.contains(&node) => ReplicaState::Down,
        _ if copy.error.is_some() => ReplicaState::Failed,
        _ if copy.snapshot == newest => ReplicaState::Current,
        None => ReplicaState::Copying,
        Some(_) => ReplicaState::Behind,
    };
    ReplicaRow {
        node,
        node_name: view.name(node),
        snapshot: copy.snapshot.map(|it| it.to_string()),
        lag_ms,
        bytes: copy.bytes,
        received: copy.received,
        state,
        problem: copy.error.clone().unwrap_or_default(),
    }
}

/// Says in the reasons of slots that no node runs which volumes wait for a node that is down, and what other nodes have of them.
/// `now` by this node's wall clock.
pub fn name_waits(view: &View, instances: &mut [InstanceRow], now: Millis) {
    for row in instances.iter_mut().filter(|row| row.node.is_none()) {
        let names = view.spec(&row.service).into_iter().flat_map(|spec| spec.volumes());
        for name in names {
            let project = row.service.project.clone();
            let volume = VolumeKey { project, volume: name.clone() };
            let home = view.input.volumes.get(&volume).filter(|home| !view.up.contains(home));
            let Some(&home) = home else { continue };
            let others = records(view, &volume).filter(|(node, _)| *node != home);
            let newest = others.filter_map(|(node, record)| {
                let copy = record.copy.as_ref()?;
                Some((copy.snapshot?, copy.taken, node))
            });
            let waits = volume_spec(&view.input, &volume).on_loss == OnLoss::Wait;
            let text = match newest.max() {
                Some((_, taken, node)) if waits => {
                    let age = in_words(now.saturating_sub(taken) / 1000 * 1000);
                    let node = view.name(node);
                    format!(
                        "; volume {volume} waits for it (on_loss: wait), the copy on {node} is {age} old"
                    )
                }
                Some(_) => continue,
                None => format!("; no other node has a copy of volume {volume}"),
            };
            row.reason.push_str(&text);
        }
    }
}

/// Returns what the documents say of the copies of a volume, without what was removed.
fn records<'a>(
    view: &'a View,
    volume: &VolumeKey,
) -> impl Iterator<Item = (NodeId, &'a VolumeRecord)> {
    view.nodes.keys().filter_map(move |&node| Some((node, record(view, node, volume)?)))
}

/// Returns what the document of a node says of its copy of a volume, unless it was removed since.
pub(crate) fn record<'a>(
    view: &'a View,
    node: NodeId,
    volume: &VolumeKey,
) -> Option<&'a VolumeRecord> {
    let removed = view.cluster.tombstones.get(volume).map_or(0, |it| it.lamport);
    let record: &VolumeRecord = view.nodes.get(&node)?.volumes.get(volume)?;
    (record.lamport > removed).then_some(record)
}

/// Returns how many copies a volume is to have, with the one that is written.
fn wanted(view: &View, volume: &VolumeKey) -> u32 {
    let spec = volume_spec(&view.input, volume);
    let can_hold = |(node, state): &(&NodeId, &NodeState)| {
        !is_witness(view, **node) && !view.cluster.left.contains_key(*node) && state.info.is_some()
    };
    let nodes = u32::try_from(view.nodes.iter().filter(can_hold).count()).unwrap_or(u32::MAX);
    match spec {
        VolumeSpec { driver: Some(_), .. } => 1,
        VolumeSpec { replicas: Some(replicas), .. } => replicas,
        _ => DEFAULT_REPLICAS.min(nodes),
    }
}

/// Returns a line for each volume with too few copies, and for each copy with a problem.
pub(crate) fn problems(view: &View, clocks: WallClocks<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for row in volumes(view, clocks) {
        let volume = &row.volume;
        if row.up && !row.problem.is_empty() {
            let text =
                format!("no snapshots of volume {volume} on {}: {}", row.primary, row.problem);
            let problem = Problem::new(ProblemKind::Volume, text).of_volume(volume);
            problems.push(problem.of_node(view, row.node));
        }
        for replica in &row.replicas {
            let name = &replica.node_name;
            match (replica.state, replica.lag_ms) {
                (ReplicaState::Failed, _) => {
                    let text = format!(
                        "the copy of volume {volume} on {name} is not up to date: {}",
                        replica.problem
                    );
                    let problem = Problem::new(ProblemKind::Volume, text).of_volume(volume);
                    problems.push(problem.of_node(view, replica.node));
                }
                (ReplicaState::Behind | ReplicaState::Current, Some(lag)) if lag > MAX_LAG => {
                    let text = format!(
                        "the copy of volume {volume} on {name} is {} s behind: see 'vc volume ls'",
                        lag / 1000
                    );
                    let problem = Problem::new(ProblemKind::VolumeLag, text).of_volume(volume);
                    problems.push(problem.of_node(view, replica.node));
                }
                _ => {}
            }
        }
        let has_data = |replica: &&ReplicaRow| {
            replica.snapshot.is_some() && replica.state != ReplicaState::Down
        };
        // A version without copies says nothing of them.
        let is_copied = row.snapshot.is_some();
        let copies = u32::from(row.up).saturating_add(count(row.replicas.iter().filter(has_data)));
        if is_copied && copies < row.wanted {
            let hint = match lacks_room(view, volume, row.node) {
                true => "no other node has the room: x-vc: {replicas: 1} keeps it on one node",
                false => "see 'vc volume ls' and 'vc nodes'",
            };
            let text = format!("volume {volume} has {copies} of {} copies: {hint}", row.wanted);
            problems.push(Problem::new(ProblemKind::Volume, text).of_volume(volume));
        }
    }
    problems
}

/// Returns whether a volume has no copy because no node that is up, beside its home, has the room.
fn lacks_room(view: &View, volume: &VolumeKey, home: NodeId) -> bool {
    let held = view.nodes.get(&home).and_then(|state| state.copy(volume));
    let size = held.map_or(0, |copy| copy.disk_bytes);
    let size = size.max(volume_spec(&view.input, volume).size_bytes);
    let is_chosen = |node: &NodeId| view.copies.get(volume).is_some_and(|it| it.contains(node));
    let others = view.input.nodes.iter().filter(|(id, node)| **id != home && node.up);
    let mut rooms = others.map(|(id, node)| (is_chosen(id), node.volume_room)).peekable();
    rooms.peek().is_some()
        && rooms.all(|(chosen, room)| !chosen && room.is_some_and(|room| room < size))
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use vc_crdt::{ClusterState, KnownVersions, ServiceRecord};
    use vc_protocol::Keypair;
    use vc_protocol::node::NodeInfo;
    use vc_protocol::spec::{Mount, ServiceSpec};

    use super::*;
    use crate::interface::Vitals;

    static NO_VITALS: BTreeMap<NodeId, Vitals> = BTreeMap::new();

    fn texts(problems: Vec<Problem>) -> Vec<String> {
        problems.into_iter().map(|it| it.text).collect()
    }

    /// Returns clocks that all show this time.
    fn at(now: Millis) -> WallClocks<'static> {
        WallClocks { now, vitals: &NO_VITALS }
    }

    #[test]
    fn a_volume_too_large_for_any_other_node_is_a_problem_that_names_the_way_out() {
        let id = |seed: u8| {
            let key = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
            NodeId::of(&key.public()).expect("ed25519")
        };
        let ids = [id(1), id(2)];
        let supports = KnownVersions::default().supports();
        let node = |name: &str, volume_room| NodeState {
            incarnation: 1,
            observed: ids.into(),
            info: Some(NodeInfo { volume_room, supports, ..NodeInfo::for_tests(name) }),
            ..NodeState::default()
        };
        let snapshot = Some(SnapshotId { epoch: 1, number: 1 });
        let copy =
            VolumeCopy { snapshot, disk_bytes: 500, written: Some(1), ..VolumeCopy::default() };
        let record = VolumeRecord { lamport: 1, since: 1, begun: 1, copy: Some(copy) };
        let mut attic = node("attic", 1000);
        attic.volumes.insert("shop/films".parse().expect("a volume"), record.into());
        let said = |room: u64| {
            let nodes = BTreeMap::from([(ids[0], attic.clone()), (ids[1], node("desk", room))]);
            let view = View::from_states(ClusterState::default(), nodes, &KnownVersions::default());
            texts(problems(&view, at(1))).join("; ")
        };
        assert!(
            said(400).contains("no other node has the room: x-vc: {replicas: 1}"),
            "{}",
            said(400)
        );
        assert!(said(600).ends_with("has 1 of 2 copies: see 'vc volume ls' and 'vc nodes'"));
    }

    #[test]
    fn a_copy_lags_by_the_age_of_its_snapshot_unless_nothing_was_written_since() {
        let id = |number| Some(SnapshotId { epoch: 3, number });
        let copy =
            |number| VolumeCopy { snapshot: id(number), taken: 1000, ..VolumeCopy::default() };
        let home = VolumeCopy { written: Some(3), ..copy(5) };
        let of = |home: Option<&VolumeCopy>, number| lag(home, &copy(number), id(5), 9000);
        assert_eq!((of(Some(&home), 4), of(Some(&home), 5)), (Some(8000), Some(8000)));
        let idle = VolumeCopy { unchanged: true, ..home.clone() };
        assert_eq!((of(Some(&idle), 4), of(Some(&idle), 5)), (Some(8000), Some(0)));
        let closed = VolumeCopy { closed: true, ..home };
        assert_eq!((of(Some(&closed), 5), of(None, 5)), (Some(0), Some(0)));
        assert_eq!(lag(Some(&idle), &VolumeCopy::default(), id(5), 9000), None);
    }

    fn id(n: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    /// `shop/db` mounts `shop/data`, which n1 wrote; n2 has a copy of it, or not. n1 is down.
    fn without_primary(on_loss: OnLoss, has_copy: bool) -> View {
        view(on_loss, has_copy, false)
    }

    fn view(on_loss: OnLoss, has_copy: bool, is_up: bool) -> View {
        let mut spec = ServiceSpec::default();
        let (name, target) = ("data".parse().expect("a name"), "/data".to_owned());
        let mount = Mount::Volume { name, target, read_only: false, nocopy: false, subpath: None };
        spec.container.mounts.push(mount);
        let kept = VolumeSpec { on_loss, ..VolumeSpec::default() };
        spec.volumes.insert("data".parse().expect("a name"), kept);
        let record = ServiceRecord {
            spec: spec.into(),
            previous: None,
            revision: 1,
            updated: 1,
            deployed_by: "ada".to_owned(),
            trace: None,
        };
        let mut cluster = ClusterState::default();
        cluster.services.insert("shop/db".parse().expect("a service"), record.into());
        let copy = |number, written| VolumeCopy {
            snapshot: Some(SnapshotId { epoch: 3, number }),
            taken: number * 1000,
            written,
            ..VolumeCopy::default()
        };
        let node = |n: u8, copy: Option<VolumeCopy>| {
            let record = |copy| VolumeRecord { lamport: 5, since: 0, begun: 4, copy: Some(copy) };
            let volume = "shop/data".parse().expect("a volume");
            let supports = KnownVersions::default().supports();
            let info = NodeInfo { supports, ..NodeInfo::for_tests(&format!("n{n}")) };
            let state = NodeState {
                incarnation: 1,
                info: Some(info),
                observed: (1..=3).map(id).collect(),
                volumes: copy.map(|it| (volume, record(it).into())).into_iter().collect(),
                unreachable: (n != 1 && !is_up).then(|| (id(1), 1)).into_iter().collect(),
                ..NodeState::default()
            };
            (id(n), state)
        };
        let theirs = has_copy.then(|| copy(4, None));
        let nodes = [node(1, Some(copy(7, Some(3)))), node(2, theirs), node(3, None)];
        View::from_states(cluster, nodes.into(), &KnownVersions::default())
    }

    #[test]
    fn a_slot_that_waits_for_the_data_says_where_it_is_and_how_old_copies_are() {
        let reason = |on_loss, has_copy| {
            let view = without_primary(on_loss, has_copy);
            let mut rows = crate::report::instances(&view);
            name_waits(&view, &mut rows, 46_500);
            rows.pop().expect("a slot").reason
        };
        assert_eq!(
            reason(OnLoss::Wait, true),
            "n1: is down (it holds volume shop/data); volume shop/data waits for it (on_loss: wait), the copy on n2 is 42 s old"
        );
        let nothing =
            "n1: is down (it holds volume shop/data); no other node has a copy of volume shop/data";
        assert_eq!(reason(OnLoss::Wait, false), nothing);
        assert_eq!(reason(OnLoss::Latest, false), nothing);
        assert_eq!(reason(OnLoss::Latest, true), "", "it goes on there");
    }

    #[test]
    fn a_copy_past_the_aim_is_a_problem() {
        let view = view(OnLoss::Latest, true, true);
        assert!(problems(&view, at(60_000)).is_empty());
        let behind = "the copy of volume shop/data on n2 is 61 s behind: see 'vc volume ls'";
        assert_eq!(texts(problems(&view, at(65_000))), [behind]);
    }

    #[test]
    fn ages_are_by_the_clock_of_the_primary() {
        let mut view = without_primary(OnLoss::Wait, true);
        view.up.insert(id(1));
        let vitals = |clock_offset_ms| {
            BTreeMap::from([(id(1), Vitals { clock_offset_ms, ..Vitals::default() })])
        };
        for (ahead, lag) in [(0, 5000), (-3000, 2000), (3_600_000, 3_605_000)] {
            let vitals = vitals(ahead);
            let rows = volumes(&view, WallClocks { now: 9000, vitals: &vitals });
            assert_eq!(rows[0].replicas[0].lag_ms, Some(lag), "{ahead}");
        }
    }

    #[test]
    fn a_node_knows_what_its_copies_lack() {
        let view = without_primary(OnLoss::Wait, true);
        let of = |n| {
            let copies = copies(&view, id(n), at(9000));
            copies.into_iter().map(|it| (it.primary, it.lag_ms)).collect::<Vec<_>>()
        };
        assert_eq!(
            (of(1), of(2), of(3)),
            (vec![(true, Some(0))], vec![(false, Some(5000))], vec![])
        );
    }
}
