//! The copies of volumes on the nodes. As the shell of a node does, each node carries out the tasks of its engine: it gets
//! snapshots from other nodes, takes its own, and makes the content of a volume ready for an instance.

use std::collections::{BTreeMap, BTreeSet};

use vc_engine::Input;
use vc_engine::volumes::{VolumeRole, VolumeTask};
use vc_protocol::lease::Epoch;
use vc_protocol::volume::{SnapshotId, VolumeCopy};
use vc_protocol::{Millis, VolumeKey};

use crate::invariants::{newest_copy_counts, one_writer};
use crate::marks::Mark;
use crate::workloads;
use crate::world::{Event, World};

/// Interval between two steps of a node.
const STEP: Millis = 500;
/// Interval between two snapshots.
const SNAPSHOT: Millis = 5_000;

/// What instances have written to a volume: the numbers of the writes.
pub type Content = BTreeSet<u64>;

/// The copy of a volume on a node.
#[derive(Debug, Default)]
pub struct Copy {
    /// What instances see.
    pub working: Content,
    /// The snapshots.
    pub snapshots: BTreeMap<SnapshotId, Content>,
    /// What was put aside.
    pub conflicts: Vec<Content>,
    written: Option<Epoch>,
    closed: bool,
    fence: Epoch,
    next_snapshot: Millis,
}

/// The copies and tasks of a node. The tasks end with its process.
#[derive(Debug, Default)]
pub struct Volumes {
    /// The copies.
    pub copies: BTreeMap<VolumeKey, Copy>,
    tasks: BTreeMap<VolumeKey, VolumeTask>,
    engine_id: u64,
}

/// What was written to volumes, and which nodes have had it.
#[derive(Debug, Default)]
pub struct Written(BTreeMap<u64, (VolumeKey, BTreeSet<usize>)>);

impl Written {
    /// Adds a write on a node. Returns its number.
    fn add(&mut self, volume: &VolumeKey, index: usize) -> u64 {
        let number = self.0.len() as u64 + 1;
        self.0.insert(number, (volume.clone(), BTreeSet::from([index])));
        number
    }

    /// Notes that a node has these writes in a snapshot.
    fn copied(&mut self, content: &Content, index: usize) {
        for number in content {
            if let Some((_, nodes)) = self.0.get_mut(number) {
                nodes.insert(index);
            }
        }
    }

    /// Returns the number of each write, its volume, and the nodes that have had it.
    pub fn all(&self) -> impl Iterator<Item = (u64, &VolumeKey, &BTreeSet<usize>)> {
        self.0.iter().map(|(number, (volume, nodes))| (*number, volume, nodes))
    }
}

impl Copy {
    /// Returns whether it has a write: in what instances see, a snapshot, or what was put aside.
    pub fn has(&self, number: u64) -> bool {
        let mut all = self.snapshots.values().chain(&self.conflicts).chain([&self.working]);
        all.any(|content| content.contains(&number))
    }

    /// Returns the epoch under which instances have written to it last, or may now.
    pub fn written(&self) -> Option<Epoch> {
        self.written
    }

    fn report(&self) -> VolumeCopy {
        VolumeCopy {
            snapshot: self.snapshots.last_key_value().map(|(id, _)| *id),
            written: self.written,
            closed: self.closed,
            conflicts: u32::try_from(self.conflicts.len()).unwrap_or(u32::MAX),
            ..VolumeCopy::default()
        }
    }

    /// Takes a snapshot, unless the last one has all.
    fn take_snapshot(&mut self, epoch: Epoch) {
        let last = self.snapshots.last_key_value();
        if last.is_some_and(|(_, content)| *content == self.working) {
            return;
        }
        let number = last.map_or(0, |(id, _)| id.number) + 1;
        self.snapshots.insert(SnapshotId { epoch, number }, self.working.clone());
    }

    /// Makes a snapshot what instances see. What was written since the last one of its own is put aside.
    fn follow(&mut self, id: SnapshotId) {
        let Some(content) = self.snapshots.get(&id) else { return };
        let saved = self.closed || self.snapshots.values().any(|it| *it == self.working);
        if !saved && !self.working.is_empty() {
            self.conflicts.push(self.working.clone());
        }
        self.working.clone_from(content);
        (self.written, self.closed) = (None, false);
    }
}

impl World {
    /// Takes in the tasks of a node.
    pub fn set_volume_tasks(&mut self, index: usize, tasks: BTreeMap<VolumeKey, VolumeTask>) {
        let engine_id = self.nodes[index].engine_id;
        let volumes = &mut self.nodes[index].volumes;
        let is_new = volumes.tasks.is_empty() || volumes.engine_id != engine_id;
        (volumes.tasks, volumes.engine_id) = (tasks, engine_id);
        if is_new {
            self.schedule(STEP, Event::Volumes { index, engine_id });
        }
    }

    /// Lets a node report all its copies, as after a start.
    pub fn report_copies(&mut self, index: usize) {
        let copies = self.nodes[index].volumes.copies.iter();
        let reports: Vec<_> = copies.map(|(key, copy)| (key.clone(), copy.report())).collect();
        for (volume, copy) in reports {
            self.deliver(1, index, Input::Volume(volume, copy));
        }
    }

