//! What a node does with its copies of volumes.
//!
//! A volume has one *primary*, the node that has its lease and whose instances write to the *working directory*, and *replicas*
//! on other nodes. The primary takes *snapshots*; a replica gets the newest from any node that has it, and keeps a working
//! directory that is equal to it. So a replica that becomes the primary starts at once.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{NodeState, View, VolumeRecord};
use vc_placement::volume_spec;
use vc_protocol::lease::{Epoch, LeaseKey};
use vc_protocol::node::{RuntimeKind, Usage};
use vc_protocol::planted::{PlantedBug, is_planted};
use vc_protocol::volume::{Keep, SnapshotId, VolumeCopy, VolumeSpec};
use vc_protocol::{InstanceId, Millis, NodeId, Slot, VolumeKey};

use crate::lease::{Guard, Leases};
use crate::mutation::volumes::mounting;

/// What to do with the copy of a volume on this node, until told otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeTask {
    /// The part of this node.
    pub role: VolumeRole,
    /// How the volume is kept.
    pub spec: VolumeSpec,
}

/// Returns what follows from tasks where nothing is copied and all data is ready at once, as in tests of other things.
pub fn ready_at_once(tasks: &BTreeMap<VolumeKey, VolumeTask>) -> Vec<(VolumeKey, VolumeCopy)> {
    let ready = tasks.iter().filter_map(|(volume, task)| {
        let VolumeRole::Primary { epoch, .. } = task.role else { return None };
        Some((volume.clone(), VolumeCopy { written: Some(epoch), ..VolumeCopy::default() }))
    });
    ready.collect()
}

/// The part of a node in keeping a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeRole {
    /// It has the lease. It makes the working directory ready and reports [`written`](vc_protocol::volume::VolumeCopy::written)
    /// as the epoch: only then instances start. While they run it takes snapshots with this epoch.
    Primary {
        /// The epoch of the lease.
        epoch: Epoch,
        /// The newest snapshot that any node has: what to begin with, unless the working directory was written to under its
        /// epoch or a later one. `None`: what is there counts, or nothing is.
        newest: Option<SnapshotId>,
        /// Nodes that are up and have `newest`, for a copy that has not.
        sources: Vec<NodeId>,
        /// Whether to take snapshots: another node is to have a copy, or the volume says which snapshots to keep.
        snapshots: bool,
        /// The instances of this node that write to it, to be paused for a snapshot.
        writers: BTreeSet<InstanceId>,
    },
    /// It has the lease, and no instance writes any more: it takes the last snapshot with this epoch and reports the copy as
    /// [`closed`](vc_protocol::volume::VolumeCopy::closed).
    Closing {
        /// The epoch of the lease.
        epoch: Epoch,
    },
    /// It gets what others have written. If the working directory was written to under an earlier epoch and has what no snapshot
    /// has, that is kept aside first.
    Replica {
        /// The highest epoch of the volume that is known: snapshots of lower ones are refused from now on, durably.
        fence: Epoch,
        /// The newest snapshot that any node has.
        newest: Option<SnapshotId>,
        /// Nodes that are up and have it.
        sources: Vec<NodeId>,
    },
}

/// The snapshot and epochs that the documents say of one volume.
struct Known {
    /// The newest snapshot of any node that is up.
    newest: Option<SnapshotId>,
    /// The other nodes that have it.
    sources: Vec<NodeId>,
    /// The highest epoch.
    fence: Epoch,
}

impl Known {
    fn of(view: &View, volume: &VolumeKey, node: NodeId) -> Self {
        let copies =
            || view.nodes.iter().filter_map(|(&node, state)| Some((node, state.copy(volume)?)));
        let epochs = copies()
            .flat_map(|(_, it)| it.written.into_iter().chain(it.snapshot.map(|it| it.epoch)));
        let fence = epochs.max().unwrap_or(0);
        let up = || copies().filter(|(node, _)| view.up.contains(node));
        let snapshots = up().filter_map(|(_, it)| it.snapshot);
        let newest = match is_planted(PlantedBug::OldSnapshot) {
            false => snapshots.max(),
            true => snapshots.min(),
        };
        let has_it = |it: &VolumeCopy| it.snapshot.is_some() && it.snapshot == newest;
        let sources = up().filter(|(at, it)| *at != node && has_it(it)).map(|(at, _)| at);
        Self { newest, sources: sources.collect(), fence }
    }
}

