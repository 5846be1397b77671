//! The order in which services are scheduled. It depends on the services alone, never on nodes or claims: otherwise
//! unclaimed slots would move whenever a node claims something or dies.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use vc_protocol::spec::{ContainerSpec, Port};
use vc_protocol::{Resources, ServiceKey, VolumeKey};

use crate::allocation::NodeAllocation;
use crate::input::{PlanInput, ServiceDemand};
use crate::slots::{Slots, per_node};

/// Something that services share and that is on one node, where all of them run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shared {
    /// A named volume.
    Volume(VolumeKey),
    /// The network of the instances of a service.
    Network(ServiceKey),
}

impl Shared {
    pub(crate) fn volume(&self) -> Option<&VolumeKey> {
        match self {
            Self::Volume(volume) => Some(volume),
            Self::Network(_) => None,
        }
    }
}

/// A service to schedule.
pub(crate) struct Service<'a> {
    pub(crate) key: &'a ServiceKey,
    pub(crate) demand: &'a ServiceDemand,
    pub(crate) slots: Slots,
    /// What it shares with other services: the named volumes that each instance mounts, without those below, and the network.
    pub(crate) shared: BTreeSet<Shared>,
    /// Those that no service writes, of which several nodes may have the data.
    pub(crate) readable: BTreeSet<VolumeKey>,
    /// Whether every node that may run it could not start it. Then it is the service's fault, and moving it helps nothing.
    pub(crate) fails_everywhere: bool,
}

impl<'a> Service<'a> {
    pub(crate) fn container(&self) -> &'a ContainerSpec {
        &self.demand.spec.container
    }

    /// Returns whether it shares a volume.
    pub(crate) fn mounts(&self, volume: &VolumeKey) -> bool {
        self.shared.iter().filter_map(Shared::volume).any(|it| it == volume)
    }

    /// Returns what each instance reserves.
    pub(crate) fn reservation(&self) -> Resources {
        self.container().reservation
    }

    /// Returns how many of its slots a node may have; `None` for any number. Those that have one for each node need no limit.
    pub(crate) fn max_per_node(&self) -> Option<u32> {
        let spec = &self.demand.spec;
        let limits = spec.max_replicas_per_node > 0 && !spec.mode.is_per_node();
        limits.then_some(spec.max_replicas_per_node)
    }

    /// Returns the published ports.
    pub(crate) fn ports(&self) -> &'a [Port] {
        &self.demand.spec.ports
    }
}

/// Returns the size of a reservation, for placing large services first: the larger dimension, at a fixed rate of 4 MiB
/// per thousandth of a core (4 GiB per core, as general-purpose cloud instances are cut).
fn size(reservation: Resources) -> u64 {
    reservation.cpu_millis.max(reservation.memory_bytes >> 22)
}

/// Returns the services ordered by last deployment (earliest first), then reservation (largest first), then key.
pub(crate) fn services(input: &PlanInput) -> Vec<Service<'_>> {
    let owners: BTreeSet<&ServiceKey> = input.joined.values().collect();
    let mut services: Vec<Service<'_>> = input
        .services
        .iter()
        .map(|(key, demand)| {
            let slots = Slots::counted(demand);
            let named = demand.spec.volumes();
            let named = named.filter(|name| !demand.spec.is_network_volume(name)).cloned();
            let volumes = named.map(|volume| VolumeKey { project: key.project.clone(), volume });
            let (readable, volumes): (_, BTreeSet<VolumeKey>) =
                volumes.partition(|it| input.readable.contains_key(it));
            let networks = [input.joined.get(key), owners.get(key).copied()].into_iter().flatten();
            let shared = volumes.into_iter().map(Shared::Volume);
            let shared = shared.chain(networks.cloned().map(Shared::Network)).collect();
            Service { key, demand, slots, shared, readable, fails_everywhere: false }
        })
        .collect();
    let is_per_node = |service: &Service<'_>| service.demand.spec.mode.is_per_node();
    if services.iter().any(is_per_node) {
        let allocations = NodeAllocation::for_nodes(input);
        for service in services.iter_mut().filter(|it| is_per_node(it)) {
            service.slots = per_node(service, &allocations);
            // Its slots have nowhere else to go.
            service.fails_everywhere = true;
        }
    }
    // The sort is stable, and the map is in the order of the keys.
    services.sort_by_key(|service| (service.demand.revision, Reverse(size(service.reservation()))));
    services
}
