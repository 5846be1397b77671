//! Clusters whose hosts have different container engines.

use std::collections::BTreeMap;

use crate::harness::lab::{Container, Lab};
use crate::harness::{DEADLINE, until};

/// Runs a web server of the image, one instance a host where possible.
fn compose(service: &str, image: &str, replicas: usize, more: &str) -> String {
    format!(
        "name: shop\nservices:\n  {service}:\n    image: {image}\n    command: [httpd, -f, -v, -h, /www]\n    \
         stop_grace_period: 1s\n    scale: {replicas}\n{more}    deploy:\n      update_config: {{monitor: 500ms}}\n"
    )
}

/// Makes an image from the lab's with an engine, and returns what the engine calls it. Its page is its name.
fn make(lab: &Lab, host: usize, name: &str) -> String {
    let script = format!("echo {name} >/www/index.html; head -c 3000000 /dev/urandom >/data");
    lab.docker(
        host,
        &["run", "--name", "made", "--network", "none", "vc-test:1", "sh", "-c", &script],
    )
    .done();
    lab.docker(host, &["commit", "made", name]).done();
    lab.docker(host, &["rm", "made"]).done();
    inspect(lab, host, &["image", "inspect", "--format", "{{.Id}}", name])
}

fn inspect(lab: &Lab, host: usize, words: &[&str]) -> String {
    lab.docker(host, words).done().trim().to_owned()
}

/// Returns the image of the only container of a service on each host, by the engine's name.
fn images(lab: &Lab, hosts: &[usize], service: &str) -> BTreeMap<usize, String> {
    let containers = lab.settled(hosts, service, hosts.len());
    let of = |container: &&Container| container.service() == service;
    let images = containers.iter().map(|(&host, all)| {
        let ours: Vec<&Container> = all.iter().filter(of).collect();
        assert_eq!(ours.len(), 1, "one on each host: {containers:?}");
        (host, inspect(lab, host, &["inspect", "--format", "{{.Image}}", &ours[0].id]))
    });
    images.collect()
}

/// Asserts that the service answers with `page` on the port of each host, and by its name in each container.
fn answers(lab: &Lab, hosts: &[usize], page: &str) {
    for &host in hosts {
        until("the published port answers", DEADLINE, || {
            let answer = lab.get(host, &format!("http://{}:8080/", Lab::ip(host)));
            if answer.out.trim() == page { Ok(()) } else { Err(format!("h{host}: {answer:?}")) }
        });
        for container in lab.containers(host) {
            until("containers resolve the name of the service", DEADLINE, || {
                let answer =
                    lab.inside(host, &container, &["wget", "-q", "-O", "-", "http://app/"]);
                if answer.out.trim() == page { Ok(()) } else { Err(format!("h{host}: {answer:?}")) }
            });
        }
    }
}

/// The image's id, by `vc image ls`.
fn listed(lab: &Lab, reference: &str) -> String {
    let rows = lab.rows(1, &["image", "ls"]);
    let row = rows.iter().find(|row| row["reference"] == reference).expect("it is listed");
    row["id"].as_str().expect("an id").to_owned()
}

