//! `deploy:` of a service: replicas, resources, placement, restarts, updates.

use std::collections::BTreeMap;

use super::problem::Problem;
use super::walk::{At, Fields};
use super::{devices, duration, environment, extension, update};
use vc_protocol::spec::validate::is_platform;
use vc_protocol::spec::{
    Attribute, Constraint, DeviceRequest, MAX_REPLICAS, RestartCondition, RestartPolicy,
    ServiceMode, UpdatePolicy,
};
use vc_protocol::{NodeId, Resources, parse_cpus, parse_memory};

/// The values of `deploy:` and of its older forms on the service.
#[derive(Default)]
pub(super) struct Deploy {
    pub(super) mode: ServiceMode,
    pub(super) replicas: Option<u32>,
    pub(super) reservation: Resources,
    pub(super) limit: Resources,
    pub(super) constraints: Vec<Constraint>,
    /// The most replicas on a node; zero for any number.
    pub(super) max_per_node: u32,
    pub(super) restart: RestartPolicy,
    /// Whether the file sets a restart policy.
    pub(super) sets_restart: bool,
    pub(super) update: UpdatePolicy,
    /// The most processes; zero for no limit.
    pub(super) pids: i64,
    /// `resources.reservations.generic_resources`.
    pub(super) generic_resources: BTreeMap<String, u64>,
    /// `resources.reservations.devices`.
    pub(super) devices: Vec<DeviceRequest>,
}

/// A value and its position in the file.
type Spanned<'a, T> = Option<(At<'a>, T)>;

/// Takes `deploy` and the older forms `scale`, `cpus`, `mem_limit`, `mem_reservation` and `restart` from a service.
pub(super) fn take(service: &mut Fields<'_>) -> Deploy {
    let deploy = service.take("deploy");
    let scale = service.take("scale").and_then(replicas);
    let old_cpus = service.take("cpus").and_then(cpus);
    let old_limit = service.take("mem_limit").and_then(memory);
    let old_reservation = service.take("mem_reservation").and_then(memory);
    let restart_at = service.take("restart");

    let mut fields = deploy.map_or_else(Fields::none, |at| at.fields());
    let mut found = Deploy {
        replicas: either(scale, fields.take("replicas").and_then(replicas)).map(|(_, n)| n),
        sets_restart: restart_at.is_some(),
        restart: restart_at.as_ref().and_then(|at| at.read(restart)).unwrap_or_default(),
        ..Deploy::default()
    };
    if let Some(at) = fields.take("mode") {
        found.mode = at.read(mode).unwrap_or_default();
        if found.mode.is_per_node() && found.replicas.take().is_some_and(|replicas| replicas != 1) {
            at.warn("has an instance on each node: replicas has no effect");
        }
    }

    let mut resources = fields.take("resources").map_or_else(Fields::none, |at| at.fields());
    let (mut limits, mut reservations) = ["limits", "reservations"]
        .map(|key| resources.take(key).map_or_else(Fields::none, |at| at.fields()))
        .into();
    let (cpus, memory) = amounts(&mut limits);
    let pids: Spanned<'_, i64> = limits.take("pids").and_then(|at| at.number().map(|n| (at, n)));
    limits.finish(&[]);
    let old_pids = service.take("pids_limit").and_then(|at| at.number().map(|n| (at, n)));
    // Docker's "no limit" is -1 here and there.
    found.pids = either(old_pids, pids).map_or(0, |(_, pids)| pids.max(0));
    let (cpus, memory) = (either(old_cpus, cpus), either(old_limit, memory));
    let (kept_cpus, kept_memory) = amounts(&mut reservations);
    found.devices =
        reservations.take("devices").map(|at| devices::reserved(&at)).unwrap_or_default();
    found.generic_resources =
        reservations.take("generic_resources").map(|at| devices::generic(&at)).unwrap_or_default();
    reservations.finish(&[]);
    let kept_memory = either(old_reservation, kept_memory);
    resources.finish(&[]);
    found.limit = Resources { cpu_millis: amount(&cpus), memory_bytes: amount(&memory) };
    found.reservation =
        Resources { cpu_millis: amount(&kept_cpus), memory_bytes: amount(&kept_memory) };
    for (reservation, limit) in
        [(kept_cpus, found.limit.cpu_millis), (kept_memory, found.limit.memory_bytes)]
    {
        if let Some((at, _)) = reservation.filter(|(_, kept)| limit > 0 && *kept > limit) {
            at.refuse("is larger than the limit");
        }
    }

    if let Some(mut placement) = fields.take("placement").map(|at| at.fields()) {
        let items = placement.take("constraints").map(|at| at.items()).unwrap_or_default();
        found.constraints = items.iter().filter_map(|item| item.read(constraint)).collect();
        for at in placement.take("preferences").map(|at| at.items()).unwrap_or_default() {
            let mut fields = at.fields();
            let spread = fields.take("spread").and_then(|at| at.text()).unwrap_or_default();
            fields.finish(&[]);
            at.warn(format!(
                "has no effect: instances are spread over the nodes, whatever '{spread}' is"
            ));
        }
        if let Some(at) = placement.take("max_replicas_per_node") {
            found.max_per_node = at.number().unwrap_or_default();
            if found.mode.is_per_node() {
                at.warn("has no effect: the service has one instance on each node");
            }
        }
        placement.finish(&[]);
    }
    if let Some(at) = fields.take("restart_policy") {
        if let Some(restart) = restart_at {
            restart.refuse("and deploy.restart_policy are both there: keep one");
        }
        found.sets_restart = true;
        found.restart = restart_policy(&at);
    }
    if let Some(at) = fields.take("update_config") {
        found.update = update::read(&at, &found.update);
    }
    if let Some(at) = fields.take("rollback_config") {
        update::check_rollback(&at, &found.update);
    }
    if let Some(at) = fields.take("endpoint_mode") {
        match at.text() {
            None | Some("vip") => {}
            Some("dnsrr") => at.invalid(
                "dnsrr is not supported: a name resolves to one virtual address that load-balances",
            ),
            Some(other) => at.invalid(format!("'{other}' is not a mode: write vip")),
        }
    }
    if let Some(at) = fields.take("labels") {
        environment::labels(&at);
        at.warn("has no effect: no program here reads labels of services; those of containers are 'labels' of the service");
    }
    fields.finish(&[]);
    found
}

