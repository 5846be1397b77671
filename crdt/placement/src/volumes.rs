//! Volume affinity: the data of a named volume is on one node, and every service that mounts it runs there. The network that services
//! share is like a volume without data.
//!
//! Volumes mounted by one service belong together. They and all services that mount any of them form a *group*, and a
//! group has one node. Otherwise two services could create their volumes on two nodes, and a third that mounts both
//! could never run.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::{NodeId, VolumeKey};

use crate::homes::volume_spec;
use crate::input::PlanInput;
use crate::order::{Service, Shared};

/// The node of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeHolder {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    /// Whether the data exists already; otherwise the volume will be created there.
    pub(crate) has_data: bool,
}

/// Where a service may run because of its volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VolumeAffinity<'a> {
    /// Anywhere: it mounts no named volume, or none of them has a node yet.
    Any,
    /// Only on the holder of this volume.
    Node(&'a Shared, &'a VolumeHolder),
    /// Nowhere: two of its volumes are on different nodes.
    Conflict((&'a Shared, &'a VolumeHolder), (&'a Shared, &'a VolumeHolder)),
}

/// The volumes whose node is known, and the groups.
pub(crate) struct Volumes<'a> {
    input: &'a PlanInput,
    holders: BTreeMap<Shared, VolumeHolder>,
    groups: Vec<VolumeGroup>,
    /// The homes of the volumes that several nodes may have.
    readable: BTreeMap<&'a VolumeKey, VolumeHolder>,
    /// Bytes that volumes reserve, without those that reserve none.
    sizes: BTreeMap<VolumeKey, u64>,
}

/// Volumes and networks that belong together, with the services that share them.
pub(crate) struct VolumeGroup {
    pub(crate) shared: BTreeSet<Shared>,
    /// Indexes of the services, ascending.
    pub(crate) services: Vec<usize>,
}

impl<'a> Volumes<'a> {
    /// Reads what is known before any claim is checked. A group whose data is on several nodes already is dropped: its
    /// volumes are treated one by one.
    pub(crate) fn new(input: &'a PlanInput, services: &[Service<'_>]) -> Self {
        let sized = services.iter().filter(|it| {
            let mut specs = it.demand.spec.volumes.values();
            specs.any(|spec| spec.size_bytes > 0)
        });
        let keys: BTreeSet<&VolumeKey> =
            sized.flat_map(|it| &it.shared).filter_map(Shared::volume).collect();
        let sizes = keys.into_iter().map(|key| (key.clone(), volume_spec(input, key).size_bytes));
        let sizes = sizes.collect();
        let (holders, readable) = (BTreeMap::new(), BTreeMap::new());
        let mut volumes = Self { input, holders, groups: Vec::new(), readable, sizes };
        let homes = input.readable.keys().filter_map(|key| Some((key, *input.volumes.get(key)?)));
        volumes.readable = homes.map(|(key, home)| (key, volumes.holder(home, true))).collect();
        for group in groups(services) {
            let mut nodes = BTreeSet::new();
            for shared in &group.shared {
                if let Some(&node) = shared.volume().and_then(|it| input.volumes.get(it)) {
                    volumes.holders.insert(shared.clone(), volumes.holder(node, true));
                    nodes.insert(node);
                }
            }
            if nodes.len() <= 1 {
                for node in nodes {
                    volumes.assign_missing(&group.shared, node);
                }
                volumes.groups.push(group);
            }
        }
        volumes
    }

    /// Returns where the service may run.
    pub(crate) fn affinity(&self, service: &Service<'_>) -> VolumeAffinity<'_> {
        let mut known = service.shared.iter().filter_map(|it| self.holders.get_key_value(it));
        let Some(first) = known.next() else { return VolumeAffinity::Any };
        match known.find(|(_, holder)| holder.node != first.1.node) {
            Some(second) => VolumeAffinity::Conflict(first, second),
            None => VolumeAffinity::Node(first.0, first.1),
        }
    }

    /// Returns a volume that no service writes and the node does not have, with its home.
    pub(crate) fn unreadable<'s>(
        &'s self,
        service: &Service<'_>,
        node: NodeId,
    ) -> Option<(&'s VolumeKey, &'s VolumeHolder)> {
        let has = |volume: &VolumeKey| {
            self.input.readable.get(volume).is_some_and(|it| it.contains(&node))
        };
        let missing = service.readable.iter().find(|volume| !has(volume))?;
        self.readable.get_key_value(missing).map(|(volume, holder)| (*volume, holder))
    }

    /// Returns a volume of the service whose data is on the node.
    pub(crate) fn data_on(&self, service: &Service<'_>, node: NodeId) -> Option<&VolumeKey> {
        let here = |holder: &VolumeHolder| holder.has_data && holder.node == node;
        let mut known = service.shared.iter().filter_map(|it| self.holders.get_key_value(it));
        known.find(|(_, holder)| here(holder)).and_then(|(shared, _)| shared.volume())
    }

    /// Assigns the volumes of the service's group to the node, where they have none yet.
    pub(crate) fn assign(&mut self, service: &Service<'_>, node: NodeId) {
        let Some(first) = service.shared.first() else { return };
        let group = self.groups.iter().find(|group| group.shared.contains(first));
        let shared = group.map_or(&service.shared, |group| &group.shared).clone();
        self.assign_missing(&shared, node);
    }

    /// Returns how many bytes the volumes of the service's group reserve on the node that they are assigned to, where they have none
    /// yet.
    pub(crate) fn unassigned_bytes(&self, service: &Service<'_>) -> u64 {
        let Some(first) = service.shared.first() else { return 0 };
        let group = self.groups.iter().find(|group| group.shared.contains(first));
        let open = group.map_or(&service.shared, |group| &group.shared).iter();
        let open = open.filter(|it| !self.holders.contains_key(it)).filter_map(Shared::volume);
        open.filter_map(|volume| self.sizes.get(volume))
            .fold(0, |sum, size| sum.saturating_add(*size))
    }

    /// Returns the indexes of the other services of the service's group.
    pub(crate) fn group_members(&self, index: usize) -> impl Iterator<Item = usize> {
        let group = self.groups.iter().find(|group| group.services.contains(&index));
        let services = group.into_iter().flat_map(|group| &group.services).copied();
        services.filter(move |&other| other != index)
    }

    fn assign_missing(&mut self, shared: &BTreeSet<Shared>, node: NodeId) {
        let holder = self.holder(node, false);
        for shared in shared {
            self.holders.entry(shared.clone()).or_insert_with(|| holder.clone());
        }
    }

    fn holder(&self, node: NodeId, has_data: bool) -> VolumeHolder {
        let known = self.input.nodes.get(&node);
        let name = known.map_or_else(|| node.short(), |known| known.name.to_string());
        VolumeHolder { node, name, has_data }
    }
}

/// Returns the groups: a service merges all groups that it shares something of.
pub(crate) fn groups(services: &[Service<'_>]) -> Vec<VolumeGroup> {
    let mut groups: Vec<VolumeGroup> = Vec::new();
    for (index, service) in services.iter().enumerate().filter(|(_, it)| !it.shared.is_empty()) {
        let mut merged = VolumeGroup { shared: service.shared.clone(), services: vec![index] };
        groups.retain_mut(|other| {
            let disjoint = other.shared.is_disjoint(&service.shared);
            if !disjoint {
                merged.shared.append(&mut other.shared);
                merged.services.append(&mut other.services);
            }
            disjoint
        });
        merged.services.sort_unstable();
        groups.push(merged);
    }
    groups
}
