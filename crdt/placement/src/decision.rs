//! The output of the plan, and of rebalancing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vc_protocol::{NodeId, ServiceKey, Slot};

/// Where every slot runs, and why. Each slot of a deployed service is in exactly one of `placements` and `unplaced`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// [`PlanInput::digest`](crate::PlanInput::digest) of the input.
    pub input_digest: String,
    /// The node of each placed slot.
    pub placements: BTreeMap<Slot, Placement>,
    /// The slots that no node can take, with one refusal per node, ordered by node id. Those that wait for a node that is down
    /// have the refusal of that node alone.
    pub unplaced: BTreeMap<Slot, Vec<Refusal>>,
    /// The difference between plan and claims, ordered by slot and source; empty when every node runs what it should.
    /// A node that is down cannot withdraw its claim: its move is dropped once the target has claimed the slot.
    pub moves: Vec<Move>,
}

impl Plan {
    /// Returns the slots of one service, with a node or without one, in the order of their numbers.
    pub fn slots_of_service<'a>(&'a self, service: &ServiceKey) -> impl Iterator<Item = &'a Slot> {
        let slot = |replica| Slot { service: service.clone(), replica };
        let all = slot(0)..=slot(u32::MAX);
        let mut slots: Vec<&Slot> =
            self.placements.range(all.clone()).map(|(slot, _)| slot).collect();
        slots.extend(self.unplaced.range(all).map(|(slot, _)| slot));
        slots.sort_unstable();
        slots.into_iter()
    }

    /// Returns whether a slot is one of a deployed service.
    pub fn has_slot(&self, slot: &Slot) -> bool {
        self.placements.contains_key(slot) || self.unplaced.contains_key(slot)
    }

    /// Returns the slots of one node, in order.
    pub fn slots_of(&self, node: NodeId) -> impl Iterator<Item = &Slot> {
        self.placements
            .iter()
            .filter(move |(_, placement)| placement.node == node)
            .map(|(slot, _)| slot)
    }
}

/// The node of a slot, with the reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The node that should run the slot.
    pub node: NodeId,
    /// Display texts, the most important first. A claimed slot starts with "keeps its node"; the rest compares the
    /// node with the others as if the slot were placed now.
    pub reasons: Vec<String>,
}

/// Why a node cannot take a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The node that cannot take it.
    pub node: NodeId,
    /// Display text with the node as the subject: "is down", "has 500m of 4000m CPU free, …".
    pub reason: String,
}

/// A slot that has to start, stop or change its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The slot concerned.
    pub slot: Slot,
    /// The node that has to stop its instance and delete its claim; `None` if no node claims the slot. One move per such node.
    pub from: Option<NodeId>,
    /// The node that should run the slot; `None` if the slot was removed or no node can take it.
    pub to: Option<NodeId>,
    /// Display text; its subject is `from` where there is one.
    pub reason: String,
}

/// A proposed move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relocation {
    /// The slot to move.
    pub slot: Slot,
    /// The node that runs it.
    pub from: NodeId,
    /// The node that should run it.
    pub to: NodeId,
    /// Display text.
    pub reason: String,
}
