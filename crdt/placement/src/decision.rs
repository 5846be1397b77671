//! What the plan says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vc_protocol::{NodeId, Slot};

/// Where everything runs, and why. Each wanted slot is in exactly one of `placements` and `unplaced`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// [`PlanInput::digest`](crate::PlanInput::digest) of what it was computed from.
    pub input_digest: String,
    /// The node of each slot that has one.
    pub placements: BTreeMap<Slot, Placement>,
    /// The slots that no node can take, with a refusal of each node, in the order of the ids.
    pub unplaced: BTreeMap<Slot, Vec<Refusal>>,
    /// How the plan differs from the claims, by slot and then by the node that loses it. Empty when every node
    /// runs what it should. A node that is down cannot withdraw its claim: the claim counts as gone once the
    /// successor has claimed the slot.
    pub moves: Vec<Move>,
}

impl Plan {
    /// The slots of one node, in order.
    pub fn slots_of(&self, node: NodeId) -> impl Iterator<Item = &Slot> {
        self.placements
            .iter()
            .filter(move |(_, placement)| placement.node == node)
            .map(|(slot, _)| slot)
    }
}

/// Where a slot runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// On which node.
    pub node: NodeId,
    /// Why there, in words for people, the weightiest first. The first is "keeps its place" if it is claimed; what
    /// follows compares the node with the others as if the slot were placed now.
    pub reasons: Vec<String>,
}

/// Why a node cannot take a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which node.
    pub node: NodeId,
    /// Why, in words for people, with the node as the subject: "is down", "has 500m of 4000m CPU free, …".
    pub reason: String,
}

/// A slot that does not run where it should, or not only there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Which slot.
    pub slot: Slot,
    /// The node that claims it and must not; `None`: nobody claims it. Each such node has its own move.
    pub from: Option<NodeId>,
    /// The node that should run it; `None`: it is not wanted any more, or no node can take it.
    pub to: Option<NodeId>,
    /// Why, in words for people; where `from` is given, it is the subject.
    pub reason: String,
}
