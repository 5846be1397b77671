//! `ports`, `expose` and `x-vc.publish`.

use vc_protocol::spec::{PortProtocol, ProxyProtocol, Publish};

use crate::{all_refused, parse, service};

/// `published->target/protocol publish` of each port, and `target/protocol` of what is exposed.
fn reached(lines: &str) -> (Vec<String>, Vec<String>) {
    let spec = service(lines).unwrap().spec;
    let protocol = |it: PortProtocol| it.as_str();
    let ports = spec.ports.iter().map(|it| {
        let publish = if it.publish == Publish::Cluster { "cluster" } else { "node" };
        format!("{}->{}/{} {publish}", it.published, it.target, protocol(it.protocol))
    });
    let expose = spec.expose.iter().map(|it| format!("{}/{}", it.target, protocol(it.protocol)));
    (ports.collect(), expose.collect())
}

#[test]
fn ports_are_published_on_every_node_by_default() {
    let ports = |lines| reached(lines).0;
    assert_eq!(
        ports("ports: ['8080:80', '53:53/udp']"),
        ["53->53/udp cluster", "8080->80/tcp cluster"]
    );
    let long = "ports: [{target: 80, published: 8080, mode: host, name: web, app_protocol: http}, {target: 81, published: '8081', mode: ingress}, '82:82']";
    assert_eq!(ports(long), ["82->82/tcp cluster", "8080->80/tcp node", "8081->81/tcp cluster"]);
    // For all ports of a service, but for those that say it themselves.
    assert_eq!(
        ports(&format!("{long}\nx-vc: {{publish: node}}")),
        ["82->82/tcp node", "8080->80/tcp node", "8081->81/tcp cluster"]
    );
}

#[test]
fn the_proxy_protocol_is_set_for_a_service_or_a_port() {
    let of = |lines: &str| {
        let spec = service(lines).unwrap().spec;
        spec.ports.iter().map(|it| (it.published, it.proxy_protocol)).collect::<Vec<_>>()
    };
    let (v1, v2) = (Some(ProxyProtocol::V1), Some(ProxyProtocol::V2));
    assert_eq!(of("ports: ['80:80']"), [(80, None)]);
    assert_eq!(
        of(
            "ports: ['80:80', '53:53/udp', {target: 9, published: 9, x-vc: {proxy_protocol: false}}]\n\
            x-vc: {proxy_protocol: true}"
        ),
        [(9, None), (53, None), (80, v2)]
    );
    assert_eq!(
        of("ports: ['80:80', {target: 443, published: 443, x-vc: {proxy_protocol: v1}}]"),
        [(80, None), (443, v1)]
    );
    all_refused(&[
        (
            "ports: ['80:80']\nx-vc: {proxy_protocol: 'on'}",
            "services.s.x-vc.proxy_protocol: 'on' is not known: write true, false, v1 or v2",
        ),
        (
            "ports: ['53:53/udp']\nx-vc: {proxy_protocol: true}",
            "services.s has x-vc.proxy_protocol, but publishes no TCP port that would use it",
        ),
        (
            "ports: [{target: 53, published: 53, protocol: udp, x-vc: {proxy_protocol: v2}}]",
            "services.s.ports[0] is a UDP port, for which there is no x-vc.proxy_protocol",
        ),
        (
            "ports: [{target: 53, x-vc: {proxy_protocol: v2}}]\nx-vc: {publish: none}",
            "services.s.ports[0] has x-vc.proxy_protocol, but x-vc.publish is none: keep one",
        ),
    ]);
}

#[test]
fn unpublished_ports_are_exposed() {
    let exposed = |lines| {
        let (ports, expose) = reached(lines);
        assert_eq!(ports, Vec::<String>::new(), "{lines}");
        expose
    };
    assert_eq!(
        exposed("expose: ['8000', 9000-9002, 53/udp, 8000]"),
        ["53/udp", "8000/tcp", "9000/tcp", "9001/tcp", "9002/tcp"].map(str::to_owned).to_vec()
    );
    assert_eq!(
        exposed(
            "ports: ['80', '8080:81', {target: 82}, '90-91/udp']\nexpose: [7]\nx-vc: {publish: none}"
        ),
        ["7/tcp", "80/tcp", "81/tcp", "82/tcp", "90/udp", "91/udp"]
    );
}

