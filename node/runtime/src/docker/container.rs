//! The request that creates an instance's container.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigLogConfig,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use vc_engine::runtime::InstanceId;
use vc_protocol::spec::{ContainerSpec, Healthcheck, NetworkMode, Settings};
use vc_protocol::{Millis, ServiceKey, VolumeKey};

use super::labels::{CLUSTER, DIGEST, DNS, EPOCH, NODE, PROJECT, REPLICA, SERVICE};
use super::units::{seconds, to_i64};
use super::{cgroup, files, volumes};
use crate::identity::Identity;

/// What must exist before a container is created.
#[derive(Debug, Clone, Default)]
pub(super) struct ContainerContext {
    /// Docker's names of its networks, the primary one first.
    pub(super) networks: Vec<String>,
    /// The container whose network it has, if it has none of its own.
    pub(super) network_of: Option<String>,
    /// What the engine calls its image.
    pub(super) image: String,
    /// Its DNS servers; `None`: Docker's default.
    pub(super) dns: Option<Vec<String>>,
    /// Docker's names of the volumes that it mounts.
    pub(super) volumes: BTreeMap<VolumeKey, String>,
    /// The directory of its secrets and configs, if it has any.
    pub(super) files: Option<PathBuf>,
    /// The epoch of its lease, if it runs under one.
    pub(super) epoch: Option<u64>,
    /// Paths at which it would see directories of the node, and finds empty ones.
    pub(super) hidden: Vec<String>,
}

/// The options of the log driver that a spec may override.
const LOG_OPTIONS: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "3")];

/// Returns the request. The restart policy is "no", since the engine decides when an instance starts again.
pub(super) fn body(
    identity: &Identity,
    id: &InstanceId,
    spec: &ContainerSpec,
    context: &ContainerContext,
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
    labels.extend(context.epoch.map(|epoch| (EPOCH.to_owned(), epoch.to_string())));
    let settings = &spec.settings;
    if !settings.dns.is_empty() {
        let servers: Vec<String> = settings.dns.iter().map(ToString::to_string).collect();
        labels.insert(DNS.to_owned(), servers.join(","));
    }
    ContainerCreateBody {
        image: Some(context.image.clone()),
        cmd: spec.command.clone(),
        entrypoint: spec.entrypoint.clone(),
        env: Some(environment(identity, id, spec, context.epoch)),
        labels: Some(labels),
        healthcheck: spec.healthcheck.as_ref().map(health),
        hostname: settings.hostname.clone(),
        domainname: settings.domainname.clone(),
        stop_signal: settings.stop_signal.clone(),
        stop_timeout: Some(seconds(Duration::from_millis(spec.stop_grace_ms))),
        tty: Some(settings.tty),
        open_stdin: Some(settings.stdin_open),
        stdin_once: Some(spec.attach),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        host_config: Some(host_config(id, spec, context)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(id: &InstanceId, spec: &ContainerSpec, context: &ContainerContext) -> HostConfig {
    let settings = &spec.settings;
    let some = |texts: &[String]| (!texts.is_empty()).then(|| texts.to_vec());
    let project = &id.slot.service.project;
    let name = |key: &VolumeKey| context.volumes.get(key).cloned().unwrap_or_default();
    let mounts = spec.mounts.iter().map(|mount| volumes::mount(&name, project, mount));
    let files = context.files.iter().flat_map(|directory| {
        let numbered = spec.files.iter().enumerate();
        numbered.map(move |(number, mount)| files::mount(directory, number, mount))
    });
    let hidden = context.hidden.iter().map(|target| volumes::empty(target));
    let ulimits = settings.ulimits.iter().map(|(name, &(soft, hard))| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(soft),
        hard: Some(hard),
    });
    let mut log_options: HashMap<String, String> =
        LOG_OPTIONS.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    log_options.extend(settings.log_options.clone());
    let config = HostConfig {
        memory: (spec.limit.memory_bytes > 0).then(|| to_i64(spec.limit.memory_bytes)),
        nano_cpus: (spec.limit.cpu_millis > 0)
            .then(|| to_i64(spec.limit.cpu_millis.saturating_mul(1_000_000))),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(log_options),
        }),
        network_mode: match &spec.network_mode {
            None => context.networks.first().cloned(),
            Some(NetworkMode::Host) => Some("host".to_owned()),
            Some(NetworkMode::None) => Some("none".to_owned()),
            Some(NetworkMode::Service(_)) => {
                context.network_of.as_ref().map(|container| format!("container:{container}"))
            }
        },
        dns: context.dns.clone(),
        dns_search: some(&settings.dns_search),
        dns_options: spec.network_mode.is_none().then(|| dns_options(settings)),
        mounts: Some(mounts.chain(files).chain(hidden).collect()),
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
        shm_size: (settings.shm_bytes > 0).then(|| to_i64(settings.shm_bytes)),
        pids_limit: (settings.pids_limit > 0).then_some(settings.pids_limit),
        memory_swap: (settings.memory_swap_bytes != 0).then_some(settings.memory_swap_bytes),
        runtime: settings.runtime.clone(),
        ..HostConfig::default()
    };
    cgroup::with(config, settings)
}

