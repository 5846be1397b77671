//! Service definitions and random mutations.

use std::collections::BTreeMap;

use vc_engine::Mutation;
use vc_protocol::spec::{
    Attribute, Constraint, ContainerSpec, Dependency, Deployment, FailureAction, Healthcheck,
    Overlap, Port, PortProtocol, Publish, RestartCondition, Schedule, ServiceMode, ServiceSpec,
    UpdateOrder,
};
use vc_protocol::{Resources, ServiceKey};

use crate::rng::Rng;

/// Returns resources of this size.
pub fn resources(cpu_millis: u64, mebibytes: u64) -> Resources {
    Resources { cpu_millis, memory_bytes: mebibytes << 20 }
}

/// Returns a service of project `shop` whose containers never fail.
pub fn service(name: &str, replicas: u32) -> Deployment {
    let service: ServiceKey = format!("shop/{name}").parse().expect("a service");
    let container = ContainerSpec {
        image: "steady".to_owned(),
        stop_grace_ms: 10_000,
        reservation: resources(100, 64),
        ..ContainerSpec::default()
    };
    let spec = ServiceSpec { container, ..ServiceSpec::default() };
    Deployment { service, replicas: Some(replicas), spec: spec.into() }
}

/// Sets the version of a service: an environment variable.
pub fn version(mut deployment: Deployment, version: u64) -> Deployment {
    deployment.spec.container.environment.insert("VERSION".to_owned(), version.to_string());
    deployment
}

/// Returns the mutation that deploys a service.
pub fn deploy(deployment: Deployment) -> Mutation {
    Mutation::Deploy {
        deployments: vec![deployment],
        files: BTreeMap::new(),
        projects: None,
        trace: None,
    }
}

/// The service that runs at the times of a schedule.
pub const SCHEDULED: &str = "shop/backup";

/// Returns the service that runs every ten seconds, at most once for each time.
pub fn any_scheduled(rng: &mut Rng) -> Deployment {
    let mut backup = any_job(rng, service("backup", 1));
    let overlap = rng.pick(&Overlap::ALL);
    backup.spec.schedule = Some(Schedule { overlap, ..Schedule::new("*/10 * * * * *") });
    backup
}

/// Makes a job of a service: each instance exits after at most 15 s, and is not tried again.
fn any_job(rng: &mut Rng, mut of: Deployment) -> Deployment {
    of.spec.mode = ServiceMode::ReplicatedJob;
    let (code, after) = (rng.pick(&["0", "0", "3"]), rng.within((500, 15_000)));
    let command = ["exit".to_owned(), code.to_owned(), after.to_string()];
    of.spec.container.command = Some(command.into());
    of.spec.container.restart.condition = RestartCondition::None;
    of
}

const NAMES: [&str; 6] = ["web", "api", "mail", "jobs", "cache", "search"];

/// Returns a random mutation.
pub fn any_mutation(rng: &mut Rng, nodes: usize) -> Mutation {
    let name = rng.pick(&NAMES);
    match rng.index(10) {
        0..=4 => {
            let one = any_service(rng, name);
            let two = any_service(rng, rng.clone().pick(&NAMES));
            if rng.permille(200) && one.service != two.service {
                Mutation::Deploy {
                    deployments: vec![one, two],
                    files: BTreeMap::new(),
                    projects: None,
                    trace: None,
                }
            } else {
                deploy(one)
            }
        }
        5 | 6 => {
            let limit = if rng.permille(100) { 20 } else { 5 };
            Mutation::Scale {
                service: format!("shop/{name}"),
                replicas: rng.within((0, limit)) as u32,
            }
        }
        7 => Mutation::Remove(if rng.permille(50) {
            "shop/".to_owned()
        } else {
            format!("shop/{name}")
        }),
        _ => Mutation::Drain { node: format!("m{}", rng.index(nodes)), drain: rng.permille(350) },
    }
}

fn any_service(rng: &mut Rng, name: &str) -> Deployment {
    let replicas = rng.within((1, 4)) as u32;
    let mut one = version(service(name, replicas), rng.within((1, 3)));
    if rng.permille(500) {
        one.replicas = None;
    }
    let container = &mut one.spec.container;
    container.reservation =
        resources(rng.pick(&[0, 100, 100, 500, 1500]), rng.pick(&[0, 64, 64, 256, 900]));
    container.image = rng.pick(&["steady", "flaky", "flaky-2", "steady-2"]).to_owned();
    if rng.permille(300) {
        container.healthcheck = Some(Healthcheck {
            test: vec!["CMD".to_owned(), "true".to_owned()],
            interval_ms: None,
            timeout_ms: None,
            retries: None,
            start_period_ms: None,
            start_interval_ms: None,
        });
    }
    if rng.permille(200) {
        one.spec.ports.push(Port {
            host_ip: None,
            published: 80,
            target: 80,
            protocol: PortProtocol::Tcp,
            publish: Publish::Node,
            proxy_protocol: None,
        });
    }
    one.spec.update.parallelism = rng.pick(&[0, 1, 1, 2]);
    one.spec.update.monitor_ms = rng.pick(&[0, 1000, 5000]);
    one.spec.update.delay_ms = rng.pick(&[0, 0, 2000]);
    one.spec.update.order = rng.pick(&[None, None, Some(UpdateOrder::StopFirst)]);
    one.spec.update.failure_action =
        rng.pick(&[FailureAction::Rollback, FailureAction::Rollback, FailureAction::Continue]);
    if rng.permille(150) {
        let value = rng.pick(&["even", "odd"]).to_owned();
        let attribute = Attribute::Label("side".to_owned());
        one.spec.constraints.push(Constraint { attribute, equal: true, value });
    }
    if name != "web" && rng.permille(200) {
        one.spec.depends_on.insert("web".parse().expect("a name"), Dependency::ServiceStarted);
    }
    // Of a stream of its own: what else a seed draws is as before.
    let mut rng = Rng::new(rng.clone().number());
    match name {
        "jobs" if rng.permille(500) => any_job(&mut rng, one),
        "search" if rng.permille(300) => {
            one.spec.mode = ServiceMode::Global;
            one
        }
        _ => one,
    }
}
