//! What is exported and read again is what was deployed.
#![allow(clippy::expect_used, reason = "tests")]

use super::*;

const FULL: &str = r#"
name: shop
services:
  web:
    image: nginx:1.27
    platform: linux/amd64
    pull_policy: always
    entrypoint: [/bin/sh, -c]
    command: ["echo $$HOME: yes; exec nginx -g 'daemon off;'", "007", "no", ""]
    environment: {A: "x: y", B: "$$5", C: "", D: "true", E: "1.50", F: "multi\nline\ttab", G: "ünï — 🦀", H: " lead"}
    labels: {com.example.x: "1", y: ""}
    working_dir: /srv
    user: "1000:1000"
    healthcheck: {test: [CMD, curl, -f, "http://localhost/"], interval: 1m30s, timeout: 500ms, retries: 3, start_period: 0s}
    stop_grace_period: 1m
    depends_on: {db: {condition: service_started}, api: {condition: service_healthy}, import: {condition: service_completed_successfully}}
    networks: {default: {}, front: {aliases: [www, shop.local]}, back: {}}
    ports:
      - "8080:80"
      - {target: 53, published: 5353, protocol: udp, host_ip: 127.0.0.1}
      - {target: 443, published: 8443, mode: host}
      - {target: 9000}
    expose: ["7000", "7001/udp"]
    volumes:
      - {type: volume, source: pages, target: /pages, read_only: true}
      - /anonymous
      - {type: tmpfs, target: /scratch, tmpfs: {size: 1048576}}
      - /var/run/docker.sock:/var/run/docker.sock:ro
    tmpfs: [/run]
    secrets: [password, {source: key, target: /etc/key, uid: "5", gid: "6", mode: 0400}]
    configs: [{source: motto, target: /etc/motto}]
    hostname: web
    domainname: example.com
    cap_add: [NET_ADMIN]
    cap_drop: [ALL]
    sysctls: {net.core.somaxconn: "1024"}
    stop_signal: SIGINT
    init: true
    read_only: true
    devices: [/dev/null:/dev/zero2:rwm]
    group_add: [audio, "29"]
    security_opt: [no-new-privileges=true]
    extra_hosts: {router: 10.0.0.1, six: "::1"}
    dns: [1.1.1.1]
    dns_search: [example.com]
    dns_opt: ["timeout:2"]
    ulimits: {nofile: {soft: 1024, hard: 2048}, nproc: 7}
    shm_size: 64m
    memswap_limit: 1g
    logging: {driver: json-file, options: {max-size: 10m}}
    annotations: {a: b}
    tty: true
    stdin_open: true
    cpuset: 0-1
    oom_score_adj: -500
    cpu_shares: 512
    deploy:
      replicas: 3
      resources: {limits: {cpus: "1.5", memory: 512m, pids: 100}, reservations: {cpus: "0.25", memory: 64m}}
      placement: {constraints: [node.labels.disk == ssd, "node.name != attic"], max_replicas_per_node: 2}
      restart_policy: {condition: on-failure, delay: 3s, max_attempts: 5}
      update_config: {parallelism: 2, order: stop-first, delay: 2s, monitor: 100ms, failure_action: pause}
    x-vc: {on_partition: exclusive, placement: spread, lost_after: 5m, host_paths: [/var/run/docker.sock]}
  db:
    image: registry.example:5000/db@sha256:0123456789012345678901234567890123456789012345678901234567890123
    volumes: ['data:/data', 'share:/share']
    network_mode: service:api
    healthcheck: {disable: true}
  api:
    image: api
    healthcheck: {test: wget -q localhost, start_interval: 1s}
    x-vc: {on_partition: available, stop_on_client_after: 10s, reconcile: best_score, replace: false, publish: none}
  import:
    image: import
    deploy: {mode: replicated-job, replicas: 20}
    x-vc: {max_concurrent: 4}
  nightly:
    image: nightly
    x-vc: {schedule: "0 3 * * *", time_zone: Europe/Vienna, overlap: replace, catch_up: 1h, timeout: 90m, keep: 3, at_most_once: false}
  exporter:
    image: exporter
    network_mode: host
    pid: host
    deploy: {mode: global}
