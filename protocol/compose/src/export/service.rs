//! One service.

use vc_protocol::Millis;
use vc_protocol::spec::{
    ContainerSpec, Dependency, DisconnectPolicy, FailureAction, FileId, FileKind, FileMount,
    Healthcheck, Mount, NetworkMode, PlacementPolicy, Port, PortProtocol, ProxyProtocol, Publish,
    PullPolicy, Reconcile, RestartCondition, RestartPolicy, Schedule, ServiceMode, ServiceSpec,
    Settings, UpdateOrder, UpdatePolicy,
};

use super::text::Yaml;

/// The fields of a map, in the order of the file.
#[derive(Default)]
struct Fields(Vec<(String, Yaml)>);

impl Fields {
    fn put(&mut self, key: &str, value: Yaml) {
        self.0.push((key.to_owned(), value));
    }

    fn text(&mut self, key: &str, value: impl ToString) {
        self.put(key, Yaml::text(value));
    }

    fn maybe<T: ToString>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn flag(&mut self, key: &str, value: bool) {
        if value {
            self.text(key, "true");
        }
    }

    fn number<T: Default + PartialEq + ToString>(&mut self, key: &str, value: T) {
        if value != T::default() {
            self.text(key, value);
        }
    }

    fn texts<T: ToString>(&mut self, key: &str, items: impl IntoIterator<Item = T>) {
        let items: Vec<Yaml> = items.into_iter().map(Yaml::text).collect();
        if !items.is_empty() {
            self.put(key, Yaml::List(items));
        }
    }

    fn pairs<K: ToString, V: ToString>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = (K, V)>,
    ) {
        let items = items.into_iter().map(|(key, value)| (key.to_string(), Yaml::text(value)));
        self.map(key, Self(items.collect()));
    }

    fn map(&mut self, key: &str, fields: Self) {
        if !fields.0.is_empty() {
            self.put(key, Yaml::Map(fields.0));
        }
    }

    fn time(&mut self, key: &str, millis: Millis) {
        if millis > 0 {
            self.put(key, duration(millis));
        }
    }
}

/// Returns a duration as Compose has it.
pub(super) fn duration(millis: Millis) -> Yaml {
    Yaml::text(match millis % 1000 {
        0 => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    })
}

/// Returns whether a file is one of the operator's that was shipped in place of a bind mount.
pub(super) fn is_shipped(file: &FileId) -> bool {
    file.kind == FileKind::Config && file.name.contains('/')
}

/// Returns the fields of a service.
pub(super) fn fields(spec: &ServiceSpec, replicas: u32) -> Vec<(String, Yaml)> {
    let container = &spec.container;
    let mut all = Fields::default();
    all.text("image", &container.image);
    if spec.pull_policy == PullPolicy::Always {
        all.text("pull_policy", "always");
    }
    all.maybe("platform", container.platform.as_ref());
    // An empty one clears that of the image.
    for (key, words) in [("entrypoint", &container.entrypoint), ("command", &container.command)] {
        if let Some(words) = words {
            all.put(key, Yaml::texts(words));
        }
    }
    all.pairs("environment", &container.environment);
    all.pairs("labels", &container.labels);
    all.maybe("working_dir", container.working_dir.as_ref());
    all.maybe("user", container.user.as_ref());
    if let Some(check) = &container.healthcheck {
        all.map("healthcheck", healthcheck(check));
    }
    if container.stop_grace_ms != 10_000 {
        all.put("stop_grace_period", duration(container.stop_grace_ms));
    }
    if !spec.depends_on.is_empty() {
        let of = |(name, state): (&vc_protocol::Name, &Dependency)| {
            let condition = match state {
                Dependency::ServiceStarted => "service_started",
                Dependency::ServiceHealthy => "service_healthy",
                Dependency::ServiceCompletedSuccessfully => "service_completed_successfully",
            };
            (name.to_string(), Yaml::Map(vec![("condition".to_owned(), Yaml::text(condition))]))
        };
        all.put("depends_on", Yaml::Map(spec.depends_on.iter().map(of).collect()));
    }
    networks(container, &mut all);
    let ports = spec
        .ports
        .iter()
        .filter(|port| !spec.dynamic_ports.iter().any(|it| it.is_published_as(port)));
    let ports = ports.map(|it| port(it, Some(it.published)));
    let dynamic = spec.dynamic_ports.iter().map(|it| port(&it.published_as(0), None));
    let ports: Vec<Yaml> = ports.chain(dynamic).collect();
    if !ports.is_empty() {
        all.put("ports", Yaml::List(ports));
    }
    all.texts(
        "expose",
        spec.expose.iter().map(|it| format!("{}/{}", it.target, it.protocol.as_str())),
    );
    mounts(container, &mut all);
    for (key, kind) in [("secrets", FileKind::Secret), ("configs", FileKind::Config)] {
        let mounts =
            container.files.iter().filter(|it| it.file.kind == kind && !is_shipped(&it.file));
        let mounts: Vec<Yaml> = mounts.map(file).collect();
        if !mounts.is_empty() {
            all.put(key, Yaml::List(mounts));
        }
    }
    settings(&container.settings, &mut all);
    all.map("deploy", deploy(spec, replicas));
    all.map("x-vc", extension(spec));
    all.0
}

