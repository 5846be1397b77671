//! Acknowledged changes survive SIGKILL at any time; data directories of another format are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use rustix::process::Signal;

use crate::harness::cluster::Cluster;
use crate::harness::command::signal;
use crate::harness::{DEADLINE, Node, sleeping_service, until};

/// Deploys that are acknowledged per round before the kill.
const ACKNOWLEDGED: usize = 4;
/// When all nodes are killed, one entry for each round: at this text in the log of the next deploy; `None`: at the last
/// acknowledgement.
const KILL_AT: [Option<&str>; 4] =
    [None, Some(r#""command""#), Some(r#""instance changed""#), Some(r#""to":"running""#)];

/// Waits until a node logs a line with both texts. Polls without a pause, so that the kill follows immediately.
fn await_log_line(nodes: &[Node], text: &str, service: &str) {
    let start = Instant::now();
    let logged =
        |node: &Node| node.log().lines().any(|line| line.contains(text) && line.contains(service));
    while !nodes.iter().any(logged) {
        assert!(start.elapsed() < DEADLINE, "no node logs {text} of {service}");
        std::thread::yield_now();
    }
}

#[test]
fn acknowledged_deploys_survive_sigkill_of_all_nodes_and_instances_are_adopted() {
    let mut cluster = Cluster::of(3);
    let acknowledged: Mutex<BTreeSet<String>> = Mutex::default();
    for (round, moment) in KILL_AT.into_iter().enumerate() {
        let pids: Vec<u32> = cluster.nodes.iter().map(|node| node.pid()).collect();
        let (sender, acknowledgements) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let (cluster, acknowledged) = (&cluster, &acknowledged);
            scope.spawn(move || {
                for n in 0.. {
                    let service = format!("s{round}-{n}");
                    let file = cluster.file("stream.yaml", &sleeping_service("shop", &service, 1));
                    let output = cluster.vc(n % 3, &["deploy", &file]);
                    if output.code != Some(0) {
                        return;
                    }
                    acknowledged.lock().expect("not poisoned").insert(format!("shop/{service}"));
                    let _ = sender.send(());
                }
            });
            for _ in 0..ACKNOWLEDGED {
                acknowledgements.recv_timeout(DEADLINE).expect("deploys are acknowledged");
            }
            if let Some(text) = moment {
                await_log_line(&cluster.nodes, text, &format!("shop/s{round}-{ACKNOWLEDGED}"));
            }
            pids.iter().for_each(|&pid| signal(pid, Signal::KILL));
        });
        cluster.nodes.iter_mut().for_each(|node| node.kill());
        let before: Vec<_> = cluster.nodes.iter().map(|node| node.processes()).collect();

        cluster.nodes.iter_mut().for_each(|node| node.launch(&["run"]));
        cluster.nodes.iter_mut().for_each(|node| node.ready());
        cluster.all_up();
        let wanted = acknowledged.lock().expect("not poisoned").clone();
        let (services, _) =
            until("every acknowledged deploy is known to all nodes and runs", DEADLINE, || {
                let mut services = 0;
                for at in 0..3 {
                    let rows = cluster.rows(at, &["services"]);
                    let known: BTreeSet<String> = rows
                        .iter()
                        .filter(|row| row["running"] == 1)
                        .filter_map(|row| row["service"].as_str().map(str::to_owned))
                        .collect();
                    let missing: Vec<_> = wanted.difference(&known).collect();
                    if !missing.is_empty() {
                        return Err(format!("at node {at}: {missing:?}"));
                    }
                    services = rows.len();
                }
                Ok(services)
            });
        println!("round {round}: {} acknowledged, {services} known", wanted.len());
        // A node may have been killed before it published the claim on a started instance; then the slot has a duplicate,
        // which is stopped. All other instances are adopted.
        let after: Vec<_> = cluster.nodes.iter().map(|node| node.processes()).collect();
        for (was, is) in before.iter().zip(&after) {
            for process in was.iter().filter(|process| !is.contains(process)) {
                let replaced = is.iter().any(|now| now.slot == process.slot);
                assert!(!replaced, "{process:?} was restarted instead of adopted");
                let elsewhere = after.iter().flatten().any(|now| now.slot == process.slot);
                assert!(elsewhere, "{process:?} is gone");
            }
        }
    }
    let rows = cluster.ps(0);
    assert!(rows.iter().all(|row| row["restarts"] == 0), "{rows:?}");
}

#[test]
fn a_deploy_acknowledged_by_a_lone_node_spreads_when_the_others_return() {
    let mut cluster = Cluster::of(3);
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let file = cluster.file("alone.yaml", &sleeping_service("shop", "alone", 1));
    cluster.vc(0, &["deploy", &file]).done();
    cluster.nodes[0].kill();
    // The other nodes start without the first and do not know the service until it returns.
    cluster.nodes[1].start(&["run"]);
    cluster.nodes[2].start(&["run"]);
    assert!(cluster.rows(2, &["services"]).is_empty());
    cluster.nodes[0].start(&["run"]);
    until("all nodes know the service", DEADLINE, || {
        (0..3).try_for_each(|at| match cluster.rows(at, &["services"]) {
            rows if rows.len() == 1 && rows[0]["running"] == 1 => Ok(()),
            rows => Err(format!("{rows:?}")),
        })
    });
}

#[test]
fn a_data_directory_without_a_format_number_is_refused_and_left_untouched() {
    let mut cluster = Cluster::found();
    let dir = cluster.nodes[0].dir.clone();
    cluster.nodes[0].stop();
    std::fs::remove_file(dir.join("format")).expect("removed");
    let contents = || -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = std::fs::read_dir(&dir).expect("listed").map(|it| it.expect("entry").path());
        let files = entries.filter(|path| path.is_file());
        files.map(|path| (path.clone(), std::fs::read(path).expect("read"))).collect()
    };
    let before = contents();
    for how in ["run", "init"] {
        cluster.nodes[0].attempt(&[how]).refused_with("incompatible version of vc-node");
    }
    assert!(contents() == before, "a file of the data directory changed");
    std::fs::write(dir.join("format"), "1\n").expect("written");
    cluster.nodes[0].start(&["run"]);
}
