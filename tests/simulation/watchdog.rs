//! The watchdog process of a node: kills instances at the deadlines of their leases, by itself. The node's process may be stalled or
//! down meanwhile.

use std::collections::BTreeMap;

use vc_engine::runtime::{InstanceId, Phase};
use vc_protocol::Millis;

use crate::history::Action;
use crate::marks::Mark;
use crate::world::{Event, World};

impl World {
    /// Replaces the deadlines of a node, in milliseconds of its monotonic clock.
    pub fn set_deadlines(&mut self, index: usize, deadlines: BTreeMap<InstanceId, Millis>) {
        let changed = self.nodes[index].deadlines != deadlines;
        self.nodes[index].deadlines = deadlines;
        if changed {
            self.plan_watchdog(index);
        }
    }

    /// Schedules the next look of a watchdog. While its clock stands still, so do the deadlines.
    pub fn plan_watchdog(&mut self, index: usize) {
        let node = &self.nodes[index];
        let Some(&first) = node.deadlines.values().min() else { return };
        if let Some(after) = node.clocks.until(self.now, first) {
            self.schedule(after, Event::Watchdog { index });
        }
    }

    /// Kills the instances of a node whose deadline is over.
    pub fn watchdog(&mut self, index: usize) {
        let now = self.clock(index).monotonic;
        let due = self.nodes[index].deadlines.extract_if(.., |_, deadline| now >= *deadline);
        let due: Vec<InstanceId> = due.map(|(id, _)| id).collect();
        for id in due {
            let Some(container) = self.nodes[index].runtime.containers.get_mut(&id) else {
                continue;
            };
            if container.runs() {
                container.phase =
                    Some(Phase::Exited { code: 137, output: String::new(), out_of_memory: false });
                self.trace_node(index, &format!("the watchdog kills {id}"));
                self.mark_if(
                    self.is_running(index) && !self.is_awake(index),
                    Mark::LeaseEndedInHang,
                );
                self.mark_if(!self.is_running(index), Mark::LeaseEndedAfterCrash);
                self.record(index, Action::Ended(id.clone()));
                self.report(index, &id);
            }
        }
        self.plan_watchdog(index);
    }
}
