//! Accuses silent nodes, and refutes accusations against this one.

use vc_crdt::liveness;
use vc_protocol::Millis;

use super::Engine;
use crate::interface::Output;

impl Engine {
    /// Disconnects silent nodes, and accuses those that this node observes.
    pub(super) fn check_silence(&mut self, now: Millis) {
        if self.runtime.is_unknown() {
            return;
        }
        let id = self.replica.id();
        for (&node, state) in self.replica.nodes().iter().filter(|&(&node, _)| node != id) {
            let accused =
                self.own.unreachable.get(&node).is_some_and(|&of| of >= state.incarnation);
            let Some(silence) = self.detector.silence(node, now).filter(|_| !accused) else {
                continue;
            };
            // The node may be up behind a dead connection: without it, the two dial again.
            self.outputs.push(Output::Disconnect(node));
            if liveness::observers(node, self.replica.nodes().keys()).contains(&id) {
                tracing::info!(
                    %node,
                    name = self.view.name(node),
                    silence_ms = silence,
                    "no heartbeat, reporting the node as unreachable"
                );
                self.own.unreachable.insert(node, state.incarnation);
                self.detector.accused(node, now);
                self.dirty = true;
            }
        }
    }

    /// Takes a higher incarnation than every accusation against this node names.
    pub(super) fn answer_accusations(&mut self) {
        let id = self.replica.id();
        let highest =
            self.replica.nodes().values().filter_map(|state| state.unreachable.get(&id)).max();
        if let Some(&highest) = highest
            && highest >= self.own.incarnation
        {
            let incarnation = highest + 1;
            tracing::info!(incarnation, "reported as unreachable, taking a new incarnation");
            self.own.incarnation = incarnation;
        }
    }
}
