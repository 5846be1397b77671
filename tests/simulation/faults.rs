//! Faults: what happens to whom when an event is injected, and how it ends.

use vc_engine::Mutation;
use vc_protocol::Millis;

use crate::disk::Copy;
use crate::kind::Kind;
use crate::marks::Mark;
use crate::network::NetworkFaults;
use crate::rng::Rng;
use crate::services::{any_mutation, resources};
use crate::versions::next;
use crate::workloads;
use crate::world::{Event, World};

/// The longest time until a fault ends by itself, in milliseconds.
pub const LONGEST: Millis = 27_000;

/// The time in which all instances of a small service are replaced, in milliseconds.
const UPDATED: Millis = 5_000;

/// Divides nodes at random.
fn sides(rng: &mut Rng, nodes: Vec<usize>) -> [Vec<usize>; 2] {
    let mut sides = [Vec::new(), Vec::new()];
    nodes.into_iter().for_each(|index| sides[rng.index(2)].push(index));
    sides
}

/// An event that the plan of a run injects. Everything about it follows from its seed, so that it stays the same when others are
/// left out.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    /// Its number, by which `--events` knows it.
    pub number: usize,
    /// Milliseconds after the faults begin.
    pub at: Millis,
    pub kind: Kind,
    pub seed: u64,
}

/// The end, or the next step, of a fault.
#[derive(Debug)]
pub enum Recovery {
    /// A process ends.
    End(usize),
    /// A host loses power.
    PowerLoss(usize),
    /// A request is sent to a node.
    Request(usize, Box<Mutation>),
    /// The links between two sides are cut, which this seed draws.
    Cut(u64),
    /// All links are restored.
    Heal,
    /// A runtime answers again.
    RuntimeBack(usize),
    /// A disk accepts writes again.
    Writable(usize),
    /// A monotonic clock runs again.
    ClockRuns(usize),
    /// A process is no longer slow.
    Fast(usize),
    /// A data directory is set back to a copy; the process is not running meanwhile.
    SetBack(usize, Box<Copy>),
    /// The bit with this number flips on a disk; the process is not running meanwhile.
    FlipBit(usize, u64),
    /// A removed node is turned off.
    TurnOff(usize),
}

