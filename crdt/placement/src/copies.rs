//! Copies: the nodes that are to have a copy of each volume.
//!
//! The copies of volumes that are mounted together are on the same nodes: a node that lacks one of them could not take over. Nodes
//! that may run the services come first, then those that have copies already. Where the home itself may not run the services any
//! more, or is being drained, one that may gets a copy in any case, so that the volumes can move there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::node::RuntimeKind;
use vc_protocol::volume::{DEFAULT_REPLICAS, MAX_REPLICAS, VolumeSpec};
use vc_protocol::{Millis, NodeId, VolumeKey};

use crate::homes::{Copies, Orders, may_run_all, suits_all, volume_spec};
use crate::input::PlanInput;
use crate::order::{Service, Shared, services};
use crate::rendezvous::rendezvous;
use crate::rules::Rules;
use crate::volumes::groups;

/// For how long a node may be down before its copies are made anew elsewhere, in milliseconds, unless the volume says it.
pub const LOST_AFTER: Millis = 5 * 60 * 1000;

/// The nodes that are to have copies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WantedCopies {
    /// The nodes of each volume: the home, where an order moves it, then the others.
    pub nodes: BTreeMap<VolumeKey, BTreeSet<NodeId>>,
    /// What then is left of the [room](crate::Node::volume_room) of each node that says how much it has, in bytes.
    pub room: BTreeMap<NodeId, u64>,
}

/// Volumes that have copies on the same nodes.
struct Together<'s, 'a> {
    volumes: Vec<Volume>,
    services: Vec<&'s Service<'a>>,
    home: NodeId,
    /// Where orders move them.
    ordered: BTreeSet<NodeId>,
    /// The other nodes that are to have copies, the first of them first.
    others: Vec<NodeId>,
}

struct Volume {
    key: VolumeKey,
    /// How many nodes are to have it.
    count: usize,
    /// Bytes that it reserves on each: as it says, or what it takes by now if that is more.
    size: u64,
    /// How long a node with a copy may be down.
    lost_after: Millis,
}

impl Together<'_, '_> {
    /// Returns the nodes that are to have a volume.
    fn nodes(&self, volume: &Volume, is_suited: impl Fn(NodeId) -> bool) -> BTreeSet<NodeId> {
        let mut nodes = BTreeSet::from([self.home]);
        if volume.count == 0 {
            return nodes;
        }
        nodes.extend(&self.ordered);
        for &node in &self.others {
            if nodes.len() < volume.count {
                nodes.insert(node);
            }
        }
        if !nodes.iter().any(|&node| is_suited(node)) {
            nodes.extend(self.others.iter().copied().find(|&node| is_suited(node)));
        }
        nodes
    }

    /// Returns how many copies the volume with the most is to have.
    fn most(&self) -> usize {
        self.volumes.iter().map(|volume| volume.count).max().unwrap_or(0)
    }

    /// Returns how many nodes there are.
    fn len(&self) -> usize {
        let nodes = [&self.home].into_iter().chain(&self.ordered).chain(&self.others);
        nodes.collect::<BTreeSet<_>>().len()
    }
}