/// Returns the volumes that a slot's service writes, without network file systems.
fn written_by(view: &View, slot: &Slot) -> impl Iterator<Item = VolumeKey> {
    let project = &slot.service.project;
    let spec = view.spec(&slot.service);
    let local = spec
        .into_iter()
        .flat_map(|spec| spec.written_volumes().filter(move |name| !spec.is_network_volume(name)));
    local.map(|volume| VolumeKey { project: project.clone(), volume: volume.clone() })
}

/// Returns the volumes that are to be ready under these leases before a slot of this node starts, and are not yet.
pub(crate) fn unready(
    view: &View,
    own: &NodeState,
    slot: &Slot,
    leases: &Leases,
    now: Millis,
) -> Option<VolumeKey> {
    if !view.rules.copies || is_planted(PlantedBug::UnreadyVolume) {
        return None;
    }
    written_by(view, slot).find(|volume| {
        let held = held(leases, volume, now);
        let copy = own.copy(volume);
        held.is_none() || copy.is_none_or(|copy| copy.written != held || copy.closed)
    })
}

fn held(leases: &Leases, volume: &VolumeKey, now: Millis) -> Option<Epoch> {
    leases.held(&BTreeSet::from([LeaseKey::volume(volume)]), now).map(|held| held.epoch)
}

/// Returns the leases that this node still needs although no instance uses them: of the volumes that it wrote until a moment ago,
/// until the next home has all that was written.
pub(crate) fn unfinished(
    view: &View,
    own: &NodeState,
    node: NodeId,
    leases: &Leases,
    now: Millis,
) -> BTreeSet<LeaseKey> {
    let unfinished = own.volumes.iter().filter(|(volume, record)| {
        let Some(copy) = &record.copy else { return false };
        let is_copied =
            view.copies.get(volume).is_some_and(|nodes| nodes.iter().any(|it| *it != node));
        if !is_copied || copy.written.is_none() || held(leases, volume, now) != copy.written {
            return false;
        }
        let home = view.input.volumes.get(volume).filter(|&&home| home != node);
        let successor =
            home.filter(|home| view.up.contains(home)).and_then(|home| view.nodes.get(home));
        let has_all = |state: &NodeState| {
            state.copy(volume).and_then(|theirs| theirs.snapshot) >= copy.snapshot
        };
        !copy.closed || !successor.is_none_or(has_all)
    });
    unfinished.map(|(volume, _)| LeaseKey::volume(volume)).collect()
}

/// Sets how much data of volumes a node can keep: a copy takes twice its data, in the working directory and in snapshots. Returns whether
/// the node says something new: it does when that changes by more than an eighth.
pub(crate) fn set_volume_room(own: &mut NodeState, usage: Usage) -> bool {
    let kept = own.volumes.values().filter_map(|record| record.copy.as_ref());
    let kept = kept.map(|copy| copy.disk_bytes).fold(0, u64::saturating_add);
    let room = (usage.disk_bytes.saturating_sub(usage.disk_used) / 2).saturating_add(kept);
    // Zero would say nothing.
    let room = room.max(1);
    let Some(info) = own.info.as_mut().filter(|info| info.runtime == RuntimeKind::Docker) else {
        return false;
    };
    if usage.disk_bytes == 0 {
        return false;
    }
    let is_new = room.abs_diff(info.volume_room) > info.volume_room / 8;
    if is_new {
        info.volume_room = room;
    }
    is_new
}

/// What this node does with its copies.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    /// As last reported.
    tasks: BTreeMap<VolumeKey, VolumeTask>,
}

/// What follows for the shell.
#[derive(Debug, Default)]
pub(crate) struct VolumeEffects {
    /// The tasks, if they have changed.
    pub(crate) tasks: Option<BTreeMap<VolumeKey, VolumeTask>>,
    /// Copies that are not needed any more.
    pub(crate) removed: Vec<VolumeKey>,
}

