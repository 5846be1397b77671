//! `vc-node uninstall` leaves a host as it was before.

use crate::harness::fixtures::web;
use crate::harness::lab::Lab;
use crate::harness::program;

/// What nodes leave on a host: rules of the packet filter, what Docker has, and mounts.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    rules: Vec<String>,
    docker: Vec<String>,
    mounts: Vec<String>,
}

fn traces(lab: &Lab) -> Traces {
    let exec = |words: &[&str]| lab.run(&[&["exec", "1", "--"], words].concat()).done();
    let lines = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    // Without counters and times, and without the policies of built-in chains: a table that was used once is listed for ever.
    let is_rule = |line: &String| line.starts_with('-') || line.ends_with(" -");
    let rule = |line: String| line.split(" [").next().unwrap_or_default().to_owned();
    let saved = lines(exec(&["iptables-save"]));
    let docker = [
        lab.docker(1, &["ps", "-a", "--format", "{{.Names}}"]).done(),
        lab.docker(1, &["network", "ls", "--format", "{{.Name}}"]).done(),
        lab.docker(1, &["volume", "ls", "--format", "{{.Name}}"]).done(),
        lab.docker(1, &["images", "--format", "{{.Repository}}:{{.Tag}}"]).done(),
    ];
    let engine = lab.pid(1, "engine.pid").to_string();
    let mounts = std::fs::read_to_string(format!("/proc/{engine}/mounts")).expect("its mounts");
    Traces {
        rules: saved.into_iter().map(rule).filter(is_rule).collect(),
        docker: docker.into_iter().flat_map(lines).collect(),
        mounts: lines(mounts).into_iter().filter(|line| line.contains("vc-mounts")).collect(),
    }
}

#[test]
fn a_host_is_as_it_was_after_its_node_is_uninstalled() {
    let lab = Lab::up(1);
    let before = traces(&lab);
    lab.node(1, &["init"]);
    let more =
        "    ports: [{target: 80, published: '8080', mode: host}]\n    volumes: ['data:/data']\n";
    let compose = web("shop", "web", 1, more) + "volumes: {data: }\n";
    lab.deploy(1, &compose, &["--wait"]).done();
    let there = traces(&lab);
    assert!(there.rules.len() > before.rules.len() && there.docker.len() > before.docker.len());

    let dir = lab.files_of(1).join("node").display().to_string();
    let program = program("vc-node").display().to_string();
    let uninstall = |options: &[&str]| {
        let words = ["exec", "1", "--", &program, "uninstall", "--data-dir", &dir];
        lab.run(&[&words, options].concat())
    };
    // Nothing is removed from under a node that runs, nor without a word.
    assert!(uninstall(&["--yes"]).failed().contains("seems to run"));
    lab.host("node-kill", 1);
    assert!(uninstall(&[]).failed().contains("--yes"));
    assert_eq!(lab.containers(1).len(), 1);
    uninstall(&["--yes"]).done();
    assert_eq!(traces(&lab), before);
    assert!(!lab.files_of(1).join("node").exists());
    // Once more has nothing to do.
    assert!(uninstall(&["--yes"]).failed().contains("belongs to no cluster"));
}
