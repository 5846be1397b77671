//! Accusing nodes that are silent, and answering when we are accused.

use vc_crdt::liveness;
use vc_protocol::Millis;

use crate::engine::{Engine, RuntimeHealth};
use crate::interface::Output;

impl Engine {
    /// Looks at who is silent, and writes it down.
    pub(crate) fn judge(&mut self, now: Millis) {
        self.detector.fade(now);
        if matches!(self.runtime, RuntimeHealth::Unknown) {
            return;
        }
        let id = self.replica.id();
        for (&node, state) in self.replica.nodes().iter().filter(|&(&node, _)| node != id) {
            let accused =
                self.own.unreachable.get(&node).is_some_and(|&of| of >= state.incarnation);
            if accused || !self.detector.is_silent(node, now) {
                continue;
            }
            // It may be there and not be heard by us: a dead connection hides that.
            self.outputs.push(Output::Disconnect(node));
            if liveness::observers(node, self.replica.nodes().keys()).contains(&id) {
                tracing::info!(node = %node, name = self.view.name(node), "cannot hear this node");
                self.own.unreachable.insert(node, state.incarnation);
                self.accused_at.insert(node, now);
                self.dirty = true;
            }
        }
    }

    /// Whoever calls us unreachable is answered with a higher incarnation.
    pub(crate) fn answer_accusations(&mut self) {
        let id = self.replica.id();
        let highest =
            self.replica.nodes().values().filter_map(|state| state.unreachable.get(&id)).max();
        if let Some(&highest) = highest
            && highest >= self.own.incarnation
        {
            tracing::info!(
                incarnation = highest + 1,
                "others called this node unreachable; answered"
            );
            self.own.incarnation = highest + 1;
        }
    }
}
