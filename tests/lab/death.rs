//! Hosts lose their power and get it back.

use std::time::{Duration, Instant};

use crate::harness::lab::{Container, Lab};
use crate::harness::{PATIENCE, measured, running, sleepers, until};

/// More than five seconds, which is what is promised: this machine is small, and the programs are not optimised.
const BOUND: Duration = Duration::from_secs(15);

/// Waits until six run on these hosts, as `vc` and as the engines say; how long that took.
fn six_on(lab: &Lab, hosts: &[usize], since: Instant) {
    let names: Vec<String> = hosts.iter().map(|host| format!("h{host}")).collect();
    until("six run on those that are left", PATIENCE, || {
        let machines = running(&lab.rows(hosts[0], &["ps"]), "shop/web", 6)?;
        if machines.keys().all(|name| names.contains(name)) {
            Ok(())
        } else {
            Err(format!("{machines:?}"))
        }
    });
    let told = since.elapsed();
    measured(&format!("six containers run on {names:?}"), told);
    let there: usize = hosts.iter().map(|&host| lab.containers(host).len()).sum();
    assert_eq!(there, 6, "the engines say the same");
    assert!(told < BOUND, "{told:?}");
}

fn all_in(some: &[Container], all: &[Container]) -> bool {
    some.iter().all(|container| all.contains(container))
}

#[test]
fn what_dead_hosts_ran_runs_elsewhere_and_nothing_else_is_touched() {
    let lab = Lab::cluster(3);
    let start = Instant::now();
    lab.deploy(2, &sleepers("shop", "web", 6), &["--wait"]).done();
    measured("six containers deployed and running", start.elapsed());
    let before = lab.settled(&[1, 2, 3], "shop/web", 6);
    assert!(before.values().all(|containers| containers.len() == 2), "spread evenly: {before:?}");

    lab.host("kill", 3);
    six_on(&lab, &[1, 2], Instant::now());
    assert!(all_in(&before[&1], &lab.containers(1)) && all_in(&before[&2], &lab.containers(2)));

    lab.host("kill", 2);
    six_on(&lab, &[1], Instant::now());
    let six = lab.containers(1);
    assert!(all_in(&before[&1], &six));

    // Power returns; their engines have the old containers still, which do not run.
    for host in [2, 3] {
        lab.host("start", host);
        lab.node(host, &["run"]);
    }
    lab.all_up(&[1, 2, 3]);
    let after = lab.settled(&[1, 2, 3], "shop/web", 6);
    assert_eq!(after[&1], six, "a return moves nothing and restarts nothing");
    until("nothing is left of the old containers", PATIENCE, || {
        let left = lab.run(&["docker", "3", "ps", "-aq"]).done();
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    });
    // And they are of use again.
    lab.vc(3, &["scale", "web=9"]).done();
    let nine = lab.settled(&[1, 2, 3], "shop/web", 9);
    assert!(all_in(&six, &nine[&1]) && !nine[&2].is_empty() && !nine[&3].is_empty(), "{nine:?}");
}

#[test]
fn nodes_that_are_killed_adopt_their_containers() {
    let lab = Lab::cluster(3);
    lab.deploy(1, &sleepers("shop", "web", 6), &["--wait"]).done();
    let before = lab.settled(&[1, 2, 3], "shop/web", 6);
    (1..=3).for_each(|host| lab.host("node-kill", host));
    assert_eq!(lab.all_containers(&[1, 2, 3]), before, "containers outlive their node");
    (1..=3).for_each(|host| lab.node(host, &["run"]));
    lab.all_up(&[1, 2, 3]);
    assert_eq!(lab.settled(&[1, 2, 3], "shop/web", 6), before, "the very same containers");
    let rows = lab.rows(2, &["ps"]);
    assert!(rows.iter().all(|row| row["restarts"] == 0), "{rows:?}");
}
