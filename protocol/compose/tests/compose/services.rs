//! Services as a whole: profiles, dependencies, builds, Docker settings.

use std::collections::BTreeMap;

use vc_protocol::spec::{Dependency, RestartCondition, Settings};

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
            "build: {platforms: [linux/arm64]}",
            "services.s.build.platforms is not supported: the image is built for the node it is built on",
        ),
        (
            "build: {dockerfile: a, dockerfile_inline: b}",
            "services.s.build.dockerfile_inline and dockerfile are both there: keep one",
        ),
        ("build: {cache_from: [a]}", "services.s.build.cache_from is not supported"),
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
    let error =
        beside("  t: {image: i}", "depends_on: {t: {condition: service_started, restart: true}}");
    assert_eq!(
        error.unwrap_err(),
        "services.s.depends_on.t.restart: true is not supported: a service finds another again by its name"
    );
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
        ("init: yes", "services.s.init: 'yes' is neither true nor false"),
    ]);
}
