//! Homes: the node whose copy of a volume its services follow.
//!
//! A volume stays where it was written last while that node is up. When the node is down, being drained, may not run the services,
//! or an order moves the volume, the home is another node with a copy of all volumes that are mounted together, first one with the newest snapshot.
//! Whether that node may write already is not decided here: its lease is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::lease::Epoch;
use vc_protocol::node::RuntimeKind;
use vc_protocol::volume::{OnLoss, Origin, SnapshotId, VolumeCopy, VolumeSpec};
use vc_protocol::{Lamport, NodeId, Slot, VolumeKey};

use crate::allocation::NodeAllocation;
use crate::feasibility::check_fixed;
use crate::input::{Node, PlanInput};
use crate::order::{Service, Shared, services};
use crate::volumes::groups;

/// The copies of all volumes, as the documents of the nodes say.
pub type Copies = BTreeMap<VolumeKey, BTreeMap<NodeId, CopyView>>;

/// The copy of a volume on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyView {
    /// When the node got it.
    pub lamport: Lamport,
    /// When the node began to write it last; 0 if it never did.
    pub begun: Lamport,
    /// What is there; `None`: data from before snapshots, as instances write it.
    pub copy: Option<VolumeCopy>,
}

/// An order to move a slot, and with it the volumes that it mounts: from, to, and when.
pub type Orders = BTreeMap<Slot, (NodeId, NodeId, Lamport)>;

impl CopyView {
    /// Returns the epoch under which instances wrote to it last; `None` if none ever did.
    fn written(&self) -> Option<Epoch> {
        self.copy.as_ref().map_or(Some(0), |copy| copy.written)
    }

    /// Returns whether there is nothing, as of a copy that is about to be made.
    fn is_empty(&self) -> bool {
        self.written().is_none() && self.snapshot().is_none()
    }

    pub(crate) fn snapshot(&self) -> Option<SnapshotId> {
        self.copy.as_ref()?.snapshot
    }
}

/// Returns how a volume is kept: as the service says that was deployed last of those that say anything about it.
pub fn volume_spec(input: &PlanInput, volume: &VolumeKey) -> VolumeSpec {
    let of_project = input.services.iter().filter(|(key, _)| key.project == volume.project);
    let said = of_project.filter_map(|(key, demand)| {
        let spec = demand.spec.volumes.get(&volume.volume)?;
        Some((demand.revision, key, spec))
    });
    let newest = said.max_by_key(|&(revision, key, _)| (revision, key));
    newest.map(|(.., spec)| spec.clone()).unwrap_or_default()
}

/// Returns the home of every volume that has a copy. `input`: without homes.
pub fn homes(input: &PlanInput, copies: &Copies, orders: &Orders) -> BTreeMap<VolumeKey, NodeId> {
    let services = services(input);
    let mut homes = BTreeMap::new();
    let groups = groups(&services);
    let mut mounted = BTreeSet::new();
    for group in &groups {
        let with_data: Vec<&VolumeKey> = group
            .shared
            .iter()
            .filter_map(Shared::volume)
            .filter(|it| copies.contains_key(it) || found_on(input, it).is_some())
            .collect();
        mounted.extend(with_data.iter().copied());
        let of_group: Vec<&Service<'_>> = group.services.iter().map(|&it| &services[it]).collect();
        homes.extend(homes_of_group(input, copies, orders, &with_data, &of_group));
    }
    for volume in copies.keys().filter(|it| !mounted.contains(it)) {
        homes.extend(homes_of_group(input, copies, orders, &[volume], &[]));
    }
    homes
}

/// Returns the node that wrote a volume last, or has it longest, among those that have something of it, or with `empty` among the
/// others.
fn holder(copies: &BTreeMap<NodeId, CopyView>, empty: bool) -> Option<NodeId> {
    let copies = copies.iter().filter(|(_, view)| view.is_empty() == empty);
    let rank = |(node, view): &(&NodeId, &CopyView)| {
        (view.written(), view.snapshot(), Reverse(view.lamport), Reverse(**node))
    };
    copies.max_by_key(rank).map(|(&node, _)| node)
}

/// Returns the node on which the directory was found that a volume begins with, or that received it.
fn found_on(input: &PlanInput, volume: &VolumeKey) -> Option<NodeId> {
    match volume_spec(input, volume).origin {
        Some(Origin::Directory { node, .. } | Origin::Uploaded { node, .. }) => {
            node.filter(|it| input.nodes.contains_key(it))
        }
        None => None,
    }
}