fn amounts<'a>(fields: &mut Fields<'a>) -> (Spanned<'a, u64>, Spanned<'a, u64>) {
    (fields.take("cpus").and_then(cpus), fields.take("memory").and_then(memory))
}

fn cpus(at: At<'_>) -> Spanned<'_, u64> {
    at.read(parse_cpus).map(|amount| (at, amount))
}

fn memory(at: At<'_>) -> Spanned<'_, u64> {
    at.read(parse_memory).map(|amount| (at, amount))
}

fn replicas(at: At<'_>) -> Spanned<'_, u32> {
    let number = at.number().filter(|&n: &u32| {
        if n > MAX_REPLICAS {
            at.refuse(format!("is more than {MAX_REPLICAS}"));
        }
        n <= MAX_REPLICAS
    });
    number.map(|number| (at, number))
}

fn mode(text: &str) -> Result<ServiceMode, Problem> {
    ServiceMode::ALL.into_iter().find(|it| it.as_str() == text).ok_or_else(|| {
        let all = ServiceMode::ALL.map(ServiceMode::as_str).join(", ");
        Problem::new(format!("'{text}' is not a mode: write one of {all}"))
    })
}

fn amount(said: &Spanned<'_, u64>) -> u64 {
    said.as_ref().map_or(0, |(_, amount)| *amount)
}

/// Returns the value of the newer form, or else of the older one. Refuses two that differ.
fn either<'a, T: PartialEq>(old: Spanned<'a, T>, new: Spanned<'a, T>) -> Spanned<'a, T> {
    if let (Some((old_at, old)), Some((new_at, new))) = (&old, &new)
        && old != new
    {
        old_at.refuse(format!("and {} differ: keep one", new_at.path));
    }
    new.or(old)
}

/// Parses `restart`: `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`.
fn restart(text: &str) -> Result<RestartPolicy, Problem> {
    let policy = |condition| RestartPolicy { condition, ..RestartPolicy::default() };
    match text {
        "no" => Ok(policy(RestartCondition::None)),
        "always" | "unless-stopped" => Ok(policy(RestartCondition::Any)),
        "on-failure" => Ok(policy(RestartCondition::OnFailure)),
        _ => {
            let times =
                text.strip_prefix("on-failure:").and_then(|times| times.parse::<u32>().ok());
            let times = times.ok_or_else(|| {
                format!("'{text}' is not a policy: write no, always or on-failure:3")
            })?;
            Ok(RestartPolicy {
                max_attempts: Some(times).filter(|&n| n > 0),
                ..policy(RestartCondition::OnFailure)
            })
        }
    }
}

fn restart_policy(at: &At<'_>) -> RestartPolicy {
    let mut fields = at.fields();
    let condition = fields.take("condition").and_then(|at| {
        at.read(|text| match text {
            // Compose takes the words of `restart` too.
            "any" | "always" | "unless-stopped" => Ok(RestartCondition::Any),
            "on-failure" => Ok(RestartCondition::OnFailure),
            "none" | "no" => Ok(RestartCondition::None),
            _ => Err(Problem::new(format!(
                "'{text}' is not a condition: write any, on-failure or none"
            ))),
        })
    });
    let policy = RestartPolicy {
        condition: condition.unwrap_or_default(),
        delay_ms: fields.take("delay").and_then(|at| at.read(duration::parse)),
        max_attempts: fields.take("max_attempts").and_then(|at| at.number()).filter(|&n| n > 0),
    };
    if let Some(at) = fields.take("window").filter(|at| at.read(duration::parse).is_some()) {
        at.warn("has no effect: an exit always counts");
    }
    fields.finish(&[]);
    policy
}

/// Parses a constraint such as `node.labels.disk == ssd`.
fn constraint(text: &str) -> Result<Constraint, Problem> {
    let (equal, (attribute, value)) = match (text.split_once("=="), text.split_once("!=")) {
        (Some(sides), None) => (true, sides),
        (None, Some(sides)) => (false, sides),
        _ => {
            return Err(Problem::new(format!(
                "'{text}' is not a constraint: write node.labels.disk == ssd, or != to exclude"
            )));
        }
    };
    let (attribute, value) = (attribute.trim(), value.trim());
    if value.is_empty() {
        return Err(Problem::new(format!("'{text}' compares with nothing")));
    }
    let (attribute, value) = match attribute {
        "node.name" | "node.hostname" => (Attribute::Name, value),
        "node.id" => match value.parse::<NodeId>() {
            Ok(_) => (Attribute::Id, value),
            Err(why) => return Err(Problem::new(why.to_string())),
        },
        "node.platform.os" => (Attribute::Os, value),
        "node.platform.arch" => (Attribute::Arch, architecture(value)),
        _ => match attribute.strip_prefix("node.labels.").filter(|label| !label.is_empty()) {
            Some(label) => (Attribute::Label(label.to_owned()), value),
            None => {
                let known =
                    "node.labels.NAME, node.name, node.id, node.platform.os or node.platform.arch";
                return Err(Problem::new(format!("'{attribute}' is not supported: write {known}")));
            }
        },
    };
    Ok(Constraint { attribute, equal, value: value.to_owned() })
}

/// Returns the constraint of all services: the node that the operator names, else that of `x-vc` at the top of the file.
pub(super) fn node(extension: Option<&At<'_>>, named: Option<&str>) -> Option<Constraint> {
    let written = extension.and_then(|at| {
        let mut fields = at.fields();
        let node = fields.take("node").and_then(|at| at.text());
        fields.finish(&[("notify", extension::NOTIFY)]);
        node
    });
    let value = named.or(written)?.to_owned();
    let is_id = value.parse::<NodeId>().is_ok();
    let attribute = if is_id { Attribute::Id } else { Attribute::Name };
    Some(Constraint { attribute, equal: true, value })
}

/// Returns Docker's name of an architecture.
fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Whether the constraints allow one node only.
pub(super) fn is_pinned(constraints: &[Constraint]) -> bool {
    let one = |it: &Constraint| it.equal && matches!(it.attribute, Attribute::Name | Attribute::Id);
    constraints.iter().any(one)
}

/// Parses `platform`: `os/arch`.
pub(super) fn platform(text: &str) -> Result<String, Problem> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [os, arch] if is_platform(text) => Ok(format!("{os}/{}", architecture(arch))),
        [_, _, _] => Err(Problem::new(format!(
            "the variant in '{text}' is not supported: write os/arch, as in linux/arm64"
        ))),
        _ => Err(Problem::new(format!(
            "'{text}' is not a platform: write os/arch, as in linux/amd64"
        ))),
    }
}
