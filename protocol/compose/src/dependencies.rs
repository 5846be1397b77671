//! `depends_on:` of a service, and checks over all services.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Service;
use super::names;
use super::problem::Problem;
use super::walk::{At, Walk};
use super::yaml::Node;
use vc_protocol::Name;
use vc_protocol::spec::{Dependency, Deployment, RestartCondition};

const CONDITIONS: &str = "service_started, service_healthy or service_completed_successfully";

/// The dependencies of a service.
#[derive(Default)]
pub(super) struct Dependencies {
    pub(super) on: BTreeMap<Name, Dependency>,
    /// Those that need not be in the file (`required: false`).
    pub(super) optional: BTreeSet<Name>,
}

/// Reads the dependencies of a service.
pub(super) fn read(at: &At<'_>) -> Dependencies {
    let mut found = Dependencies::default();
    if let Node::List(_) = at.node {
        let names = at.items().into_iter().filter_map(|item| item.read(names::parse));
        found.on = names.map(|name| (name, Dependency::ServiceStarted)).collect();
        return found;
    }
    for (name, at) in at.entries() {
        let Ok(name) = names::parse(name).map_err(|why| at.invalid(why)) else { continue };
        let mut fields = at.fields();
        let condition = match fields.take("condition") {
            None => {
                at.refuse(format!("has no condition: write {CONDITIONS}"));
                None
            }
            Some(at) => at.read(|text| match text {
                "service_started" => Ok(Dependency::ServiceStarted),
                "service_healthy" => Ok(Dependency::ServiceHealthy),
                "service_completed_successfully" => Ok(Dependency::ServiceCompletedSuccessfully),
                _ => Err(Problem::new(format!("'{text}' is not a condition: write {CONDITIONS}"))),
            }),
        };
        if fields.take("required").and_then(|at| at.bool()) == Some(false) {
            found.optional.insert(name.clone());
        }
        if let Some(at) = fields.take("restart").filter(|at| at.bool() == Some(true)) {
            at.warn(
                "has no effect: a service finds another again by its name when that was replaced",
            );
        }
        fields.finish(&[]);
        found.on.insert(name, condition.unwrap_or_default());
    }
    found
}

/// Leaves out the dependencies that need not be in the file, and are not.
pub(super) fn leave_out(services: &mut [Service]) {
    let names: BTreeSet<Name> =
        services.iter().map(|it| it.deployment.service.service.clone()).collect();
    for Service { deployment, optional, .. } in services {
        deployment.spec.depends_on.retain(|on, _| names.contains(on) || !optional.contains(on));
    }
}

/// Sets `restart: on-failure` for services that others wait to complete, unless the file sets a restart policy.
pub(super) fn allow_exit(services: &mut [Service], walk: &Walk<'_>) {
    let mut awaited = BTreeMap::new();
    for service in &*services {
        for (on, dependency) in &service.deployment.spec.depends_on {
            if *dependency == Dependency::ServiceCompletedSuccessfully {
                let name = &service.deployment.service.service;
                awaited.insert(on.clone(), format!("services.{name}.depends_on.{on}"));
            }
        }
    }
    for service in services {
        let Some(path) = awaited.get(&service.deployment.service.service) else { continue };
        let restart = &mut service.deployment.spec.container.restart;
        if !service.sets_restart {
            restart.condition = RestartCondition::OnFailure;
        } else if restart.condition == RestartCondition::Any {
            walk.refuse(path, " waits for the end of a service that is always started again: write restart: on-failure there");
        }
    }
}

/// Refuses dependencies that no start order satisfies: cycles, unknown services and `inactive` ones (profiles not enabled).
pub(super) fn check(services: &[Service], inactive: &BTreeSet<Name>, walk: &Walk<'_>) {
    let by_name: BTreeMap<&Name, &Deployment> =
        services.iter().map(|it| (&it.deployment.service.service, &it.deployment)).collect();
    for (name, deployment) in &by_name {
        for (on, dependency) in &deployment.spec.depends_on {
            let path = format!("services.{name}.depends_on.{on}");
            let Some(on) = by_name.get(on) else {
                walk.refuse(
                    &path,
                    if inactive.contains(on) {
                        " names a service whose profiles are not enabled: name one in COMPOSE_PROFILES"
                    } else {
                        " names no service of the file"
                    },
                );
                continue;
            };
            let test = on.spec.container.healthcheck.as_ref().and_then(|check| check.test.first());
            if *dependency == Dependency::ServiceHealthy && test.is_some_and(|test| test == "NONE")
            {
                walk.refuse(&path, " waits for a healthcheck that is disabled");
            }
        }
    }
    // Services that remain after all that can start have started are in a cycle, or wait for one.
    let mut waiting: BTreeSet<&Name> = by_name.keys().copied().collect();
    loop {
        let (blocked, free): (BTreeSet<_>, BTreeSet<_>) =
            waiting.iter().partition(|name| next(&by_name, name, &waiting).is_some());
        waiting = blocked;
        if free.is_empty() {
            break;
        }
    }
    let mut circle: Vec<&Name> = waiting.first().copied().into_iter().collect();
    while let Some(on) = circle.last().and_then(|name| next(&by_name, name, &waiting)) {
        if let Some(at) = circle.iter().position(|name| *name == on) {
            let names: Vec<&str> =
                circle[at..].iter().chain([&on]).map(|name| name.as_str()).collect();
            walk.refuse(
                &format!("services.{on}.depends_on"),
                &format!(" is a cycle: {}", names.join(" -> ")),
            );
            break;
        }
        circle.push(on);
    }
}

/// Returns the first of the `waiting` services that `name` depends on.
fn next<'a>(
    services: &BTreeMap<&'a Name, &'a Deployment>,
    name: &Name,
    waiting: &BTreeSet<&'a Name>,
) -> Option<&'a Name> {
    services.get(name)?.spec.depends_on.keys().find_map(|on| waiting.get(on).copied())
}