impl Volumes {
    /// Decides what to do with each copy, and records in `own` the copies that this node is to have.
    pub(crate) fn update(
        &mut self,
        view: &View,
        own: &mut NodeState,
        node: NodeId,
        guard: &Guard,
        now: Millis,
    ) -> VolumeEffects {
        let leases = &guard.leases;
        if !view.rules.copies || own.runtime_error.is_some() {
            return VolumeEffects::default();
        }
        for volume in
            view.copies.iter().filter(|(_, nodes)| nodes.contains(&node)).map(|(it, _)| it)
        {
            let copy = || VolumeRecord {
                lamport: view.next_lamport(),
                since: 0,
                begun: 0,
                copy: Some(VolumeCopy::default()),
            };
            if view.input.volumes.get(volume) != Some(&node) {
                own.volumes.entry(volume.clone()).or_insert_with(|| copy().into());
            }
        }
        let removed: Vec<VolumeKey> = own
            .volumes
            .iter()
            .filter(|(volume, record)| is_superfluous(view, node, volume, record))
            .map(|(volume, _)| volume.clone())
            .collect();
        own.volumes.retain(|volume, _| !removed.contains(volume));
        let mut writers: BTreeMap<VolumeKey, BTreeSet<InstanceId>> = BTreeMap::new();
        for slot in view.plan.slots_of(node) {
            for volume in written_by(view, slot) {
                writers.entry(volume).or_default();
            }
        }
        for (id, claim) in own.claims.iter().filter(|(id, _)| !view.has_ended(id)) {
            // One whose service was changed or removed writes on until it has stopped.
            let former = view.is_former(id);
            let is_used = |volume: &&VolumeKey| former && guard.uses(&id.slot, volume);
            let used = own.volumes.keys().filter(is_used).cloned();
            for volume in written_by(view, &id.slot).chain(used) {
                let of_volume = writers.entry(volume).or_default();
                if claim.state.is_running() {
                    of_volume.insert(id.clone());
                }
            }
        }
        let volumes: BTreeSet<&VolumeKey> = own.volumes.keys().chain(writers.keys()).collect();
        let tasks = volumes.into_iter().filter_map(|volume| {
            let spec = volume_spec(&view.input, volume);
            let epoch = held(leases, volume, now);
            let role = role(view, own, node, volume, epoch, writers.get(volume), &spec)?;
            Some((volume.clone(), VolumeTask { role, spec }))
        });
        let tasks: BTreeMap<VolumeKey, VolumeTask> = tasks.collect();
        let changed = tasks != self.tasks;
        self.tasks.clone_from(&tasks);
        VolumeEffects { tasks: changed.then_some(tasks), removed }
    }
}

/// Returns whether this node keeps the data of a volume that no service has ever written: it has the data that people put there, or
/// no other node has. It takes snapshots without a lease, as of epoch 0, and notices what people change.
fn keeps_unwritten(view: &View, node: NodeId, volume: &VolumeKey, written: Option<Epoch>) -> bool {
    let others = || view.nodes.iter().filter(|(other, _)| **other != node);
    let has_begun = |state: &NodeState| state.copy(volume).is_some_and(|it| it.written.is_some());
    view.input.volumes.get(volume) == Some(&node)
        && view.input.readable.contains_key(volume)
        && mounting(&view.cluster, volume).next().is_some()
        && Known::of(view, volume, node).fence == 0
        && (written == Some(0) || (written.is_none() && !others().any(|(_, it)| has_begun(it))))
}

/// Returns a volume that this node has as a snapshot alone, from an archive, and that is to be ready before a slot starts; `None` if
/// all are.
pub(crate) fn unread(view: &View, own: &NodeState, node: NodeId, slot: &Slot) -> Option<VolumeKey> {
    let mut volumes = view.volumes_of(&slot.service);
    volumes.find(|volume| {
        let copy = own.copy(volume);
        copy.is_some_and(|copy| copy.snapshot.is_some() && copy.written.is_none())
            && keeps_unwritten(view, node, volume, None)
    })
}

/// Returns the instances of this node that mount a volume and run.
fn users(own: &NodeState, view: &View, volume: &VolumeKey) -> BTreeSet<InstanceId> {
    let running = own.claims.iter().filter(|(_, claim)| claim.state.is_running());
    running.map(|(id, _)| id).filter(|id| mounts(view, id, volume)).cloned().collect()
}

fn mounts(view: &View, id: &InstanceId, volume: &VolumeKey) -> bool {
    view.volumes_of(&id.slot.service).any(|mounted| mounted == *volume)
}

