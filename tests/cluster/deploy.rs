//! Deploying, changing and removing services.

use std::collections::BTreeSet;

use crate::harness::cluster::Cluster;
use crate::harness::fixtures::with;
use crate::harness::rows::InstanceExt as _;
use crate::harness::{DEADLINE, measured, running, sleeping_service, until};

/// Waits until all running nodes give the same answer to each of these commands.
pub fn agree(cluster: &Cluster, commands: &[&[&str]]) {
    for command in commands {
        let command = [&["--output", "json"], *command].concat();
        until("every node gives the same answer", DEADLINE, || {
            let answers: BTreeSet<String> =
                cluster.alive().map(|at| cluster.vc(at, &command).done()).collect();
            if answers.len() == 1 { Ok(()) } else { Err(format!("{command:?}: {answers:#?}")) }
        });
    }
}

#[test]
fn six_replicas_spread_over_three_nodes_and_all_nodes_report_the_same() {
    let cluster = Cluster::of(3);
    let start = std::time::Instant::now();
    cluster.deploy(1, &sleeping_service("shop", "web", 6));
    measured("six replicas deployed and running", start.elapsed());

    let spread = running(&cluster.ps(1), "shop/web", 6).expect("deploy --wait has returned");
    assert_eq!(spread.values().copied().collect::<Vec<_>>(), [2, 2, 2], "{spread:?}");
    for node in &cluster.nodes {
        assert_eq!(node.processes().len(), 2, "{} runs two instances", node.name);
    }
    let more = cluster.file("more.yaml", &sleeping_service("shop", "api", 5));
    agree(&cluster, &[&["ps"], &["services"], &["plan", &more]]);
}

#[test]
fn a_service_is_scaled_updated_and_removed_through_any_node() {
    let cluster = Cluster::of(3);
    cluster.deploy(0, &sleeping_service("shop", "web", 2));
    let processes =
        || cluster.nodes.iter().flat_map(|node| node.processes()).collect::<BTreeSet<_>>();
    let until_running = |count| {
        until("the service has the replicas that it declares", DEADLINE, || {
            let running_processes = processes();
            running(&cluster.ps(0), "shop/web", count)?;
            if running_processes.len() == count {
                Ok(running_processes)
            } else {
                Err(format!("{running_processes:?}"))
            }
        })
        .0
    };
    let two = until_running(2);

    cluster.vc(1, &["scale", "web=5"]).done();
    let five = until_running(5);
    assert!(two.is_subset(&five), "running instances keep running: {two:?} {five:?}");
    cluster.vc(2, &["scale", "shop/web=3"]).done();
    let three = until_running(3);
    assert!(three.is_subset(&five), "scaling down starts nothing: {five:?} {three:?}");

    // Deploying the same file changes nothing; a changed file replaces each instance.
    cluster.deploy(0, &sleeping_service("shop", "web", 3));
    assert_eq!(until_running(3), three);
    cluster.deploy(1, &with("shop", "web", 3, "    environment: {VERSION: '2'}\n"));
    let new = until_running(3);
    assert!(new.is_disjoint(&three), "every instance is replaced: {three:?} {new:?}");

    cluster.vc(2, &["rm", "shop/"]).done();
    until("all instances are removed", DEADLINE, || {
        let (rows, left) = (cluster.ps(0), processes());
        if rows.is_empty() && left.is_empty() { Ok(()) } else { Err(format!("{rows:?} {left:?}")) }
    });
    cluster.vc(0, &["scale", "web=1"]).refused_with("web");
}

#[test]
fn a_drained_node_is_emptied_and_used_again_after_undrain() {
    let cluster = Cluster::of(2);
    cluster.deploy(0, &sleeping_service("shop", "web", 4));
    let out = cluster.vc(1, &["drain", "n1"]).done();
    assert!(out.ends_with("n1 is empty\n"), "{out}");
    assert!(
        cluster.nodes[0].processes().is_empty(),
        "drain returns after the instances have ended"
    );
    until("all instances have moved", DEADLINE, || match running(&cluster.ps(1), "shop/web", 4)? {
        nodes if nodes.get("n2") == Some(&4) => Ok(()),
        nodes => Err(format!("{nodes:?}")),
    });
    // Instances stay on their nodes until a rebalance.
    cluster.vc(0, &["undrain", "n1"]).done();
    let out = cluster.vc(0, &["rebalance", "--yes"]).done();
    assert!(out.contains("2 of 2 moved after"), "{out}");
    until("half of the instances run on n1", DEADLINE, || {
        match running(&cluster.ps(0), "shop/web", 4)? {
            nodes if nodes.get("n1") == Some(&2) => Ok(()),
            nodes => Err(format!("{nodes:?}")),
        }
    });
    let out = cluster.vc(0, &["scale", "web=6", "--wait"]).done();
    assert!(out.contains("6/6 running after"), "{out}");
    assert_eq!(running(&cluster.ps(0), "shop/web", 6).map(|on| on.get("n1").copied()), Ok(Some(3)));
}

