//! How an instance is written down as a container: its name, its labels, its configuration.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigLogConfig,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use vc_engine::runtime::InstanceId;
use vc_protocol::spec::{ContainerSpec, Healthcheck};
use vc_protocol::{IdError, Millis, ServiceKey, Slot};

use super::{files, volumes};
use crate::Identity;

pub(super) const CLUSTER: &str = "vc.cluster";
pub(super) const NODE: &str = "vc.node";
pub(super) const PROJECT: &str = "vc.project";
pub(super) const SERVICE: &str = "vc.service";
pub(super) const REPLICA: &str = "vc.replica";
pub(super) const DIGEST: &str = "vc.digest";

/// The name of an instance's container. The dot cannot occur in a project or service, so that no two slots share a
/// name; the node is in it because several nodes may share an engine.
pub(super) fn name(identity: &Identity, id: &InstanceId) -> String {
    let ServiceKey { project, service } = &id.slot.service;
    let digest = id.digest.get(..8).unwrap_or(&id.digest);
    format!("vc-{project}.{service}.{}-{digest}-{}", id.slot.replica, identity.node.short())
}

/// Label filters (`label=value`) that only our containers pass.
pub(super) fn ours(identity: &Identity) -> Vec<String> {
    vec![format!("{CLUSTER}={}", identity.cluster), format!("{NODE}={}", identity.node)]
}

/// Label filters that only the containers of one slot of ours pass.
pub(super) fn ours_in(identity: &Identity, slot: &Slot) -> Vec<String> {
    let mut labels = ours(identity);
    labels.push(format!("{PROJECT}={}", slot.service.project));
    labels.push(format!("{SERVICE}={}", slot.service.service));
    labels.push(format!("{REPLICA}={}", slot.replica));
    labels
}

/// Which instance labels (or an event's attributes, which hold them) speak of; `None`: it is not ours.
pub(super) fn instance(
    identity: &Identity,
    labels: &HashMap<String, String>,
) -> Option<Result<InstanceId, IdError>> {
    let label = |key: &str| labels.get(key).map_or("", String::as_str);
    if label(CLUSTER) != identity.cluster.to_string() || label(NODE) != identity.node.to_string() {
        return None;
    }
    let slot = format!("{}/{}.{}", label(PROJECT), label(SERVICE), label(REPLICA)).parse();
    Some(slot.map(|slot| InstanceId { slot, digest: label(DIGEST).to_owned() }))
}

/// Seconds as Docker takes them, rounded up: a grace is never cut short.
pub(super) fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

/// What has to be there before a container is made.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings {
    /// Docker's names of its networks, the primary one first.
    pub(super) networks: Vec<String>,
    /// Whom it asks for names that Docker does not know; `None`: as Docker has it.
    pub(super) resolvers: Option<Vec<String>>,
    /// The directory of its secrets and configs, when it has any.
    pub(super) files: Option<PathBuf>,
}

