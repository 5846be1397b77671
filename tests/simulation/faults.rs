//! Faults, and the mutations of operators that run among them.

use crate::network::NetworkFaults;
use crate::services::{any_mutation, resources};
use crate::world::{Event, World};

/// A fault, or requests of operators. The victim is drawn when it is injected.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// This many operators send a mutation at the same time, each to a random node.
    Operators(u32),
    /// A process dies, at once or between two of its next outputs.
    KillProcess,
    /// A process announces a restart and ends a little later.
    Restart,
    /// The process of this node ends.
    End(usize),
    /// A host loses power.
    KillHost,
    /// All processes die at once.
    KillAll,
    /// The links between some nodes and the rest are cut.
    Partition,
    /// Messages from one node to another are dropped.
    CutOneWay,
    /// All links are restored.
    Heal,
    /// A runtime stops answering for a while.
    Runtime,
    /// The runtime of this node answers again.
    RuntimeBack(usize),
    /// A process stalls for a while.
    Stall,
    /// The next write of a disk fails.
    DiskFull,
    /// Another node joins.
    Join,
}

impl World {
    /// Injects a fault into a random node, and schedules the recovery.
    pub(crate) fn inject(&mut self, fault: Fault) {
        let victim = self.rng.index(self.nodes.len());
        let other = self.rng.index(self.nodes.len());
        let recovery = self.rng.within((300, 20_000));
        match fault {
            Fault::Operators(count) => {
                for _ in 0..count {
                    let (index, nodes) = (self.rng.index(self.nodes.len()), self.nodes.len());
                    let mutation = any_mutation(&mut self.rng, nodes);
                    self.request(index, mutation);
                }
            }
            Fault::KillProcess => {
                if self.rng.permille(500) {
                    self.kill_process(victim);
                } else {
                    let after = self.rng.within((0, 12)) as u32;
                    self.nodes[victim].crash_after = Some(after);
                }
                self.schedule(recovery, Event::Boot { index: victim });
            }
            Fault::Restart => {
                self.announce_restart(victim);
                let after = self.rng.within((0, 6000));
                self.schedule(after, Event::Fault(Fault::End(victim)));
                self.schedule(after + recovery, Event::Boot { index: victim });
            }
            Fault::End(index) => self.kill_process(index),
            Fault::KillHost => {
                self.kill_host(victim);
                self.schedule(recovery, Event::Boot { index: victim });
            }
            Fault::KillAll => {
                for index in 0..self.nodes.len() {
                    self.kill_process(index);
                    let recovery = self.rng.within((300, 5000));
                    self.schedule(recovery, Event::Boot { index });
                }
            }
            Fault::Partition => {
                let mut sides = [Vec::new(), Vec::new()];
                for index in 0..self.nodes.len() {
                    sides[self.rng.index(2)].push(index);
                }
                self.partition(&[&sides[0], &sides[1]]);
                self.schedule(recovery, Event::Fault(Fault::Heal));
            }
            Fault::CutOneWay if victim != other => {
                self.trace_world(&format!("messages from m{victim} to m{other} are dropped"));
                self.cut_one_way(victim, other);
                self.schedule(recovery, Event::Fault(Fault::Heal));
            }
            Fault::CutOneWay => {}
            Fault::Heal => self.heal(),
            Fault::Runtime => {
                let die = self.rng.permille(500);
                self.set_runtime_available(victim, false, die);
                self.schedule(recovery, Event::Fault(Fault::RuntimeBack(victim)));
            }
            Fault::RuntimeBack(index) => self.set_runtime_available(index, true, false),
            Fault::Stall => self.stall(victim, recovery / 2),
            Fault::DiskFull => self.nodes[victim].disk.failing = 1,
            Fault::Join => {
                self.join(resources(4000, 4096));
            }
        }
    }

    /// Ends all faults and starts all processes that are down.
    pub(crate) fn heal_all(&mut self) {
        self.heal();
        self.heal_runtimes();
        let faults = self.network.faults;
        self.network.faults = NetworkFaults { loss: faults.loss / 10, reordered: 0, ..faults };
        for index in 0..self.nodes.len() {
            self.set_runtime_available(index, true, false);
            self.nodes[index].crash_after = None;
            self.nodes[index].disk.failing = 0;
            self.boot(index);
        }
    }
}
