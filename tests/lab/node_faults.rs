//! What a host runs out of, or loses: networks, disk space, rules of its packet filter. And which of its addresses are a node's.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::command::{run, signal};
use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, program, until};

fn compose(project: &str, replicas: usize) -> String {
    format!(
        "name: {project}\nservices:\n  web:\n    image: vc-test:1\n    command: [sleep, '900']\n    stop_grace_period: 1s\n    \
         deploy: {{replicas: {replicas}, update_config: {{monitor: 500ms}}}}\n"
    )
}

#[test]
fn projects_that_a_node_has_no_network_for_run_on_another() {
    // One network fits.
    let lab = Lab::cluster_with(2, &["--network-pool", "10.99.0.0/25"]);
    for project in 1..=5 {
        lab.deploy(1, &compose(&format!("p{project}"), 1), &["--wait"]).done();
    }
    let on_first = lab.containers(1).len();
    assert!(on_first <= 1 && lab.containers(2).len() == 5 - on_first, "{on_first}");
    let all = lab.problems(2);
    let said = all.iter().any(|it| {
        it.starts_with("node h1 could not start p")
            && it.contains("10.99.0.0/25 of this node has no free /25")
    });
    assert!(said, "{all:?}");
    let notes = lab.vc(1, &["nodes"]).done();
    assert!(notes.contains("could not start"), "{notes}");

    let filter = ["network", "ls", "-q", "--filter", "label=vc.cluster"];
    let networks = lab.docker(2, &filter).done();
    let networks: Vec<&str> = networks.split_whitespace().collect();
    let subnet = ["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}"];
    let subnets = lab.docker(2, &[&subnet[..], &networks].concat()).done();
    let small = |subnet: &str| subnet.starts_with("10.2") && subnet.ends_with("/25");
    assert!(networks.len() >= 4 && subnets.lines().all(small), "{subnets}");
}

#[test]
fn a_node_with_a_full_disk_keeps_what_runs_and_starts_nothing_until_there_is_room() {
    let lab = Lab::up(2);
    let dir = lab.files_of(2).join("node").display().to_string();
    std::fs::create_dir_all(&dir).expect("a directory");
    let engine = lab.pid(2, "engine.pid").to_string();
    let inside = |words: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args(["--target", &engine, "--mount"]).args(words);
        run(command)
    };
    inside(&["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", &dir]).done();
    let mut lab = lab.with_cluster_of(2);
    lab.expect_errors("no space left");
    lab.deploy(1, &compose("before", 2), &["--wait"]).done();
    let before = lab.containers(2);
    assert_eq!(before.len(), 1);
    let disk = || {
        let rows = lab.rows(1, &["nodes"]);
        let row = rows.iter().find(|row| row["name"] == "h2").expect("listed");
        (row["state"].clone(), row["disk_bytes"].as_u64().unwrap_or(0), row["disk_used"].as_u64())
    };
    until("the disk of the node is known", DEADLINE, || match disk() {
        (_, total, Some(used)) if total > used && used > 0 => Ok(()),
        other => Err(format!("{other:?}")),
    });

    let fill = format!("{dir}/fill");
    inside(&["dd", "if=/dev/zero", &format!("of={fill}"), "bs=64k"]);
    let full = |it: &String| it.starts_with("node h2: starts nothing: the disk of");
    until("the node says that its disk is full", DEADLINE, || match lab.problems(1) {
        all if all.iter().any(full) => Ok(()),
        all => Err(format!("{all:?}")),
    });
    lab.deploy(1, &compose("meanwhile", 2), &["--wait"]).done();
    assert_eq!(lab.containers(2), before, "it keeps what runs and starts nothing");
    assert_eq!(disk().0, "up");
    let events = lab.vc(1, &["events"]).done();
    assert!(!events.contains("h2 is down"), "{events}");

    inside(&["rm", &fill]).done();
    until("the node has room again", DEADLINE, || match lab.problems(1) {
        all if all.is_empty() => Ok(()),
        all => Err(format!("{all:?}")),
    });
    lab.deploy(1, &compose("after", 2), &["--wait"]).done();
    assert!(lab.containers(2).len() > 1);
}

#[test]
fn bridges_of_containers_are_no_addresses_of_a_node_and_those_of_operators_are() {
    let lab = Lab::up(2);
    for network in 1..=6 {
        lab.docker(1, &["network", "create", &format!("n{network}")]).done();
    }
    let named = ["network", "create", "-o", "com.docker.network.bridge.name=custom0", "named"];
    lab.docker(1, &named).done();
    let ip = Lab::ip(2);
    let bridge = format!(
        "ip link add br0 type bridge && ip addr flush dev eth0 && ip link set eth0 master br0 && ip link set br0 up && \
         ip addr add {ip}/24 dev br0"
    );
    lab.run(&["exec", "2", "--", "sh", "-c", &bridge]).done();
    let lab = lab.with_cluster_of(2);
    // Networks that appear later are none either.
    lab.deploy(1, &compose("shop", 2), &["--wait"]).done();
    let foreign = |row: &Value| -> Vec<String> {
        let host = if row["name"] == "h1" { Lab::ip(1) } else { Lab::ip(2) };
        let addresses = row["addresses"].as_array().expect("addresses").iter();
        let addresses = addresses.map(|it| it.as_str().expect("text").to_owned());
        let own =
            |it: &String| it.starts_with(&format!("/ip4/{host}/")) || it.starts_with("/ip6/fd77:");
        addresses.filter(|it| !own(it)).collect()
    };
    for at in 1..=2 {
        for row in lab.rows(at, &["nodes"]) {
            assert_eq!(foreign(&row), [] as [&str; 0], "{row}");
            assert!(!row["addresses"].as_array().expect("addresses").is_empty());
        }
    }
}

