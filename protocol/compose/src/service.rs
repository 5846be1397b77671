//! One service of a Compose file.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Service;
use super::problem::Problem;
use super::target::Targets;
use super::top::Top;
use super::volumes::HostPaths;
use super::walk::{At, Fields};
use super::yaml::Node;
use super::{
    build, dependencies, deploy, duration, environment, extension, health, links, networks, ports,
    settings, shell_words, volumes, volumes_from,
};
use vc_protocol::ServiceKey;
use vc_protocol::spec::validate::is_image_reference;
use vc_protocol::spec::{
    ContainerSpec, Deployment, Expose, FileKind, FileMount, MAX_SPEC_BYTES, Mount, PullPolicy,
    RestartCondition, ServiceMode, ServiceSpec, UpdateOrder,
};

/// Refused keys, with a reason that continues the path.
const REFUSED: [(&str, &str); 11] = [
    ("cpu_count", " is for Windows: write cpus"),
    ("cpu_percent", " is for Windows: write cpus"),
    ("isolation", " is for Windows: leave it out"),
    ("credential_spec", " is for Windows: leave it out"),
    ("external_links", " is not supported: put both services on a network with a name"),
    ("models", " is not supported: run the model as a service, and give others its address"),
    ("use_api_socket", " is not supported: mount /var/run/docker.sock"),
    ("pre_start", HOOK),
    ("post_start", HOOK),
    ("pre_stop", HOOK),
    (
        "provider",
        " is not supported: it runs a program on your computer; run it before 'vc deploy'",
    ),
];

const HOOK: &str = " is not supported: nothing but the container's own processes runs where it runs; do it in its entrypoint";

/// Reads the service at `at`, which the file calls `written`.
pub(super) fn read(key: ServiceKey, written: &str, at: &At<'_>, top: &Top<'_>) -> Service {
    let mut fields = if *at.node == Node::Null { Fields::none() } else { at.fields() };
    // Already evaluated by `profiles::is_active`.
    fields.take("profiles");
    let (image, build) = (fields.take_text("image"), fields.take("build"));
    if image.is_none() && build.is_none() {
        at.refuse("has no image: name one with image:, or say how to build it with build:");
    }
    let image = image.and_then(|at| at.read(reference));
    let build = build.map(|at| build::read(&key, image.as_deref(), &at, &top.files));
    let image = image.or_else(|| build.as_ref().map(|build| build.tag.clone()));

    let mut deploy = deploy::take(&mut fields);
    deploy.constraints.extend(top.node.clone());
    let extension = fields.take("x-vc").map(|at| extension::read(&at)).unwrap_or_default();
    let hosts =
        HostPaths { pinned: deploy::is_pinned(&deploy.constraints), own: &extension.host_paths };
    let (mounts, files, created_host_paths) = mounts(&mut fields, top, hosts);
    // DNS ignores case.
    let alias = Some(written).filter(|it| !it.eq_ignore_ascii_case(key.service.as_str()));
    if written != key.service.as_str() {
        let alias = alias.map(|it| format!("; '{}' is an alias", it.to_ascii_lowercase()));
        at.warn(format!("is named '{}' here{}", key.service, alias.unwrap_or_default()));
    }
    let settings = settings::take(&mut fields, &deploy);
    let mut container = ContainerSpec {
        image: image.unwrap_or_default(),
        command: fields.take_text("command").map(|at| command(&at)),
        entrypoint: fields.take_text("entrypoint").map(|at| command(&at)),
        environment: environment::read(fields.take("env_file"), fields.take("environment")),
        labels: environment::all_labels(fields.take("label_file"), fields.take("labels")),
        healthcheck: fields.take("healthcheck").and_then(|at| health::read(&at)),
        reservation: deploy.reservation,
        limit: deploy.limit,
        platform: fields.take("platform").and_then(|at| at.read(deploy::platform)),
        restart: deploy.restart,
        working_dir: fields.take("working_dir").and_then(|at| at.text()).map(str::to_owned),
        user: fields.take("user").and_then(|at| at.text()).map(str::to_owned),
        mounts,
        created_host_paths,
        files,
        settings,
        stop_grace_ms: DEFAULT_GRACE_MS,
        ..ContainerSpec::default()
    };
    networks::take(&mut fields, alias, &top.networks, &mut container);
    if let Some(grace) = fields.take("stop_grace_period").and_then(|at| at.read(duration::parse)) {
        container.stop_grace_ms = grace;
    }
    let pull_policy =
        fields.take("pull_policy").map(|at| pull_policy(&at, build.is_some())).unwrap_or_default();
    let mut ports_of = ports::PublishedPorts::default();
    if let Some(at) = fields.take("ports") {
        ports_of.publish(&at, extension.publish, extension.proxy_protocol);
    }
    if let Some(at) = fields.take("expose") {
        ports_of.expose(&at);
    }
    let (mut ports, mut dynamic_ports, mut expose) = ports_of.finish();
    if container.is_on_host_network() {
        expose.extend(
            dynamic_ports.drain(..).map(|it| Expose { target: it.target, protocol: it.protocol }),
        );
        ports = networks::host_ports(at, ports, std::mem::take(&mut expose));
    }
    let headers = ports.iter().map(|it| it.proxy_protocol);
    let mut headers = headers.chain(dynamic_ports.iter().map(|it| it.proxy_protocol));
    if extension.proxy_protocol.is_some() && headers.all(|it| it.is_none()) {
        at.refuse("has x-vc.proxy_protocol, but publishes no TCP port that would use it");
    }
    let dependencies =
        fields.take("depends_on").map(|at| dependencies::read(&at)).unwrap_or_default();
    let volumes_from =
        fields.take("volumes_from").map(|at| volumes_from::read(&at)).unwrap_or_default();
    let links = fields.take("links").map(|at| links::read(&at)).unwrap_or_default();
    // The logs of all instances are there: `attach` says which `docker compose up` shows.
    fields.take("attach");
    if let Some(at) = fields.take("mac_address") {
        at.warn("has no effect: each node gives out its own addresses");
    }
    if let Some(at) = fields.take("develop") {
        at.warn("has no effect: it is for docker compose watch");
    }
    fields.finish(&REFUSED);

    let mut spec = ServiceSpec {
        container,
        mode: deploy.mode,
        max_concurrent: extension.max_concurrent,
        max_replicas_per_node: if deploy.mode.is_per_node() { 0 } else { deploy.max_per_node },
        schedule: extension.schedule,
        constraints: deploy.constraints,
        generic_resources: deploy.generic_resources,
        depends_on: dependencies.on,
        on_partition: extension.on_partition,
        volumes: BTreeMap::new(),
        placement: extension.placement,
        disconnect: extension.disconnect,
        ports,
        dynamic_ports,
        expose,
        update: deploy.update,
        pull_policy,
    };
    if spec.schedule.is_some() {
        match spec.mode {
            ServiceMode::Replicated | ServiceMode::ReplicatedJob => {
                spec.mode = ServiceMode::ReplicatedJob;
            }
            ServiceMode::Global | ServiceMode::GlobalJob => at.refuse(
                "has x-vc.schedule and runs on each node: leave deploy.mode out, a run is one instance",
            ),
        }
        if deploy.replicas.is_some_and(|replicas| replicas > 1) {
            at.refuse(
                "has x-vc.schedule and several replicas: leave them out, a run is one instance",
            );
        }
        if !deploy.sets_restart {
            // The next time is the next attempt.
            spec.container.restart.condition = RestartCondition::None;
        }
    }
    // The file was written for what does not know leases.
    let is_default = spec.on_partition.is_none() && spec.is_exclusive();
    if is_default && spec.update.order == Some(UpdateOrder::StartFirst) {
        at.warn("has update_config.order: start-first, which has no effect: it writes a volume, so the old instance stops first");
        spec.update.order = None;
    }
    let size = serde_json::to_vec(&spec).map_or(usize::MAX, |json| json.len());
    if size > MAX_SPEC_BYTES {
        at.refuse(format!("has {size} bytes, more than {MAX_SPEC_BYTES}"));
    }
    let deployment = Deployment { service: key, replicas: deploy.replicas, spec: spec.into() };
    let optional = dependencies.optional;
    Service { deployment, build, links, volumes_from, optional, sets_restart: deploy.sets_restart }
}