#[test]
fn two_services_cannot_publish_the_same_port() {
    let two = |a: &str, b: &str| {
        let text = format!("services: {{a: {{image: i, {a}}}, b: {{image: i, {b}}}}}");
        parse(&text).map(|_| ()).map_err(|e| e.to_string())
    };
    let clash = Err("services.b.ports publishes port 80/tcp, as services.a does".to_owned());
    let node = "ports: ['80:80'], x-vc: {publish: node}";
    assert_eq!(two("ports: ['80:80']", "ports: ['80:81']"), clash);
    assert_eq!(two(node, "ports: ['1.2.3.4:80:81']"), clash);
    assert_eq!(two(node, node), Ok(()), "they run on two nodes");
    assert_eq!(two("ports: ['80:80']", "ports: ['80:80/udp']"), Ok(()));
    assert_eq!(two("ports: ['1.2.3.4:80:80']", "ports: ['1.2.3.5:80:80']"), Ok(()));
}

#[test]
fn the_ports_of_a_file_are_limited() {
    let file = |services: usize| {
        let shared = "x-s: &s {image: i, expose: [1-2048]}\nservices:\n".to_owned();
        (0..services).fold(shared, |text, i| text + &format!("  s{i}: *s\n"))
    };
    assert!(parse(&file(8)).is_ok());
    let refused = parse(&file(9)).unwrap_err().to_string();
    let expected =
        "services.s8.expose[0] is one too many: the services of a file have 16384 ports at most";
    assert_eq!(refused, expected);
}

#[test]
fn invalid_ports_are_refused() {
    all_refused(&[
        (
            "ports: [1-3000:1-3000]",
            "services.s.ports[0] is one too many: a service has 2048 ports at most",
        ),
        (
            "expose: [1-2000, 2001-3000]",
            "services.s.expose[1] is one too many: a service has 2048 ports at most",
        ),
        ("expose: [80/sctp]", "services.s.expose[0]: 'sctp' is not supported: write tcp or udp"),
        (
            "ports: [{target: 80, published: 80, mode: replicated}]",
            "services.s.ports[0].mode: 'replicated' is not a mode: write ingress or host",
        ),
        (
            "ports: [{target: 80, published: 80, mode: host}]\nx-vc: {publish: none}",
            "services.s.ports[0] says its mode, but x-vc.publish is none: keep one",
        ),
        (
            "x-vc: {publish: all}",
            "services.s.x-vc.publish: 'all' is not known: write cluster, node or none",
        ),
        ("ports: [80:80, 80:81]", "services.s.ports publishes port 80/tcp twice"),
        (
            "ports: ['1.2.3.4:80:80', '0.0.0.0:80:81']",
            "services.s.ports publishes port 80/tcp twice",
        ),
        ("ports: 80:80", "services.s.ports must be a list"),
        (
            "ports: [{published: 80}]",
            "services.s.ports[0] has no target: name the port of the instance",
        ),
        (
            "ports: [{target: 80, published: 80-90}]",
            "services.s.ports[0].published: '80-90' is not a port: write a number from 1 to 65535",
        ),
    ]);
}

#[test]
fn a_port_without_a_published_side_is_chosen_by_the_deployment() {
    let spec = service("ports: ['80', '81-82/udp', '127.0.0.1::90', {target: 91, mode: host}, 80]")
        .unwrap()
        .spec;
    assert!(spec.ports.is_empty());
    assert_eq!(
        serde_json::to_value(&spec.dynamic_ports).unwrap(),
        serde_json::json!([
            {"target": 80, "protocol": "tcp"},
            {"target": 81, "protocol": "udp"},
            {"target": 82, "protocol": "udp"},
            {"target": 91, "protocol": "tcp", "publish": "node"},
            {"host_ip": "127.0.0.1", "target": 90, "protocol": "tcp"},
        ])
    );
    assert!(service("ports: ['80']\nx-vc: {publish: none}").unwrap().spec.dynamic_ports.is_empty());
}