impl World {
    /// Injects an event of the plan, and schedules its end.
    pub fn inject(&mut self, planned: Planned) {
        let mut rng = Rng::new(planned.seed);
        let present = self.present();
        let (victim, other) = (rng.pick(&present), rng.pick(&present));
        let recovery = rng.within((300, 20_000));
        self.trace_world(&format!("event {}: {}", planned.number, planned.kind));
        match planned.kind {
            Kind::Operators => {
                for _ in 0..rng.within((1, 3)) {
                    let index = rng.pick(&present);
                    let mutation = any_mutation(&mut rng, self.nodes.len());
                    self.request(index, mutation);
                }
            }
            Kind::KillProcess => {
                if rng.permille(500) {
                    self.kill_process(victim);
                } else {
                    self.nodes[victim].crash_after = Some(rng.within((0, 12)) as u32);
                }
                self.schedule(recovery, Event::Boot { index: victim });
            }
            Kind::Restart => {
                self.announce_restart(victim);
                let after = rng.within((0, 6000));
                self.schedule(after, Event::Recover(Recovery::End(victim)));
                self.schedule(after + recovery, Event::Boot { index: victim });
            }
            Kind::KillHost => {
                self.kill_host(victim);
                self.schedule(recovery, Event::Boot { index: victim });
            }
            Kind::KillAll => {
                for index in present {
                    self.kill_process(index);
                    let recovery = rng.within((300, 5000));
                    self.schedule(recovery, Event::Boot { index });
                }
            }
            Kind::Partition => {
                let [one, other] = sides(&mut rng, present);
                self.partition(&[&one, &other]);
                self.schedule(recovery, Event::Recover(Recovery::Heal));
            }
            Kind::CutOneWay if victim != other => {
                self.trace_world(&format!("messages from m{victim} to m{other} are dropped"));
                self.cut_one_way(victim, other);
                self.schedule(recovery, Event::Recover(Recovery::Heal));
            }
            Kind::Runtime => {
                self.set_runtime_available(victim, false, rng.permille(500));
                self.schedule(recovery, Event::Recover(Recovery::RuntimeBack(victim)));
            }
            Kind::Stall => self.stall(victim, recovery / 2),
            Kind::FailedWrite => self.nodes[victim].disk.failing = 1,
            Kind::ReadOnlyDisk => {
                self.trace_node(victim, "its disk is read-only");
                self.nodes[victim].disk.read_only = true;
                self.schedule(recovery, Event::Recover(Recovery::Writable(victim)));
            }
            Kind::TornWrite => {
                self.nodes[victim].disk.tears = true;
                self.schedule(recovery, Event::Boot { index: victim });
                self.schedule(LONGEST, Event::Boot { index: victim });
            }
            Kind::LyingDisk => {
                self.trace_node(victim, "its disk confirms what it does not keep");
                self.nodes[victim].disk.lie();
                self.schedule(recovery, Event::Recover(Recovery::PowerLoss(victim)));
                self.schedule(recovery + 5_000, Event::Boot { index: victim });
            }
            Kind::Backup => {
                let copy = Box::new(self.nodes[victim].disk.backup());
                self.trace_node(victim, "its data directory is copied");
                let after = recovery + 5_000;
                self.schedule(recovery, Event::Recover(Recovery::End(victim)));
                self.schedule(after, Event::Recover(Recovery::SetBack(victim, copy)));
            }
            Kind::WallClock => {
                let by = rng.within((0, 7_200_000)) as i64 - 3_600_000;
                self.trace_node(victim, &format!("its wall clock is set by {by} ms"));
                self.nodes[victim].clocks.step_wall(by);
                self.mark_if(by < -600_000, Mark::WallClockBack);
            }
            Kind::ClockPause => {
                self.trace_node(victim, "its monotonic clock stands still");
                self.disturb(victim);
                self.watch.stopped_clocks.insert(victim);
                self.nodes[victim].clocks.stop(self.now);
                self.schedule(recovery / 2, Event::Recover(Recovery::ClockRuns(victim)));
            }
            Kind::SlowNode => {
                let slowness = rng.within((20, 150));
                self.trace_node(victim, &format!("takes {slowness} ms for each event"));
                self.nodes[victim].slowness = slowness;
                self.schedule(recovery / 2, Event::Recover(Recovery::Fast(victim)));
            }
            Kind::Join if self.nodes.len() < 64 => {
                let is_down = present.iter().any(|&index| !self.is_running(index));
                self.mark_if(is_down || self.network.is_cut(), Mark::JoinedUnderFault);
                self.watch.membership_changed = Some(self.now);
                if self.kinds.contains(&Kind::Versions) {
                    self.knows = if rng.permille(500) { next() } else { Default::default() };
                }
                self.join(resources(4000, 4096));
            }
            Kind::Leave => self.remove(victim, other, rng.within((500, 15_000))),
            Kind::Versions => {
                let knows = if rng.permille(700) { next() } else { Default::default() };
                if self.is_running(victim)
                    && self.nodes[victim].knows.supports() != knows.supports()
                {
                    self.mark(Mark::VersionChanged);
                    self.change_version(victim, knows);
                }
            }
            Kind::Exclusive | Kind::Volumes | Kind::Voters => {
                let mutation = workloads::mutation(planned.kind, &mut rng, self.nodes.len());
                if let Some(mutation) = mutation {
                    self.request(victim, mutation);
                }
            }
            Kind::FailingUpdate => {
                let [works, fails] = workloads::failing_update(&mut rng);
                self.request(victim, works);
                self.schedule(UPDATED, Event::Recover(Recovery::Request(other, Box::new(fails))));
                // Often most nodes have heard of it by then, and it has failed on none.
                let cut = UPDATED + rng.within((50, 800));
                self.schedule(cut, Event::Recover(Recovery::Cut(rng.number())));
                self.schedule(cut + recovery, Event::Recover(Recovery::Heal));
            }
            Kind::FlippedBit => {
                let bit = rng.number();
                self.schedule(recovery, Event::Recover(Recovery::End(victim)));
                let after = recovery + rng.within((100, 5_000));
                self.schedule(after, Event::Recover(Recovery::FlipBit(victim, bit)));
            }
            Kind::CutOneWay
            | Kind::Join
            | Kind::Drift
            | Kind::Loss
            | Kind::Duplication
            | Kind::Reordering
            | Kind::Containers => {}
        }
    }