fn healthcheck(check: &Healthcheck) -> Fields {
    let mut all = Fields::default();
    if check.test.first().is_some_and(|it| it == "NONE") {
        all.flag("disable", true);
        return all;
    }
    all.texts("test", &check.test);
    let times = [
        ("interval", check.interval_ms),
        ("timeout", check.timeout_ms),
        ("start_period", check.start_period_ms),
        ("start_interval", check.start_interval_ms),
    ];
    for (key, time) in times {
        if let Some(time) = time {
            all.put(key, duration(time));
        }
    }
    all.maybe("retries", check.retries);
    all
}

fn networks(container: &ContainerSpec, all: &mut Fields) {
    match &container.network_mode {
        Some(NetworkMode::Host) => return all.text("network_mode", "host"),
        Some(NetworkMode::None) => return all.text("network_mode", "none"),
        Some(NetworkMode::Service(name)) => {
            return all.text("network_mode", format!("service:{name}"));
        }
        None => {}
    }
    let attached = container.networks.iter().chain(&container.shared_networks);
    let attached = attached.map(|(name, aliases)| {
        let mut fields = Fields::default();
        fields.texts("aliases", aliases);
        (name.to_string(), Yaml::Map(fields.0))
    });
    all.map("networks", Fields(attached.collect()));
}

fn port(port: &Port, published: Option<u16>) -> Yaml {
    let mut fields = Fields::default();
    fields.text("target", port.target);
    fields.maybe("published", published);
    fields.maybe("host_ip", port.host_ip);
    if port.protocol != PortProtocol::Tcp {
        fields.text("protocol", port.protocol.as_str());
    }
    if port.publish == Publish::Node {
        fields.text("mode", "host");
    }
    if let Some(header) = port.proxy_protocol {
        let version = match header {
            ProxyProtocol::V1 => "v1",
            ProxyProtocol::V2 => "v2",
        };
        let mut more = Fields::default();
        more.text("proxy_protocol", version);
        fields.map("x-vc", more);
    }
    Yaml::Map(fields.0)
}

fn mounts(container: &ContainerSpec, all: &mut Fields) {
    let mut found = Vec::new();
    for mount in &container.mounts {
        let mut fields = Fields::default();
        match mount {
            Mount::Volume { name, target, read_only, nocopy, subpath } => {
                fields.text("type", "volume");
                fields.text("source", name);
                fields.text("target", target);
                fields.flag("read_only", *read_only);
                let mut options = Fields::default();
                options.flag("nocopy", *nocopy);
                options.maybe("subpath", subpath.as_ref());
                fields.map("volume", options);
            }
            Mount::Anonymous { target } => {
                fields.text("type", "volume");
                fields.text("target", target);
            }
            Mount::Bind { source, target, read_only } => {
                fields.text("type", "bind");
                fields.text("source", source);
                fields.text("target", target);
                fields.flag("read_only", *read_only);
                if !container.created_host_paths.contains(source) {
                    let mut options = Fields::default();
                    options.text("create_host_path", "false");
                    fields.map("bind", options);
                }
            }
            Mount::Tmpfs { target, bytes } => {
                fields.text("type", "tmpfs");
                fields.text("target", target);
                let mut options = Fields::default();
                options.number("size", *bytes);
                fields.map("tmpfs", options);
            }
        }
        found.push(Yaml::Map(fields.0));
    }
    for mount in container.files.iter().filter(|it| is_shipped(&it.file)) {
        let mut fields = Fields::default();
        fields.text("type", "bind");
        fields.text("source", &mount.file.name);
        fields.text("target", &mount.target);
        fields.flag("read_only", true);
        found.push(Yaml::Map(fields.0));
    }
    if !found.is_empty() {
        all.put("volumes", Yaml::List(found));
    }
}

