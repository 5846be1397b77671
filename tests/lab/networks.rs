//! Networks beyond a project's own: shared by projects, internal, the host's, and that of another service.

use crate::harness::command::CommandOutput;
use crate::harness::lab::{Container, Lab};
use crate::harness::{DEADLINE, until};

/// Sends an HTTP request from a container, by name or address.
fn ask(lab: &Lab, at: &(usize, Container), host: &str, port: u16) -> CommandOutput {
    let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {host} {port}");
    lab.inside(at.0, &at.1, &["sh", "-c", &ask])
}

fn answers(lab: &Lab, at: &(usize, Container), host: &str, port: u16) {
    until(&format!("{host}:{port} answers"), DEADLINE, || {
        let output = ask(lab, at, host, port);
        if output.out.trim().ends_with("vc-test:1") { Ok(()) } else { Err(output) }
    });
}

fn refuses(lab: &Lab, at: &(usize, Container), host: &str, port: u16) {
    let output = ask(lab, at, host, port);
    assert!(!output.out.contains("vc-test"), "{host}:{port}: {output:?}");
}

/// Returns a service that sleeps on a host.
fn sleeps(name: &str, host: usize, more: &str) -> String {
    service(name, host, "[sleep, '900']", more)
}

/// Returns a service on a host that answers HTTP requests at port 80.
fn serves(name: &str, host: usize, more: &str) -> String {
    service(name, host, "[httpd, -f, -h, /www]", more)
}

fn service(name: &str, host: usize, command: &str, more: &str) -> String {
    format!(
        "  {name}:\n    image: vc-test:1\n    command: {command}\n    stop_grace_period: 1s\n\
         {more}    deploy:\n      placement: {{constraints: [node.name == h{host}]}}\n      \
         update_config: {{monitor: 500ms}}\n"
    )
}

#[test]
fn projects_share_a_network_and_an_internal_one_has_no_way_out() {
    let lab = Lab::cluster(2);
    let shared = "networks: {web: {external: true}, default: }\n";
    let shop = format!(
        "name: shop\nservices:\n{}{}{}networks: {{web: {{external: true}}, back: {{internal: true}}, front: }}\n",
        serves("app", 2, "    networks: {web: {aliases: [shop.local]}, back: }\n"),
        serves("db", 2, "    networks: [back]\n"),
        // Docker would choose the way out of the first network.
        sleeps("worker", 1, "    networks: [back, front]\n"),
    );
    let proxy =
        format!("name: proxy\nservices:\n{}{shared}", sleeps("nginx", 1, "    networks: [web]\n"));
    lab.deploy(1, &shop, &["--wait"]).done();
    lab.deploy(2, &proxy, &["--wait"]).done();
    let (nginx, db, worker) =
        (lab.only("proxy/nginx"), lab.only("shop/db"), lab.only("shop/worker"));

    answers(&lab, &nginx, "app", 80);
    answers(&lab, &nginx, "shop.local", 80);
    refuses(&lab, &nginx, "db", 80);

    // Of what is outside, the console of the other host and a published port of this one.
    lab.deploy(
        1,
        &format!("name: out\nservices:\n{}", serves("www", 1, "    ports: ['8080:80']\n")),
        &["--wait"],
    )
    .done();
    answers(&lab, &nginx, "10.77.0.12", 8080);
    answers(&lab, &worker, "10.77.0.12", 8080);
    answers(&lab, &worker, "db", 80);
    answers(&lab, &db, "app", 80);
    for host in ["10.77.0.11", "10.77.0.12"] {
        refuses(&lab, &db, host, 8080);
    }
    let lookup = lab.inside(db.0, &db.1, &["nslookup", "-type=a", "example.org"]);
    assert!(lookup.out.contains("NXDOMAIN"), "no query leaves: {lookup:?}");

    // Who may not join a network of others.
    let token = lab.vc(1, &["token", "create", "--user", "dora", "--role", "deployer"]).done();
    let error = lab
        .deploy(
            1,
            &proxy.replace("stop_grace_period: 1s", "stop_grace_period: 2s"),
            &["--token", token.trim()],
        )
        .refused();
    assert!(error.contains("the shared network web") && error.contains("networks=web"), "{error}");
}

#[test]
fn a_service_has_the_network_of_its_host_or_of_another_service() {
    let lab = Lab::cluster(2);
    let compose = format!(
        "name: home\nservices:\n{}{}{}{}",
        serves("hub", 1, "    network_mode: host\n    ports: ['80:80']\n"),
        sleeps("other", 2, ""),
        serves("vpn", 2, "").replace("    deploy:", "    hostname: tunnel\n    deploy:"),
        "  client:\n    image: vc-test:1\n    command: [httpd, -f, -p, '81', -h, /www]\n    network_mode: service:vpn\n    \
         deploy: {update_config: {monitor: 500ms}}\n",
    );
    lab.deploy(2, &compose, &["--wait"]).done();
    let other = lab.only("home/other");
    // At the address of the host, and by its name on the other one; no other port of that host.
    assert_eq!(lab.get(2, "http://10.77.0.11:80/").done().trim(), "vc-test:1");
    answers(&lab, &other, "hub", 80);
    let output = ask(&lab, &other, "hub", 4779);
    assert!(output.out.is_empty(), "the console of the node: {output:?}");
    // A second one that listens at the port of the host does not go there.
    let second = serves("second", 1, "    network_mode: host\n    ports: ['80:80']\n");
    lab.deploy(1, &format!("name: second\nservices:\n{second}"), &[]).done();
    let row = &lab.rows(1, &["ps", "second/second"])[0];
    assert!(row["reason"].as_str().is_some_and(|it| it.contains("host port 80")), "{row}");

    // Both are at the address of the one; without it the other is stopped.
    let (host, client) = lab.only("home/client");
    assert_eq!(host, 2);
    assert_eq!(lab.inside(host, &client, &["hostname"]).done().trim(), "tunnel");
    answers(&lab, &other, "vpn", 80);
    answers(&lab, &other, "vpn", 81);
    let (_, vpn) = lab.only("home/vpn");
    lab.docker(2, &["kill", &vpn.id]).done();
    until("the client was started with the next run of its network", DEADLINE, || {
        let now = lab.containers(2);
        match now.iter().find(|it| it.service() == "home/client") {
            Some(it) if it.id != client.id => Ok(()),
            _ => Err(format!("{now:?}")),
        }
    });
    answers(&lab, &other, "vpn", 81);
}
