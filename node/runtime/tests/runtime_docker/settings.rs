//! The settings of containers: options of Docker, networks and mounts.

use std::collections::BTreeSet;

use vc_protocol::spec::{Cgroup, IpcNamespace, Mount, Namespaces, Settings};

use crate::*;

fn volume(target: &str, read_only: bool) -> Mount {
    Mount::volume("data".parse().expect("a name"), target, read_only)
}

#[tokio::test]
async fn a_container_has_the_settings_of_its_spec() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let mut spec = shell("trap 'exit 5' USR1; echo up; while :; do sleep 1; done");
    spec.settings = Settings {
        hostname: Some("front".to_owned()),
        cap_add: texts(&["NET_ADMIN"]),
        cap_drop: texts(&["CHOWN"]),
        sysctls: [("net.core.somaxconn".to_owned(), "99".to_owned())].into(),
        stop_signal: Some("SIGUSR1".to_owned()),
        init: true,
        read_only: true,
        devices: texts(&["/dev/null:/dev/nothing:r"]),
        group_add: texts(&["4321"]),
        security_opt: texts(&["no-new-privileges"]),
        extra_hosts: texts(&["elsewhere:192.0.2.7"]),
        dns: vec!["192.0.2.53".parse().expect("an address")],
        dns_search: texts(&["corp.test"]),
        dns_opt: texts(&["timeout:2"]),
        ulimits: [("nofile".to_owned(), (123, 456))].into(),
        shm_bytes: 8 << 20,
        pids_limit: 77,
        memory_swap_bytes: -1,
        runtime: Some("runc".to_owned()),
        tty: true,
        stdin_open: true,
        ..Settings::default()
    };
    spec.networks = [
        ("back".parse().expect("a name"), BTreeSet::new()),
        ("front".parse().expect("a name"), BTreeSet::new()),
    ]
    .into();
    let id = host.start("shop/web.1", &spec);
    let seen = host.change(&id).await;

    let container = engine.run(&["ps", "-q"]);
    let inside = |script: &str| engine.run(&["exec", &container, "sh", "-c", script]);
    assert_eq!(inside("hostname"), "front");
    assert_eq!(inside("cat /proc/sys/net/core/somaxconn"), "99");
    assert_eq!(inside("cat /proc/1/comm"), "docker-init");
    assert_eq!(inside(">/file || echo no").lines().last(), Some("no"));
    assert_eq!(inside("test -e /dev/nothing && echo yes"), "yes");
    assert_eq!(inside("id -G"), "0 4321");
    assert!(inside("cat /etc/hosts").contains("192.0.2.7\telsewhere"));
    let resolver = inside("cat /etc/resolv.conf");
    assert!(resolver.contains("search corp.test"), "{resolver}");
    let options = resolver.lines().find(|line| line.starts_with("options ")).expect("options");
    assert!(["ndots:0", "timeout:2"].iter().all(|it| options.contains(it)), "{resolver}");
    let inspect = |template: &str| engine.run(&["inspect", "-f", template, &container]);
    let limits = inspect("{{range .HostConfig.Ulimits}}{{.Name}} {{.Soft}} {{.Hard}}{{end}}");
    assert_eq!(limits, "nofile 123 456");
    // Later engines prefix them with CAP_.
    let capabilities =
        inspect("{{.HostConfig.CapAdd}} {{.HostConfig.CapDrop}}").replace("CAP_", "");
    assert_eq!(capabilities, "[NET_ADMIN] [CHOWN]");
    assert_eq!(
        inspect("{{.HostConfig.ShmSize}} {{.HostConfig.SecurityOpt}}"),
        "8388608 [no-new-privileges]"
    );
    assert_eq!(inspect("{{.HostConfig.PidsLimit}} {{.HostConfig.Runtime}}"), "77 runc");
    assert_eq!(
        inspect("{{.Config.Tty}} {{.Config.OpenStdin}} {{.HostConfig.PortBindings}}"),
        "true true map[]"
    );

    // It is in both networks, with the address of the first.
    let networks = inspect("{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}");
    let short = identity(2).node.short();
    assert_eq!(networks, format!("vc-shop.back-{short} vc-shop.front-{short}"));
    let first = inspect(&format!(
        "{{{{(index .NetworkSettings.Networks \"vc-shop.back-{short}\").IPAddress}}}}"
    ));
    assert_eq!(seen.address, first);

    // It is stopped with its own signal.
    let follow = LogQuery { follow: true, ..LogQuery::default() };
    let mut lines = host.runtime.logs(&slot(), follow).await.expect("logs");
    assert_eq!(timeout(TIMEOUT, lines.next()).await.expect("in time").expect("a line").line, "up");
    let asked = std::time::Instant::now();
    host.remove(&id, 100_000).await;
    assert!(asked.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn a_container_has_the_limits_and_namespaces_of_its_spec() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let mut spec = shell("exec sleep 600");
    spec.settings = Settings {
        cgroup: Cgroup {
            cpu_shares: 512,
            cpu_period: 50_000,
            cpu_quota: 25_000,
            cpuset: Some("0".to_owned()),
            oom_score_adj: 321,
            ..Cgroup::default()
        },
        namespaces: Namespaces {
            host_pid: true,
            host_uts: true,
            ipc: Some(IpcNamespace::Shareable),
            ..Namespaces::default()
        },
        device_cgroup_rules: vec!["c 1:3 mr".to_owned()],
        log_options: [("max-size".to_owned(), "1m".to_owned())].into(),
        annotations: [("a".to_owned(), "b".to_owned())].into(),
        ..Settings::default()
    };
    let id = host.start("shop/web.1", &spec);
    host.running(&id).await;
    let container = engine.run(&["ps", "-q"]);
    let inside = |script: &str| engine.run(&["exec", &container, "sh", "-c", script]);
    assert_eq!(inside("cat /proc/self/oom_score_adj"), "321");
    assert_ne!(inside("cat /proc/1/comm"), "sleep", "it sees the processes of the host");
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("the host's name");
    assert_eq!(inside("hostname"), own.trim_end());
    let inspect = |template: &str| engine.run(&["inspect", "-f", template, &container]);
    assert_eq!(
        inspect(
            "{{.HostConfig.CpuShares}} {{.HostConfig.CpuPeriod}} {{.HostConfig.CpuQuota}} {{.HostConfig.CpusetCpus}}"
        ),
        "512 50000 25000 0"
    );
    assert_eq!(
        inspect("{{.HostConfig.IpcMode}} {{.HostConfig.DeviceCgroupRules}}"),
        "shareable [c 1:3 mr]"
    );
    assert_eq!(
        inspect("{{json .HostConfig.LogConfig.Config}}"),
        r#"{"max-file":"3","max-size":"1m"}"#
    );
    host.remove(&id, 0).await;
}

