//! Accuses silent nodes, and refutes accusations against this one.

use std::collections::BTreeMap;

use vc_crdt::{NodeState, View, liveness};
use vc_protocol::planted::{PlantedBug, is_planted};
use vc_protocol::{Millis, NodeId};

use crate::failure_detector::FailureDetector;
use crate::interface::Output;

/// Accuses in `own` the silent nodes that this node observes, by the view: it decides whose accusations count, and the documents
/// have nodes that have left. Returns the disconnections from all silent nodes, and whether an accusation is new.
pub(crate) fn accuse_silent_nodes(
    node: NodeId,
    view: &View,
    detector: &mut FailureDetector,
    own: &mut NodeState,
    now: Millis,
) -> (Vec<Output>, bool) {
    let mut outputs = Vec::new();
    let mut accuses = false;
    for (&other, state) in view.nodes.iter().filter(|&(&other, _)| other != node) {
        let accused = own.unreachable.get(&other).is_some_and(|&of| of >= state.incarnation);
        let Some(silence) = detector.silence(other, now).filter(|_| !accused) else {
            continue;
        };
        // The node may be up behind a dead connection: without it, the two dial again.
        outputs.push(Output::Disconnect(other));
        if liveness::observers(other, view.nodes.keys()).contains(&node) {
            tracing::info!(
                node = %other,
                name = view.name(other),
                silence_ms = silence,
                "no heartbeat, reporting the node as unreachable"
            );
            own.unreachable.insert(other, state.incarnation);
            detector.accused(other, now);
            accuses = true;
        }
    }
    (outputs, accuses)
}

/// Raises the incarnation of `own` above that of every accusation against this node, which refutes them (SWIM).
pub(crate) fn refute_accusations(
    node: NodeId,
    nodes: &BTreeMap<NodeId, NodeState>,
    own: &mut NodeState,
) {
    let highest = nodes.values().filter_map(|state| state.unreachable.get(&node)).max();
    if let Some(&highest) = highest
        && highest >= own.incarnation
        // A byzantine member can name the highest number, which cannot be refuted.
        && own.incarnation < u64::MAX
        && !is_planted(PlantedBug::NoRefutation)
    {
        let incarnation = highest.saturating_add(1);
        tracing::info!(incarnation, "reported as unreachable, taking a new incarnation");
        own.incarnation = incarnation;
    }
}
