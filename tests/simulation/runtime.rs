//! Container runtimes. Containers outlive the engine that started them, and end with their host.

use std::collections::{BTreeMap, BTreeSet};

use vc_engine::Input;
use vc_engine::runtime::{InstanceId, Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_protocol::lease::Epoch;
use vc_protocol::spec::{ContainerSpec, Mount};
use vc_protocol::{Millis, Resources, VolumeKey};

use crate::history::Action;
use crate::invariants::{data_is_ready, one_holder};
use crate::world::{Event, World};

/// Delays of all containers, in milliseconds, and faults of those whose image name contains `flaky` or `faulty`.
#[derive(Debug, Clone, Copy)]
pub struct RuntimeFaults {
    /// Time to pull an image that is not on the node.
    pub pull: (Millis, Millis),
    /// Time from the start action until the container runs.
    pub start: (Millis, Millis),
    /// Time from the remove action until the container is gone.
    pub stop: (Millis, Millis),
    /// Flaky containers that fail to start, per thousand.
    pub fails: u64,
    /// Flaky containers that exit or change their health within ten seconds, per thousand.
    pub changes: u64,
    /// Whether faulty containers exit once they have started.
    pub faulty_exit: bool,
}

impl Default for RuntimeFaults {
    fn default() -> Self {
        Self {
            pull: (200, 1500),
            start: (50, 400),
            stop: (50, 800),
            fails: 0,
            changes: 0,
            faulty_exit: true,
        }
    }
}

/// A container of one node.
#[derive(Debug, Clone)]
pub struct Container {
    /// The phase that the runtime reports; `None`: the container is being started.
    pub phase: Option<Phase>,
    pub removing: bool,
    /// Reserved resources.
    pub reservation: Resources,
    checked: bool,
    flaky: bool,
    /// The code with which it exits, and after how many milliseconds: its command is `exit CODE MS`.
    exits: Option<(i64, Millis)>,
    image: String,
    /// Whether it is started once it is created.
    run: bool,
    /// Epoch of the lease that it was started under.
    pub lease: Option<Epoch>,
    /// Volumes that it writes.
    pub writes: Vec<VolumeKey>,
    epoch: u64,
}

impl Container {
    /// Returns whether its process runs.
    pub fn runs(&self) -> bool {
        matches!(self.phase, Some(Phase::Running { .. }))
    }
}

/// A scheduled event of a container.
#[derive(Debug, Clone, Copy)]
pub enum ContainerEvent {
    Pulled,
    Started,
    Stopped,
    HealthChecked,
    Change,
    Exit,
}

/// The container runtime of one node.
#[derive(Debug)]
pub struct Runtime {
    pub containers: BTreeMap<InstanceId, Container>,
    images: BTreeSet<String>,
    /// Whether the runtime answers.
    pub available: bool,
    /// Whether it is there while it does not answer.
    hung: bool,
    /// Whether its host has run out of what a start takes.
    pub exhausted: bool,
    /// Whether containers that ended with their host are listed afterwards, as exited.
    pub keeps_exited: bool,
    /// Time of the latest report; later reports are delivered in order.
    last_report: Millis,
    epochs: u64,
}

impl Runtime {
    pub fn new(keeps_exited: bool) -> Self {
        Self {
            containers: BTreeMap::new(),
            images: BTreeSet::new(),
            available: true,
            hung: false,
            exhausted: false,
            keeps_exited,
            last_report: 0,
            epochs: 0,
        }
    }

    /// Returns the containers as the runtime lists them.
    pub fn list(&self) -> Vec<Observed> {
        let observed = |(id, it): (&InstanceId, &Container)| {
            let phase = it.phase.clone()?;
            Some(Observed { id: id.clone(), address: address(&phase), phase })
        };
        self.containers.iter().filter_map(observed).collect()
    }
}

fn address(phase: &Phase) -> String {
    if matches!(phase, Phase::Running { .. }) { "10.0.0.1:80".to_owned() } else { String::new() }
}

/// Returns the named volumes that an instance writes.
fn written_volumes(id: &InstanceId, spec: &ContainerSpec) -> Vec<VolumeKey> {
    let project = &id.slot.service.project;
    let written = spec.mounts.iter().filter_map(|mount| match mount {
        Mount::Volume { name, read_only: false, .. } => Some(name),
        _ => None,
    });
    written.map(|name| VolumeKey { project: project.clone(), volume: name.clone() }).collect()
}

/// Reads the command `exit CODE MS`.
fn exits(spec: &ContainerSpec) -> Option<(i64, Millis)> {
    match spec.command.as_deref()? {
        [exit, code, after] if exit == "exit" => {
            Some((code.parse().expect("a code"), after.parse().expect("a time")))
        }
        _ => None,
    }
}

impl World {
    /// Executes an action that an engine requested of its runtime.
    pub fn run_action(&mut self, index: usize, action: RuntimeAction) {
        let summary = match &action {
            RuntimeAction::Start { id, .. } => format!("start {id}"),
            RuntimeAction::Prepare { id, .. } => format!("prepare {id}"),
            RuntimeAction::Remove { id, .. } => format!("remove {id}"),
        };
        self.trace_node(index, &format!("runtime action: {summary}"));
        self.record(index, Action::Requested(summary));
        if !self.nodes[index].runtime.available {
            return;
        }
        match action {
            RuntimeAction::Start { id, spec, epoch, .. } => {
                self.start(index, id, &spec, epoch, true)
            }
            RuntimeAction::Prepare { id, spec, epoch, .. } => {
                self.start(index, id, &spec, epoch, false);
            }
            RuntimeAction::Remove { id, .. } => {
                match self.nodes[index].runtime.containers.get_mut(&id) {
                    None => self.report(index, &id),
                    Some(it) if it.removing => {}
                    Some(it) => {
                        it.removing = true;
                        let stop = self.runtime_faults.stop;
                        self.schedule_container(index, &id, stop, ContainerEvent::Stopped);
                    }
                }
            }
        }
    }

    /// Starts a container, or only creates it.
    fn start(
        &mut self,
        index: usize,
        id: InstanceId,
        spec: &ContainerSpec,
        lease: Option<Epoch>,
        run: bool,
    ) {
        let runtime_faults = self.runtime_faults;
        let runtime = &mut self.nodes[index].runtime;
        if let Some(it) = runtime.containers.get(&id) {
            if it.runs() || (!run && it.phase.is_some()) {
                return self.report(index, &id);
            }
            if it.phase.is_none() || matches!(it.phase, Some(Phase::Pulling { .. })) || it.removing
            {
                return;
            }
        }
        runtime.epochs += 1;
        let pulled = runtime.images.contains(&spec.image);
        let container = Container {
            phase: match pulled {
                false => Some(Phase::Pulling { progress: String::new() }),
                true => (!run).then_some(Phase::Prepared),
            },
            removing: false,
            reservation: spec.reservation,
            checked: spec.healthcheck.is_some(),
            flaky: spec.image.contains("flaky"),
            exits: exits(spec),
            image: spec.image.clone(),
            lease,
            writes: written_volumes(&id, spec),
            run,
            epoch: runtime.epochs,
        };
        runtime.containers.insert(id.clone(), container);
        if pulled && !run {
            self.report(index, &id);
        } else if pulled {
            self.schedule_container(index, &id, runtime_faults.start, ContainerEvent::Started);
        } else {
            self.report(index, &id);
            self.schedule_container(index, &id, runtime_faults.pull, ContainerEvent::Pulled);
        }
    }

    fn schedule_container(
        &mut self,
        index: usize,
        id: &InstanceId,
        within: (Millis, Millis),
        event: ContainerEvent,
    ) {
        let Some(it) = self.nodes[index].runtime.containers.get(id) else { return };
        let (id, epoch) = (id.clone(), it.epoch);
        let after = self.rng.within(within);
        self.schedule(after, Event::Container { index, id, epoch, event });
    }

    /// Executes the scheduled event of a container; those of an earlier container with this id are dropped.
    pub fn container_event(
        &mut self,
        index: usize,
        id: InstanceId,
        epoch: u64,
        event: ContainerEvent,
    ) {
        let (started, runtime_faults) = (self.clock(index).wall, self.runtime_faults);
        let exhausted = self.nodes[index].runtime.exhausted;
        let now = self.clock(index).monotonic;
        let watched = self.nodes[index].deadlines.get(&id).is_some_and(|&deadline| now < deadline);
        let Some(it) = self.nodes[index].runtime.containers.get_mut(&id) else { return };
        if it.epoch != epoch {
            return;
        }
        let flaky = it.flaky && !it.removing;
        match event {
            ContainerEvent::Pulled if !it.removing => {
                let (image, run) = (it.image.clone(), it.run);
                it.phase = (!run).then_some(Phase::Prepared);
                self.nodes[index].runtime.images.insert(image);
                if !run {
                    return self.report(index, &id);
                }
                self.schedule_container(index, &id, runtime_faults.start, ContainerEvent::Started);
            }
            ContainerEvent::Started if !it.removing => {
                if exhausted {
                    it.phase =
                        Some(Phase::NodeFault { reason: "no space left on device".to_owned() });
                    self.trace_node(index, &format!("cannot start {id}"));
                } else if it.image.contains("broken")
                    || it.image.contains("faulty") && runtime_faults.faulty_exit
                {
                    let output = "cannot open its configuration".to_owned();
                    it.phase = Some(Phase::Exited { code: 1, output, out_of_memory: false });
                    self.record(index, Action::Ended(id.clone()));
                    self.trace_node(index, &format!("{id} exits after its start"));
                } else if flaky && self.rng.permille(runtime_faults.fails) {
                    it.phase = Some(Phase::Failed { reason: "no such image".to_owned() });
                } else if it.lease.is_some() && !watched {
                    it.phase = Some(Phase::Exited {
                        code: 137,
                        output: String::new(),
                        out_of_memory: false,
                    });
                    self.trace_node(index, &format!("the watchdog kills {id} at its start"));
                } else {
                    it.phase = Some(Phase::Running { health: None, started, said: String::new() });
                    let (checked, exits) = (it.checked, it.exits);
                    self.record(index, Action::Started(id.clone()));
                    self.trace_node(index, &format!("runs {id}"));
                    let alone = one_holder::started(self, index, &id);
                    self.require(alone);
                    self.require(data_is_ready::check(self, index, &id));
                    if checked {
                        self.schedule_container(
                            index,
                            &id,
                            (100, 1000),
                            ContainerEvent::HealthChecked,
                        );
                    }
                    if let Some((_, after)) = exits {
                        let event = ContainerEvent::Exit;
                        self.schedule_container(index, &id, (after, after), event);
                    }
                    if flaky {
                        self.schedule_container(index, &id, (1000, 10_000), ContainerEvent::Change);
                    }
                }
                self.report(index, &id);
            }
            ContainerEvent::Stopped => {
                if it.runs() {
                    self.record(index, Action::Stopped(id.clone()));
                    self.trace_node(index, &format!("stopped {id}"));
                }
                self.nodes[index].runtime.containers.remove(&id);
                self.report(index, &id);
            }
            ContainerEvent::HealthChecked => {
                if let Some(Phase::Running { health, .. }) = &mut it.phase {
                    *health = Some(true);
                    self.report(index, &id);
                }
            }
            ContainerEvent::Exit if it.runs() && !it.removing => {
                let code = it.exits.map_or(0, |(code, _)| code);
                it.phase =
                    Some(Phase::Exited { code, output: String::new(), out_of_memory: false });
                self.record(index, Action::Ended(id.clone()));
                self.trace_node(index, &format!("{id} exits with {code}"));
                self.report(index, &id);
            }
            ContainerEvent::Exit => {}
            ContainerEvent::Change => self.change_container(index, &id),
            ContainerEvent::Pulled | ContainerEvent::Started => {}
        }
    }

    /// Lets a flaky container exit or change its health, with the probability of the faults.
    fn change_container(&mut self, index: usize, id: &InstanceId) {
        let (changes, code, exits) =
            (self.runtime_faults.changes, self.rng.pick(&[0, 1, 137]), self.rng.permille(600));
        let acts = self.rng.permille(changes);
        let Some(it) = self.nodes[index].runtime.containers.get_mut(id) else { return };
        if !it.runs() || it.removing {
            return;
        }
        if acts && exits {
            it.phase = Some(Phase::Exited { code, output: String::new(), out_of_memory: false });
            self.record(index, Action::Ended(id.clone()));
            self.trace_node(index, &format!("{id} exits with {code}"));
            return self.report(index, id);
        }
        if let (true, true, Some(Phase::Running { health, .. })) = (acts, it.checked, &mut it.phase)
        {
            *health = Some(*health != Some(true));
            self.report(index, id);
        }
        // Repeats until the faults end and the container is healthy.
        if changes > 0 || !acts {
            self.schedule_container(index, id, (1000, 10_000), ContainerEvent::Change);
        }
    }

    /// Ends the faults: unhealthy containers recover.
    pub fn heal_runtimes(&mut self) {
        self.runtime_faults.fails = 0;
        self.runtime_faults.changes = 0;
        self.runtime_faults.faulty_exit = false;
        for index in 0..self.nodes.len() {
            let ids: Vec<InstanceId> =
                self.nodes[index].runtime.containers.keys().cloned().collect();
            for id in ids {
                let Some(it) = self.nodes[index].runtime.containers.get_mut(&id) else { continue };
                if let (true, Some(Phase::Running { health, .. })) = (it.checked, &mut it.phase) {
                    *health = Some(true);
                    self.report(index, &id);
                }
            }
        }
    }

    /// Reports the phase of a container to the engine.
    pub fn report(&mut self, index: usize, id: &InstanceId) {
        let phase = match self.nodes[index].runtime.containers.get(id) {
            Some(it) => it.phase.clone(),
            None => Some(Phase::Gone),
        };
        let Some(phase) = phase else { return };
        let observed = Observed { id: id.clone(), address: address(&phase), phase };
        self.deliver_runtime_event(index, RuntimeEvent::Changed(observed));
    }

    fn deliver_runtime_event(&mut self, index: usize, event: RuntimeEvent) {
        let runtime = &mut self.nodes[index].runtime;
        if !runtime.available
            && !matches!(event, RuntimeEvent::Unavailable(_) | RuntimeEvent::Hung(_))
        {
            return;
        }
        let at = (self.now + self.rng.within((1, 20))).max(runtime.last_report);
        runtime.last_report = at;
        self.deliver(at - self.now, index, Input::Runtime(event));
    }

    /// Sends the list of containers, or the error, to the engine.
    pub fn list(&mut self, index: usize) {
        let runtime = &self.nodes[index].runtime;
        let event = match (runtime.available, runtime.hung) {
            (true, _) => RuntimeEvent::Listed(runtime.list()),
            (false, true) => RuntimeEvent::Hung("Docker hangs".to_owned()),
            (false, false) => RuntimeEvent::Unavailable("Docker does not answer".to_owned()),
        };
        self.deliver_runtime_event(index, event);
    }

    /// Stops or resumes the answers of a runtime. `containers_die`: its containers end as well.
    pub fn set_runtime_available(&mut self, index: usize, available: bool, containers_die: bool) {
        if self.nodes[index].runtime.available == available {
            return;
        }
        self.trace_node(index, if available { "runtime recovers" } else { "runtime fails" });
        self.disturb(index);
        self.nodes[index].runtime.available = available;
        self.nodes[index].runtime.hung = false;
        if containers_die {
            self.stop_containers(index);
        }
        self.list(index);
    }

    /// Stops the answers of a runtime that is there, until it is available.
    pub fn hang_runtime(&mut self, index: usize) {
        self.trace_node(index, "runtime hangs");
        self.disturb(index);
        let runtime = &mut self.nodes[index].runtime;
        (runtime.available, runtime.hung) = (false, true);
        self.list(index);
    }

    /// Ends all running containers of a node.
    pub fn stop_containers(&mut self, index: usize) {
        let runtime = &mut self.nodes[index].runtime;
        let ended: Vec<InstanceId> = runtime
            .containers
            .iter()
            .filter(|(_, it)| it.runs())
            .map(|(id, _)| id.clone())
            .collect();
        if runtime.keeps_exited {
            runtime.containers.retain(|_, it| it.runs());
            for it in runtime.containers.values_mut() {
                runtime.epochs += 1;
                it.epoch = runtime.epochs;
                it.removing = false;
                it.phase =
                    Some(Phase::Exited { code: 255, output: String::new(), out_of_memory: false });
            }
        } else {
            runtime.containers.clear();
        }
        for id in ended {
            self.record(index, Action::Ended(id));
        }
    }
}
