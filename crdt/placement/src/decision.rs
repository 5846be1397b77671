//! What the plan says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vc_protocol::{NodeId, Slot};

/// Where everything runs, and why. Each wanted slot is in exactly one of `placements` and `unplaced`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// [`PlanInput::digest`](crate::PlanInput::digest) of what it was computed from.
    pub input_digest: String,
    /// The machine of each slot that has one.
    pub placements: BTreeMap<Slot, Placement>,
    /// The slots that no machine can take, with a refusal of each machine, in the order of the ids.
    pub unplaced: BTreeMap<Slot, Vec<Refusal>>,
    /// How the plan differs from the claims, by slot and then by the machine that loses it. Empty when every machine
    /// runs what it should. A machine that is down cannot withdraw its claim: the claim counts as gone once the
    /// successor has claimed the slot.
    pub moves: Vec<Move>,
}

impl Plan {
    /// The slots of one machine, in order.
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
    /// On which machine.
    pub node: NodeId,
    /// Why there, in words for people, the weightiest first. The first is "keeps its place" if it is claimed; what
    /// follows compares the machine with the others as if the slot were placed now.
    pub reasons: Vec<String>,
}

/// Why a machine cannot take a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which machine.
    pub node: NodeId,
    /// Why, in words for people, with the machine as the subject: "is down", "has 500m of 4000m CPU free, …".
    pub reason: String,
}

/// A slot that does not run where it should, or not only there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Which slot.
    pub slot: Slot,
    /// The machine that claims it and must not; `None`: nobody claims it. Each such machine has its own move.
    pub from: Option<NodeId>,
    /// The machine that should run it; `None`: it is not wanted any more, or no machine can take it.
    pub to: Option<NodeId>,
    /// Why, in words for people; where `from` is given, it is the subject.
    pub why: String,
}