    /// Carries out the tasks of a node once.
    pub fn step_volumes(&mut self, index: usize) {
        let volumes = &self.nodes[index].volumes;
        let engine_id = self.nodes[index].engine_id;
        if volumes.engine_id != engine_id || volumes.tasks.is_empty() {
            return;
        }
        for (volume, task) in volumes.tasks.clone() {
            let before = self.nodes[index].volumes.copies.get(&volume).map(Copy::report);
            self.carry_out(index, &volume, task.role);
            let after = self.nodes[index].volumes.copies.get(&volume).map(Copy::report);
            if let Some(copy) = after.filter(|it| before.as_ref() != Some(it)) {
                self.deliver(1, index, Input::Volume(volume, copy));
            }
        }
        self.schedule(STEP, Event::Volumes { index, engine_id });
    }

    fn carry_out(&mut self, index: usize, volume: &VolumeKey, role: VolumeRole) {
        let now = self.now;
        match role {
            VolumeRole::Primary { epoch, newest, sources, snapshots, writers } => {
                let sources = sources.into_iter().map(|id| self.node_of(id)).collect();
                let copy = self.copy(index, volume);
                if copy.fence > epoch {
                    return;
                }
                copy.fence = epoch;
                if copy.written != Some(epoch) {
                    if let Some(id) =
                        newest.filter(|id| copy.written.is_none_or(|it| it < id.epoch))
                    {
                        if !self.fetch(index, volume, id, sources) {
                            return;
                        }
                        self.follow(index, volume, id);
                        self.mark(Mark::VolumeWentOn);
                    }
                    let begins = newest_copy_counts::check(self, index, volume);
                    self.require(begins);
                    self.trace_node(index, &format!("writes {volume} under epoch {epoch}"));
                    let copy = self.copy(index, volume);
                    (copy.written, copy.closed) = (Some(epoch), false);
                    copy.next_snapshot = now;
                }
                let copy = self.copy(index, volume);
                if snapshots && !writers.is_empty() && now >= copy.next_snapshot {
                    copy.next_snapshot = now + SNAPSHOT;
                    copy.take_snapshot(epoch);
                }
            }
            VolumeRole::Closing { epoch } => {
                let copy = self.copy(index, volume);
                if copy.fence <= epoch && !copy.closed {
                    copy.take_snapshot(epoch);
                    copy.closed = true;
                }
            }
            VolumeRole::Replica { fence, newest, sources } => {
                let sources = sources.into_iter().map(|id| self.node_of(id)).collect();
                let copy = self.copy(index, volume);
                copy.fence = copy.fence.max(fence);
                let Some(id) = newest else { return };
                if self.fetch(index, volume, id, sources)
                    && self.copy(index, volume).written.is_none_or(|it| it < id.epoch)
                {
                    self.follow(index, volume, id);
                }
            }
        }
    }

    /// Makes a snapshot what instances see.
    fn follow(&mut self, index: usize, volume: &VolumeKey, id: SnapshotId) {
        let copy = self.copy(index, volume);
        let kept = copy.conflicts.len();
        copy.follow(id);
        if copy.conflicts.len() > kept {
            self.trace_node(index, &format!("puts aside what it wrote to {volume} last"));
            self.mark(Mark::ConflictKept);
        }
    }

    fn copy(&mut self, index: usize, volume: &VolumeKey) -> &mut Copy {
        self.nodes[index].volumes.copies.entry(volume.clone()).or_default()
    }

    /// Gets a snapshot. Returns whether it is there.
    fn fetch(
        &mut self,
        index: usize,
        volume: &VolumeKey,
        id: SnapshotId,
        from: Vec<usize>,
    ) -> bool {
        let copy = self.copy(index, volume);
        if copy.snapshots.contains_key(&id) {
            return true;
        }
        let newest = copy.snapshots.last_key_value().map(|(id, _)| *id);
        if newest.is_some_and(|it| it > id)
            || id.epoch < copy.fence && newest.is_some_and(|it| it.epoch > id.epoch)
        {
            return false;
        }
        let peers: Vec<usize> = self.network.peers(index, self.nodes.len());
        let reachable = from.into_iter().filter(|it| self.is_awake(*it) && peers.contains(it));
        let content = reachable
            .filter_map(|it| self.nodes[it].volumes.copies.get(volume)?.snapshots.get(&id).cloned())
            .next();
        let Some(content) = content else { return false };
        self.written.copied(&content, index);
        self.copy(index, volume).snapshots.insert(id, content);
        true
    }

    /// Lets an instance write to a volume, if one runs that may. Returns the node and the number of the write. Panics if two may.
    pub fn write(&mut self, volume: &VolumeKey) -> Option<(usize, u64)> {
        let writers = one_writer::of(self, volume);
        self.require(one_writer::check(self, volume, &writers));
        let index = *writers.first()?;
        let number = self.written.add(volume, index);
        self.copy(index, volume).working.insert(number);
        Some((index, number))
    }

    /// Lets an instance write to the volume of [`workloads`](crate::workloads) from now on, until [`World::writes_until`].
    pub fn write_on(&mut self) {
        self.write(&workloads::volume());
        if self.now < self.writes_until {
            let after = self.rng.within((50, 900));
            self.schedule(after, Event::Write);
        }
    }
}
