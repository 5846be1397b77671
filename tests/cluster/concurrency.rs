//! Concurrent deploys through different nodes.

use std::sync::Barrier;

use crate::deploy::agree;
use crate::harness::cluster::Cluster;
use crate::harness::fixtures::with;
use crate::harness::{DEADLINE, running, sleeping_service, until};

#[test]
fn concurrent_deploys_of_different_services_both_apply() {
    const EACH: usize = 4;
    let cluster = Cluster::of(3);
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        for operator in 0..2 {
            let (cluster, start) = (&cluster, &start);
            scope.spawn(move || {
                for n in 0..EACH {
                    let name = format!("o{operator}-{n}");
                    let file =
                        cluster.file(&format!("{name}.yaml"), &sleeping_service("shop", &name, 2));
                    start.wait();
                    cluster.vc(operator, &["deploy", &file]).done();
                }
            });
        }
    });
    until("every node reports all services running", DEADLINE, || {
        (0..3).try_for_each(|at| {
            let rows = cluster.rows(at, &["services"]);
            let complete = rows.len() == 2 * EACH && rows.iter().all(|row| row["running"] == 2);
            if complete { Ok(()) } else { Err(format!("node {at}: {rows:?}")) }
        })
    });
    agree(&cluster, &[&["ps"], &["services"]]);
}

#[test]
fn concurrent_deploys_of_one_service_converge_to_one_version() {
    let cluster = Cluster::of(3);
    for round in 0..3 {
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            for operator in 0..2 {
                let (cluster, start) = (&cluster, &start);
                scope.spawn(move || {
                    let version = format!("    environment: {{VERSION: '{round}-{operator}'}}\n");
                    let replicas = 2 + operator as u32;
                    let file = cluster.file(
                        &format!("{operator}.yaml"),
                        &with("shop", "web", replicas, &version),
                    );
                    start.wait();
                    cluster.vc(operator, &["deploy", &file]).done();
                });
            }
        });
        until("one version runs on all nodes with its replica count", DEADLINE, || {
            let rows = cluster.ps(0);
            let count = rows.len();
            running(&rows, "shop/web", count)?;
            let processes: Vec<_> =
                cluster.nodes.iter().flat_map(|node| node.processes()).collect();
            let wanted = cluster.rows(0, &["services"])[0]["replicas"].as_u64().unwrap_or(0);
            let consistent =
                count as u64 == wanted && processes.len() == count && (2..=3).contains(&wanted);
            if !consistent {
                return Err(format!("{wanted} wanted; {rows:?} {processes:?}"));
            }
            Ok(())
        });
        agree(&cluster, &[&["ps"], &["services"]]);
        let versions: std::collections::BTreeSet<String> = cluster
            .nodes
            .iter()
            .flat_map(|node| node.processes())
            .filter_map(|process| std::fs::read(format!("/proc/{}/environ", process.pid)).ok())
            .map(|environment| {
                let text = String::from_utf8_lossy(&environment).into_owned();
                text.split('\0')
                    .find(|variable| variable.starts_with("VERSION="))
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect();
        assert_eq!(versions.len(), 1, "instances of different versions: {versions:?}");
    }
}
