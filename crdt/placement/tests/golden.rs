//! Plans for scenarios, as text: `tests/golden/*.txt`. `VC_BLESS=1` rewrites the expected plans.
//!
//! A scenario is a list of steps separated by blank lines. A step changes the cluster; the plan that follows is below
//! `----`. Lines that begin with `#` are comments. The changes:
//! ```text
//! node NAME [cpu=N] [mem=N] [os=..] [arch=..] [runtime=process] [label=K:V] [resource=KIND:N] [witness]   adds a node that is up
//! up|down|drain|undrain|leave NAME
//! silent NAME MS                                   it is down, and its observers have not heard of it for this time
//! runtime_error NAME [TEXT]                        its runtime fails; without TEXT it works again
//! cannot_start NODE [all|KEY]                      it could not start the service, or starts nothing; without a word it starts all
//! does_not_know NODE [KEY..]                       the node neither starts nor stops these services; without keys, any
//! service KEY [replicas=N] [cpu=N] [mem=N] [port=[IP:]N[/udp]] [cluster_port=N] [constraint=node.name==X]
//!         [platform=..] [command=..] [healthcheck] [volume=NAME] [file=SECRET] [network=NAME] [privileged] [tty]
//!         [network_of=KEY]
//!         [updated=N] [mode=MODE] [max_concurrent=N] [max_per_node=N] [needs=KIND:N|all] [ended=N,..] [schedule] [due=TIME[@NODE],..] [placement=pack|spread] [lost_after=MS] [replace=false] [reconcile=RULE]
//!                                                  adds or replaces a service
//! holds NODE VOLUME                                the node has the data of the volume
//! move SLOT FROM TO                                adds a move order
//! remove KEY
//! claim NODE SLOT [stopped] [old] [lamport=N] [started=N]
//!                                                  the node claims the slot; not running; with another spec
//! withdraw NODE                                    the node withdraws its claims
//! converge                                         every node that is up claims what the last plan gave it
//! rules N                                          the version of the rules, 1 at first
//! ```
#![allow(clippy::expect_used, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use support::{MIB, claim, converge, node, node_id, port, service, volume};
use vc_placement::{ClaimView, Plan, PlanInput, RULES, Rules, plan};
use vc_protocol::node::{Faults, Holds, RuntimeKind};
use vc_protocol::spec::{
    ALL, Attribute, Constraint, FileId, FileKind, FileMount, Healthcheck, PlacementPolicy, Port,
    PortProtocol, Publish, Reconcile, Schedule, ServiceMode,
};
use vc_protocol::{NodeId, ServiceKey, Slot, parse_cpus, parse_memory};