volumes:
  pages:
  data:
    x-vc: {replicas: 3, size: 20G, on_loss: wait, lost_after: 1h, keep: {last: 1, hourly: 0, daily: 2}, hooks: {before: [psql, -c, CHECKPOINT], after: [true]}}
  share:
    driver_opts: {type: nfs, device: ":/export", o: "addr=10.0.0.5,rw"}
networks:
  front: {name: front-of-all}
  back: {internal: true}
secrets:
  password: {file: ./password}
  key: {file: ./key}
configs:
  motto: {file: ./motto}
"#;

fn parsed(text: &str) -> Vec<Exported> {
    let env = BTreeMap::new();
    let open = |path: &str| match path.starts_with("/srv") {
        true => Ok(Entry::Directory),
        false => Ok(Entry::File { content: b"x".to_vec(), mode: 0o444 }),
    };
    let read = |_: &str| Err(io::ErrorKind::NotFound.into());
    let context =
        Context { project: None, node: None, directory: None, env: &env, read: &read, open: &open };
    let project = crate::parse(text, &context).expect("a Compose file");
    let exported = project.services.into_iter().map(|it| Exported {
        service: it.service.service,
        spec: it.spec,
        replicas: it.replicas.unwrap_or(1),
    });
    exported.collect()
}

fn shop() -> Name {
    "shop".parse().expect("a name")
}

#[test]
fn what_is_exported_and_read_again_is_what_was_deployed() {
    let services = parsed(FULL);
    let Export { text, supply, inexact } = export(&shop(), &services);
    assert_eq!(inexact, [], "{text}");
    let again = parsed(&text);
    for (before, after) in services.iter().zip(&again) {
        assert_eq!(as_written(&before.spec), as_written(&after.spec), "{text}");
        assert_eq!((&before.service, before.replicas), (&after.service, after.replicas));
        // Nothing is replaced by a deployment of it.
        assert_eq!(before.spec.container.digest(), after.spec.container.digest(), "{text}");
    }
    let paths: Vec<&str> = supply.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(paths, ["./secrets/key", "./secrets/password", "./configs/motto"]);
    // A second export is the same text.
    assert_eq!(export(&shop(), &again).text, text);
}

#[test]
fn what_a_deployment_adds_is_a_comment_and_what_no_file_says_is_named() {
    let mut services = parsed("name: shop\nservices: {web: {image: 'web:1', ports: [80]}}");
    let web = &mut services[0];
    web.spec.container.image_id = Some("sha256:abc".to_owned());
    web.spec.container.force_update = 3;
    let chosen = web.spec.dynamic_ports[0].published_as(20_001);
    web.spec.ports.push(chosen);
    let Export { text, inexact, .. } = export(&shop(), &services);
    assert!(text.starts_with("# web runs sha256:abc of web:1\nname: shop\n"), "{text}");
    assert_eq!(inexact, [], "{text}");
    assert!(!text.contains("20001"), "{text}");

    services[0].spec.container.settings.storage_opt.insert("size".to_owned(), "1G".to_owned());
    services[0].spec.container.attach = true;
    let mut spec = serde_json::to_value(&services[0].spec).expect("JSON");
    spec["later"] = true.into();
    services[0].spec = serde_json::from_value(spec).expect("a spec");
    let inexact = export(&shop(), &services).inexact;
    let expected = ["later", "container.attach"].map(str::to_owned).to_vec();
    assert_eq!(inexact, [("web".parse().expect("a name"), expected)]);
}

#[test]
fn directories_of_the_file_are_volumes_by_their_names_and_shipped_files_are_to_be_supplied() {
    let text = "name: shop\nservices: {web: {image: 'web:1', volumes: ['/srv/app:/app', './motd:/etc/motd']}}";
    let services = parsed(text);
    let Export { text, supply, inexact } = export(&shop(), &services);
    assert_eq!(inexact, [], "{text}");
    assert!(!text.contains("/srv/app"), "{text}");
    let paths: Vec<&str> = supply.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(paths, ["./motd"]);
}
