//! Commands about volumes: to move one to another node, and to remove one.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{ClusterState, MoveOrder, NodeState, Tombstone, View};
use vc_placement::{ServiceDemand, may_run};
use vc_protocol::control::Change;
use vc_protocol::spec::ServiceSpec;
use vc_protocol::{Lamport, Millis, Name, NodeId, ServiceKey, Slot, Stored, VolumeKey};

use super::check_held;
use super::error::MutationError;
use super::find::find_node;

/// Orders that a volume moves to another node, with the services that mount it. Errors: there is no such volume or node, the node
/// is down or has the volume already, or no service runs that would move.
pub(super) fn move_volume(
    view: &View,
    state: &mut ClusterState,
    volume: &VolumeKey,
    to: &str,
) -> Result<Vec<Change>, MutationError> {
    let no_volume = || MutationError::NoVolume(volume.clone());
    let from = *view.input.volumes.get(volume).ok_or_else(no_volume)?;
    let to = find_node(view, to)?;
    if from == to || !view.up.contains(&to) || !view.rules.copies {
        let reason = match () {
            () if from == to => "has it already",
            () if !view.up.contains(&to) => "is down",
            () => "cannot get it while members are of a version without copies of volumes",
        };
        let node = view.name(to);
        return Err(MutationError::VolumeStays { volume: volume.clone(), node, reason });
    }
    state.moves.retain(|slot, order| is_open(view, slot, order));
    let services: Vec<&ServiceKey> = mounting(&view.cluster, volume).collect();
    let slots = view.plan.placements.keys().filter(|slot| services.contains(&&slot.service));
    let mut changes = Vec::new();
    for slot in slots {
        let order = MoveOrder { from, to, lamport: view.next_lamport() };
        state.moves.insert(slot.clone(), order);
        changes.push(Change::Moving {
            slot: slot.clone(),
            from,
            from_name: view.name(from),
            to,
            to_name: view.name(to),
            reason: format!("volume {volume} moves"),
        });
    }
    if changes.is_empty() {
        let reason = "gets it when a service runs that mounts it";
        let node = view.name(to);
        return Err(MutationError::VolumeStays { volume: volume.clone(), node, reason });
    }
    Ok(changes)
}

/// Returns whether an order may still have an effect: its instance runs, or a volume has not begun on either node since.
pub(super) fn is_open(view: &View, slot: &Slot, order: &MoveOrder) -> bool {
    if view.input.moves.contains_key(slot) {
        return true;
    }
    let begun = |node: NodeId, volume: &VolumeKey| -> Lamport {
        let record = view.nodes.get(&node).and_then(|state| state.volumes.get(volume));
        record.map_or(0, |record| record.begun)
    };
    view.rules.copies
        && view.volumes_of(&slot.service).any(|volume| {
            [order.from, order.to].into_iter().all(|node| begun(node, &volume) < order.lamport)
        })
}

/// Removes a volume. Errors: no node holds it, or a service mounts it.
pub(super) fn remove_volume(
    view: &View,
    state: &mut ClusterState,
    volume: &VolumeKey,
    now: Millis,
) -> Result<Change, MutationError> {
    bury(
        view,
        state,
        volume,
        Tombstone { lamport: view.next_lamport(), at: now, forgotten: false },
    )?;
    Ok(Change::VolumeRemoved { volume: volume.clone() })
}

/// Forgets a volume. Errors: as of [`remove_volume`]; or a member, up or not, would delete the data.
pub(super) fn forget_volume(
    view: &View,
    state: &mut ClusterState,
    volume: &VolumeKey,
    now: Millis,
) -> Result<Change, MutationError> {
    let members = view.nodes.iter().filter(|(node, _)| !view.cluster.left.contains_key(*node));
    let deletes = |node: &NodeState| node.info.as_ref().is_none_or(|it| !it.supports.forgets);
    if members.map(|(_, node)| node).any(deletes) {
        return Err(MutationError::OlderMembers("forget a volume without deleting its data"));
    }
    bury(
        view,
        state,
        volume,
        Tombstone { lamport: view.next_lamport(), at: now, forgotten: true },
    )?;
    Ok(Change::VolumeForgotten { volume: volume.clone() })
}

/// Writes the tombstone of a volume. Errors: no node holds it, or a service mounts it.
fn bury(
    view: &View,
    state: &mut ClusterState,
    volume: &VolumeKey,
    tombstone: Tombstone,
) -> Result<(), MutationError> {
    if !view.input.volumes.contains_key(volume) {
        return Err(MutationError::NoVolume(volume.clone()));
    }
    let services: Vec<ServiceKey> = mounting(&view.cluster, volume).cloned().collect();
    if !services.is_empty() {
        return Err(MutationError::VolumeInUse { volume: volume.clone(), services });
    }
    // One that this version cannot read may mount it.
    check_held(view, |service| service.project == volume.project)?;
    state.tombstones.insert(volume.clone(), tombstone);
    Ok(())
}

/// Says of a deployment that it may not run where its data is; `None` if it may, or has no data yet.
pub(crate) fn leaves_its_data(
    view: &View,
    service: &ServiceKey,
    spec: &Stored<ServiceSpec>,
) -> Option<String> {
    let key = |name: &Name| VolumeKey { project: service.project.clone(), volume: name.clone() };
    let homes = spec.volumes().filter_map(|name| {
        let (volume, home) = view.input.volumes.get_key_value(&key(name))?;
        view.up.contains(home).then_some((volume, *home))
    });
    let homes: Vec<(&VolumeKey, NodeId)> = homes.collect();
    if homes.is_empty() || !view.rules.copies {
        return None;
    }
    let mut input = view.input.clone();
    let demand = ServiceDemand {
        spec: spec.clone(),
        replicas: 1,
        needs: view.needs(spec),
        ended: BTreeSet::new(),
        due: BTreeMap::new(),
        revision: Lamport::MAX,
    };
    input.services.insert(service.clone(), demand);
    let (volume, home) = homes.into_iter().find(|(_, home)| !may_run(&input, service, *home))?;
    let home = view.name(home);
    Some(match input.nodes.keys().any(|&node| may_run(&input, service, node)) {
        true => format!(
            "volume {volume} is on {home}, which may not run it: it moves to a node that may, once that has a copy"
        ),
        false => {
            format!("volume {volume} is on {home}, which may not run it, and no other node may")
        }
    })
}

/// Returns the services that mount a volume, now or after a rollback.
pub fn mounting<'a>(
    cluster: &'a ClusterState,
    volume: &'a VolumeKey,
) -> impl Iterator<Item = &'a ServiceKey> {
    let mounts = |spec: &ServiceSpec| spec.volumes().any(|it| *it == volume.volume);
    let of_project = cluster.services.iter().filter(|(key, _)| key.project == volume.project);
    let mounting = of_project.filter(move |(_, record)| {
        mounts(&record.spec) || record.previous.as_ref().is_some_and(|spec| mounts(spec))
    });
    mounting.map(|(key, _)| key)
}

/// Returns whether a volume is lost with a node: it is the home, and no other node has a snapshot.
pub(super) fn is_only_on(view: &View, volume: &VolumeKey, node: NodeId) -> bool {
    let others = view.nodes.iter().filter(|(other, _)| **other != node);
    let mut copies = others.filter_map(|(_, state)| state.copy(volume));
    view.input.volumes.get(volume) == Some(&node) && !copies.any(|copy| copy.snapshot.is_some())
}