#[tokio::test]
async fn a_named_volume_outlives_its_containers_and_an_anonymous_one_does_not() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let mut writer = shell("echo kept >/data/file; echo lost >/scratch/file; exec sleep 600");
    writer.mounts = vec![
        volume("/data", false),
        Mount::Anonymous { target: "/scratch".to_owned() },
        Mount::Tmpfs { target: "/memory".to_owned(), bytes: 1 << 20 },
        Mount::Bind {
            source: engine.dir.path().display().to_string(),
            target: "/node".to_owned(),
            read_only: true,
        },
    ];
    let id = host.start("shop/web.1", &writer);
    host.running(&id).await;
    let container = engine.run(&["ps", "-q"]);
    let inside = |script: &str| engine.run(&["exec", &container, "sh", "-c", script]);
    let mounts = inside("while ! test -e /scratch/file; do sleep 1; done; mount");
    assert!(
        mounts
            .lines()
            .any(|it| it.contains(" on /memory type tmpfs ") && it.contains("size=1024k")),
        "{mounts}"
    );
    assert_eq!(inside("test -e /node/sock && echo yes"), "yes");
    assert_eq!(inside(">/node/new || echo no").lines().last(), Some("no"));
    host.remove(&id, 0).await;

    let name = format!("vc-shop.data-{}", identity(2).node.short());
    assert_eq!(engine.run(&["volume", "ls", "-q"]), name);
    let labels = engine.run(&["volume", "inspect", "-f", "{{index .Labels \"vc.volume\"}}", &name]);
    assert_eq!(labels, "data");
    let mut reader = shell("cat /data/file; >/data/new || echo 'read only'");
    reader.mounts = vec![volume("/data", true)];
    let id = host.start("shop/web.1", &reader);
    let Phase::Exited { output, .. } = host.not_running(&id).await else { panic!("it ended") };
    assert!(output.starts_with("kept | ") && output.contains("read only"), "{output}");
}

