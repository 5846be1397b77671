//! Failure of a host's Docker engine.

use rustix::process::Signal;

use crate::harness::command::signal;
use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, running, sleeping_service, until};

#[test]
fn a_node_whose_docker_engine_dies_stays_up_reports_it_and_recovers() {
    let lab = Lab::cluster(3);
    lab.deploy(1, &sleeping_service("shop", "web", 6), &["--wait"]).done();
    let before = lab.settled(&[1, 2, 3], "shop/web", 6);

    signal(lab.pid(2, "engine.pid"), Signal::KILL);
    let of_h2 = |host: usize| {
        let rows = lab.rows(host, &["nodes"]);
        rows.into_iter().find(|row| row["name"] == "h2").expect("h2")
    };
    until("the other nodes report the problem", DEADLINE, || {
        let row = of_h2(3);
        let reported = row["state"] == "up"
            && row["problem"].as_str().is_some_and(|problem| problem.contains("Docker"));
        if reported { Ok(()) } else { Err(row.to_string()) }
    });
    until("its instances run on other nodes", DEADLINE, || {
        match running(&lab.rows(2, &["ps"]), "shop/web", 6)? {
            nodes if !nodes.contains_key("h2") => Ok(()),
            nodes => Err(format!("{nodes:?}")),
        }
    });

    lab.run(&["up", "3"]).done();
    until("the problem is gone", DEADLINE, || match of_h2(1) {
        row if row["problem"] == "" => Ok(()),
        row => Err(row.to_string()),
    });
    let after = lab.settled(&[1, 2, 3], "shop/web", 6);
    for host in [1, 3] {
        let kept = before[&host].iter().all(|container| after[&host].contains(container));
        assert!(kept, "containers on other nodes are unchanged: {before:?} {after:?}");
    }
    lab.vc(1, &["scale", "web=9"]).done();
    assert!(
        !lab.settled(&[1, 2, 3], "shop/web", 9)[&2].is_empty(),
        "the node gets instances again"
    );
}

#[test]
fn what_a_hung_docker_engine_runs_is_started_nowhere_else_and_the_node_says_why() {
    let lab = Lab::cluster(3);
    lab.deploy(1, &sleeping_service("shop", "web", 6), &["--wait"]).done();
    let before = lab.settled(&[1, 2, 3], "shop/web", 6);

    let engine = lab.pid(2, "engine.pid");
    signal(engine, Signal::STOP);
    let problem = |host: usize| {
        let rows = lab.rows(host, &["nodes"]);
        let row = rows.into_iter().find(|row| row["name"] == "h2").expect("h2");
        (row["state"].clone(), row["problem"].as_str().unwrap_or_default().to_owned())
    };
    until("the other nodes report the problem", DEADLINE, || match problem(3) {
        (state, problem) if state == "up" && problem.contains("hangs") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // What is deployed now runs on the nodes that can start it; what the hung engine runs moves to none of them.
    lab.deploy(1, &sleeping_service("other", "api", 2), &["--wait"]).done();
    let nodes = running(&lab.rows(1, &["ps"]), "shop/web", 6).expect("as before");
    assert!(nodes.contains_key("h2"), "{nodes:?}");
    for host in [1, 3] {
        assert_eq!(lab.containers(host).len(), before[&host].len() + 1);
    }

    signal(engine, Signal::CONT);
    until("the problem is gone", DEADLINE, || match problem(1) {
        (_, problem) if problem.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(lab.settled(&[1, 2, 3], "shop/web", 6)[&2], before[&2], "nothing was restarted");
}
