//! One service of a Compose file.

use std::collections::BTreeMap;

use super::model::Service;
use super::problem::Problem;
use super::target::Targets;
use super::top::Top;
use super::volumes::HostPaths;
use super::walk::{At, Fields};
use super::yaml::Node;
use super::{
    build, dependencies, deploy, duration, environment, extension, health, links, networks, ports,
    settings, shell_words, volumes,
};
use vc_protocol::ServiceKey;
use vc_protocol::spec::validate::is_image_reference;
use vc_protocol::spec::{
    ContainerSpec, Deployment, FileKind, FileMount, MAX_SPEC_BYTES, Mount, RestartCondition,
    ServiceMode, ServiceSpec, UpdateOrder,
};

/// Refused keys, with a reason that continues the path.
const REFUSED: [(&str, &str); 8] = [
    ("develop", " is not supported: it is for docker compose watch"),
    ("domainname", " is not supported: write the whole name into hostname"),
    ("extends", " is not supported: write the service out, or use a YAML anchor"),
    ("external_links", " is not supported: projects do not see each other"),
    (
        "network_mode",
        " is not supported: leave bridge and default out; instead of host write ports",
    ),
    ("pid", " is not supported: an instance sees its own processes only"),
    ("volumes_from", " is not supported: name the same volume in both services"),
    ("label_file", " is not supported: write labels"),
];

/// Reads the service at `at`.
pub(super) fn read(key: ServiceKey, at: &At<'_>, top: &Top<'_>) -> Service {
    let mut fields = if *at.node == Node::Null { Fields::none() } else { at.fields() };
    // Already evaluated by `profiles::is_active`.
    fields.take("profiles");
    let (image, build) = (fields.take("image"), fields.take("build"));
    if image.is_none() && build.is_none() {
        at.refuse("has no image: name one with image:, or say how to build it with build:");
    }
    let image = image.and_then(|at| at.read(reference));
    let build = build.map(|at| build::read(&key, image.as_deref(), &at));
    let image = image.or_else(|| build.as_ref().map(|build| build.tag.clone()));

    let deploy = deploy::take(&mut fields);
    let extension = fields.take("x-vc").map(|at| extension::read(&at)).unwrap_or_default();
    let hosts =
        HostPaths { pinned: deploy::is_pinned(&deploy.constraints), own: &extension.host_paths };
    let (mounts, files) = mounts(&mut fields, top, hosts);
    let (networks, container_name) = (fields.take("networks"), fields.take("container_name"));
    let mut container = ContainerSpec {
        image: image.unwrap_or_default(),
        command: fields.take("command").map(|at| command(&at)),
        entrypoint: fields.take("entrypoint").map(|at| command(&at)),
        environment: environment::read(fields.take("env_file"), fields.take("environment")),
        labels: fields.take("labels").map(|at| environment::labels(&at)).unwrap_or_default(),
        healthcheck: fields.take("healthcheck").and_then(|at| health::read(&at)),
        reservation: deploy.reservation,
        limit: deploy.limit,
        platform: fields.take("platform").and_then(|at| at.read(deploy::platform)),
        restart: deploy.restart,
        working_dir: fields.take("working_dir").and_then(|at| at.text()).map(str::to_owned),
        user: fields.take("user").and_then(|at| at.text()).map(str::to_owned),
        networks: networks::read(networks.as_ref(), container_name.as_ref(), &top.networks),
        mounts,
        files,
        settings: settings::take(&mut fields),
        stop_grace_ms: DEFAULT_GRACE_MS,
        ..ContainerSpec::default()
    };
    if let Some(grace) = fields.take("stop_grace_period").and_then(|at| at.read(duration::parse)) {
        container.stop_grace_ms = grace;
    }
    if let Some(at) = fields.take("pull_policy") {
        pull_policy(&at);
    }
    let mut ports_of = ports::PublishedPorts::default();
    if let Some(at) = fields.take("ports") {
        ports_of.publish(&at, extension.publish, extension.proxy_protocol);
    }
    if let Some(at) = fields.take("expose") {
        ports_of.expose(&at);
    }
    let (ports, expose) = ports_of.finish();
    if extension.proxy_protocol.is_some() && ports.iter().all(|it| it.proxy_protocol.is_none()) {
        at.refuse("has x-vc.proxy_protocol, but publishes no TCP port that would use it");
    }
    let depends_on =
        fields.take("depends_on").map(|at| dependencies::read(&at)).unwrap_or_default();
    let links = fields.take("links").map(|at| links::read(&at)).unwrap_or_default();
    if let Some(at) = fields.take("logging") {
        logging(&at);
    }
    fields.finish(&REFUSED);

    let mut spec = ServiceSpec {
        container,
        mode: deploy.mode,
        max_concurrent: extension.max_concurrent,
        schedule: extension.schedule,
        constraints: deploy.constraints,
        depends_on,
        on_partition: extension.on_partition,
        volumes: BTreeMap::new(),
        placement: extension.placement,
        disconnect: extension.disconnect,
        ports,
        expose,
        update: deploy.update,
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
    Service { deployment, build, links, sets_restart: deploy.sets_restart }
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
) -> (Vec<Mount>, Vec<FileMount>) {
    let mut targets = Targets::default();
    let mut reader = volumes::Reader {
        top,
        hosts,
        targets: &mut targets,
        mounts: Vec::new(),
        shipped: Vec::new(),
    };
    if let Some(at) = fields.take("volumes") {
        reader.volumes(&at);
    }
    if let Some(at) = fields.take("tmpfs") {
        reader.tmpfs(&at);
    }
    let (mounts, mut files) = (reader.mounts, reader.shipped);
    for (key, kind) in [("secrets", FileKind::Secret), ("configs", FileKind::Config)] {
        if let Some(at) = fields.take(key) {
            files.extend(top.files.read(kind, &at, &mut targets));
        }
    }
    (mounts, files)
}

fn pull_policy(at: &At<'_>) {
    match at.text() {
        None | Some("missing" | "if_not_present") => {}
        Some("always" | "daily" | "weekly") => at.warn(
            "has no effect: the image is pinned when it is deployed; 'vc deploy --pull' asks the registry anew",
        ),
        Some(other) => at.invalid(format!(
            "'{other}' is not supported: the image is pinned when it is deployed; write missing"
        )),
    }
}

/// Reads `logging`. What keeps the logs on the host makes no difference; what sends them elsewhere would be missed.
fn logging(at: &At<'_>) {
    let mut fields = at.fields();
    let driver = fields.take("driver").and_then(|at| at.text().map(|text| (at.clone(), text)));
    // Of a driver that is not used.
    fields.take("options");
    fields.finish(&[]);
    match driver {
        None | Some((_, "json-file" | "local" | "journald" | "none")) => {
            at.warn("has no effect: the cluster keeps the logs, see 'vc logs'");
        }
        Some((at, other)) => at.invalid(format!(
            "'{other}' is not supported: the cluster keeps the logs, see 'vc logs'; leave it out"
        )),
    }
}
