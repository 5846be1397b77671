//! The order in which services are served. It depends on what is wanted alone, never on nodes or claims: were it to
//! change when a node claims or dies, slots that nobody has claimed yet would jump about.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use vc_protocol::spec::{ContainerSpec, MAX_REPLICAS, Port};
use vc_protocol::{Resources, ServiceKey, VolumeKey};

use crate::input::{PlanInput, ServiceDemand};

/// A service and what it asks for.
pub(crate) struct Demand<'a> {
    /// Which service.
    pub(crate) key: &'a ServiceKey,
    /// What is wanted.
    pub(crate) wanted: &'a ServiceDemand,
    /// How many slots.
    pub(crate) replicas: u32,
    /// The named volumes that each instance mounts.
    pub(crate) volumes: BTreeSet<VolumeKey>,
}

impl<'a> Demand<'a> {
    /// What each instance runs.
    pub(crate) fn container(&self) -> &'a ContainerSpec {
        &self.wanted.spec.container
    }

    /// What each instance reserves.
    pub(crate) fn reservation(&self) -> Resources {
        self.container().reservation
    }

    /// The ports that nodes publish for it.
    pub(crate) fn ports(&self) -> &'a [Port] {
        &self.wanted.spec.ports
    }
}

/// The weight of a reservation, to place the large before the small. The larger dimension counts, at a fixed rate of
/// 4 MiB to a thousandth of a core (4 GiB to a core, as general-purpose nodes are cut).
fn size(reservation: Resources) -> u64 {
    reservation.cpu_millis.max(reservation.memory_bytes >> 22)
}

/// The services in their order: earliest asked for, then largest reservation, then key.
pub(crate) fn demands(input: &PlanInput) -> Vec<Demand<'_>> {
    let mut demands: Vec<_> = input
        .services
        .iter()
        .map(|(key, wanted)| {
            let replicas = wanted.replicas.min(MAX_REPLICAS);
            let named = wanted.spec.volumes().cloned();
            let volumes = named.map(|volume| VolumeKey { project: key.project.clone(), volume });
            Demand { key, wanted, replicas, volumes: volumes.collect() }
        })
        .collect();
    // The sort is stable, and the map is in the order of the keys.
    demands.sort_by_key(|demand| (demand.wanted.updated, Reverse(size(demand.reservation()))));
    demands
}
