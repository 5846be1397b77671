//! The addresses that instances see of their clients: with ports of `mode: host`, and by the PROXY protocol.

use crate::harness::command::run;
use crate::harness::fixtures::web;
use crate::harness::lab::Lab;
use crate::harness::load::Load;
use crate::harness::{DEADLINE, until};

/// Returns a Compose file with a web server on h1 at port 8080 of that host, which logs its clients.
fn logging_web(image: &str) -> String {
    let more = "    ports: [{target: 80, published: 8080, mode: host}]\n    \
                deploy: {placement: {constraints: [node.name == h1]}, update_config: {monitor: 500ms, order: start-first}}\n";
    web("shop", "web", 1, more)
        .replace("[httpd, -f,", "[httpd, -f, -v,")
        .replace("vc-test:1", image)
}

/// Returns the log of the only container of the web server.
fn log(lab: &Lab) -> String {
    let (host, container) = lab.only("shop/web");
    let output = lab.docker(host, &["logs", &container.id]);
    output.out + &output.err
}

/// Returns the NAT rules of published ports on a host.
fn redirections(lab: &Lab, host: usize) -> String {
    let host = host.to_string();
    let rules = lab.run(&["exec", &host, "--", "iptables", "-t", "nat", "-S"]).done();
    rules.lines().filter(|line| line.contains("VC-PORTS")).collect::<Vec<_>>().join("\n")
}

#[test]
fn instances_see_the_clients_of_ports_of_mode_host() {
    let lab = Lab::cluster(2);
    lab.deploy(2, &logging_web("vc-test:1"), &["--wait"]).done();
    let url = "http://10.77.0.11:8080/";
    until("the instance sees the address of a client on another host", DEADLINE, || {
        assert_eq!(lab.get(2, url).done().trim(), "vc-test:1");
        let log = log(&lab);
        if log.contains("10.77.0.12") { Ok(()) } else { Err(log) }
    });
    // As in Swarm, the other node does not publish it.
    assert!(lab.get(1, "http://10.77.0.12:8080/").out.is_empty());
    // Clients on the host and in its containers, of the cluster and others, and over IPv6. They come from the gateway.
    give_ipv6(&lab, &[1, 2]);
    for (client, own) in [
        (1, url),
        (1, "http://127.0.0.1:8080/"),
        (1, "http://[::1]:8080/"),
        (2, "http://[fd77::11]:8080/"),
    ] {
        until("a client that has no rule is served", DEADLINE, || {
            match lab.get(client, own).out.trim() {
                "vc-test:1" => Ok(()),
                other => Err(format!("{own}: '{other}'")),
            }
        });
    }
    let web = lab.only("shop/web");
    let ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 10.77.0.11 8080";
    let inside = lab.inside(web.0, &web.1, &["sh", "-c", ask]);
    assert!(inside.out.trim().ends_with("vc-test:1"), "{inside:?}");
    let outside = lab.docker(1, &["run", "--rm", "vc-test:1", "sh", "-c", ask]);
    assert!(outside.out.trim().ends_with("vc-test:1"), "{outside:?}");

    // What the operator forbids in Docker's chain for that stays forbidden.
    let forbid = |verb: &str| {
        let rule = ["DOCKER-USER", "-s", "10.77.0.12", "-p", "tcp", "-j", "REJECT"];
        lab.run(&[&["exec", "1", "--", "iptables", verb], &rule[..]].concat()).done();
    };
    forbid("-I");
    assert!(lab.get(2, url).out.is_empty(), "DOCKER-USER is passed by");
    forbid("-D");

    // An update changes the rule under load, and the node's end does not matter.
    let load = Load::requests(&lab, 2, "10.77.0.11:8080", 50);
    lab.deploy(1, &logging_web("vc-test:2"), &["--wait"]).done();
    lab.run(&["node-restart", "1", "--log-format", "json"]).done();
    lab.host("node-kill", 1);
    load.await_answers(50);
    load.end_requests().all_answered(100);
    assert_eq!(lab.get(2, url).done().trim(), "vc-test:2");
    lab.node(1, &["run"]);

    lab.vc(1, &["rm", "shop/web"]).done();
    until("no rule is left", DEADLINE, || match redirections(&lab, 1) {
        none if none.is_empty() => Ok(()),
        some => Err(some),
    });
}