    /// Removes a node from the cluster by a command to another one, and turns it off.
    fn remove(&mut self, victim: usize, by: usize, after: Millis) {
        if victim == by || self.present().len() < 3 {
            return;
        }
        let is_away = !self.is_running(victim) || self.network.is_cut();
        let node = format!("m{victim}");
        let request = self.request(by, Mutation::Leave { node, force: true });
        let is_done = |request| self.operators.operations.get(&request)?.answer.as_ref();
        if request.and_then(is_done).is_some_and(Result::is_ok) {
            self.mark_if(is_away, Mark::LeftWhileAway);
            self.watch.membership_changed = Some(self.now);
            self.schedule(after, Event::Recover(Recovery::TurnOff(victim)));
        }
    }

    /// Ends a fault, or goes on with it.
    pub fn recover(&mut self, recovery: Recovery) {
        match recovery {
            Recovery::End(index) => self.kill_process(index),
            Recovery::PowerLoss(index) => self.kill_host(index),
            Recovery::Request(index, mutation) => {
                self.request(index, *mutation);
            }
            Recovery::Cut(seed) => {
                let [one, other] = sides(&mut Rng::new(seed), self.present());
                self.partition(&[&one, &other]);
            }
            Recovery::Heal => self.heal(),
            Recovery::RuntimeBack(index) => self.set_runtime_available(index, true, false),
            Recovery::Writable(index) => self.nodes[index].disk.read_only = false,
            Recovery::ClockRuns(index) => self.run_clock(index),
            Recovery::Fast(index) => {
                self.disturb(index);
                self.nodes[index].slowness = 0;
            }
            Recovery::SetBack(index, copy) => {
                self.kill_process(index);
                self.trace_node(index, "its data directory is set back");
                self.lose(index, |node| node.disk.set_back(*copy));
                self.boot(index);
            }
            Recovery::FlipBit(index, bit) => {
                self.kill_process(index);
                self.trace_node(index, "a bit flips on its disk");
                self.flip_bit(index, bit);
                self.boot(index);
            }
            Recovery::TurnOff(index) => self.turn_off(index),
        }
    }

    fn run_clock(&mut self, index: usize) {
        if self.watch.stopped_clocks.remove(&index) {
            self.watch.started_clocks.insert(index, self.now);
            self.disturb(index);
            self.nodes[index].clocks.go_on(self.now);
            self.rearm(index);
            self.plan_watchdog(index);
        }
    }

    /// Ends all faults and starts all processes that are down.
    pub fn heal_all(&mut self) {
        self.heal();
        self.heal_runtimes();
        let faults = self.network.faults;
        self.network.faults = NetworkFaults { loss: faults.loss / 10, reordered: 0, ..faults };
        for index in self.present() {
            self.set_runtime_available(index, true, false);
            self.run_clock(index);
            let node = &mut self.nodes[index];
            if node.slowness > 0 || node.busy_until > self.now || node.disk.read_only {
                node.disturbed = self.now;
            }
            node.slowness = 0;
            node.busy_until = node.busy_until.min(self.now);
            node.crash_after = None;
            node.disk.failing = 0;
            node.disk.read_only = false;
            node.disk.tears = false;
            node.disk.sync();
            self.schedule(0, Event::Awake { index });
            self.boot(index);
        }
    }
}
