//! Processes that run with the identity of another one: what people are told, and which process stops.

use std::collections::BTreeMap;

use vc_protocol::{Millis, NodeId};

use super::Driver;
use crate::clock;
use crate::driver_message::DuplicateFound;

/// How long a problem stays in the status: the process has stopped, and its host is to get another data directory.
const SHOWN: Millis = 600_000;

/// The last duplicate of each node: when it was found, and a line for people.
pub(super) type Duplicates = BTreeMap<NodeId, (Millis, String)>;

impl Driver {
    /// Stops this process, or shows the other one as a problem.
    pub(super) fn found_duplicate(&mut self, found: DuplicateFound) {
        let own = self.context.membership.node;
        let (node, which) = match found {
            DuplicateFound::Own { name, address, yields: true } => {
                let reason = format!(
                    "another vc-node runs with the identity of this one: {name} at {address}"
                );
                return self.stop(&reason);
            }
            DuplicateFound::Own { name, address, yields: false } => {
                (own, format!("one of them {name} at {address}"))
            }
            DuplicateFound::Refused { address } => (own, format!("one of them at {address}")),
            DuplicateFound::Member { node, addresses: [one, other] } => {
                (node, format!("at {one} and at {other}"))
            }
        };
        let problem = format!(
            "two vc-nodes were started with the identity of node {}, {which}: the younger one stops; let its host join as a \
             node of its own with another --data-dir",
            self.engine.view().name(node)
        );
        // What was said stays: each other teller names other addresses, and the document would be written for each.
        if let Some((at, _)) = self.duplicates.get_mut(&node) {
            *at = clock::monotonic();
            return;
        }
        tracing::warn!("{problem}");
        self.duplicates.insert(node, (clock::monotonic(), problem));
        self.new_problems = true;
    }

    /// Removes problems that were shown long enough.
    pub(super) fn expire_duplicates(&mut self) {
        let (before, now) = (self.duplicates.len(), clock::monotonic());
        self.duplicates.retain(|_, (at, _)| now < *at + SHOWN);
        if self.duplicates.len() != before {
            self.new_problems = true;
        }
    }
}