fn homes_of_group(
    input: &PlanInput,
    copies: &Copies,
    orders: &Orders,
    volumes: &[&VolumeKey],
    services: &[&Service<'_>],
) -> BTreeMap<VolumeKey, NodeId> {
    let holders: BTreeMap<VolumeKey, NodeId> = volumes
        .iter()
        .filter_map(|&volume| {
            let holder = |empty| copies.get(volume).and_then(|it| holder(it, empty));
            // A node that is to get a copy says so before the one with the directory says that it has the volume.
            let found = || found_on(input, volume).or_else(|| holder(true));
            Some((volume.clone(), holder(false).or_else(found)?))
        })
        .collect();
    let nodes: BTreeSet<NodeId> = holders.values().copied().collect();
    // Volumes on different nodes do not move: placement says that they are apart.
    let Some(&home) = nodes.first().filter(|_| nodes.len() == 1) else { return holders };
    let begun = volumes.iter().filter_map(|&it| copies.get(it)?.get(&home));
    let begun = begun.map(|view| view.begun).max().unwrap_or(0);
    let ordered = orders.iter().filter(|(slot, (from, _, lamport))| {
        let of_group = services.iter().any(|it| *it.key == slot.service);
        of_group && *from == home && *lamport > begun
    });
    let ordered = ordered.max_by_key(|(_, (.., lamport))| *lamport).map(|(_, &(_, to, _))| to);
    let takes = |node: NodeId| {
        let suited = input.nodes.get(&node).is_some_and(|it| may_run_all(node, it, services));
        suited && volumes.iter().all(|&it| has_snapshot(copies, it, node))
    };
    let successor = match ordered {
        Some(to) if takes(to) => Some(to),
        _ if leaves(input, home, volumes, services) => {
            let others = input.nodes.keys().copied().filter(|&node| node != home && takes(node));
            let is_up = input.nodes.get(&home).is_some_and(|it| it.up);
            let rank = |node: &NodeId| {
                let views = || volumes.iter().filter_map(|&it| copies.get(it)?.get(node));
                // While the home is up, all of them get what it has last, and the choice must not change with each snapshot.
                let newest = views().map(|view| view.snapshot().filter(|_| !is_up));
                let since = views().map(|view| view.lamport).max();
                (newest.collect::<Vec<_>>(), Reverse(since), Reverse(*node))
            };
            others.max_by_key(rank)
        }
        _ => None,
    };
    let home = successor.unwrap_or(home);
    holders.into_keys().map(|volume| (volume, home)).collect()
}

/// Returns whether a node has a whole copy of a volume.
fn has_snapshot(copies: &Copies, volume: &VolumeKey, node: NodeId) -> bool {
    let view = copies.get(volume).and_then(|it| it.get(&node));
    view.is_some_and(|view| view.snapshot().is_some())
}

/// Returns whether the volumes of a node are to go elsewhere: it is down and nothing waits for it, it is being drained, or it may not
/// run their services.
fn leaves(
    input: &PlanInput,
    home: NodeId,
    volumes: &[&VolumeKey],
    services: &[&Service<'_>],
) -> bool {
    let Some(node) = input.nodes.get(&home) else { return true };
    let waits = || {
        volumes.iter().any(|&it| volume_spec(input, it).on_loss == OnLoss::Wait)
            || services.iter().any(|it| it.demand.spec.disconnect.keeps_slots(node.silent_ms))
    };
    match node.up {
        true => node.draining || node.runtime_error.is_some() || !suits_all(home, node, services),
        false => !waits(),
    }
}

/// Returns whether a node may run all of these services now.
pub(crate) fn may_run_all(id: NodeId, node: &Node, services: &[&Service<'_>]) -> bool {
    let usable = node.up && !node.draining && node.runtime_error.is_none();
    usable && suits_all(id, node, services)
}

/// Returns whether a node has containers, and its platform and labels suit all of these services.
pub(crate) fn suits_all(id: NodeId, node: &Node, services: &[&Service<'_>]) -> bool {
    let allocation = NodeAllocation::new(id, node);
    let suits = |it: &&Service<'_>| check_fixed(it, &allocation).is_ok();
    node.runtime == RuntimeKind::Docker && services.iter().all(suits)
}