fn file(mount: &FileMount) -> Yaml {
    let mut fields = Fields::default();
    fields.text("source", &mount.file.name);
    fields.text("target", &mount.target);
    fields.number("uid", mount.uid);
    fields.number("gid", mount.gid);
    if mount.mode != 0o444 {
        fields.text("mode", format!("0{:o}", mount.mode));
    }
    Yaml::Map(fields.0)
}

fn settings(settings: &Settings, all: &mut Fields) {
    all.maybe("hostname", settings.hostname.as_ref());
    all.maybe("domainname", settings.domainname.as_ref());
    all.texts("cap_add", &settings.cap_add);
    all.texts("cap_drop", &settings.cap_drop);
    all.pairs("sysctls", &settings.sysctls);
    all.maybe("stop_signal", settings.stop_signal.as_ref());
    all.flag("init", settings.init);
    all.flag("read_only", settings.read_only);
    all.flag("privileged", settings.privileged);
    all.texts("devices", &settings.devices);
    all.texts("device_cgroup_rules", &settings.device_cgroup_rules);
    all.texts("group_add", &settings.group_add);
    all.texts("security_opt", &settings.security_opt);
    all.texts("extra_hosts", settings.extra_hosts.iter().map(|it| it.replacen(':', "=", 1)));
    all.texts("dns", &settings.dns);
    all.texts("dns_search", &settings.dns_search);
    all.texts("dns_opt", &settings.dns_opt);
    let ulimits = settings.ulimits.iter().map(|(name, (soft, hard))| {
        let limits =
            vec![("soft".to_owned(), Yaml::text(soft)), ("hard".to_owned(), Yaml::text(hard))];
        (name.clone(), Yaml::Map(limits))
    });
    all.map("ulimits", Fields(ulimits.collect()));
    all.number("shm_size", settings.shm_bytes);
    all.number("pids_limit", settings.pids_limit);
    all.number("memswap_limit", settings.memory_swap_bytes);
    all.pairs("storage_opt", &settings.storage_opt);
    all.pairs("annotations", &settings.annotations);
    if !settings.log_options.is_empty() {
        let mut logging = Fields::default();
        logging.text("driver", "json-file");
        logging.pairs("options", &settings.log_options);
        all.map("logging", logging);
    }
    all.maybe("runtime", settings.runtime.as_ref());
    all.flag("tty", settings.tty);
    all.flag("stdin_open", settings.stdin_open);
    let cgroup = &settings.cgroup;
    all.maybe("cgroup_parent", cgroup.parent.as_ref());
    all.maybe("cpuset", cgroup.cpuset.as_ref());
    all.number("cpu_shares", cgroup.cpu_shares);
    all.number("cpu_quota", cgroup.cpu_quota);
    all.number("cpu_period", cgroup.cpu_period);
    all.number("cpu_rt_runtime", cgroup.cpu_rt_runtime);
    all.number("cpu_rt_period", cgroup.cpu_rt_period);
    all.maybe("mem_swappiness", cgroup.mem_swappiness);
    all.flag("oom_kill_disable", cgroup.oom_kill_disable);
    all.number("oom_score_adj", cgroup.oom_score_adj);
    let host = [
        ("pid", settings.namespaces.host_pid),
        ("uts", settings.namespaces.host_uts),
        ("userns_mode", settings.namespaces.host_users),
    ];
    for (key, _) in host.into_iter().filter(|(_, is_host)| *is_host) {
        all.text(key, "host");
    }
}

