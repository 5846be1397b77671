//! Published ports: every node forwards to the instances, wherever they run.

use rustix::process::Signal;

use crate::harness::command::{Running, signal};
use crate::harness::fixtures::web;
use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, until};

#[test]
fn a_published_port_reaches_every_replica_from_every_node() {
    let lab = Lab::cluster(3);
    let here =
        "    ports: ['8080:80']\n    deploy: {placement: {constraints: [node.name == h1]}}\n";
    // Each replica answers with its own number.
    let command =
        "[sh, -c, 'mkdir /own; echo $$VC_REPLICA >/own/index.html; exec httpd -f -h /own']";
    let compose = web("shop", "web", 3, here).replace("[httpd, -f, -h, /www]", command);
    lab.deploy(2, &compose, &["--wait"]).done();
    assert_eq!(lab.containers(1).len(), 3, "three with one port, on one node");
    for host in 1..=3 {
        let url = format!("http://{}:8080/", Lab::ip(host));
        let (answers, _) = until("every replica answers", DEADLINE, || {
            let mut seen: Vec<String> =
                (0..12).map(|_| lab.get(3, &url).done().trim().to_owned()).collect();
            seen.sort_unstable();
            seen.dedup();
            if seen.len() == 3 { Ok(seen) } else { Err(format!("{seen:?}")) }
        });
        assert_eq!(answers, ["1", "2", "3"], "through h{host}");
    }
}

#[test]
fn port_conflicts_name_the_services_and_end_when_the_port_is_free() {
    let lab = Lab::cluster(2);
    lab.deploy(1, &web("shop", "web", 1, "    ports: ['8080:80']\n"), &["--wait"]).done();
    let error = lab.deploy(2, &web("other", "front", 1, "    ports: ['8080:80']\n"), &[]).refused();
    for word in ["8080", "shop/web", "other/front"] {
        assert!(error.contains(word), "'{word}' is not in: {error}");
    }
    assert_eq!(lab.rows(1, &["ps"]).len(), 1, "nothing was changed");

    // Another process on h2 has the port: that node reports it, the others publish the port.
    let listener =
        lab.command(&["exec", "2", "--", "busybox", "nc", "-ll", "-p", "8099", "-e", "true"]);
    let mut listener = Running::start(listener);
    until("the process listens", DEADLINE, || {
        let sockets = lab.run(&["exec", "2", "--", "busybox", "netstat", "-ltn"]).done();
        if sockets.contains(":8099 ") { Ok(()) } else { Err(sockets) }
    });
    lab.deploy(1, &web("other", "front", 1, "    ports: ['8099:80']\n"), &["--wait"]).done();
    until("the other node reports the problem", DEADLINE, || {
        let problems = lab.problems(1);
        let words = ["h2", "8099", "other/front"];
        if problems.iter().any(|line| words.iter().all(|word| line.contains(word))) {
            Ok(())
        } else {
            Err(format!("{problems:?}"))
        }
    });
    assert_eq!(lab.get(2, "http://10.77.0.11:8099/").done().trim(), "vc-test:1");
    signal(listener.pid(), Signal::TERM);
    listener.end();
    until("the port is published when it is free", DEADLINE, || {
        match lab.get(1, "http://10.77.0.12:8099/").out.trim() {
            "vc-test:1" => Ok(()),
            other => Err(format!("'{other}'; {:?}", lab.problems(1))),
        }
    });
}

#[test]
fn a_port_of_an_address_that_appears_later_is_published() {
    let lab = Lab::cluster(2);
    let ports = "    ports: ['10.77.0.77:8080:80']\n";
    lab.deploy(1, &web("shop", "web", 1, ports), &[]).done();
    let is_problem = || lab.problems(2).iter().any(|line| line.contains("10.77.0.77"));
    until("no host has the address, which is a problem", DEADLINE, || {
        if is_problem() { Ok(()) } else { Err(format!("{:?}", lab.problems(2))) }
    });
    let address = |verb: &str, host: usize| {
        let host = host.to_string();
        lab.run(&["exec", &host, "--", "ip", "addr", verb, "10.77.0.77/32", "dev", "eth0"]).done();
    };
    for host in [1, 2] {
        address("add", host);
        until("the port is published where the address is", DEADLINE, || {
            match lab.get(host, "http://10.77.0.77:8080/").out.trim() {
                "vc-test:1" if !is_problem() => Ok(()),
                other => Err(format!("'{other}'; {:?}", lab.problems(2))),
            }
        });
        // As keepalived does, to the other host.
        address("del", host);
    }
    until("the address is missing again", DEADLINE, || {
        if is_problem() { Ok(()) } else { Err(format!("{:?}", lab.problems(2))) }
    });
}
