//! Failure and return of hosts and nodes.

use std::time::{Duration, Instant};

use crate::harness::fixtures::web;
use crate::harness::lab::{Container, Lab};
use crate::harness::load::{Load, between, now};
use crate::harness::{DEADLINE, measured, running, sleeping_service, until};

/// Waits until six instances run on these hosts, according to `vc` and the Docker engines. Prints the time since `since`.
fn six_on(lab: &Lab, hosts: &[usize], since: Instant) {
    let names: Vec<String> = hosts.iter().map(|host| format!("h{host}")).collect();
    until("six instances run on the remaining hosts", DEADLINE, || {
        let nodes = running(&lab.rows(hosts[0], &["ps"]), "shop/web", 6)?;
        if nodes.keys().all(|name| names.contains(name)) {
            Ok(())
        } else {
            Err(format!("{nodes:?}"))
        }
    });
    measured(&format!("six containers run on {names:?}"), since.elapsed());
    let containers: usize = hosts.iter().map(|&host| lab.containers(host).len()).sum();
    assert_eq!(containers, 6, "the Docker engines agree");
}

fn all_in(some: &[Container], all: &[Container]) -> bool {
    some.iter().all(|container| all.contains(container))
}

#[test]
fn instances_of_dead_hosts_are_rescheduled_and_others_unchanged() {
    let lab = Lab::cluster(3);
    let start = Instant::now();
    lab.deploy(2, &sleeping_service("shop", "web", 6), &["--wait"]).done();
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

    // The hosts return; their engines still have the old containers, stopped.
    for host in [2, 3] {
        lab.host("start", host);
        lab.node(host, &["run"]);
    }
    lab.all_up(&[1, 2, 3]);
    let after = lab.settled(&[1, 2, 3], "shop/web", 6);
    assert_eq!(after[&1], six, "a returning node moves and restarts nothing");
    until("the old containers are removed", DEADLINE, || {
        let left = lab.run(&["docker", "3", "ps", "-aq"]).done();
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    });
    // The returned nodes get instances again.
    lab.vc(3, &["scale", "web=9"]).done();
    let nine = lab.settled(&[1, 2, 3], "shop/web", 9);
    assert!(all_in(&six, &nine[&1]) && !nine[&2].is_empty() && !nine[&3].is_empty(), "{nine:?}");
}

#[test]
fn restarted_nodes_adopt_their_running_containers() {
    let lab = Lab::cluster(3);
    lab.deploy(1, &sleeping_service("shop", "web", 6), &["--wait"]).done();
    let before = lab.settled(&[1, 2, 3], "shop/web", 6);
    (1..=3).for_each(|host| lab.host("node-kill", host));
    assert_eq!(lab.all_containers(&[1, 2, 3]), before, "containers outlive their node");
    (1..=3).for_each(|host| lab.node(host, &["run"]));
    lab.all_up(&[1, 2, 3]);
    assert_eq!(lab.settled(&[1, 2, 3], "shop/web", 6), before, "the same containers");
    let rows = lab.rows(2, &["ps"]);
    assert!(rows.iter().all(|row| row["restarts"] == 0), "{rows:?}");
}

#[test]
fn only_connections_to_a_dead_node_fail_and_they_are_reset() {
    let lab = Lab::cluster(3);
    // Not on h3, whose node forwards for the clients.
    let elsewhere = "    deploy: {placement: {constraints: [node.name != h3]}}\n";
    lab.deploy(
        1,
        &web("shop", "web", 4, &format!("    ports: ['8080:80']\n{elsewhere}")),
        &["--wait"],
    )
    .done();
    let script = "while echo $$VC_REPLICA; do sleep 0.2; done";
    let ticks = sleeping_service("clock", "ticks", 2)
        .replace("[sleep, '900']", &format!("[nc, -ll, -p, '9000', -e, sh, -c, '{script}']"))
        .replace("    deploy: {", "    deploy: {placement: {constraints: [node.name != h3]}, ");
    lab.deploy(1, &format!("{ticks}    ports: ['9000:9000']\n"), &["--wait"]).done();
    let before = lab.all_containers(&[1, 2]);
    let slot = |host: usize| {
        let mut of = before[&host].iter().filter(|it| it.service() == "clock/ticks");
        of.next()
            .expect("one instance on each host")
            .slot
            .rsplit('.')
            .next()
            .expect("a number")
            .to_owned()
    };
    let (survives, dies) = (slot(1), slot(2));

    let streams = Load::streams(&lab, 3, "10.77.0.13:9000", 8);
    let load = Load::requests(&lab, 3, "10.77.0.13:8080", 50);
    let killed = now();
    lab.host("kill", 2);
    until("all instances run on the remaining host", DEADLINE, || {
        let rows = lab.rows(3, &["ps"]);
        let web = running(&rows, "shop/web", 4)?;
        running(&rows, "clock/ticks", 2)?;
        if web.contains_key("h2") { Err(format!("{web:?}")) } else { Ok(()) }
    });
    let replaced = now();
    measured("instances of the dead host replaced", between(killed, replaced));
    load.await_answers(400);
    let to_dead_host = streams.opened.iter().filter(|first| **first == dies).count();
    streams.await_ended(&dies, to_dead_host);

    let report = load.end_requests();
    let last = report.failures.iter().map(|failure| failure.begun).max().unwrap_or(killed);
    let (failed, all) = (report.failures.len(), report.requests);
    measured(
        &format!("{failed} of {all} requests failed; the last one began after the death by"),
        between(killed, last),
    );
    measured("slowest answer", Duration::from_secs_f64(report.max_ms / 1000.0));
    assert!(last < replaced, "a request failed after the takeover: {:?}", report.failures);
    assert!(report.requests > 400 && report.bodies["vc-test:1"] > 400, "{report:?}");

    let streams = streams.end_streams();
    let of =
        |replica: &str| -> Vec<_> { streams.iter().filter(|it| it.first == replica).collect() };
    assert!(
        !of(&survives).is_empty() && !of(&dies).is_empty(),
        "streams to both hosts: {streams:?}"
    );
    for stream in of(&survives) {
        assert!(stream.ended.is_none(), "a stream to the surviving host was closed: {stream:?}");
        measured(
            "longest silence on a stream to the surviving host",
            Duration::from_millis(stream.silence_ms),
        );
    }
    for stream in of(&dies) {
        let (at, error) = stream.ended.as_ref().expect("streams to the dead host are reset");
        assert!(error.contains("reset"), "{stream:?}");
        measured("a stream to the dead host reset after its death by", between(killed, *at));
    }
}
