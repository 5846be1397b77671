//! Where named volumes are. Their data is on one node, and whatever mounts them runs there.
//!
//! Volumes that one service mounts belong together: they and all the services that mount any of them are a *bundle*,
//! and a bundle has one home. Otherwise two services could each bring a volume to a node of their own, and a third
//! that mounts both would have no place for ever.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::{NodeId, VolumeKey};

use crate::input::PlanInput;
use crate::order::Demand;

/// Where a volume is, or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    /// On which node.
    pub(crate) node: NodeId,
    /// What it is called.
    pub(crate) name: String,
    /// Whether its data is there already.
    pub(crate) held: bool,
}

/// What its volumes say of the place of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tie<'a> {
    /// Nothing: it has none, or nobody has them yet.
    Free,
    /// It runs there.
    To(&'a VolumeKey, &'a Home),
    /// It cannot run: two of them are on two nodes.
    Torn((&'a VolumeKey, &'a Home), (&'a VolumeKey, &'a Home)),
}

/// The homes of the volumes, as far as they are decided.
pub(crate) struct Volumes<'a> {
    input: &'a PlanInput,
    homes: BTreeMap<VolumeKey, Home>,
    bundles: Vec<Bundle>,
}

/// Volumes that belong together, and who mounts them. One whose data is on several nodes already is none.
struct Bundle {
    volumes: BTreeSet<VolumeKey>,
    /// Numbers of services, in their order.
    services: Vec<usize>,
}

impl<'a> Volumes<'a> {
    /// What is known before anything is judged or placed.
    pub(crate) fn read(input: &'a PlanInput, demands: &[Demand<'_>]) -> Self {
        let mut known = Self { input, homes: BTreeMap::new(), bundles: Vec::new() };
        for bundle in bundles(demands) {
            let holders: BTreeSet<NodeId> = bundle
                .volumes
                .iter()
                .filter_map(|volume| input.volumes.get(volume))
                .copied()
                .collect();
            for volume in &bundle.volumes {
                if let Some(&node) = input.volumes.get(volume) {
                    known.homes.insert(volume.clone(), known.home(node, true));
                }
            }
            if holders.len() <= 1 {
                for node in holders {
                    known.bring(&bundle.volumes, node);
                }
                known.bundles.push(bundle);
            }
        }
        known
    }

    /// Where the service has to run.
    pub(crate) fn tie(&self, demand: &Demand<'_>) -> Tie<'_> {
        let mut homes = demand.volumes.iter().filter_map(|volume| self.homes.get_key_value(volume));
        let Some(first) = homes.next() else { return Tie::Free };
        match homes.find(|(_, home)| home.node != first.1.node) {
            Some(second) => Tie::Torn(first, second),
            None => Tie::To(first.0, first.1),
        }
    }

    /// The volume of the service whose data the node has.
    pub(crate) fn held_by(&self, demand: &Demand<'_>, node: NodeId) -> Option<&VolumeKey> {
        let here = |home: &Home| home.held && home.node == node;
        let found = demand.volumes.iter().filter_map(|volume| self.homes.get_key_value(volume));
        found.filter(|(_, home)| here(home)).map(|(volume, _)| volume).next()
    }

    /// An instance of the service is on the node: what it mounts is there from now on.
    pub(crate) fn settle(&mut self, demand: &Demand<'_>, node: NodeId) {
        let Some(first) = demand.volumes.first() else { return };
        let bundle = self.bundles.iter().find(|bundle| bundle.volumes.contains(first));
        let volumes = bundle.map_or(&demand.volumes, |bundle| &bundle.volumes).clone();
        self.bring(&volumes, node);
    }

    /// The other services, by number, that have to run where this one runs.
    pub(crate) fn companions(&self, number: usize) -> impl Iterator<Item = usize> {
        let bundle = self.bundles.iter().find(|bundle| bundle.services.contains(&number));
        let services = bundle.into_iter().flat_map(|bundle| &bundle.services).copied();
        services.filter(move |&other| other != number)
    }

    /// Volumes that have no home yet get this one.
    fn bring(&mut self, volumes: &BTreeSet<VolumeKey>, node: NodeId) {
        let home = self.home(node, false);
        for volume in volumes {
            self.homes.entry(volume.clone()).or_insert_with(|| home.clone());
        }
    }

    fn home(&self, node: NodeId, held: bool) -> Home {
        let known = self.input.nodes.get(&node);
        let name = known.map_or_else(|| node.short(), |known| known.name.to_string());
        Home { node, name, held }
    }
}

/// The bundles of what is wanted: a service joins all those that it mounts a volume of.
fn bundles(demands: &[Demand<'_>]) -> Vec<Bundle> {
    let mut bundles: Vec<Bundle> = Vec::new();
    for (number, demand) in demands.iter().enumerate().filter(|(_, it)| !it.volumes.is_empty()) {
        let mut joined = Bundle { volumes: demand.volumes.clone(), services: vec![number] };
        bundles.retain_mut(|other| {
            let apart = other.volumes.is_disjoint(&demand.volumes);
            if !apart {
                joined.volumes.append(&mut other.volumes);
                joined.services.append(&mut other.services);
            }
            apart
        });
        joined.services.sort_unstable();
        bundles.push(joined);
    }
    bundles
}
