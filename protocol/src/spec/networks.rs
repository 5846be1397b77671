//! The networks of a container.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ContainerSpec;
use crate::{Name, NetworkKey, ServiceKey, Slot};

/// The network of services that name none.
pub const DEFAULT_NETWORK: &str = "default";

/// What a container has instead of networks of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// The network of its host.
    Host,
    /// No network at all.
    None,
    /// That of the instance with the same number of another service of the project, on the same node.
    Service(Name),
}

impl ContainerSpec {
    /// Returns the networks of the container, those of its project first, each with the container's aliases beside the name of its
    /// service. None where it has a [`NetworkMode`].
    pub fn networks(&self, project: &Name) -> BTreeMap<NetworkKey, BTreeSet<String>> {
        if self.network_mode.is_some() {
            return BTreeMap::new();
        }
        let own = |(name, aliases): (&Name, &BTreeSet<String>)| {
            (NetworkKey::Project(project.clone(), name.clone()), aliases.clone())
        };
        let shared = |(name, aliases): (&Name, &BTreeSet<String>)| {
            (NetworkKey::Shared(name.clone()), aliases.clone())
        };
        let named = self.networks.iter().map(own).chain(self.shared_networks.iter().map(shared));
        let mut found: BTreeMap<_, _> = named.collect();
        if found.is_empty()
            && let Ok(name) = DEFAULT_NETWORK.parse()
        {
            found.insert(NetworkKey::Project(project.clone(), name), BTreeSet::new());
        }
        found
    }

    /// Returns whether nothing outside of a network is reached from it.
    pub fn is_internal(&self, network: &NetworkKey) -> bool {
        match network {
            NetworkKey::Project(_, name) => self.internal_networks.contains(name),
            NetworkKey::Shared(_) => false,
        }
    }

    /// Returns whether the container has the network of its host.
    pub fn is_on_host_network(&self) -> bool {
        self.network_mode == Some(NetworkMode::Host)
    }

    /// Returns the slot whose network the instance in a slot has; `None` if it has its own.
    pub fn network_owner(&self, slot: &Slot) -> Option<Slot> {
        let Some(NetworkMode::Service(service)) = &self.network_mode else { return None };
        let service =
            ServiceKey { project: slot.service.project.clone(), service: service.clone() };
        Some(Slot { service, replica: slot.replica })
    }
}
