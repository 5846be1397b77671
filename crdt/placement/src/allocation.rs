//! What each node has given away while a plan is made: all reservations for feasibility, and those of earlier services
//! for the score.

use std::collections::BTreeMap;

use vc_protocol::planted::{PlantedBug, is_planted};
use vc_protocol::spec::ALL;
use vc_protocol::{NodeId, Resources, ServiceKey};

use crate::input::{Node, PlanInput};
use crate::order::Service;
use crate::ports::HostPorts;
use crate::rendezvous::rendezvous;
use crate::score::is_small;

/// The resources of one node that are in use. Nodes are addressed by their index in the order of their ids.
pub(crate) struct NodeAllocation<'a> {
    pub(crate) id: NodeId,
    /// The id as text: the input of rendezvous hashing.
    pub(crate) id_text: String,
    /// Rendezvous hash of the id, for [`combine`](crate::rendezvous::combine).
    pub(crate) hash: u64,
    pub(crate) node: &'a Node,
    /// Reservations of kept claims, of placements so far, and of slots that move away but are still claimed. Read by
    /// feasibility; at most the capacity.
    reserved: Resources,
    /// What the same slots take of resources that are counted.
    counted: BTreeMap<&'a str, u64>,
    /// How many of the same slots are of each service that limits them.
    limited: BTreeMap<&'a ServiceKey, u32>,
    /// Bytes left for volumes that have no node yet; `None` if the node does not say how much there is.
    pub(crate) volume_room: Option<u64>,
    /// Host ports of the same slots.
    pub(crate) ports: HostPorts<'a>,
    /// Reservations of the services scheduled before this one. Read by the score; part of `reserved`.
    pub(crate) charged: Resources,
    /// The small reservations among them.
    pub(crate) charged_small: Resources,
    /// Number of slots of the services scheduled before this one.
    pub(crate) charged_instances: u32,
    /// The largest capacity of any node, in each dimension.
    pub(crate) largest: Resources,
}

/// What a slot takes of a resource that is counted, and what its node has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) required: u64,
    pub(crate) free: u64,
    pub(crate) total: u64,
}

impl<'a> NodeAllocation<'a> {
    /// Returns an empty allocation for each node, in the order of the ids.
    pub(crate) fn for_nodes(input: &'a PlanInput) -> Vec<Self> {
        let largest = input.nodes.values().fold(Resources::default(), |largest, node| Resources {
            cpu_millis: largest.cpu_millis.max(node.capacity.cpu_millis),
            memory_bytes: largest.memory_bytes.max(node.capacity.memory_bytes),
        });
        let new = |(id, node): (&NodeId, &'a Node)| Self { largest, ..Self::new(*id, node) };
        input.nodes.iter().map(new).collect()
    }

    /// Returns an empty allocation of the only node.
    pub(crate) fn new(id: NodeId, node: &'a Node) -> Self {
        let id_text = id.to_string();
        Self {
            id,
            hash: rendezvous(&[&id_text]),
            id_text,
            node,
            reserved: Resources::default(),
            counted: BTreeMap::new(),
            limited: BTreeMap::new(),
            volume_room: node.volume_room,
            ports: HostPorts::new(node.runtime),
            charged: Resources::default(),
            charged_small: Resources::default(),
            charged_instances: 0,
            largest: node.capacity,
        }
    }

    /// Returns the resources that are not reserved.
    pub(crate) fn free(&self) -> Resources {
        self.node.capacity.minus(self.reserved)
    }

    /// Returns what a slot takes of each resource that is counted, what is free, and what there is.
    pub(crate) fn counted<'s>(
        &self,
        service: &Service<'s>,
    ) -> impl Iterator<Item = (&'s str, Counted)> {
        service.demand.needs.iter().map(|(kind, need)| {
            let total = self.node.generic_resources.get(kind).copied().unwrap_or(0);
            let taken = self.counted.get(kind.as_str()).copied().unwrap_or(0);
            let required = if *need == ALL { total.max(1) } else { *need };
            (kind.as_str(), Counted { required, free: total.saturating_sub(taken), total })
        })
    }

    /// Reserves the resources of one slot.
    pub(crate) fn reserve(&mut self, service: &Service<'a>) {
        self.reserved = self.reserved.plus(service.reservation());
        let counted: Vec<_> = self.counted(service).collect();
        for (kind, Counted { required, .. }) in counted {
            let taken = self.counted.entry(kind).or_default();
            *taken = taken.saturating_add(required);
        }
        if service.max_per_node().is_some() {
            let slots = self.limited.entry(service.key).or_default();
            *slots = slots.saturating_add(1);
        }
    }

    /// Returns how many slots of a service that limits them the node has.
    pub(crate) fn limited(&self, service: &Service<'_>) -> u32 {
        self.limited.get(service.key).copied().unwrap_or(0)
    }

    /// Reserves room for volumes.
    pub(crate) fn reserve_volumes(&mut self, bytes: u64) {
        self.volume_room = self.volume_room.map(|room| room.saturating_sub(bytes));
    }

    /// Returns whether `count` more slots fit in what is reserved, and are as many as the service allows.
    pub(crate) fn fits(&self, service: &Service<'_>, count: u64) -> bool {
        let within_limit = service.max_per_node().is_none_or(|most| {
            u64::from(self.limited(service)).saturating_add(count) <= u64::from(most)
        });
        let (ask, free) = (service.reservation(), self.free());
        let within = |ask: u64, free: u64| ask.checked_mul(count).is_some_and(|all| all <= free);
        within_limit
            && self.counted(service).all(|(_, it)| within(it.required, it.free))
            && within(ask.cpu_millis, free.cpu_millis)
            && within(ask.memory_bytes, free.memory_bytes)
    }

    /// Reserves the host ports of a slot.
    pub(crate) fn reserve_ports(&mut self, service: &Service<'a>, replica: u32) {
        if is_planted(PlantedBug::PortsTwice) {
            return;
        }
        self.ports.reserve(service.ports(), (service.key, replica));
    }

    /// Makes one slot of the service visible to the score of later services.
    pub(crate) fn charge(&mut self, service: &Service<'a>) {
        let ask = service.reservation();
        self.charged = self.charged.plus(ask);
        if is_small(ask, self.largest) {
            self.charged_small = self.charged_small.plus(ask);
        }
        self.charged_instances = self.charged_instances.saturating_add(1);
    }
}