/// Returns the nodes that are to have a copy of each volume. `input` has the homes.
pub fn copies_wanted(
    input: &PlanInput,
    copies: &Copies,
    orders: &Orders,
    rules: Rules,
) -> WantedCopies {
    let services = services(input);
    let mut sets = together(input, &services, copies, rules);
    let room = input.nodes.iter().filter_map(|(&id, node)| Some((id, node.volume_room?)));
    let mut wanted = WantedCopies { nodes: BTreeMap::new(), room: room.collect() };
    let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
    let may_run = |set: &Together<'_, '_>, node: NodeId| {
        input.nodes.get(&node).is_some_and(|it| may_run_all(node, it, &set.services))
    };
    // First what stays, so that it counts for what is new.
    for set in &mut sets {
        keep(input, copies, orders, set);
        for volume in &set.volumes {
            let nodes = set.nodes(volume, |node| may_run(set, node));
            wanted.add(volume, nodes, &mut load);
        }
    }
    for set in &mut sets {
        let most = set.most();
        let is_suited = |set: &Together<'_, '_>| {
            let nodes = [&set.home].into_iter().chain(&set.ordered).chain(&set.others);
            !input.nodes.get(&set.home).is_some_and(|it| it.up)
                || nodes.into_iter().any(|&node| may_run(set, node))
        };
        while most > 0 && (set.len() < most || !is_suited(set)) {
            let beyond = set.len() >= most;
            let size = set.volumes.iter().filter(|it| it.count > 0).map(|it| it.size);
            let size = size.fold(0, u64::saturating_add);
            let free = input.nodes.iter().filter(|(id, node)| {
                let has_room = wanted.room.get(id).is_none_or(|&room| room >= size);
                let is_new =
                    **id != set.home && !set.ordered.contains(id) && !set.others.contains(id);
                is_new
                    && has_room
                    && node.up
                    && node.faults.node.is_none()
                    && keeps(input, set, **id)
            });
            let free = free.filter(|(id, _)| !beyond || may_run(set, **id));
            let next = free.min_by_key(|&(&id, _)| {
                let load = load.get(&id).copied().unwrap_or(0);
                (Reverse(may_run(set, id)), load, Reverse(weight(set, id)))
            });
            let Some((&node, _)) = next else { break };
            set.others.push(node);
            for volume in &set.volumes {
                let nodes = set.nodes(volume, |node| may_run(set, node));
                wanted.add(volume, nodes, &mut load);
            }
        }
    }
    wanted
}

impl WantedCopies {
    /// Sets the nodes of a volume, which are those that it had and more.
    fn add(
        &mut self,
        volume: &Volume,
        nodes: BTreeSet<NodeId>,
        load: &mut BTreeMap<NodeId, usize>,
    ) {
        let before = self.nodes.entry(volume.key.clone()).or_default();
        for node in nodes.difference(before) {
            *load.entry(*node).or_default() += 1;
            if let Some(room) = self.room.get_mut(node) {
                *room = room.saturating_sub(volume.size);
            }
        }
        *before = nodes;
    }
}

/// Returns the volumes that have a home, those with the services that mount them together. A group whose data is on several nodes
/// is treated one by one.
fn together<'s, 'a>(
    input: &PlanInput,
    services: &'s [Service<'a>],
    copies: &Copies,
    rules: Rules,
) -> Vec<Together<'s, 'a>> {
    let mut sets = Vec::new();
    let mut open: BTreeSet<VolumeKey> =
        input.volumes.keys().chain(copies.keys()).cloned().collect();
    let mut add = |keys: Vec<VolumeKey>, mounting: Vec<&'s Service<'a>>| {
        let Some(&home) = keys.first().and_then(|key| input.volumes.get(key)) else { return };
        let volumes = keys.into_iter().map(|key| {
            let spec = volume_spec(input, &key);
            let count = match is_copied(&spec, &mounting, &key) {
                true => spec.replicas.unwrap_or(DEFAULT_REPLICAS).clamp(1, MAX_REPLICAS) as usize,
                false => 0,
            };
            let held = copies.get(&key).and_then(|it| it.get(&home)?.copy.as_ref());
            let size = held.map_or(0, |copy| copy.disk_bytes).max(spec.size_bytes);
            Volume { key, count, size, lost_after: lost_after(&spec, rules) }
        });
        let (volumes, ordered) = (volumes.collect(), BTreeSet::new());
        sets.push(Together { volumes, services: mounting, home, ordered, others: Vec::new() });
    };
    for group in groups(services) {
        let volumes = group.shared.iter().filter_map(Shared::volume).cloned();
        let keys: Vec<VolumeKey> = volumes.filter(|it| open.remove(it)).collect();
        let homes: BTreeSet<&NodeId> = keys.iter().filter_map(|it| input.volumes.get(it)).collect();
        let of_group: Vec<&Service<'_>> = group.services.iter().map(|&it| &services[it]).collect();
        if homes.len() <= 1 {
            let keys = keys.into_iter().filter(|it| input.volumes.contains_key(it)).collect();
            add(keys, of_group);
            continue;
        }
        for key in keys {
            let mounting = of_group.iter().copied().filter(|it| it.mounts(&key));
            let mounting = mounting.collect();
            add(vec![key], mounting);
        }
    }
    for key in open {
        add(vec![key], Vec::new());
    }
    sets
}