/// What Docker is asked to create. The restart policy is "no": when to start it again is the engine's decision.
pub(super) fn body(
    identity: &Identity,
    id: &InstanceId,
    spec: &ContainerSpec,
    around: &Surroundings,
) -> ContainerCreateBody {
    let ServiceKey { project, service } = &id.slot.service;
    let mut labels: HashMap<String, String> = spec.labels.clone().into_iter().collect();
    let our_labels = [
        (CLUSTER, identity.cluster.to_string()),
        (NODE, identity.node.to_string()),
        (PROJECT, project.to_string()),
        (SERVICE, service.to_string()),
        (REPLICA, id.slot.replica.to_string()),
        (DIGEST, id.digest.clone()),
    ];
    labels.extend(our_labels.map(|(key, value)| (key.to_owned(), value)));
    let settings = &spec.settings;
    ContainerCreateBody {
        image: Some(spec.image_id.as_ref().unwrap_or(&spec.image).clone()),
        cmd: spec.command.clone(),
        entrypoint: spec.entrypoint.clone(),
        env: Some(environment(identity, id, spec)),
        labels: Some(labels),
        healthcheck: spec.healthcheck.as_ref().map(health),
        hostname: settings.hostname.clone(),
        stop_signal: settings.stop_signal.clone(),
        stop_timeout: Some(seconds(Duration::from_millis(spec.stop_grace_ms))),
        tty: Some(settings.tty),
        open_stdin: Some(settings.stdin_open),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        host_config: Some(host_config(identity, id, spec, around)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(
    identity: &Identity,
    id: &InstanceId,
    spec: &ContainerSpec,
    around: &Surroundings,
) -> HostConfig {
    let settings = &spec.settings;
    let some = |texts: &[String]| (!texts.is_empty()).then(|| texts.to_vec());
    let project = &id.slot.service.project;
    let mounts = spec.mounts.iter().map(|mount| volumes::mount(identity, project, mount));
    let files = around.files.iter().flat_map(|directory| {
        let numbered = spec.files.iter().enumerate();
        numbered.map(move |(number, mount)| files::mount(directory, number, mount))
    });
    let ulimits = settings.ulimits.iter().map(|(name, &(soft, hard))| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(soft),
        hard: Some(hard),
    });
    let log_options = [("max-size", "10m"), ("max-file", "3")];
    HostConfig {
        memory: (spec.limit.memory_bytes > 0).then(|| whole(spec.limit.memory_bytes)),
        nano_cpus: (spec.limit.cpu_millis > 0)
            .then(|| whole(spec.limit.cpu_millis.saturating_mul(1_000_000))),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(log_options.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        }),
        network_mode: around.networks.first().cloned(),
        dns: around.resolvers.clone(),
        mounts: Some(mounts.chain(files).collect()),
        cap_add: some(&settings.cap_add),
        cap_drop: some(&settings.cap_drop),
        sysctls: (!settings.sysctls.is_empty())
            .then(|| settings.sysctls.clone().into_iter().collect()),
        init: settings.init.then_some(true),
        readonly_rootfs: Some(settings.read_only),
        privileged: Some(settings.privileged),
        devices: Some(settings.devices.iter().map(|text| device(text)).collect()),
        group_add: some(&settings.group_add),
        security_opt: some(&settings.security_opt),
        extra_hosts: some(&settings.extra_hosts),
        ulimits: Some(ulimits.collect()),
        shm_size: (settings.shm_bytes > 0).then(|| whole(settings.shm_bytes)),
        ..HostConfig::default()
    }
}

/// `HOST[:CONTAINER[:rwm]]`.
fn device(text: &str) -> DeviceMapping {
    let mut parts = text.splitn(3, ':');
    let host = parts.next().unwrap_or_default();
    DeviceMapping {
        path_on_host: Some(host.to_owned()),
        path_in_container: Some(parts.next().unwrap_or(host).to_owned()),
        cgroup_permissions: Some(parts.next().unwrap_or("rwm").to_owned()),
    }
}

/// What the file asks for, and which instance this is, as the process runtime tells it too.
fn environment(identity: &Identity, id: &InstanceId, spec: &ContainerSpec) -> Vec<String> {
    let ServiceKey { project, service } = &id.slot.service;
    let ours = [
        ("VC_PROJECT", project.to_string()),
        ("VC_SERVICE", service.to_string()),
        ("VC_REPLICA", id.slot.replica.to_string()),
        ("VC_NODE", identity.node.to_string()),
    ];
    let wanted = spec.environment.iter().map(|(key, value)| format!("{key}={value}"));
    wanted.chain(ours.map(|(key, value)| format!("{key}={value}"))).collect()
}

fn health(check: &Healthcheck) -> HealthConfig {
    let nanos = |time: Option<Millis>| time.map(|ms| whole(ms.saturating_mul(1_000_000)));
    HealthConfig {
        test: Some(check.test.clone()),
        interval: nanos(check.interval_ms),
        timeout: nanos(check.timeout_ms),
        retries: check.retries.map(i64::from),
        start_period: nanos(check.start_period_ms),
        start_interval: None,
    }
}

pub(super) fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_the_instance_and_foreign_ones_none() {
        let key =
            |byte| vc_protocol::Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes").public();
        let identity = Identity {
            cluster: vc_protocol::ClusterId::of(&key(1)).expect("ed25519"),
            node: vc_protocol::NodeId::of(&key(2)).expect("ed25519"),
        };
        let id = InstanceId {
            slot: "shop/web.2".parse().expect("a slot"),
            digest: "0123456789abcdef".to_owned(),
        };
        let spec = ContainerSpec {
            labels: [
                ("vc.node".to_owned(), "mine".to_owned()),
                ("tier".to_owned(), "1".to_owned()),
            ]
            .into(),
            ..ContainerSpec::default()
        };
        let mut labels =
            body(&identity, &id, &spec, &Surroundings::default()).labels.expect("labels");
        assert_eq!(labels["tier"], "1");
        assert_eq!(instance(&identity, &labels), Some(Ok(id)));
        labels.insert(REPLICA.to_owned(), "x".to_owned());
        assert!(matches!(instance(&identity, &labels), Some(Err(_))));
        labels.insert(NODE.to_owned(), "other".to_owned());
        assert_eq!(instance(&identity, &labels), None);
    }
}