fn role(
    view: &View,
    own: &NodeState,
    node: NodeId,
    volume: &VolumeKey,
    epoch: Option<Epoch>,
    writers: Option<&BTreeSet<InstanceId>>,
    spec: &VolumeSpec,
) -> Option<VolumeRole> {
    let copy = own.volumes.get(volume).map(|record| record.copy.clone());
    // Data from before snapshots was written before the first lease.
    let written = copy.as_ref().and_then(|copy| copy.as_ref().map_or(Some(0), |copy| copy.written));
    let Known { newest, sources, fence } = Known::of(view, volume, node);
    match (epoch, writers) {
        (Some(epoch), Some(writers)) => {
            let has_begun = written == Some(epoch);
            let (newest, sources) = if has_begun { (None, Vec::new()) } else { (newest, sources) };
            let copied = view.copies.get(volume).is_some_and(|nodes| nodes.len() > 1);
            let snapshots = copied || spec.keep != Keep::default();
            Some(VolumeRole::Primary {
                epoch,
                newest,
                sources,
                snapshots,
                writers: writers.clone(),
            })
        }
        (Some(epoch), None) if written == Some(epoch) => Some(VolumeRole::Closing { epoch }),
        (Some(_), None) => None,
        (None, None) if keeps_unwritten(view, node, volume, written) => {
            let copied = view.copies.get(volume).is_some_and(|nodes| nodes.len() > 1);
            // An archive that was imported is a snapshot before it is anything else.
            let (newest, sources) =
                if written.is_some() { (None, Vec::new()) } else { (newest, sources) };
            let writers = users(own, view, volume);
            let role =
                VolumeRole::Primary { epoch: 0, newest, sources, snapshots: copied, writers };
            (copied || written.is_none()).then_some(role)
        }
        // What was written here last stays as it is until another node has written later.
        (None, _) if newest.is_none_or(|newest| written.is_some_and(|it| newest.epoch <= it)) => {
            None
        }
        (None, _) => copy.map(|_| VolumeRole::Replica { fence, newest, sources }),
    }
}

/// Returns whether a copy is not needed: other nodes are to have the volume, and they have all that is here.
fn is_superfluous(view: &View, node: NodeId, volume: &VolumeKey, record: &VolumeRecord) -> bool {
    let (Some(wanted), Some(copy)) = (view.copies.get(volume), &record.copy) else { return false };
    let drained = view.cluster.drained.get(&node).copied().unwrap_or(false);
    if wanted.contains(&node) || drained || copy.conflicts > 0 || !view.up.contains(&node) {
        return false;
    }
    let claims = view.nodes.get(&node).into_iter().flat_map(|state| state.claims.keys());
    if claims.into_iter().any(|id| mounts(view, id, volume)) {
        return false;
    }
    // The copy that was written last is the volume, until another one is written.
    let of = |node: &NodeId| view.nodes.get(node)?.copy(volume);
    let later = |node: &NodeId| of(node).is_some_and(|theirs| theirs.written > copy.written);
    if copy.written.is_some() && !view.nodes.keys().any(later) {
        return false;
    }
    // What no snapshot has is put aside before, when the copy follows the others.
    if copy.written.is_some() && !copy.closed {
        return false;
    }
    let has_all = |other: &NodeId| {
        let theirs = of(other).and_then(|theirs| theirs.snapshot);
        view.up.contains(other) && theirs.is_some() && theirs >= copy.snapshot
    };
    let is_kept = || wanted.iter().all(has_all) || is_planted(PlantedBug::DroppedCopy);
    !wanted.is_empty() && is_kept()
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use vc_protocol::node::NodeInfo;

    use super::*;

    #[test]
    fn a_node_says_anew_how_much_data_it_can_keep_when_that_changes_a_lot() {
        let usage =
            |free: u64| Usage { disk_bytes: 1000, disk_used: 1000 - free, ..Usage::default() };
        let info = Some(NodeInfo::for_tests("attic"));
        let mut own = NodeState { info, ..NodeState::default() };
        assert!(set_volume_room(&mut own, usage(800)));
        assert!(!set_volume_room(&mut own, usage(720)), "a tenth less");
        // What a copy takes is still there for it: twice its data.
        let copy = Some(VolumeCopy { disk_bytes: 300, ..VolumeCopy::default() });
        let record = VolumeRecord { lamport: 1, since: 1, begun: 1, copy };
        own.volumes.insert("shop/data".parse().expect("a volume"), record.into());
        assert!(!set_volume_room(&mut own, usage(200)));
        assert_eq!(own.info.as_ref().map(|info| info.volume_room), Some(400));
        assert!(set_volume_room(&mut own, usage(50)));
        assert_eq!(own.info.as_ref().map(|info| info.volume_room), Some(325));
        own.volumes.clear();
        assert!(set_volume_room(&mut own, usage(0)));
        assert_eq!(own.info.as_ref().map(|info| info.volume_room), Some(1), "zero says nothing");
        assert!(!set_volume_room(&mut own, Usage::default()), "it was not measured");
    }
}