/// An engine that is killed while it creates a volume leaves the directory, without what it was told of it.
#[tokio::test]
async fn a_volume_whose_labels_the_engine_has_lost_is_mounted() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let name = format!("vc-shop.data-{}", identity(2).node.short());
    let mount = format!("{name}:/data");
    engine.run(&["run", "--rm", "-v", &mount, IMAGE, "sh", "-c", "echo kept >/data/file"]);
    let mut reader = shell("cat /data/file");
    reader.mounts = vec![volume("/data", false)];
    let id = host.start("shop/web.1", &reader);
    let Phase::Exited { output, .. } = host.not_running(&id).await else { panic!("it ended") };
    assert_eq!(output, "kept");
    assert_eq!(engine.run(&["volume", "ls", "-q"]), name);
}

#[tokio::test]
async fn unavailable_settings_are_reported() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let reason = async |host: &mut Host, slot: &str, spec: &ContainerSpec| {
        let id = host.start(slot, spec);
        match host.change(&id).await.phase {
            Phase::Failed { reason } => reason,
            phase => panic!("{phase:?}"),
        }
    };
    let mut spec = shell("exit 0");
    spec.mounts = vec![Mount::Bind {
        source: "/no/such/place".to_owned(),
        target: "/x".to_owned(),
        read_only: false,
    }];
    let failure = reason(&mut host, "shop/web.1", &spec).await;
    assert!(
        failure.starts_with("Docker cannot create the container: ")
            && failure.contains("/no/such/place"),
        "{failure}"
    );

    let name = format!("vc-shop.data-{}", identity(2).node.short());
    engine.run(&["volume", "create", "--label", "owner=other", &name]);
    spec.mounts = vec![volume("/data", false)];
    let failure = reason(&mut host, "shop/web.2", &spec).await;
    let expected = format!(
        "Docker cannot create its volumes: the name {name} is taken by a volume of another owner; if nothing needs its data, remove it with 'docker \
         volume rm {name}'"
    );
    assert_eq!(failure, expected);
}

#[tokio::test]
async fn the_secrets_of_the_node_are_mounted_by_no_container() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let link = engine.dir.path().join("link");
    std::os::unix::fs::symlink("/dev", &link).expect("linked");
    let shared = format!("{}/shm", link.display());
    for (source, read_only) in [("/", false), ("/var/run/vc", true), (&shared, false)] {
        let source = source.to_owned();
        let mut spec = shell("exec sleep 600");
        let target = "/host".to_owned();
        spec.mounts = vec![Mount::Bind { source: source.clone(), target, read_only }];
        let id = host.start("shop/web.1", &spec);
        let Phase::Failed { reason } = host.change(&id).await.phase else { panic!("{source}") };
        let expected = format!("the host path {source} is refused: it leads to /");
        assert!(reason.starts_with(&expected), "{reason}");
    }
    assert_eq!(engine.run(&["ps", "-aq"]), "");
}

#[tokio::test]
async fn the_directories_of_the_node_are_empty_where_the_root_of_the_host_is_mounted() {
    let engine = Engine::new();
    let data_dir = tempfile::tempdir().expect("a directory");
    let node = data_dir.path().to_owned();
    std::fs::write(node.join("node.key"), "secret").expect("written");
    let mut host = Host::with_images(engine.host(), data_dir);
    let script = format!(
        "test -e /host/etc/passwd || exit 1; test -d /host/{0} || exit 2; \
         test -z \"$(busybox ls -A /host/{0} /host/run/vc /host/dev/shm/vc | busybox grep -v :)\" || exit 3; \
         ! busybox touch /host/{0}/x 2>/dev/null || exit 4",
        node.display().to_string().trim_start_matches('/')
    );
    let mut spec = shell(&script);
    let (source, target) = ("/".to_owned(), "/host".to_owned());
    spec.mounts = vec![Mount::Bind { source, target, read_only: true }];
    let id = host.start("shop/web.1", &spec);
    let code = loop {
        match host.change(&id).await.phase {
            Phase::Exited { code, .. } => break code,
            Phase::Failed { reason } => panic!("{reason}"),
            _ => {}
        }
    };
    assert_eq!(code, 0);
}