/// Adds where orders move the volumes, and the nodes that have copies and keep them.
fn keep(input: &PlanInput, copies: &Copies, orders: &Orders, set: &mut Together<'_, '_>) {
    let most = set.most();
    if most == 0 {
        return;
    }
    let of_set = |slot: &vc_protocol::Slot| set.services.iter().any(|it| *it.key == slot.service);
    let targets = orders.iter().filter(|(slot, (from, ..))| *from == set.home && of_set(slot));
    let targets = targets.map(|(_, &(_, to, _))| to).filter(|to| input.nodes.contains_key(to));
    set.ordered = targets.filter(|to| *to != set.home).collect();
    let mut held: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
    for volume in set.volumes.iter().filter(|it| it.count > 0) {
        for (&node, view) in copies.get(&volume.key).into_iter().flatten() {
            let (whole, all) = held.entry(node).or_default();
            *whole += usize::from(view.snapshot().is_some());
            *all += 1;
        }
    }
    let is_kept = |node: &NodeId| {
        *node != set.home && !set.ordered.contains(node) && keeps(input, set, *node)
    };
    let mut held: Vec<_> = held.into_iter().filter(|(node, _)| is_kept(node)).collect();
    held.sort_by_cached_key(|&(node, (whole, all))| {
        let suits = input.nodes.get(&node).is_some_and(|it| suits_all(node, it, &set.services));
        (Reverse((suits, whole, all)), Reverse(weight(set, node)))
    });
    set.others = held.into_iter().map(|(node, _)| node).collect();
}

/// Returns the nodes with the data of each volume that no service writes: the home, and those with a whole copy. `input` has the homes.
pub fn readable(input: &PlanInput, copies: &Copies) -> BTreeMap<VolumeKey, BTreeSet<NodeId>> {
    let written: BTreeSet<VolumeKey> = input
        .services
        .iter()
        .flat_map(|(key, demand)| {
            let written = demand.spec.written_volumes().cloned();
            written.map(|volume| VolumeKey { project: key.project.clone(), volume })
        })
        .collect();
    let unwritten = input.volumes.iter().filter(|(volume, _)| !written.contains(volume));
    unwritten
        .map(|(volume, home)| {
            let copies = copies.get(volume).into_iter().flatten();
            let whole = copies.filter(|(_, view)| view.snapshot().is_some()).map(|(node, _)| *node);
            (volume.clone(), whole.chain([*home]).collect())
        })
        .collect()
}

/// Returns for how long a node with a copy of a volume may be down before another node gets one, in milliseconds.
#[must_use]
pub fn lost_after(spec: &VolumeSpec, rules: Rules) -> Millis {
    match spec.lost_after_ms {
        ms if ms > 0 && rules.volume_lost_after => ms,
        _ => LOST_AFTER,
    }
}

/// Returns whether a volume is copied: it is no network file system, and no service writes it on both sides of a partition.
fn is_copied(spec: &VolumeSpec, mounting: &[&Service<'_>], volume: &VolumeKey) -> bool {
    let writes =
        |it: &&Service<'_>| it.demand.spec.written_volumes().any(|it| *it == volume.volume);
    let of_volume = mounting.iter().filter(|it| it.mounts(volume));
    spec.driver.is_none()
        && of_volume.filter(|it| writes(it)).all(|it| it.demand.spec.is_exclusive())
}

/// Returns whether a node may keep copies: it runs containers, is not drained, and has not been down for long.
fn keeps(input: &PlanInput, set: &Together<'_, '_>, node: NodeId) -> bool {
    // They stay together, so the longest time counts.
    let lost_after = set.volumes.iter().map(|volume| volume.lost_after).max();
    input.nodes.get(&node).is_some_and(|it| {
        let lost = !it.up && it.silent_ms >= lost_after.unwrap_or(LOST_AFTER);
        it.runtime == RuntimeKind::Docker && !it.draining && it.runtime_error.is_none() && !lost
    })
}

fn weight(set: &Together<'_, '_>, node: NodeId) -> u64 {
    let volume = set.volumes.first().map(|volume| volume.key.to_string()).unwrap_or_default();
    rendezvous(&[&volume, &node.to_string()])
}