/// Docker's default, as in [`ContainerSpec`].
const DEFAULT_GRACE_MS: u64 = 10_000;

fn reference(text: &str) -> Result<String, Problem> {
    is_image_reference(text)
        .then(|| text.to_owned())
        .ok_or_else(|| Problem::new(format!("'{text}' is not an image reference")))
}

/// Reads `command` or `entrypoint`: a list as it is, a text split into words. An empty one clears the image's value.
pub(super) fn command(at: &At<'_>) -> Vec<String> {
    match at.node {
        Node::Text(text) => {
            shell_words::split(text).map_err(|why| at.refuse(why)).unwrap_or_default()
        }
        _ => at.texts(),
    }
}

/// Reads the mounts: `volumes`, `tmpfs`, `secrets` and `configs`.
fn mounts(
    fields: &mut Fields<'_>,
    top: &Top<'_>,
    hosts: HostPaths<'_>,
) -> (Vec<Mount>, Vec<FileMount>, BTreeSet<String>) {
    let mut targets = Targets::default();
    let mut reader = volumes::Reader {
        top,
        hosts,
        targets: &mut targets,
        mounts: Vec::new(),
        shipped: Vec::new(),
        created: BTreeSet::new(),
    };
    if let Some(at) = fields.take("volumes") {
        reader.volumes(&at);
    }
    if let Some(at) = fields.take("tmpfs") {
        reader.tmpfs(&at);
    }
    let (mounts, mut files, created) = (reader.mounts, reader.shipped, reader.created);
    for (key, kind) in [("secrets", FileKind::Secret), ("configs", FileKind::Config)] {
        if let Some(at) = fields.take(key) {
            files.extend(top.files.read(kind, &at, &mut targets));
        }
    }
    (mounts, files, created)
}

/// Reads `pull_policy`. An image that is built here is not pulled.
fn pull_policy(at: &At<'_>, is_built: bool) -> PullPolicy {
    let always = if is_built { PullPolicy::Missing } else { PullPolicy::Always };
    match at.text() {
        None | Some("missing" | "if_not_present") => {}
        Some("always") => return always,
        Some(text) if matches!(text, "daily" | "weekly") || text.starts_with("every_") => {
            at.warn("is as always: each deployment asks the registry, and nothing does between them");
            return always;
        }
        Some("never") => at.warn(
            "keeps a deployment from asking a registry; a node that lacks the image asks one if no other node has it",
        ),
        Some("build") if is_built => {}
        Some("build") => at.invalid("build is not possible: the service has no build"),
        Some(other) => at.invalid(format!(
            "'{other}' is not known: write missing, always, never or build"
        )),
    }
    PullPolicy::Missing
}