fn deploy(spec: &ServiceSpec, replicas: u32) -> Fields {
    let container = &spec.container;
    let mut all = Fields::default();
    // A schedule makes it a job.
    let mode = match spec.mode {
        _ if spec.schedule.is_some() => None,
        ServiceMode::Replicated => None,
        ServiceMode::Global => Some("global"),
        ServiceMode::ReplicatedJob => Some("replicated-job"),
        ServiceMode::GlobalJob => Some("global-job"),
    };
    all.maybe("mode", mode);
    if !spec.mode.is_per_node() && (replicas != 1 || spec.schedule.is_none()) {
        all.text("replicas", replicas);
    }
    let mut resources = Fields::default();
    for (key, amount) in [("limits", container.limit), ("reservations", container.reservation)] {
        let mut amounts = Fields::default();
        if amount.cpu_millis > 0 {
            let (whole, rest) = (amount.cpu_millis / 1000, amount.cpu_millis % 1000);
            amounts.text("cpus", format!("{whole}.{rest:03}"));
        }
        amounts.number("memory", amount.memory_bytes);
        if key == "reservations" {
            let of = |(kind, count): (&String, &u64)| {
                let spec = vec![
                    ("kind".to_owned(), Yaml::text(kind)),
                    ("value".to_owned(), Yaml::text(count)),
                ];
                Yaml::Map(vec![("discrete_resource_spec".to_owned(), Yaml::Map(spec))])
            };
            let generic: Vec<Yaml> = spec.generic_resources.iter().map(of).collect();
            if !generic.is_empty() {
                amounts.put("generic_resources", Yaml::List(generic));
            }
        }
        resources.map(key, amounts);
    }
    all.map("resources", resources);
    let mut placement = Fields::default();
    placement.texts("constraints", &spec.constraints);
    placement.number("max_replicas_per_node", spec.max_replicas_per_node);
    all.map("placement", placement);
    all.map("restart_policy", restart(&container.restart, spec.schedule.is_some()));
    all.map("update_config", update(&spec.update));
    all
}

fn restart(policy: &RestartPolicy, has_schedule: bool) -> Fields {
    let mut all = Fields::default();
    // Without a policy a run that fails is not retried.
    let usual = if has_schedule { RestartCondition::None } else { RestartCondition::Any };
    if policy.condition != usual {
        all.text(
            "condition",
            match policy.condition {
                RestartCondition::Any => "any",
                RestartCondition::OnFailure => "on-failure",
                RestartCondition::None => "none",
            },
        );
    }
    if let Some(delay) = policy.delay_ms {
        all.put("delay", duration(delay));
    }
    all.maybe("max_attempts", policy.max_attempts);
    all
}

fn update(policy: &UpdatePolicy) -> Fields {
    let usual = UpdatePolicy::default();
    let mut all = Fields::default();
    if policy.parallelism != usual.parallelism {
        all.text("parallelism", policy.parallelism);
    }
    all.maybe(
        "order",
        policy.order.map(|order| match order {
            UpdateOrder::StartFirst => "start-first",
            UpdateOrder::StopFirst => "stop-first",
        }),
    );
    all.time("delay", policy.delay_ms);
    if policy.monitor_ms != usual.monitor_ms {
        all.put("monitor", duration(policy.monitor_ms));
    }
    match policy.failure_action {
        FailureAction::Rollback => {}
        FailureAction::Pause => all.text("failure_action", "pause"),
        FailureAction::Continue => all.text("failure_action", "continue"),
    }
    all
}

fn extension(spec: &ServiceSpec) -> Fields {
    let mut all = Fields::default();
    all.maybe("on_partition", spec.on_partition.map(|it| it.as_str()));
    all.number("max_concurrent", spec.max_concurrent);
    match spec.placement {
        PlacementPolicy::Auto => {}
        PlacementPolicy::Pack => all.text("placement", "pack"),
        PlacementPolicy::Spread => all.text("placement", "spread"),
    }
    // Otherwise a bind mount would be taken for a volume.
    let sources = spec.container.mounts.iter().filter_map(Mount::host_path);
    all.texts("host_paths", sources);
    if let Some(schedule) = &spec.schedule {
        let usual = Schedule::new("");
        all.text("schedule", &schedule.expression);
        if !schedule.time_zone.is_empty() {
            all.text("time_zone", &schedule.time_zone);
        }
        if schedule.overlap != usual.overlap {
            all.text("overlap", schedule.overlap.as_str());
        }
        all.time("catch_up", schedule.catch_up_ms);
        all.time("timeout", schedule.timeout_ms);
        if schedule.keep != usual.keep {
            all.text("keep", schedule.keep);
        }
        if !schedule.at_most_once {
            all.text("at_most_once", "false");
        }
    }
    let DisconnectPolicy { lost_after_ms, replace, stop_on_client_after_ms, reconcile } =
        &spec.disconnect;
    all.time("lost_after", *lost_after_ms);
    if !replace {
        all.text("replace", "false");
    }
    if let Some(time) = stop_on_client_after_ms {
        all.put("stop_on_client_after", duration(*time));
    }
    if *reconcile != Reconcile::default() {
        all.text("reconcile", reconcile.as_str());
    }
    all
}