/// Returns the options of the container's resolver, never none: Docker would take those of the host. If one of them is `ndots`,
/// even 0, Docker's resolver passes no name without a dot on to the cluster's DNS server; without one it sets `ndots:0` itself.
fn dns_options(settings: &Settings) -> Vec<String> {
    match settings.dns_opt.as_slice() {
        // The default of resolv.conf(5).
        [] => vec!["timeout:5".to_owned()],
        options => options.to_vec(),
    }
}

/// Parses `HOST[:CONTAINER[:rwm]]`.
fn device(text: &str) -> DeviceMapping {
    let mut parts = text.splitn(3, ':');
    let host = parts.next().unwrap_or_default();
    DeviceMapping {
        path_on_host: Some(host.to_owned()),
        path_in_container: Some(parts.next().unwrap_or(host).to_owned()),
        cgroup_permissions: Some(parts.next().unwrap_or("rwm").to_owned()),
    }
}

/// Returns the environment of the spec, and the variables that identify the instance, as in the process runtime.
fn environment(
    identity: &Identity,
    id: &InstanceId,
    spec: &ContainerSpec,
    epoch: Option<u64>,
) -> Vec<String> {
    let ServiceKey { project, service } = &id.slot.service;
    let identity = [
        ("VC_PROJECT", project.to_string()),
        ("VC_SERVICE", service.to_string()),
        ("VC_REPLICA", id.slot.replica.to_string()),
        ("VC_NODE", identity.node.to_string()),
    ];
    let configured = spec.environment.iter().map(|(key, value)| format!("{key}={value}"));
    let epoch = epoch.map(|epoch| ("VC_EPOCH", epoch.to_string()));
    let ours = identity.into_iter().chain(epoch);
    configured.chain(ours.map(|(key, value)| format!("{key}={value}"))).collect()
}

fn health(check: &Healthcheck) -> HealthConfig {
    let nanos = |time: Option<Millis>| time.map(|ms| to_i64(ms.saturating_mul(1_000_000)));
    HealthConfig {
        test: Some(check.test.clone()),
        interval: nanos(check.interval_ms),
        timeout: nanos(check.timeout_ms),
        retries: check.retries.map(i64::from),
        start_period: nanos(check.start_period_ms),
        start_interval: nanos(check.start_interval_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::super::labels::instance;
    use super::*;

    #[test]
    fn labels_identify_the_instance_and_foreign_ones_are_ignored() {
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
            body(&identity, &id, &spec, &ContainerContext::default()).labels.expect("labels");
        assert_eq!(labels["tier"], "1");
        assert_eq!(instance(&identity, &labels), Some(Ok(id)));
        labels.insert(REPLICA.to_owned(), "x".to_owned());
        assert!(matches!(instance(&identity, &labels), Some(Err(_))));
        labels.insert(NODE.to_owned(), "other".to_owned());
        assert_eq!(instance(&identity, &labels), None);
    }
}