#[test]
fn docker_20_docker_with_the_containerd_store_and_podman_run_one_cluster() {
    let engines = [(2, "modern"), (3, "podman"), (4, "modern")];
    let lab = Lab::cluster_of_engines(3, 4, &engines);

    // Pushed from an engine with the containerd image store.
    let manifest = make(&lab, 4, "app:1");
    lab.operator(3, &["image", "push", "app:1"]).done();
    let id = listed(&lab, "app:1");
    assert_ne!(id, manifest, "identified by its configuration");
    let ports = "    ports: ['8080:80']\n    tmpfs: [/scratch]\n";
    lab.deploy(1, &compose("app", "app:1", 3, ports), &["--wait"]).done();
    let images = images(&lab, &[1, 2, 3], "shop/app");
    assert_eq!((&images[&1], &images[&3]), (&id, &id));
    assert_ne!(images[&2], id, "the containerd image store names it by a manifest");
    answers(&lab, &[1, 2, 3], "app:1");
    for replica in ["1", "2", "3"] {
        let script = "id -u; echo x >/scratch/x; exit 7";
        let words = ["exec", "--replica", replica, "app", "--", "sh", "-c", script];
        let output = lab.vc(2, &words);
        assert_eq!((output.out.trim(), output.code), ("0", Some(7)), "{output:?}");
    }
    until("each instance has logged a request", DEADLINE, || {
        let rows = lab.log_rows(2, &["app"]);
        let of = |replica: u64| rows.iter().any(|row| row["replica"] == replica);
        if (1..=3).all(of) { Ok(()) } else { Err(format!("{rows:?}")) }
    });

    // An update, pushed from an engine with the classic image store.
    let second = make(&lab, 1, "app:2");
    let words = ["--peer", &Lab::ip(2), "image", "push", "app:2"];
    lab.vc_anywhere(1, &words).done();
    assert_eq!(listed(&lab, "app:2"), second);
    lab.deploy(3, &compose("app", "app:2", 3, ports), &["--wait"]).done();
    answers(&lab, &[1, 2, 3], "app:2");

    // Images that only one engine has are found by their tags, and exported from it.
    for (host, name, others) in [(2, "two:1", [1, 3]), (3, "three:1", [1, 2])] {
        let service = name.trim_end_matches(":1");
        if host == 3 {
            // podman 4.3 answers no `docker commit`.
            let file = lab.file("image.tar", "");
            make(&lab, 1, name);
            lab.docker(1, &["save", "--output", &file, name]).done();
            lab.docker(1, &["rmi", name]).done();
            lab.docker(host, &["load", "--input", &file]).done();
        } else {
            make(&lab, host, name);
        }
        let elsewhere = compose(service, name, 2, "").replace(
            "update_config",
            &format!("placement: {{constraints: [node.name != h{host}]}}\n      update_config"),
        );
        lab.deploy(1, &elsewhere, &["--wait"]).done();
        self::images(&lab, &others, &format!("shop/{service}"));
        lab.vc(1, &["rm", service]).done();
    }

    lab.host("kill", 2);
    until("the instances of the dead host run on the others", DEADLINE, || {
        let count: usize = [1, 3].iter().map(|&host| lab.containers(host).len()).sum();
        if count == 3 { Ok(()) } else { Err(format!("{count} containers")) }
    });
    answers(&lab, &[1, 3], "app:2");
    lab.host("start", 2);
    lab.node(2, &["run"]);
    lab.all_up(&[1, 2, 3]);
    lab.vc(1, &["rm", "app"]).done();
    until("all engines have removed the containers", DEADLINE, || {
        let left = lab.all_containers(&[1, 2, 3]);
        if left.values().all(Vec::is_empty) { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn secrets_are_readable_by_their_user_where_the_engine_remaps_users() {
    let lab = Lab::cluster_of_engines(1, 1, &[(1, "userns")]);
    lab.file("password", "open sesame");
    let file = "
name: shop
services:
  bank:
    image: vc-test:1
    command: [sleep, '900']
    user: '12'
    stop_grace_period: 1s
    deploy: {update_config: {monitor: 500ms}}
    secrets: [{source: password, target: till, uid: '12', gid: '13', mode: 0440}]
secrets: {password: {file: ./password}}
";
    lab.deploy(1, file, &["--wait"]).done();
    let (_, bank) = lab.only("shop/bank");
    let read = "cat /run/secrets/till; stat -c ' %u:%g %a' /run/secrets/till";
    let output = lab.inside(1, &bank, &["sh", "-c", read]).done();
    assert_eq!(output.trim(), "open sesame 12:13 440");
    let (map, pid) = ("{{.State.Pid}}", bank.id.as_str());
    let pid = inspect(&lab, 1, &["inspect", "--format", map, pid]);
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).expect("the container runs");
    assert!(!map.trim_start().starts_with("0          0"), "users are remapped: {map}");
}