macro_rules! scenarios {
    ($($scenario:ident)*) => {
        $(#[test] fn $scenario() { check(stringify!($scenario)); })*

        #[test]
        fn every_golden_file_has_a_test() {
            let tested = [$(stringify!($scenario)),*];
            for file in std::fs::read_dir(folder()).expect("the folder") {
                let path = file.expect("a file").path();
                let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
                assert!(tested.contains(&name.as_str()), "no test reads golden file {name}");
            }
        }
    };
}

scenarios! {
    an_empty_cluster_places_nothing
    replicas_spread_over_three_nodes
    only_the_slots_of_a_dead_node_are_rescheduled
    one_claim_wins_after_a_partition_heals
    a_draining_node_is_emptied
    host_ports_are_bound_once_per_node
    nodes_must_meet_the_constraints
    an_older_node_keeps_what_it_runs_and_gets_nothing_new
    what_a_node_cannot_start_goes_to_another
    an_oversized_reservation_is_refused_by_every_node
    claims_on_removed_slots_hold_no_resources
    reservations_are_packed_best_fit_decreasing
    heterogeneous_nodes_get_what_fits
    a_growing_reservation_displaces_only_itself
    a_node_without_a_runtime_keeps_no_slots
    a_service_runs_where_its_volume_is
    services_sharing_a_volume_run_on_one_node
    a_move_order_is_followed_if_the_target_has_room
    the_process_runtime_rejects_container_features
    small_services_are_spread_and_large_ones_packed
    slots_of_a_dead_node_wait_as_their_services_ask
    of_two_instances_the_one_stays_that_the_service_asks_for
    services_with_the_network_of_another_run_beside_it
    a_global_service_has_a_slot_on_each_node_that_suits_it
    a_job_has_the_slots_that_have_not_ended
    a_run_of_a_schedule_stays_with_the_node_that_has_begun_it
    resources_of_nodes_are_counted
    a_node_has_no_more_replicas_than_the_service_allows
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn check(name: &str) {
    let path = folder().join(name).with_extension("txt");
    let expected = std::fs::read_to_string(&path).expect("the scenario");
    let mut scenario = Scenario::default();
    let actual = expected
        .split("\n\n")
        .map(|step| scenario.step(step.trim_end()))
        .collect::<Vec<_>>()
        .join("\n\n")
        + "\n";
    if std::env::var_os("VC_BLESS").is_some() {
        std::fs::write(&path, actual).expect("written");
    } else {
        assert_eq!(expected, actual, "{name}: review the difference, then run with VC_BLESS=1");
    }
}

#[derive(Default)]
struct Scenario {
    input: PlanInput,
    names: BTreeMap<String, NodeId>,
    rules: Rules,
    last: Plan,
}

impl Scenario {
    /// Applies the changes of a step and returns it with the actual plan.
    fn step(&mut self, text: &str) -> String {
        let Some((changes, _)) = text.split_once("----") else { return text.to_owned() };
        for line in changes.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        {
            self.change(line).unwrap_or_else(|| panic!("cannot read '{line}'"));
        }
        self.last = plan(&self.input, self.rules);
        format!("{changes}----\n{}", self.show()).trim_end().to_owned()
    }

    fn change(&mut self, line: &str) -> Option<()> {
        let mut words = line.split_whitespace();
        let (verb, subject) = (words.next()?, words.next().unwrap_or_default());
        let words: Vec<&str> = words.collect();
        match verb {
            "node" => self.node(subject, &words)?,
            "service" => self.service(subject, &words)?,
            "remove" => drop(self.input.services.remove(&subject.parse().ok()?)?),
            "converge" => converge(&mut self.input, &self.last),
            "rules" => {
                let version: u32 = subject.parse().ok()?;
                self.rules = *RULES.iter().find(|it| it.version == version)?;
            }
            "leave" => drop(self.input.nodes.remove(&self.names.remove(subject)?)?),
            "holds" => {
                let id = *self.names.get(subject)?;
                self.input.volumes.insert(words.first()?.parse().ok()?, id);
            }
            "move" => {
                let name = |at: usize| self.names.get(*words.get(at)?).copied();
                self.input.moves.insert(subject.parse().ok()?, (name(0)?, name(1)?));
            }
            "claim" => {
                let (id, slot): (_, Slot) =
                    (*self.names.get(subject)?, words.first()?.parse().ok()?);
                claim(&mut self.input, id, &slot);
                let view: &mut ClaimView = self.input.nodes.get_mut(&id)?.claims.get_mut(&slot)?;
                view.running = !words.contains(&"stopped");
                if words.contains(&"old") {
                    view.digest = "old".to_owned();
                }
                let number = |name: &str| {
                    let found = words.iter().find_map(|word| word.strip_prefix(name));
                    found.map_or(Some(0), |number| number.parse().ok())
                };
                (view.lamport, view.started) = (number("lamport=")?, number("started=")?);
            }
            _ => {
                let node = self.input.nodes.get_mut(self.names.get(subject)?)?;
                match verb {
                    "up" => (node.up, node.silent_ms) = (true, 0),
                    "silent" => {
                        (node.up, node.silent_ms) = (false, words.first()?.parse().ok()?);
                    }
                    "down" => node.up = false,
                    "withdraw" => node.claims.clear(),
                    "drain" => node.draining = true,
                    "undrain" => node.draining = false,
                    "runtime_error" => {
                        node.runtime_error = (!words.is_empty()).then(|| words.join(" "))
                    }
                    "cannot_start" => {
                        let fault = "no space left on device".to_owned();
                        match words.first() {
                            None => node.faults = Faults::default(),
                            Some(&"all") => node.faults.node = Some(fault),
                            Some(key) => {
                                drop(node.faults.services.insert(key.parse().ok()?, fault))
                            }
                        }
                    }
                    "does_not_know" => {
                        let services = words.iter().map(|key| key.parse().ok());
                        let services = services.collect::<Option<_>>()?;
                        node.holds = Holds { all: words.is_empty(), services };
                    }
                    _ => return None,
                }
            }
        }
        Some(())
    }

    fn node(&mut self, name: &str, words: &[&str]) -> Option<()> {
        let mut new = node(name, 4000, 4096);
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "witness" => {
                    new.witness = true;
                    new.runtime_error = Some("it is a witness, which runs nothing".to_owned());
                }
                "resource" => {
                    let (kind, count) = value.split_once(':')?;
                    new.generic_resources.insert(kind.to_owned(), count.parse().ok()?);
                }
                "cpu" => new.capacity.cpu_millis = parse_cpus(value).ok()?,
                "mem" => new.capacity.memory_bytes = parse_memory(value).ok()?,
                "os" => new.os = value.to_owned(),
                "arch" => new.arch = value.to_owned(),
                "runtime" => new.runtime = (value == "process").then_some(RuntimeKind::Process)?,
                "label" => {
                    let (label, value) = value.split_once(':')?;
                    new.labels.insert(label.to_owned(), value.to_owned());
                }
                _ => return None,
            }
        }
        // The id follows from the name, so that a new node in a scenario changes no other.
        let number = name
            .bytes()
            .fold(0_u16, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()));
        let id = node_id(number);
        let fresh = self.input.nodes.insert(id, new).is_none();
        self.names.insert(name.to_owned(), id);
        fresh.then_some(())
    }

    fn service(&mut self, key: &str, words: &[&str]) -> Option<()> {
        let mut new = service(1, 0, 0);
        let (spec, mut reservation) = (&mut new.spec, vc_protocol::Resources::default());
        let mut joined = None;
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "replicas" => new.replicas = value.parse().ok()?,
                "cpu" => reservation.cpu_millis = parse_cpus(value).ok()?,
                "mem" => reservation.memory_bytes = parse_memory(value).ok()?,
                "port" => spec.ports.push(read_port(value)?),
                "cluster_port" => {
                    spec.ports.push(Port { publish: Publish::Cluster, ..read_port(value)? });
                }
                "volume" => spec.container.mounts.push(volume(value)),
                "file" => spec.container.files.push(secret(value)),
                "network" => {
                    spec.container.networks.insert(value.parse().ok()?, BTreeSet::new());
                }
                "network_of" => joined = Some(value.parse().ok()?),
                "privileged" => spec.container.settings.privileged = true,
                "tty" => spec.container.settings.tty = true,
                "constraint" => spec.constraints.push(read_constraint(value)?),
                "platform" => spec.container.platform = Some(value.to_owned()),
                "command" => spec.container.command = Some(vec![value.to_owned()]),
                "updated" => new.revision = value.parse().ok()?,
                "mode" => {
                    spec.mode = ServiceMode::ALL.into_iter().find(|it| it.as_str() == value)?;
                }
                "needs" => {
                    let (kind, count) = value.split_once(':')?;
                    let count = if count == "all" { ALL } else { count.parse().ok()? };
                    new.needs.insert(kind.to_owned(), count);
                }
                "max_per_node" => spec.max_replicas_per_node = value.parse().ok()?,
                "max_concurrent" => spec.max_concurrent = value.parse().ok()?,
                "schedule" => spec.schedule = Some(Schedule::new("* * * * *")),
                "ended" => {
                    let numbers = value.split(',').map(|number| number.parse().ok());
                    new.ended = numbers.collect::<Option<_>>()?;
                }
                "due" => {
                    for time in value.split(',') {
                        let (time, node) = time.split_once('@').unwrap_or((time, ""));
                        let node = self.names.get(node).copied();
                        new.due.insert(time.parse().ok()?, node);
                    }
                }
                "placement" => {
                    spec.placement = match value {
                        "pack" => PlacementPolicy::Pack,
                        "spread" => PlacementPolicy::Spread,
                        _ => return None,
                    };
                }
                "lost_after" => spec.disconnect.lost_after_ms = value.parse().ok()?,
                "replace" => spec.disconnect.replace = value.parse().ok()?,
                "reconcile" => {
                    let rule = Reconcile::ALL.into_iter().find(|it| it.as_str() == value);
                    spec.disconnect.reconcile = rule?;
                }
                "healthcheck" => {
                    let test = vec!["CMD".to_owned(), "true".to_owned()];
                    let (interval_ms, timeout_ms, retries, start_period_ms) = Default::default();
                    let check = Healthcheck {
                        test,
                        interval_ms,
                        timeout_ms,
                        retries,
                        start_period_ms,
                        start_interval_ms: None,
                    };
                    spec.container.healthcheck = Some(check);
                }
                _ => return None,
            }
        }
        spec.container.reservation = reservation;
        let key: ServiceKey = key.parse().ok()?;
        match joined {
            Some(owner) => drop(self.input.joined.insert(key.clone(), owner)),
            None => drop(self.input.joined.remove(&key)),
        }
        self.input.services.insert(key, new);
        Some(())
    }

    fn name(&self, id: NodeId) -> &str {
        self.input.nodes.get(&id).map_or("?", |node| node.name.as_str())
    }

    fn show(&self) -> String {
        let mut out = String::new();
        for (slot, placement) in &self.last.placements {
            let reasons = placement.reasons.join("; ");
            writeln!(out, "{slot} on {}: {reasons}", self.name(placement.node)).expect("text");
        }
        for (slot, refusals) in &self.last.unplaced {
            writeln!(out, "{slot} unplaced").expect("text");
            let mut lines: Vec<String> = refusals
                .iter()
                .map(|it| format!("  {} {}", self.name(it.node), it.reason))
                .collect();
            lines.sort();
            for line in lines {
                writeln!(out, "{line}").expect("text");
            }
        }
        let name = |id: Option<NodeId>| id.map_or("none", |id| self.name(id));
        for it in &self.last.moves {
            writeln!(
                out,
                "move {} from {} to {}: {}",
                it.slot,
                name(it.from),
                name(it.to),
                it.reason
            )
            .expect("text");
        }
        for (id, node) in &self.input.nodes {
            self.check_room(*id, node.capacity.cpu_millis, node.capacity.memory_bytes);
        }
        out
    }

    /// Checks that no node is overcommitted.
    fn check_room(&self, id: NodeId, cpu: u64, memory: u64) {
        let held = self
            .last
            .slots_of(id)
            .map(|slot| self.input.services[&slot.service].spec.container.reservation);
        let sum = held.fold(vc_protocol::Resources::default(), vc_protocol::Resources::plus);
        assert!(
            sum.cpu_millis <= cpu && sum.memory_bytes <= memory,
            "{} holds {sum}",
            self.name(id)
        );
        assert!(sum.memory_bytes % MIB == 0);
    }
}