#[test]
fn an_open_connection_past_the_node_delays_the_end_of_its_instance() {
    let lab = Lab::cluster(2);
    let (one, two) = (logging_web("vc-test:1"), logging_web("vc-test:2"));
    // Each connection is answered line by line until the client closes it.
    let echo = |compose: &str| {
        compose
            .replace("[httpd, -f, -v, -h, /www]", "[nc, -ll, -p, '80', -e, cat]")
            .replace("    stop_grace_period: 2s\n", "    stop_grace_period: 30s\n")
            .lines()
            .filter(|line| !line.contains("healthcheck"))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    lab.deploy(1, &echo(&one), &["--wait"]).done();
    until("the rule is in place", DEADLINE, || match redirections(&lab, 1) {
        rules if rules.contains("--dport 8080") => Ok(()),
        rules => Err(rules),
    });
    let before = lab.only("shop/web");
    // The connection is closed when the client has seen that another instance runs.
    let script = "(echo first; while [ ! -e /tmp/vc-lab-close ]; do sleep 0.2; done; echo last) | busybox nc 10.77.0.11 8080";
    let marker = std::path::Path::new("/tmp/vc-lab-close");
    let _ = std::fs::remove_file(marker);
    let client = lab.command(&["exec", "2", "--", "sh", "-c", script]);
    let client = std::thread::spawn(move || run(client));
    until("the connection is open", DEADLINE, || {
        let seen = lab.inside(before.0, &before.1, &["netstat", "-tn"]).out;
        if seen.contains("10.77.0.12") && seen.contains("ESTABLISHED") { Ok(()) } else { Err(seen) }
    });
    lab.deploy(1, &echo(&two), &[]).done();
    until("both instances run", DEADLINE, || match lab.containers(1) {
        all if all.len() == 2 => Ok(()),
        all => Err(format!("{all:?}")),
    });
    until("new clients reach the new one", DEADLINE, || {
        let after = lab.containers(1).into_iter().find(|it| it.id != before.1.id);
        let listed = redirections(&lab, 1);
        let Some(after) = after else { return Err("it has ended".to_owned()) };
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = lab.docker(1, &["inspect", "--format", format, &after.id]).done();
        if listed.contains(&format!("{}:80", address.trim())) { Ok(()) } else { Err(listed) }
    });
    assert_eq!(lab.containers(1).len(), 2, "the old one waits for its connection");
    std::fs::write(marker, "").expect("written");
    let output = client.join().expect("it ends");
    assert_eq!(output.out, "first\nlast\n", "{output:?}");
    until("the old instance ends", DEADLINE, || match lab.containers(1) {
        all if all.iter().all(|it| it.id != before.1.id) => Ok(()),
        all => Err(format!("{all:?}")),
    });
}

#[test]
fn the_proxy_protocol_names_clients_of_the_mesh() {
    let lab = Lab::cluster(3);
    // The instance answers with what it receives.
    let compose = "name: shop\nservices:\n  echo:\n    image: vc-test:1\n    \
                   command: [nc, -ll, -p, '80', -e, cat]\n    stop_grace_period: 1s\n    \
                   ports: ['8080:80']\n    x-vc: {proxy_protocol: v1}\n    \
                   deploy: {placement: {constraints: [node.name == h2]}, update_config: {monitor: 500ms}}\n";
    lab.deploy(1, compose, &["--wait"]).done();
    give_ipv6(&lab, &[1, 2, 3]);
    // On the instance's node and on another: clients on another host and on the node's, over IPv4 and IPv6.
    let asked = [
        (3, Lab::ip(2), "TCP4 10.77.0.13 10.77.0.12"),
        (3, Lab::ip(1), "TCP4 10.77.0.13 10.77.0.11"),
        (3, ipv6(2), "TCP6 fd77::13 fd77::12"),
        (3, ipv6(1), "TCP6 fd77::13 fd77::11"),
        (2, Lab::ip(2), "TCP4 10.77.0.12 10.77.0.12"),
        (2, "127.0.0.1".to_owned(), "TCP4 127.0.0.1 127.0.0.1"),
        (1, "127.0.0.1".to_owned(), "TCP4 127.0.0.1 127.0.0.1"),
        (1, "::1".to_owned(), "TCP6 ::1 ::1"),
    ];
    for (client, address, ends) in asked {
        let client = client.to_string();
        let ask = format!("printf hello | busybox nc -w 3 {address} 8080");
        until("the instance knows the client", DEADLINE, || {
            let output = lab.run(&["exec", &client, "--", "sh", "-c", &ask]);
            let header = format!("PROXY {ends} ");
            if output.out.starts_with(&header) && output.out.ends_with(" 8080\r\nhello") {
                Ok(())
            } else {
                Err(output)
            }
        });
    }
}

fn ipv6(host: usize) -> String {
    format!("fd77::{}", 10 + host)
}

/// Gives hosts IPv6 addresses.
fn give_ipv6(lab: &Lab, hosts: &[usize]) {
    for &host in hosts {
        let address = format!("{}/64", ipv6(host));
        let add = ["ip", "addr", "add", &address, "dev", "eth0", "nodad"];
        lab.run(&[&["exec", &host.to_string(), "--"], &add[..]].concat()).done();
    }
}

/// Answers each datagram with the client's address and a tag. Runs with the perl of the host.
const UDP_SERVER: &str = "
socket(S, PF_INET, SOCK_DGRAM, 0) and bind(S, pack_sockaddr_in(53, INADDR_ANY)) or die;
while (defined(my $from = recv(S, my $data, 1500, 0))) {
    my ($port, $address) = unpack_sockaddr_in($from);
    send(S, inet_ntoa($address) . \" $ENV{TAG}\", 0, $from);
}
";
/// Asks from one port, without a pause of more than 100 ms, until an answer ends with `b`. Prints the answers that differ.
const UDP_CLIENT: &str = "
socket(S, PF_INET, SOCK_DGRAM, 0) or die;
my ($to, $last) = (pack_sockaddr_in(9053, inet_aton('10.77.0.11')), '');
for (1..600) {
    send(S, 'x', 0, $to);
    my $ready = ''; vec($ready, fileno(S), 1) = 1;
    next unless select($ready, undef, undef, 0.1);
    recv(S, my $answer, 1500, 0);
    print \"$answer\\n\" if $answer ne $last;
    $last = $answer;
    exit if $answer =~ /b$/;
    select(undef, undef, undef, 0.05);
}
";

#[test]
fn a_udp_client_that_goes_on_sending_reaches_the_instance_that_replaces_another() {
    let lab = Lab::cluster(2);
    lab.file("server.pl", UDP_SERVER);
    let client = lab.file("client.pl", UDP_CLIENT);
    let compose = |tag: &str| {
        format!(
            "name: shop\nservices:\n  dns:\n    image: vc-test:1\n    command: [perl, -MSocket, /server.pl]\n    \
             environment: {{TAG: {tag}}}\n    stop_grace_period: 1s\n    \
             volumes: ['./server.pl:/server.pl', '/usr:/usr:ro', '/lib:/lib:ro', '/lib64:/lib64:ro']\n    \
             entrypoint: [/usr/bin/env, PATH=/usr/bin:/bin]\n    \
             ports: [{{target: 53, published: 9053, protocol: udp, mode: host}}]\n    \
             deploy: {{placement: {{constraints: [node.name == h1]}}, update_config: {{monitor: 500ms, order: start-first}}}}\n"
        )
    };
    lab.deploy(1, &compose("a"), &["--wait"]).done();
    let client = lab.command(&["exec", "2", "--", "perl", "-MSocket", &client]);
    let client = std::thread::spawn(move || run(client));
    until("the kernel has a flow to the instance", DEADLINE, || {
        let rules = redirections(&lab, 1);
        if rules.contains("--dport 9053") { Ok(()) } else { Err(rules) }
    });
    lab.deploy(1, &compose("b"), &["--wait"]).done();
    let output = client.join().expect("it ends");
    assert!(output.out.ends_with("10.77.0.12 b\n"), "{output:?}");
    assert!(output.out.contains("10.77.0.12 a\n"), "{output:?}");
}