#[test]
fn a_host_that_lost_its_data_directory_gets_the_data_of_its_volumes_back() {
    let compose = "name: shop\nservices:\n  db:\n    image: vc-test:1\n    command: [sh, -c, 'test -e /data/born || cat \
                   /proc/sys/kernel/random/uuid >/data/born; exec sleep 900']\n    volumes: ['data:/data']\n    stop_grace_period: \
                   1s\n    deploy: {update_config: {monitor: 500ms}, placement: {constraints: [node.name == h2]}}\nvolumes:\n  \
                   data: {x-vc: {replicas: 1}}\n";
    let lab = Lab::cluster(2);
    lab.deploy(1, compose, &["--wait"]).done();
    let born =
        |(host, container): (usize, _)| lab.inside(host, &container, &["cat", "/data/born"]).done();
    let data = born(lab.only("shop/db"));
    let rows = lab.rows(1, &["nodes"]);
    let old = rows.iter().find(|row| row["name"] == "h2").expect("listed")["id"].clone();
    let old = old.as_str().expect("an id");

    lab.host("node-kill", 2);
    std::fs::remove_dir_all(lab.files_of(2).join("node")).expect("removed");
    let token = lab.vc(1, &["token", "create", "--node", "--uses", "2"]).done();
    let other = lab.files_of(2).join("other");
    let mut join = lab.command(&["exec", "2", "--"]);
    join.arg(program("vc-node"))
        .args(["join", token.trim(), "--name", "h2", "--data-dir"])
        .arg(other);
    run(join).refused_with("a node called h2 already");
    lab.vc(1, &["node", "adopt", old]).refused_with("no node that is up");
    let left = lab.vc(1, &["leave", old, "--force"]).done();
    assert!(left.contains("shop/data"), "{left}");
    lab.node(2, &["join", token.trim()]);
    // It starts without the data, beside the container of before.
    until("the problem names the way out", DEADLINE, || match lab.problems(1) {
        all if all
            .iter()
            .any(|it| it.contains("data of shop/data") && it.contains("vc node adopt")) =>
        {
            Ok(())
        }
        all => Err(format!("{all:?}")),
    });
    lab.row(1, "the service runs anew", "shop/db", |row| row["state"] == "running");
    let adopted = lab.vc(1, &["node", "adopt", old]).done();
    assert!(adopted.contains("taken over the data of shop/data"), "{adopted}");
    until("the only instance has the data", DEADLINE, || {
        let all = lab.containers(2);
        let found: Vec<String> =
            all.iter().map(|it| lab.inside(2, it, &["cat", "/data/born"]).out).collect();
        if found == [data.clone()] { Ok(()) } else { Err(format!("{found:?}, not {data}")) }
    });
    until("nothing is left", DEADLINE, || match lab.problems(2) {
        all if all.is_empty() => Ok(()),
        all => Err(format!("{all:?}")),
    });
    // The name of the volume is remembered.
    lab.run(&["node-restart", "2", "--log-format", "json"]).done();
    lab.vc(1, &["restart", "shop/db", "--wait"]).done();
    assert_eq!(born(lab.only("shop/db")), data);
}

#[test]
fn a_firewall_that_removed_the_rules_of_docker_is_a_problem_until_docker_has_set_them_again() {
    let lab = Lab::cluster(2);
    lab.deploy(1, &compose("shop", 2), &["--wait"]).done();
    let before = lab.containers(2);
    let is_said =
        || lab.problems(1).iter().any(|it| it.contains("the rules of Docker in iptables"));
    assert!(!is_said());
    lab.run(&["exec", "2", "--", "iptables", "-t", "nat", "-F"]).done();
    until("the problem is listed", DEADLINE, || if is_said() { Ok(()) } else { Err("no") });
    assert_eq!(lab.containers(2), before, "what runs goes on");
    lab.deploy(1, &compose("blog", 2), &["--wait"]).done();
    assert_eq!(lab.containers(2), before, "it starts nothing");

    signal(lab.pid(2, "engine.pid"), Signal::KILL);
    lab.run(&["up", "2"]).done();
    until("the problem is over", DEADLINE, || if is_said() { Err("not yet") } else { Ok(()) });
}