fn read_port(text: &str) -> Option<Port> {
    let (text, protocol) = match text.strip_suffix("/udp") {
        Some(text) => (text, PortProtocol::Udp),
        None => (text, PortProtocol::Tcp),
    };
    let (host_ip, number) = match text.rsplit_once(':') {
        Some((ip, number)) => (Some(ip.parse().ok()?), number),
        None => (None, text),
    };
    Some(Port { host_ip, protocol, ..port(number.parse().ok()?) })
}

fn secret(name: &str) -> FileMount {
    FileMount {
        file: FileId { kind: FileKind::Secret, name: name.to_owned() },
        version: "1".to_owned(),
        target: format!("/run/secrets/{name}"),
        uid: 0,
        gid: 0,
        mode: 0o400,
    }
}

fn read_constraint(text: &str) -> Option<Constraint> {
    let equal = text.contains("==");
    let (attribute, value) = text.split_once(if equal { "==" } else { "!=" })?;
    let attribute = match attribute {
        "node.name" => Attribute::Name,
        "node.platform.os" => Attribute::Os,
        "node.platform.arch" => Attribute::Arch,
        _ => Attribute::Label(attribute.strip_prefix("node.labels.")?.to_owned()),
    };
    Some(Constraint { attribute, equal, value: value.to_owned() })
}
