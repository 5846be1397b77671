//! Voters of real nodes: how many there are, how people change them, and what a node does that leaves or only votes.

use std::time::Duration;

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::fixtures::with;
use crate::harness::rows::problems;
use crate::harness::{DEADLINE, running, sleeping_service, until};

/// A change of the voters takes up to a lease time of 6 s, and some of these tests wait for several.
const CHANGES: Duration = DEADLINE.saturating_mul(2);

fn report(cluster: &Cluster, at: usize) -> Value {
    cluster.vc(at, &["--output", "json", "voters"]).json()
}

/// Returns the names of the nodes that vote.
fn voters(cluster: &Cluster, at: usize) -> Vec<String> {
    let report = report(cluster, at);
    let rows = report["nodes"].as_array().expect("rows");
    let voters = rows.iter().filter(|row| row["votes"] == true);
    voters.map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

/// Waits until a node says that so many nodes vote. Returns their names.
fn until_voters(cluster: &Cluster, at: usize, count: usize) -> Vec<String> {
    let found = until("the voters are chosen", CHANGES, || match voters(cluster, at) {
        names if names.len() == count => Ok(names),
        names => Err(names),
    });
    found.0
}

/// Returns the place of a node among the processes.
fn place(cluster: &Cluster, name: &str) -> usize {
    cluster.nodes.iter().position(|node| node.name == name).expect("a node")
}

fn status(cluster: &Cluster, at: usize) -> Value {
    cluster.vc(at, &["--output", "json", "status"]).json()
}

/// Returns a Compose file of an exclusive service.
fn exclusive(more: &str) -> String {
    with("shop", "db", 1, &format!("    x-vc: {{on_partition: exclusive}}\n{more}"))
}

#[test]
fn the_voters_grow_from_one_to_three_and_people_change_them() {
    let mut cluster = Cluster::found();
    assert_eq!(until_voters(&cluster, 0, 1), ["n1"]);
    cluster.join(0, &["server", "server", "worker"]);
    cluster.all_up();
    assert_eq!(until_voters(&cluster, 2, 3), ["n1", "n2", "n3"]);
    let text = cluster.vc(0, &["status"]).done();
    assert!(text.contains("voters       3/3 reachable"), "{text}");
    assert!(cluster.vc(3, &["nodes"]).done().contains("voter"));

    // A worker passes the request on to a server.
    let out = cluster.vc(3, &["voters", "remove", "n2"]).done();
    assert!(out.contains("n2 is to be no voter"), "{out}");
    assert!(!voters(&cluster, 0).contains(&"n2".to_owned()));
    let table = cluster.vc(0, &["voters"]).done();
    let row = table.lines().find(|line| line.starts_with("n2")).expect("a row");
    assert!(row.ends_with("no voter"), "{table}");
    cluster.vc(1, &["voters", "add", "n2"]).done();
    assert!(voters(&cluster, 1).contains(&"n2".to_owned()));
    cluster.vc(0, &["voters", "auto", "n2"]).done();
    assert_eq!(until_voters(&cluster, 0, 3), ["n1", "n2", "n3"]);

    cluster.vc(0, &["voters", "add", "n4"]).refused_with("n4 is a worker");
    cluster.vc(0, &["voters", "add", "n5"]).refused_with("no node 'n5'");
    let audit = cluster.vc(0, &["audit", "--since", "1h"]).done();
    assert!(audit.contains("asked for n2 to be no voter"), "{audit}");
    assert!(audit.contains("changed the voters to n1, n2, n3"), "{audit}");
}

#[test]
fn a_lost_majority_is_a_problem_that_forced_voters_end() {
    let mut cluster = Cluster::of(3);
    until_voters(&cluster, 0, 3);
    cluster.deploy(0, &exclusive("    deploy: {placement: {constraints: [node.name == n1]}}\n"));
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    cluster.all_up();
    let problems = until("the problem is listed", DEADLINE, || {
        let problems = status(&cluster, 0)["problems"].to_string();
        if problems.contains("1 of 3 voters reachable") { Ok(problems) } else { Err(problems) }
    });
    for part in ["n2, n3", "shop/db", "vc voters force", "on_partition: available"] {
        assert!(problems.0.contains(part), "{part}: {problems:?}");
    }
    let error = cluster.vc(0, &["voters", "remove", "n3", "--timeout", "2s"]).failed();
    assert!(error.contains("1 of 3 voters reachable, which cannot decide"), "{error}");

    let out = cluster.vc(0, &["voters", "force", "n1"]).done();
    assert!(out.contains("the voters are n1 (set 1"), "{out}");
    assert_eq!(report(&cluster, 0)["forced"], true);
    until("the service runs again", DEADLINE, || running(&cluster.ps(0), "shop/db", 1));

    // The others learn of it when they are back, and vote again: one of them has been unwanted since.
    cluster.nodes[1].start(&["run"]);
    cluster.nodes[2].start(&["run"]);
    cluster.all_up();
    cluster.vc(1, &["voters", "auto", "n3"]).done();
    assert_eq!(until_voters(&cluster, 2, 3), ["n1", "n2", "n3"]);
}

#[test]
fn of_two_servers_one_votes_and_the_voter_that_leaves_hands_its_vote_over() {
    let mut cluster = Cluster::of(2);
    let before = until_voters(&cluster, 0, 1);
    let hints = status(&cluster, 0)["hints"].to_string();
    assert!(hints.contains(&format!("{} is the only voter", before[0])), "{hints}");
    let (voter, other) = (place(&cluster, &before[0]), 1 - place(&cluster, &before[0]));
    cluster.deploy(0, &sleeping_service("shop", "web", 2));

    let out = cluster.vc(other, &["leave", &before[0]]).done();
    assert!(out.contains(&format!("{} hands over its vote\n", before[0])), "{out}");
    assert!(out.ends_with(&format!("{} has left the cluster\n", before[0])), "{out}");
    cluster.nodes[voter].ends();
    // The tokens that it has issued are void.
    let token = cluster.nodes[other].new_admin_token();
    let last = cluster.nodes[other].name.clone();
    let table = cluster.vc_as(&token, other, &["voters"]).done();
    assert!(table.contains(": 1 of 1 voters reachable"), "{table}");
    cluster.vc_as(&token, other, &["rm", "shop/"]).done();
    let error = cluster.vc_as(&token, other, &["leave", &last]).failed();
    assert!(error.contains("is the last voter"), "{error}");
}

#[test]
fn the_only_voter_that_is_gone_for_good_is_replaced_by_force() {
    let mut cluster = Cluster::of(2);
    let gone = until_voters(&cluster, 0, 1).remove(0);
    let (voter, other) = (place(&cluster, &gone), 1 - place(&cluster, &gone));
    cluster.deploy(0, &exclusive(""));
    // The tokens that the voter has issued end with its membership.
    let token = cluster.nodes[other].new_admin_token();
    let json = |cluster: &Cluster, what: &str| {
        cluster.vc_as(&token, other, &["--output", "json", what]).json()
    };
    cluster.nodes[voter].cut_power();
    until("the problem is listed", DEADLINE, || {
        let problems = json(&cluster, "status")["problems"].to_string();
        if problems.contains("0 of 1 voters reachable") { Ok(()) } else { Err(problems) }
    });
    let out = cluster.vc_as(&token, other, &["leave", &gone, "--force"]);
    assert!(out.err.contains("until 'vc voters force' names others"), "{}", out.err);
    out.done();
    let last = cluster.nodes[other].name.clone();
    cluster.vc_as(&token, other, &["voters", "force", &last]).done();
    until("the service runs", DEADLINE, || {
        let rows = json(&cluster, "ps");
        running(rows.as_array().expect("rows"), "shop/db", 1)
    });
    assert_eq!(problems(&json(&cluster, "status")), [] as [&str; 0]);
}

#[test]
fn a_dead_voter_that_is_removed_by_force_is_replaced() {
    let mut cluster = Cluster::of(3);
    until_voters(&cluster, 0, 3);
    cluster.join(0, &["server"]);
    cluster.all_up();
    let gone = until_voters(&cluster, 0, 3).iter().map(|name| place(&cluster, name)).max();
    let gone = gone.expect("a voter");
    let name = cluster.nodes[gone].name.clone();
    cluster.nodes[gone].kill();
    cluster.all_up();
    let out = cluster.vc(0, &["leave", &name, "--force"]);
    assert!(!out.err.contains("vc voters force"), "a majority is left: {}", out.err);
    out.done();
    until("another server votes in its place", CHANGES, || match voters(&cluster, 0) {
        names if names.len() == 3 && !names.contains(&name) => Ok(()),
        names => Err(names),
    });
}

#[test]
fn a_witness_votes_and_runs_nothing() {
    let mut cluster = Cluster::of(2);
    let worker = cluster.node_token(0, "worker");
    let mut witness = cluster.outsider("n3");
    // Without Docker: nothing of it is at this address.
    let options = ["--role", "witness", "--docker-host", "unix:///nonexistent"];
    witness.options.extend(options.map(str::to_owned));
    witness.runtime = None;
    witness.attempt(&["join", &worker]).refused_with("--role witness needs the token of a server");
    witness.start(&["join", &cluster.node_token(0, "server")]);
    cluster.nodes.push(witness);
    cluster.all_up();
    assert_eq!(until_voters(&cluster, 2, 3), ["n1", "n2", "n3"]);

    cluster.deploy(2, &sleeping_service("shop", "web", 4));
    let on = running(&cluster.ps(2), "shop/web", 4).expect("they run");
    assert!(!on.contains_key("n3"), "{on:?}");
    let rows = cluster.rows(2, &["nodes"]);
    let row = rows.iter().find(|row| row["name"] == "n3").expect("a row");
    for (field, value) in [
        ("role", Value::from("witness")),
        ("problem", "".into()),
        ("cpu_millis", 0.into()),
        ("memory_bytes", 0.into()),
        ("votes", true.into()),
    ] {
        assert_eq!(row[field], value, "{field}");
    }
    assert_eq!(problems(&status(&cluster, 0)), [] as [&str; 0]);
    let pinned = "    deploy: {placement: {constraints: [node.name == n3]}}\n";
    let file = cluster.file("pinned.yaml", &with("shop", "pinned", 1, pinned));
    let plan = cluster.vc(0, &["--output", "json", "plan", &file]).json();
    let reasons = plan["unplaced"][0]["reasons"].to_string();
    assert!(reasons.contains("it is a witness, which runs nothing"), "{reasons}");

    // Its settings stay, and it is a majority with one of the two others.
    cluster.nodes[2].stop();
    cluster.nodes[2].rerun(&[]);
    cluster.all_up();
    cluster.vc(0, &["rm", "shop/"]).done();
    cluster.deploy(0, &exclusive("    deploy: {placement: {constraints: [node.name == n2]}}\n"));
    cluster.nodes[0].kill();
    cluster.all_up();
    let out = cluster.vc(1, &["restart", "shop/db", "--wait"]).done();
    assert!(out.contains("1/1 running"), "{out}");
}
