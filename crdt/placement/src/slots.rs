//! Which slots a service has.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::NodeId;
use vc_protocol::spec::MAX_REPLICAS;

use crate::allocation::NodeAllocation;
use crate::feasibility::check_fixed;
use crate::input::{PlanInput, ServiceDemand};
use crate::order::Service;
use crate::rendezvous::rendezvous;

/// The numbers of the slots of services that have one for each node are at most this.
const MAX_NUMBER: u64 = 1 << 24;

/// The slots of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slots {
    /// Those from 1 to this number, at most [`MAX_REPLICAS`].
    Numbered(u32),
    /// Those of a job whose turn it is, each with the node that alone may run it, if any.
    Open(BTreeMap<u32, Option<NodeId>>),
    /// One for each of these nodes, which alone may run it.
    PerNode(BTreeMap<u32, NodeId>),
}

impl Slots {
    /// Returns the slots of a service that has as many as it says.
    pub(crate) fn counted(demand: &ServiceDemand) -> Self {
        let replicas = demand.replicas.min(MAX_REPLICAS);
        if !demand.spec.mode.is_job() {
            return Self::Numbered(replicas);
        }
        if demand.spec.schedule.is_some() {
            return Self::Open(demand.due.clone());
        }
        let most = match demand.spec.max_concurrent {
            0 => usize::MAX,
            most => most as usize,
        };
        let open = (1..=replicas).filter(|number| !demand.ended.contains(number));
        Self::Open(open.take(most).map(|number| (number, None)).collect())
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        match self {
            Self::Numbered(replicas) => (1..=*replicas).contains(&number),
            Self::Open(numbers) => numbers.contains_key(&number),
            Self::PerNode(nodes) => nodes.contains_key(&number),
        }
    }

    /// Returns the numbers, ascending.
    pub(crate) fn numbers(&self) -> Box<dyn Iterator<Item = u32> + '_> {
        match self {
            Self::Numbered(replicas) => Box::new(1..=*replicas),
            Self::Open(numbers) => Box::new(numbers.keys().copied()),
            Self::PerNode(nodes) => Box::new(nodes.keys().copied()),
        }
    }

    /// Returns the only node that may run a slot; `None` if any may.
    pub(crate) fn node_of(&self, number: u32) -> Option<NodeId> {
        match self {
            Self::Numbered(_) => None,
            Self::Open(numbers) => numbers.get(&number).copied().flatten(),
            Self::PerNode(nodes) => nodes.get(&number).copied(),
        }
    }
}

/// Returns the nodes that have a slot of a service with one for each node: those that its platform, labels and runtime suit, up
/// or down, without those that are drained and witnesses.
pub(crate) fn per_node(service: &Service<'_>, allocations: &[NodeAllocation<'_>]) -> Slots {
    let suits = |it: &&NodeAllocation<'_>| {
        !it.node.draining && !it.node.witness && check_fixed(service, it).is_ok()
    };
    let suited: BTreeSet<NodeId> = allocations.iter().filter(suits).map(|it| it.id).collect();
    let numbers = numbers(allocations);
    let ended = &service.demand.ended;
    let is_open = |(number, node): &(u32, NodeId)| suited.contains(node) && !ended.contains(number);
    Slots::PerNode(numbers.into_iter().filter(is_open).collect())
}

/// Returns the number of each node's slots: it follows from the id alone, so that what a node runs keeps its number whichever other
/// nodes come and go. Should two nodes have the same one, which happens to one pair in 2^24, the one with the higher id gets the next.
fn numbers(allocations: &[NodeAllocation<'_>]) -> BTreeMap<u32, NodeId> {
    let mut numbers = BTreeMap::new();
    for NodeAllocation { id, id_text, .. } in allocations {
        let mut number = rendezvous(&["slot", id_text]) % MAX_NUMBER;
        loop {
            // Below 2^24, so it fits.
            let slot = u32::try_from(number).unwrap_or_default().saturating_add(1);
            match numbers.contains_key(&slot) {
                true => number = (number + 1) % MAX_NUMBER,
                false => {
                    numbers.insert(slot, *id);
                    break;
                }
            }
        }
    }
    numbers
}

/// Returns the number of a node's slots of services that have one for each node; `None` if it is no member.
pub fn node_slot(input: &PlanInput, node: NodeId) -> Option<u32> {
    let numbers = numbers(&NodeAllocation::for_nodes(input));
    numbers.into_iter().find(|(_, it)| *it == node).map(|(number, _)| number)
}
