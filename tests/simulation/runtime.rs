//! Containers, which outlive the engine that asked for them, and die with their host.

use std::collections::{BTreeMap, BTreeSet};

use vc_engine::Input;
use vc_engine::runtime::{InstanceId, Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_protocol::spec::ContainerSpec;
use vc_protocol::{Millis, Resources};

use crate::ledger::Deed;
use crate::world::{Event, World};

/// How containers behave whose image is called `moody`; all others only take their time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Temper {
    /// How long an image takes that is not on the node.
    pub(crate) pull: (Millis, Millis),
    /// From the action until it runs.
    pub(crate) start: (Millis, Millis),
    /// From the action until it is gone.
    pub(crate) stop: (Millis, Millis),
    /// Moody ones that fail to start, of a thousand.
    pub(crate) fails: u64,
    /// Moody ones that exit or change their health within ten seconds, of a thousand.
    pub(crate) turns: u64,
}

impl Default for Temper {
    fn default() -> Self {
        Self { pull: (200, 1500), start: (50, 400), stop: (50, 800), fails: 0, turns: 0 }
    }
}

/// One container.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    /// As the runtime would report it; `None`: it is being started.
    pub(crate) phase: Option<Phase>,
    pub(crate) removing: bool,
    /// What is kept free for it.
    pub(crate) reservation: Resources,
    checked: bool,
    moody: bool,
    image: String,
    epoch: u64,
}

impl Container {
    /// Whether its process is up.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.phase, Some(Phase::Running { .. }))
    }
}

/// What happens to a container by and by.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Turn {
    Pulled,
    Started,
    Stopped,
    Judged,
    Mood,
}

/// What runs containers on one node.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) containers: BTreeMap<InstanceId, Container>,
    images: BTreeSet<String>,
    /// Whether it answers.
    pub(crate) available: bool,
    /// Whether containers that ended with their host are still there afterwards, exited.
    pub(crate) leaves_remains: bool,
    /// Events come in their order: none before this time.
    told: Millis,
    epochs: u64,
}

impl Runtime {
    pub(crate) fn new(leaves_remains: bool) -> Self {
        Self {
            containers: BTreeMap::new(),
            images: BTreeSet::new(),
            available: true,
            leaves_remains,
            told: 0,
            epochs: 0,
        }
    }

    /// The list that it would give.
    pub(crate) fn list(&self) -> Vec<Observed> {
        let seen = |(id, it): (&InstanceId, &Container)| {
            let phase = it.phase.clone()?;
            Some(Observed { id: id.clone(), address: address(&phase), phase })
        };
        self.containers.iter().filter_map(seen).collect()
    }
}

fn address(phase: &Phase) -> String {
    if matches!(phase, Phase::Running { .. }) { "10.0.0.1:80".to_owned() } else { String::new() }
}

impl World {
    /// Does what an engine asks of its runtime.
    pub(crate) fn act(&mut self, of: usize, action: RuntimeAction) {
        let asked = match &action {
            RuntimeAction::Start { id, .. } => format!("start {id}"),
            RuntimeAction::Remove { id, .. } => format!("remove {id}"),
        };
        self.note(of, &format!("asks its runtime: {asked}"));
        self.enter(of, Deed::Asked(asked));
        if !self.nodes[of].runtime.available {
            return;
        }
        match action {
            RuntimeAction::Start { id, spec } => self.start(of, id, &spec),
            RuntimeAction::Remove { id, .. } => {
                match self.nodes[of].runtime.containers.get_mut(&id) {
                    None => self.report(of, &id),
                    Some(it) if it.removing => {}
                    Some(it) => {
                        it.removing = true;
                        let stop = self.temper.stop;
                        self.turn(of, &id, stop, Turn::Stopped);
                    }
                }
            }
        }
    }

    fn start(&mut self, of: usize, id: InstanceId, spec: &ContainerSpec) {
        let temper = self.temper;
        let runtime = &mut self.nodes[of].runtime;
        if let Some(it) = runtime.containers.get(&id) {
            if it.runs() {
                return self.report(of, &id);
            }
            if it.phase.is_none() || matches!(it.phase, Some(Phase::Pulling { .. })) || it.removing
            {
                return;
            }
        }
        runtime.epochs += 1;
        let here = runtime.images.contains(&spec.image);
        let container = Container {
            phase: (!here).then(|| Phase::Pulling { progress: String::new() }),
            removing: false,
            reservation: spec.reservation,
            checked: spec.healthcheck.is_some(),
            moody: spec.image.contains("moody"),
            image: spec.image.clone(),
            epoch: runtime.epochs,
        };
        runtime.containers.insert(id.clone(), container);
        if here {
            self.turn(of, &id, temper.start, Turn::Started);
        } else {
            self.report(of, &id);
            self.turn(of, &id, temper.pull, Turn::Pulled);
        }
    }

    fn turn(&mut self, of: usize, id: &InstanceId, within: (Millis, Millis), turn: Turn) {
        let Some(it) = self.nodes[of].runtime.containers.get(id) else { return };
        let (id, epoch) = (id.clone(), it.epoch);
        let after = self.rng.within(within);
        self.schedule(after, Event::Container { of, id, epoch, turn });
    }