#[test]
fn a_node_that_leaves_is_drained_first_and_its_process_exits() {
    let mut cluster = Cluster::of(2);
    let pinned = "    deploy: {placement: {constraints: [node.name == n2]}}\n";
    cluster.deploy(0, &with("shop", "pinned", 1, pinned));
    cluster.deploy(0, &sleeping_service("shop", "web", 2));
    let error = cluster.vc(0, &["leave", "n2"]).failed();
    assert!(error.contains("shop/pinned.1 stays: n1 is n1, node.name == n2 required"), "{error}");
    cluster.vc(0, &["rm", "pinned"]).done();
    let out = cluster.vc(1, &["leave", "n2"]).done();
    assert!(out.ends_with("n2 has left the cluster\n"), "{out}");
    cluster.nodes[1].ends();
    until("the other node reports that n2 has left", DEADLINE, || {
        let rows = cluster.rows(0, &["nodes"]);
        let has_left = rows.iter().any(|row| row["name"] == "n2" && row["state"] == "left");
        if has_left { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    let on = running(&cluster.ps(0), "shop/web", 2);
    assert_eq!(on.map(|on| on.get("n1").copied()), Ok(Some(2)), "all instances run on n1");
}

#[test]
fn a_dry_run_prints_the_changes_and_makes_none() {
    let cluster = Cluster::of(2);
    let file = cluster.file("shop.yaml", &sleeping_service("shop", "web", 1));
    let dry = |at: usize| cluster.vc(at, &["deploy", &file, "--dry-run"]).done();
    assert!(dry(0).starts_with("+ shop/web (new)\n"), "{}", dry(0));
    assert!(cluster.rows(0, &["services"]).is_empty());
    cluster.vc(0, &["deploy", &file, "--wait"]).done();
    assert_eq!(dry(0), "no changes\n");
    cluster.file("shop.yaml", &sleeping_service("shop", "web", 2));
    assert_eq!(dry(0), "~ shop/web\n    replicas: 1 -> 2\n");
}

#[test]
fn a_slot_that_fits_no_node_stays_unplaced_with_a_reason() {
    let cluster = Cluster::of(2);
    let huge = "    deploy: {resources: {reservations: {memory: 64g}}}\n";
    let file = cluster.file("huge.yaml", &with("shop", "huge", 1, huge));
    cluster.vc(0, &["deploy", &file]).done();
    let error = cluster.vc(0, &["deploy", &file, "--wait", "--timeout", "1s"]).failed();
    assert!(error.contains("shop/huge.1") && error.contains("memory"), "{error}");
    for at in 0..2 {
        let rows = until("the node lists the slot", DEADLINE, || match cluster.ps(at) {
            rows if rows.is_empty() => Err("no rows".to_owned()),
            rows => Ok(rows),
        });
        let row = &rows.0[0];
        assert_eq!((row["state"].as_str(), row.node()), (Some("pending"), String::new()), "{row}");
        let reason = row["reason"].as_str().unwrap_or_default();
        assert!(
            reason.contains("n1") && reason.contains("n2") && reason.contains("memory"),
            "{reason}"
        );
    }
    let plan = cluster.vc(1, &["--output", "json", "plan", &file]).json();
    assert_eq!(plan["unplaced"].as_array().map(Vec::len), Some(1), "{plan}");
    assert!(plan["unplaced"][0]["reasons"].to_string().contains("memory"), "{plan}");
}

#[test]
fn unsupported_compose_keys_are_refused_by_name() {
    let cluster = Cluster::found();
    for (more, words) in [
        ("    network_mode: macvlan\n", "services.web.network_mode"),
        ("    volumes: ['data:/data']\n", "services.web.volumes"),
        ("    imagee: x\n", "services.web.imagee"),
        ("    command: [sleep, '1']\n", "command"),
        ("    scale: 1001\n", "scale"),
    ] {
        let file = cluster.file("compose.yaml", &with("shop", "web", 1, more));
        cluster.vc(0, &["deploy", &file]).refused_with(words);
        cluster.vc(0, &["plan", &file]).refused_with(words);
    }
    cluster
        .vc(0, &["deploy", &cluster.path("nothing.yaml").display().to_string()])
        .refused_with("no such file");
    assert!(cluster.rows(0, &["services"]).is_empty(), "no service was deployed");
}

#[test]
fn a_failing_command_is_retried_and_its_reason_is_shown() {
    let cluster = Cluster::of(2);
    let file = cluster.file(
        "bad.yaml",
        "name: shop\nservices:\n  exits:\n    image: x\n    command: ['false']\n  \
         missing:\n    image: x\n    command: [no-such-program]\n",
    );
    cluster.vc(0, &["deploy", &file]).done();
    until("both services have failed with a reason", DEADLINE, || {
        let rows = cluster.ps(1);
        let failed = |service: &str, words: &str| {
            rows.iter().any(|row| {
                let reason = row["reason"].as_str().unwrap_or_default();
                row["service"] == service && row["state"] == "failed" && reason.contains(words)
            })
        };
        let all = failed("shop/exits", "code 1") && failed("shop/missing", "no-such-program");
        if all { Ok(()) } else { Err(format!("{rows:?}")) }
    });
}
