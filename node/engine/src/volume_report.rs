//! What users see of volumes: where the copies are, and how old.

use std::collections::BTreeMap;

use vc_crdt::{NodeState, View, VolumeRecord};
use vc_placement::volume_spec;
use vc_protocol::control::{ReplicaRow, ReplicaState, VolumeRow};
use vc_protocol::volume::{DEFAULT_REPLICAS, SnapshotId, VolumeCopy, VolumeSpec};
use vc_protocol::{Millis, NodeId, VolumeKey};

use crate::mutation::volumes::mounting;
use crate::report::is_witness;

/// A replica that is further behind is a problem.
pub(crate) const MAX_LAG: Millis = 60_000;

/// Returns a row for every named volume that has data on a node, at `now` by the wall clock.
pub fn volumes(view: &View, now: Millis) -> Vec<VolumeRow> {
    view.input.volumes.iter().map(|(volume, &home)| row(view, volume, home, now)).collect()
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

/// Returns the copies on a node, at `now` by the wall clock.
pub fn copies(view: &View, node: NodeId, now: Millis) -> Vec<CopyStatus> {
    let status = |(volume, &home): (&VolumeKey, &NodeId)| {
        let records: BTreeMap<NodeId, &VolumeRecord> = records(view, volume).collect();
        let of = |node: NodeId| records.get(&node)?.copy.as_ref();
        let newest = records.keys().filter_map(|&it| of(it)?.snapshot).max();
        let copy = of(node)?.clone();
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
        state,
        problem: copy.error.clone().unwrap_or_default(),
    }
}

/// Returns what the documents say of the copies of a volume, without what was removed.
fn records<'a>(
    view: &'a View,
    volume: &VolumeKey,
) -> impl Iterator<Item = (NodeId, &'a VolumeRecord)> {
    let removed = view.cluster.tombstones.get(volume).map_or(0, |it| it.lamport);
    view.nodes.iter().filter_map(move |(&node, state)| {
        let record: &VolumeRecord = state.volumes.get(volume)?;
        (record.lamport > removed).then_some((node, record))
    })
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
pub(crate) fn problems(view: &View, now: Millis) -> Vec<String> {
    let mut problems = Vec::new();
    for row in volumes(view, now) {
        let volume = &row.volume;
        if row.up && !row.problem.is_empty() {
            problems.push(format!(
                "no snapshots of volume {volume} on {}: {}",
                row.primary, row.problem
            ));
        }
        for replica in &row.replicas {
            let name = &replica.node_name;
            match (replica.state, replica.lag_ms) {
                (ReplicaState::Failed, _) => problems.push(format!(
                    "the copy of volume {volume} on {name} is not up to date: {}",
                    replica.problem
                )),
                (ReplicaState::Behind | ReplicaState::Current, Some(lag)) if lag > MAX_LAG => {
                    problems.push(format!(
                        "the copy of volume {volume} on {name} is {} s behind: see 'vc volume ls'",
                        lag / 1000
                    ))
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
            problems.push(format!("volume {volume} has {copies} of {} copies: {hint}", row.wanted));
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
    use vc_crdt::{ClusterState, KnownVersions};
    use vc_protocol::Keypair;
    use vc_protocol::node::NodeInfo;

    use super::*;

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
            problems(&view, 1).join("; ")
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
}