    /// Something is due for a container.
    pub(crate) fn container_turns(&mut self, of: usize, id: InstanceId, epoch: u64, turn: Turn) {
        let (started, temper) = (self.local(of), self.temper);
        let Some(it) = self.nodes[of].runtime.containers.get_mut(&id) else { return };
        if it.epoch != epoch {
            return;
        }
        let moody = it.moody && !it.removing;
        match turn {
            Turn::Pulled if !it.removing => {
                it.phase = None;
                let image = it.image.clone();
                self.nodes[of].runtime.images.insert(image);
                self.turn(of, &id, temper.start, Turn::Started);
            }
            Turn::Started if !it.removing => {
                if it.image.contains("broken") {
                    let output = "cannot open its configuration".to_owned();
                    it.phase = Some(Phase::Exited { code: 1, output });
                    self.enter(of, Deed::Ended(id.clone()));
                    self.note(of, &format!("{id} exits at once"));
                } else if moody && self.rng.permille(temper.fails) {
                    it.phase = Some(Phase::Failed { reason: "no such image".to_owned() });
                } else {
                    it.phase = Some(Phase::Running { health: None, started, said: String::new() });
                    let checked = it.checked;
                    self.enter(of, Deed::Started(id.clone()));
                    self.note(of, &format!("runs {id}"));
                    if checked {
                        self.turn(of, &id, (100, 1000), Turn::Judged);
                    }
                    if moody {
                        self.turn(of, &id, (1000, 10_000), Turn::Mood);
                    }
                }
                self.report(of, &id);
            }
            Turn::Stopped => {
                if it.runs() {
                    self.enter(of, Deed::Stopped(id.clone()));
                    self.note(of, &format!("stopped {id}"));
                }
                self.nodes[of].runtime.containers.remove(&id);
                self.report(of, &id);
            }
            Turn::Judged => {
                if let Some(Phase::Running { health, .. }) = &mut it.phase {
                    *health = Some(true);
                    self.report(of, &id);
                }
            }
            Turn::Mood => self.mood(of, &id),
            Turn::Pulled | Turn::Started => {}
        }
    }

    fn mood(&mut self, of: usize, id: &InstanceId) {
        let (turns, code, exits) =
            (self.temper.turns, self.rng.pick(&[0, 1, 137]), self.rng.permille(600));
        let acts = self.rng.permille(turns);
        let Some(it) = self.nodes[of].runtime.containers.get_mut(id) else { return };
        if !it.runs() || it.removing {
            return;
        }
        if acts && exits {
            it.phase = Some(Phase::Exited { code, output: String::new() });
            self.enter(of, Deed::Ended(id.clone()));
            self.note(of, &format!("{id} exits with {code}"));
            return self.report(of, id);
        }
        if let (true, true, Some(Phase::Running { health, .. })) = (acts, it.checked, &mut it.phase)
        {
            *health = Some(*health != Some(true));
            self.report(of, id);
        }
        // Whoever is left unwell by the end of bad moods gets well.
        if turns > 0 || !acts {
            self.turn(of, id, (1000, 10_000), Turn::Mood);
        }
    }

    /// Bad moods are over: who is unhealthy recovers.
    pub(crate) fn calm(&mut self) {
        self.temper.fails = 0;
        self.temper.turns = 0;
        for of in 0..self.nodes.len() {
            let ids: Vec<InstanceId> = self.nodes[of].runtime.containers.keys().cloned().collect();
            for id in ids {
                let Some(it) = self.nodes[of].runtime.containers.get_mut(&id) else { continue };
                if let (true, Some(Phase::Running { health, .. })) = (it.checked, &mut it.phase) {
                    *health = Some(true);
                    self.report(of, &id);
                }
            }
        }
    }

    /// Tells the engine how a container is.
    fn report(&mut self, of: usize, id: &InstanceId) {
        let phase = match self.nodes[of].runtime.containers.get(id) {
            Some(it) => it.phase.clone(),
            None => Some(Phase::Gone),
        };
        let Some(phase) = phase else { return };
        let observed = Observed { id: id.clone(), address: address(&phase), phase };
        self.tell_engine(of, RuntimeEvent::Changed(observed));
    }

    fn tell_engine(&mut self, of: usize, event: RuntimeEvent) {
        let runtime = &mut self.nodes[of].runtime;
        if !runtime.available && !matches!(event, RuntimeEvent::Unavailable(_)) {
            return;
        }
        let at = (self.now + self.rng.within((1, 20))).max(runtime.told);
        runtime.told = at;
        self.deliver(at - self.now, of, Input::Runtime(event));
    }

    /// The runtime lists what there is, or says that it cannot.
    pub(crate) fn list(&mut self, of: usize) {
        let runtime = &self.nodes[of].runtime;
        let event = match runtime.available {
            true => RuntimeEvent::Listed(runtime.list()),
            false => RuntimeEvent::Unavailable("Docker does not answer".to_owned()),
        };
        self.tell_engine(of, event);
    }

    /// The runtime goes away or comes back; `containers_die`: and with it what it ran.
    pub(crate) fn runtime_answers(&mut self, of: usize, answers: bool, containers_die: bool) {
        if self.nodes[of].runtime.available == answers {
            return;
        }
        self.note(of, if answers { "its runtime is back" } else { "its runtime goes away" });
        self.nodes[of].runtime.available = answers;
        if containers_die {
            self.containers_end(of);
        }
        self.list(of);
    }

    /// Everything that runs on a node ends.
    pub(crate) fn containers_end(&mut self, of: usize) {
        let runtime = &mut self.nodes[of].runtime;
        let ended: Vec<InstanceId> = runtime
            .containers
            .iter()
            .filter(|(_, it)| it.runs())
            .map(|(id, _)| id.clone())
            .collect();
        if runtime.leaves_remains {
            runtime.containers.retain(|_, it| it.runs());
            for it in runtime.containers.values_mut() {
                runtime.epochs += 1;
                it.epoch = runtime.epochs;
                it.removing = false;
                it.phase = Some(Phase::Exited { code: 255, output: String::new() });
            }
        } else {
            runtime.containers.clear();
        }
        for id in ended {
            self.enter(of, Deed::Ended(id));
        }
    }
}
