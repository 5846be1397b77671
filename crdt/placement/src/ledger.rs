//! What each node has given away so far. There are two counts: one for what fits, one for the score.

use vc_protocol::{NodeId, Resources};

use crate::input::{Node, PlanInput};
use crate::order::Demand;
use crate::ports::HostPorts;
use crate::rendezvous::rendezvous;

/// The account of one node. Nodes are numbered by their place in the order of their ids.
pub(crate) struct Account<'a> {
    /// Who.
    pub(crate) id: NodeId,
    /// The id as text: what is hashed.
    pub(crate) id_text: String,
    /// Its part of a [`weight`](crate::rendezvous::combine).
    pub(crate) hash: u64,
    /// What is known of it.
    pub(crate) node: &'a Node,
    /// Reservations of all kept claims and of all placements so far, and of slots that move away but are still claimed:
    /// feasibility reads it. At most the capacity.
    promised: Resources,
    /// Host ports of the same slots.
    pub(crate) ports: HostPorts<'a>,
    /// Reservations of the services whose turn is over: the score reads it. Part of `promised`.
    pub(crate) before: Resources,
    /// How many slots of the services whose turn is over it holds.
    pub(crate) instances_before: u32,
}

impl<'a> Account<'a> {
    /// An account for each node, with nothing given away.
    pub(crate) fn open(input: &'a PlanInput) -> Vec<Self> {
        input.nodes.iter().map(|(id, node)| Self::new(*id, node)).collect()
    }

    /// The account of one node, with nothing given away.
    pub(crate) fn new(id: NodeId, node: &'a Node) -> Self {
        let id_text = id.to_string();
        Self {
            id,
            hash: rendezvous(&[&id_text]),
            id_text,
            node,
            promised: Resources::default(),
            ports: HostPorts::new(node.runtime),
            before: Resources::default(),
            instances_before: 0,
        }
    }

    /// What is left to give.
    pub(crate) fn free(&self) -> Resources {
        self.node.capacity.minus(self.promised)
    }

    /// Sets one reservation of the service aside.
    pub(crate) fn promise(&mut self, demand: &Demand<'a>) {
        self.promised = self.promised.plus(demand.reservation());
    }

    /// Whether so many reservations of the service fit.
    pub(crate) fn holds(&self, demand: &Demand<'_>, count: u64) -> bool {
        let (ask, free) = (demand.reservation(), self.free());
        let within = |ask: u64, free: u64| ask.checked_mul(count).is_some_and(|all| all <= free);
        within(ask.cpu_millis, free.cpu_millis) && within(ask.memory_bytes, free.memory_bytes)
    }

    /// Gives host ports to a slot of the service.
    pub(crate) fn take_ports(&mut self, demand: &Demand<'a>, replica: u32) {
        self.ports.take(demand.ports(), (demand.key, replica));
    }

    /// From now on the score knows of one more slot of the service here.
    pub(crate) fn count(&mut self, demand: &Demand<'a>) {
        self.before = self.before.plus(demand.reservation());
        self.instances_before = self.instances_before.saturating_add(1);
    }
}
