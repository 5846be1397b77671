//! Services as a whole: profiles, dependencies, builds, Docker settings.

use std::collections::BTreeMap;

use serde_json::json;
use vc_compose::Project;
use vc_protocol::spec::{ALL, Dependency, RestartCondition, Settings};

use crate::{all_refused, beside, parse, parse_with, service};

#[test]
fn an_image_can_be_built_first() {
    let project = parse_with(
        "name: shop\nservices:\n  web: {build: ./web}\n  api:\n    image: acme/api:1\n    build:\n      context: ~/api\n      \
         dockerfile: prod.Dockerfile\n      target: run\n      args: {A: 1, TAG: , GONE: }\n  job:\n    build: {dockerfile_inline: FROM scratch}\n",
        &[],
    )
    .unwrap();
    let images: Vec<&str> =
        project.services.iter().map(|it| it.spec.container.image.as_str()).collect();
    assert_eq!(images, ["acme/api:1", "shop-job:latest", "shop-web:latest"]);
    let [api, job, web] = &project.builds[..] else { panic!("{:?}", project.builds) };
    assert_eq!((api.tag.as_str(), api.context.as_str()), ("acme/api:1", "/home/ann/api"));
    assert_eq!(
        (api.dockerfile.as_deref(), api.target.as_deref()),
        (Some("prod.Dockerfile"), Some("run"))
    );
    let args = [("A", "1"), ("TAG", "v7")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(api.args, BTreeMap::from(args), "without a value anywhere the Dockerfile's counts");
    assert_eq!(
        (job.context.as_str(), job.dockerfile_inline.as_deref()),
        (".", Some("FROM scratch"))
    );
    assert_eq!((web.service.to_string().as_str(), web.context.as_str()), ("shop/web", "./web"));
    all_refused(&[
        (
            "build: {context: ., contxt: .}",
            "services.s.build.contxt is not supported: did you mean 'context'?",
        ),
        (
            "build: {dockerfile: a, dockerfile_inline: b}",
            "services.s.build.dockerfile_inline and dockerfile are both there: keep one",
        ),
    ]);
}

#[test]
fn services_with_profiles_run_when_one_is_enabled() {
    let text = "services:\n  a: {image: i}\n  b: {image: i, profiles: [debug, test]}\n  c: {image: i, profiles: [], depends_on: [a]}\n  \
                d: {image: i, profiles: [front], network_mode: macvlan}\n";
    let names = |text: &str, profiles| {
        let project = parse_with(text, &[("COMPOSE_PROFILES", profiles)]);
        let name = |it: &vc_protocol::spec::Deployment| it.service.service.to_string();
        project
            .map(|it| it.services.iter().map(name).collect::<Vec<_>>().join(" "))
            .map_err(|e| e.to_string())
    };
    assert_eq!(names(text, "").as_deref(), Ok("a c"), "what is left out is not even read");
    assert_eq!(names(text, "other, test").as_deref(), Ok("a b c"));
    let everything = text.replace(", network_mode: macvlan", "");
    assert_eq!(names(&everything, "*").as_deref(), Ok("a b c d"));
    assert!(
        names(text, "front")
            .unwrap_err()
            .starts_with("services.d.network_mode: 'macvlan' is not supported")
    );
    assert_eq!(
        names("services: {a: {image: i, depends_on: [b]}, b: {image: i, profiles: [x]}}", ""),
        Err("services.a.depends_on.b names a service whose profiles are not enabled: name one in COMPOSE_PROFILES".to_owned())
    );
    assert_eq!(
        names("services: {b: {image: i, profiles: [x]}}", ""),
        Err("services all have profiles that are not enabled: name one in COMPOSE_PROFILES"
            .to_owned())
    );
}

#[test]
fn a_service_awaited_to_complete_restarts_on_failure_only() {
    let with = |migrate: &str| {
        parse(&format!(
            "services:\n  api: {{image: i, depends_on: {{migrate: {{condition: service_completed_successfully}}}}}}\n  \
             migrate: {{image: i{migrate}}}\n"
        ))
    };
    let condition = |migrate| with(migrate).unwrap().services[1].spec.container.restart.condition;
    let api = &with("").unwrap().services[0];
    assert_eq!(
        api.spec.depends_on.values().next(),
        Some(&Dependency::ServiceCompletedSuccessfully)
    );
    assert_eq!(condition(""), RestartCondition::OnFailure);
    assert_eq!(condition(", restart: no"), RestartCondition::None);
    assert_eq!(
        with(", restart: always").unwrap_err().to_string(),
        "services.api.depends_on.migrate waits for the end of a service that is always started again: write restart: \
         on-failure there"
    );
}

#[test]
fn unsatisfiable_dependencies_are_refused() {
    let conditions = "write service_started, service_healthy or service_completed_successfully";
    all_refused(&[
        ("depends_on: [t]", "services.s.depends_on.t names no service of the file"),
        ("depends_on: [s]", "services.s.depends_on is a cycle: s -> s"),
        (
            "depends_on: {s: {}}",
            &format!(
                "services.s.depends_on.s has no condition: {conditions}; services.s.depends_on is a cycle: s -> s"
            ),
        ),
        (
            "depends_on: {t: {condition: up}}",
            &format!(
                "services.s.depends_on.t.condition: 'up' is not a condition: {conditions}; services.s.depends_on.t names no service of the file"
            ),
        ),
    ]);
    let warned =
        beside("  t: {image: i}", "depends_on: {t: {condition: service_started, restart: true}}");
    assert_eq!(
        warned.unwrap().warnings,
        [
            "services.s.depends_on.t.restart has no effect: a service finds another again by its name when that was replaced"
        ]
    );
    let optional = "depends_on: {t: {condition: service_healthy, required: false}}";
    let on = |project: Project| project.services[0].spec.depends_on.len();
    assert_eq!(on(beside("", optional).unwrap()), 0, "it is not there");
    assert_eq!(on(beside("  t: {image: i, profiles: [x]}", optional).unwrap()), 0, "nor there");
    assert_eq!(on(beside("  t: {image: i}", optional).unwrap()), 1);
}

#[test]
fn settings_of_docker_are_passed_on() {
    let settings = service(
        "hostname: web.example.com\ncap_add: [NET_ADMIN]\ncap_drop: [ALL]\nsysctls: [net.core.somaxconn=1024]\n\
         stop_signal: SIGINT\ninit: true\nread_only: true\nprivileged: true\n\
         devices: [/dev/kmsg, '/dev/sda:/dev/disk:r', {source: /dev/fuse, target: /dev/fuse0, permissions: rw}]\n\
         group_add: [input, 109]\nsecurity_opt: ['no-new-privileges:true', apparmor=unconfined]\n\
         extra_hosts: ['a:1.2.3.4', 'b=[::1]', 'c:::1', 'd:host-gateway']\n\
         dns: [192.0.2.53, '2001:db8::53']\ndns_search: example.com\ndns_opt: ['timeout:2', use-vc]\n\
         ulimits: {nofile: 1024, memlock: {soft: -1, hard: -1}, nproc: {soft: 5, hard: 9}}\nshm_size: 64mb\npids_limit: 100\nmemswap_limit: 1g\nruntime: crun\ntty: true\nstdin_open: true\npull_policy: missing",
    )
    .unwrap()
    .spec
    .into_inner()
    .container
    .settings;
    let texts = |texts: &[&str]| texts.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let expected = Settings {
        hostname: Some("web.example.com".to_owned()),
        cap_add: texts(&["NET_ADMIN"]),
        cap_drop: texts(&["ALL"]),
        sysctls: [("net.core.somaxconn".to_owned(), "1024".to_owned())].into(),
        stop_signal: Some("SIGINT".to_owned()),
        init: true,
        read_only: true,
        privileged: true,
        devices: texts(&[
            "/dev/kmsg:/dev/kmsg:rwm",
            "/dev/sda:/dev/disk:r",
            "/dev/fuse:/dev/fuse0:rw",
        ]),
        group_add: texts(&["input", "109"]),
        security_opt: texts(&["no-new-privileges=true", "apparmor=unconfined"]),
        extra_hosts: texts(&["a:1.2.3.4", "b:::1", "c:::1", "d:host-gateway"]),
        dns: ["192.0.2.53", "2001:db8::53"].map(|it| it.parse().unwrap()).to_vec(),
        dns_search: texts(&["example.com"]),
        dns_opt: texts(&["timeout:2", "use-vc"]),
        ulimits: [("nofile", (1024, 1024)), ("memlock", (-1, -1)), ("nproc", (5, 9))]
            .map(|(name, limits)| (name.to_owned(), limits))
            .into(),
        shm_bytes: 64 << 20,
        pids_limit: 100,
        memory_swap_bytes: 1 << 30,
        runtime: Some("crun".to_owned()),
        tty: true,
        stdin_open: true,
        ..Settings::default()
    };
    assert_eq!(settings, expected);
    let maps =
        service("sysctls: {net.core.somaxconn: 1}\nextra_hosts: {a: 1.2.3.4, b: [1.2.3.5, '::2']}")
            .unwrap();
    let settings = maps.spec.into_inner().container.settings;
    assert_eq!(settings.sysctls["net.core.somaxconn"], "1");
    assert_eq!(settings.extra_hosts, ["a:1.2.3.4", "b:1.2.3.5", "b:::2"]);
}

#[test]
fn settings_that_docker_rejects_are_refused() {
    all_refused(&[
        (
            "hostname: a/b",
            "services.s.hostname: 'a/b' is not a host name: use at most 63 letters, digits, '-', '_' and '.'",
        ),
        (
            "cap_add: [net-admin]",
            "services.s.cap_add[0]: 'net-admin' is not a capability: write one as in NET_ADMIN",
        ),
        (
            "stop_signal: 'SIG INT'",
            "services.s.stop_signal: 'SIG INT' is not a signal: write one as in SIGINT",
        ),
        ("sysctls: [a]", "services.s.sysctls[0] has no value: write net.core.somaxconn=1024"),
        (
            "devices: [dev/kmsg]",
            "services.s.devices[0]: 'dev/kmsg' is not an absolute path: begin it with /",
        ),
        (
            "devices: ['/dev/a:/dev/b:x']",
            "services.s.devices[0]: 'x' is not an access mode: write some of r, w and m",
        ),
        (
            "security_opt: ['seccomp:./profile.json']",
            "services.s.security_opt[0]: the profile in 'seccomp:./profile.json' is not supported: write \
             seccomp=unconfined or leave it out",
        ),
        ("extra_hosts: [a]", "services.s.extra_hosts[0]: 'a' has no address: write name=address"),
        (
            "dns: resolver.lan",
            "services.s.dns: 'resolver.lan' is not an IP address: write that of a DNS server",
        ),
        (
            "dns_search: [a b]",
            "services.s.dns_search[0]: 'a b' is not a domain: write one as in example.com",
        ),
        (
            "dns_opt: 'ndots:5'",
            "services.s.dns_opt: 'ndots:5' cannot be set: write an option of resolv.conf as in timeout:2; ndots is 0, so that \
             services are found",
        ),
        ("extra_hosts: [a=b]", "services.s.extra_hosts[0]: 'b' is not an IP address"),
        ("ulimits: {nofile: {soft: 1}}", "services.s.ulimits.nofile needs soft and hard"),
        (
            "ulimits: {nofile: {soft: 2, hard: 1}}",
            "services.s.ulimits.nofile must be numbers, soft at most hard, or -1 for no limit",
        ),
        ("init: yes", "services.s.init: 'yes' is neither true nor false: write true"),
    ]);
}

/// The settings of a service, as JSON.
fn settings_of(lines: &str) -> serde_json::Value {
    let settings =
        service(lines).unwrap_or_else(|error| panic!("{lines}: {error}")).spec.into_inner();
    serde_json::to_value(settings.container.settings).unwrap()
}

#[test]
fn resources_that_nodes_count_are_read() {
    let reserved = |text: &str| {
        let lines =
            format!("deploy: {{resources: {{reservations: {{generic_resources: {text}}}}}}}");
        service(&lines)
    };
    let (a, b) = ("{discrete_resource_spec: {kind: gpu, value: 2}}", "{kind: ssd, value: 1}");
    let read = reserved(&format!("[{a}, {{discrete_resource_spec: {b}}}, {a}]")).unwrap();
    let expected = [("gpu".to_owned(), 4), ("ssd".to_owned(), 1)];
    assert_eq!(read.spec.generic_resources, expected.into());
    let path = "services.s.deploy.resources.reservations.generic_resources[0]";
    for (text, refusal) in [
        ("[{}]", " has no discrete_resource_spec: write {kind: gpu, value: 1}"),
        (
            "[{discrete_resource_spec: {kind: gpu}}]",
            ".discrete_resource_spec needs a kind and a value: {kind: gpu, value: 1}",
        ),
        (
            "[{discrete_resource_spec: {kind: gpu, value: 0}}]",
            ".discrete_resource_spec.value: '0' is not between 1 and 1000000",
        ),
        (
            "[{discrete_resource_spec: {kind: 'a b', value: 1}}]",
            ".discrete_resource_spec.kind: 'a b' is not a kind: write at most 63 letters, digits and . _ - /",
        ),
    ] {
        assert_eq!(&*reserved(text).expect_err(text), format!("{path}{refusal}"), "{text}");
    }
}

#[test]
fn devices_are_counted_by_kind_where_the_kind_is_counted() {
    let needs = |lines: &str| service(lines).unwrap().spec.needs(|kind| kind != "ssd");
    let of = |kind: &str, count| [(kind.to_owned(), count)].into();
    assert_eq!(needs("gpus: all"), of("gpu", ALL));
    assert_eq!(needs("gpus: [{count: 2}, {device_ids: [a, b]}]"), of("gpu", 4));
    assert_eq!(needs("devices: [nvidia.com/gpu=0, nvidia.com/gpu=1]"), of("nvidia.com/gpu", 2));
    assert_eq!(needs("devices: [nvidia.com/gpu=all]"), of("nvidia.com/gpu", ALL));
    assert_eq!(needs("devices: [/dev/dri]"), [].into());
    let reserved = "deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 1}], \
                    generic_resources: [{discrete_resource_spec: {kind: gpu, value: 3}}]}}}";
    assert_eq!(needs(reserved), of("gpu", 3), "what is said of the kind counts");
    let tpu = "deploy: {resources: {reservations: {devices: [{capabilities: [tpu], count: 1}]}}}";
    assert_eq!(needs(tpu), [].into());
    assert_eq!(service("gpus: all").unwrap().spec.needs(|_| false), [].into());
}

#[test]
fn limits_namespaces_and_devices_are_passed_on() {
    for (lines, expected) in [
        (
            "cpuset: 0,2\ncpu_shares: 512\ncpu_quota: 50ms\ncpu_period: 100000\nmem_swappiness: 0\noom_kill_disable: true\n\
             oom_score_adj: -500\ncgroup_parent: my.slice",
            json!({"cgroup": {"cpuset": "0,2", "cpu_shares": 512, "cpu_quota": 50_000, "cpu_period": 100_000,
                "mem_swappiness": 0, "oom_kill_disable": true, "oom_score_adj": -500, "parent": "my.slice"}}),
        ),
        (
            "blkio_config: {weight: 300, weight_device: [{path: /dev/sda, weight: 400}], device_read_bps: [{path: /dev/sda, rate: 12mb}], \
             device_write_iops: [{path: /dev/sda, rate: 30}]}",
            json!({"cgroup": {"blkio": {"weight": 300, "weight_device": {"/dev/sda": 400},
                "device_read_bps": {"/dev/sda": 12 << 20}, "device_write_iops": {"/dev/sda": 30}}}}),
        ),
        (
            "pid: host\nuts: host\nuserns_mode: host\nipc: shareable\ncgroup: host",
            json!({"namespaces": {"host_pid": true, "host_uts": true, "host_users": true, "ipc": "shareable", "cgroup": "host"}}),
        ),
        ("gpus: all", json!({"device_requests": [{"count": -1, "capabilities": ["gpu"]}]})),
        (
            "gpus: [{driver: nvidia, count: 2, options: {a: b}}]",
            json!({"device_requests": [{"driver": "nvidia", "count": 2, "capabilities": ["gpu"], "options": {"a": "b"}}]}),
        ),
        (
            "deploy: {resources: {reservations: {devices: [{capabilities: [gpu, utility], device_ids: ['0']}]}}}",
            json!({"device_requests": [{"device_ids": ["0"], "capabilities": ["gpu", "utility"]}]}),
        ),
        (
            "devices: [vendor.com/gpu=all]\ndevice_cgroup_rules: ['c 1:3 mr', 'a 7:* rwm']",
            json!({"device_requests": [{"driver": "cdi", "device_ids": ["vendor.com/gpu=all"]}],
                "device_cgroup_rules": ["c 1:3 mr", "a 7:* rwm"]}),
        ),
        (
            "deploy: {resources: {limits: {pids: 7}}}\nstorage_opt: {size: 1G}\nannotations: [a=b]\ndomainname: example.com\n\
             logging: {driver: json-file, options: {max-size: 1m, max-file: '5'}}",
            json!({"pids_limit": 7, "storage_opt": {"size": "1G"}, "annotations": {"a": "b"}, "domainname": "example.com",
                "log_options": {"max-size": "1m", "max-file": "5"}}),
        ),
    ] {
        assert_eq!(settings_of(lines), expected, "{lines}");
    }
    all_refused(&[
        ("mem_swappiness: 101", "services.s.mem_swappiness: '101' is not a number from 0 to 100"),
        (
            "device_cgroup_rules: [x]",
            "services.s.device_cgroup_rules[0]: 'x' is not a rule: write one as in 'c 1:3 rwm'",
        ),
        ("gpus: 1", "services.s.gpus must be all, or a list of {driver, count, device_ids}"),
        (
            "gpus: [{count: 1, device_ids: ['0']}]",
            "services.s.gpus[0] has count and device_ids: keep one",
        ),
        (
            "pids_limit: 5\ndeploy: {resources: {limits: {pids: 7}}}",
            "services.s.pids_limit and services.s.deploy.resources.limits.pids differ: keep one",
        ),
        (
            "blkio_config: {device_read_bps: [{path: /dev/sda}]}",
            "services.s.blkio_config.device_read_bps[0] needs path and rate",
        ),
        (
            "logging: {options: {max-size: large}}",
            "services.s.logging.options.max-size: 'large' is not a max-size: write one as in max-size: 10m, max-file: 3",
        ),
    ]);
}

#[test]
fn the_mounts_of_another_service_are_given() {
    let project = beside(
        "  t: {image: i, volumes: ['v:/v', './a.conf:/a', '/srv/d:/d:ro'], tmpfs: /run, volumes_from: ['u:ro']}\n  \
         u: {image: i, volumes: ['w:/w', 'v:/v2']}\nvolumes: {v: , w: }\n",
        "volumes: ['w:/d']\nvolumes_from: [t]",
    )
    .unwrap();
    let spec = &project.services[0].spec;
    let targets: Vec<&str> =
        spec.container.mounts.iter().map(vc_protocol::spec::Mount::target).collect();
    assert_eq!(targets, ["/d", "/v", "/w", "/v2"]);
    let written: Vec<&str> = spec.written_volumes().map(|name| name.as_str()).collect();
    assert_eq!(written, ["w", "v"]);
    assert_eq!(spec.container.files[0].target, "/a");
    assert!(spec.depends_on.contains_key(&"t".parse().unwrap()));
    let refused = |top: &str, lines: &str| beside(top, lines).map(drop).unwrap_err().to_string();
    assert_eq!(
        refused("  t: {image: i, volumes_from: [s]}\n", "volumes_from: [t]"),
        "services.s.volumes_from[0] is a cycle: that service gets the volumes of this one; services.t.volumes_from[0] is a \
         cycle: that service gets the volumes of this one"
    );
    assert_eq!(
        refused("", "volumes_from: [x]"),
        "services.s.volumes_from[0] names no service of the file that is deployed"
    );
    assert_eq!(
        refused("  t: {image: i, volumes: [/x]}\n", "volumes_from: [t]"),
        "services.s.volumes_from[0] has an anonymous volume at /x, which is of one instance: give it a name"
    );
    assert_eq!(
        refused("", "volumes_from: ['container:x']"),
        "services.s.volumes_from[0]: 'container:x' is not of the file: name a volume in both"
    );
}

/// Files of the tests of compose-go, by their rules.
#[test]
fn forms_that_compose_accepts_are_read() {
    let environment = |list: &str| {
        service(&format!("environment: {list}")).unwrap().spec.into_inner().container.environment
    };
    let of = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(environment("[A=1, GONE, A=2, GONE=, B=1, B]"), of(&[("A", "2"), ("GONE", "")]));
    let hosts = service("extra_hosts: ['db=10.0.0.1,10.0.0.2']").unwrap();
    assert_eq!(hosts.spec.container.settings.extra_hosts, ["db:10.0.0.1", "db:10.0.0.2"]);
    let top = "volumes: {data: {external: {name: old}}}\n\
               secrets: {key: {file: a.txt, labels: {l: 1}}}\n\
               networks: {proxy: {external: {name: edge}}}\n";
    let lines = "volumes: ['data:/d']\nsecrets: [key]\nnetworks: [proxy]";
    let project = beside(top, lines).unwrap();
    let networks = &project.services[0].spec.container.shared_networks;
    assert_eq!(networks.keys().map(|it| it.as_str()).collect::<Vec<_>>(), ["edge"]);
    assert!(project.warnings[0].contains("What Docker has as 'old' stays there"));
    let ssh = |ssh: &str| {
        let project = beside("", &format!("build: {{context: ., ssh: {ssh}}}")).unwrap();
        project.builds[0].options.clone()
    };
    let option = |value: &str| vec![("ssh", value.to_owned())];
    assert_eq!(ssh("[default]"), option("default"));
    assert_eq!(ssh("['git=~/key']"), option("git=/home/ann/key"));
    assert_eq!(ssh("{git: /key}"), option("git=/key"));
}

#[test]
fn forms_that_have_no_meaning_here_are_refused_with_advice() {
    let hook = "is not supported: nothing but the container's own processes runs where it runs; do it in its entrypoint";
    all_refused(&[
        ("post_start: [{command: x}]", &format!("services.s.post_start {hook}")),
        (
            "use_api_socket: true",
            "services.s.use_api_socket is not supported: mount /var/run/docker.sock",
        ),
        (
            "models: [ai]",
            "services.s.models is not supported: run the model as a service, and give others its address",
        ),
    ]);
    let top = "volumes: {data: {driver_opts: {type: none, o: bind, device: ./data}}}\n";
    let refused = beside(top, "volumes: ['data:/d']").expect_err("relative");
    assert_eq!(
        &*refused,
        "volumes.data.driver_opts.device: is relative: mount the directory in the services, as in ./data:/data"
    );
}

#[test]
fn a_build_has_the_files_of_its_secrets() {
    let top = "secrets: {npm: {file: ./npmrc}, home: {file: ~/key}, token: {environment: TAG}}\n";
    let project =
        beside(top, "build: {context: ., secrets: [npm, {source: home, target: ssh, mode: 0400}]}");
    let secrets = [("npm", "./npmrc"), ("ssh", "/home/ann/key")];
    let secrets = secrets.map(|(id, path)| (id.to_owned(), path.to_owned()));
    let project = project.unwrap();
    assert_eq!(project.builds[0].secrets, secrets.into());
    assert!(project.files.is_empty(), "the cluster does not get them");
    for (secret, refusal) in [
        (
            "token",
            "services.s.build.secrets[0]: 'token' is not a file: for a build declare it with file:, or build the image with your own command",
        ),
        (
            "gone",
            "services.s.build.secrets[0] names 'gone', which is not declared: write secrets: {gone: {file: …}} at the top",
        ),
    ] {
        let refused = beside(top, &format!("build: {{context: ., secrets: [{secret}]}}"));
        assert_eq!(&*refused.expect_err(secret), refusal);
    }
}

#[test]
fn a_build_has_the_options_of_docker_build() {
    let build = "build: {context: ., network: host, no_cache: true, pull: false, cache_from: [a, b], labels: {l: 1}, tags: t, \
                 shm_size: 1m, extra_hosts: [h=1.2.3.4], ulimits: {nofile: 5}, ssh: [default], platforms: [linux/amd64], \
                 additional_contexts: {base: ./base, img: 'docker-image://alpine'}}\npull_policy: build";
    let project = beside("", build).unwrap();
    let build = &project.builds[0];
    let options: Vec<String> =
        build.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        options.join(" "),
        "network=host no-cache=true cache-from=a cache-from=b tag=t ssh=default shm-size=1048576 label=l=1 add-host=h:1.2.3.4 \
         ulimit=nofile=5:5 platform=linux/amd64"
    );
    assert_eq!(build.contexts["base"], "./base");
}
