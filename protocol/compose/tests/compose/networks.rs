//! `networks` and `container_name`.

use crate::{all_refused, beside};

/// `network: alias alias` of each network of the service.
fn networks(top: &str, lines: &str) -> Vec<String> {
    let container = &beside(top, lines).unwrap().services[0].spec.container;
    let line = |(name, aliases): (_, &std::collections::BTreeSet<String>)| {
        let aliases: Vec<&str> = aliases.iter().map(String::as_str).collect();
        format!("{name}: {}", aliases.join(" "))
    };
    container.networks.iter().map(line).collect()
}

#[test]
fn networks_and_aliases_are_read() {
    let top =
        "networks: {front: {driver: overlay, labels: [a=b]}, back: {external: false}, unused: }";
    assert_eq!(networks("", ""), Vec::<String>::new(), "the default network");
    assert_eq!(networks("", "networks: [default]"), ["default: "]);
    assert_eq!(networks(top, "networks: [front, back]"), ["back: ", "front: "]);
    assert_eq!(
        networks(
            top,
            "networks: {front: {aliases: [WWW, web.shop]}, back: }\ncontainer_name: My_Web"
        ),
        ["back: my_web", "front: my_web web.shop www"]
    );
    assert_eq!(networks("", "container_name: db\nscale: 2"), ["default: db"], "replicas share it");
}

#[test]
fn unsupported_network_options_are_refused() {
    all_refused(&[
        (
            "networks: [front]",
            "services.s.networks[0] is not declared: write networks: {front: } at the top",
        ),
        (
            "networks: {default: {aliases: [a b]}}",
            "services.s.networks.default.aliases[0]: 'a b' is not a host name: use letters, digits, '-', '_' and '.'",
        ),
        (
            "container_name: a/b",
            "services.s.container_name: 'a/b' is not a host name: use letters, digits, '-', '_' and '.'",
        ),
    ]);
    for (top, refusal) in [
        (
            "driver_opts: {a: b}",
            "networks.n.driver_opts is not supported: the cluster makes the network",
        ),
        (
            "driver: macvlan",
            "networks.n.driver: 'macvlan' is not supported: every network spans the nodes: leave it out",
        ),
    ] {
        let top = format!("networks: {{n: {{{top}}}}}");
        assert_eq!(beside(&top, "").unwrap_err(), refusal);
    }
}

/// The networks of the service as JSON, and the warnings.
fn container(top: &str, lines: &str) -> (serde_json::Value, Vec<String>) {
    let project = beside(top, lines).unwrap();
    let mut container = serde_json::to_value(&project.services[0].spec.container).unwrap();
    container.as_object_mut().unwrap().retain(|key, _| key.contains("network"));
    (container, project.warnings)
}

#[test]
fn a_network_with_a_name_is_shared_by_projects() {
    let web = serde_json::json!({"shared_networks": {"proxy": []}});
    for options in ["external: true, name: proxy", "name: proxy", "external: {name: proxy}"] {
        let top = format!("networks: {{n: {{{options}}}}}");
        assert_eq!(container(&top, "networks: [n]"), (web.clone(), Vec::new()), "{options}");
    }
    assert_eq!(container("networks: {proxy: {external: true}}", "networks: [proxy]").0, web);
    // The default network may be one of these, for services that name none.
    let top = "networks: {default: {name: proxy, external: true}}";
    assert_eq!(container(top, "").0, web);
    let both =
        serde_json::json!({"networks": {"back": ["s2"]}, "shared_networks": {"proxy": ["s2"]}});
    let top = "networks: {back: , proxy: {external: true}}";
    assert_eq!(container(top, "networks: [back, proxy]\ncontainer_name: s2").0, both);
}

#[test]
fn an_internal_network_has_no_way_out() {
    let top = "networks: {back: {internal: true}, front: }";
    let expected =
        serde_json::json!({"networks": {"back": [], "front": []}, "internal_networks": ["back"]});
    assert_eq!(container(top, "networks: [back, front]"), (expected, Vec::new()));
    assert_eq!(
        beside("networks: {n: {internal: true, name: x}}", "networks: [n]").unwrap_err(),
        "networks.n is shared by projects and internal: write one of name (or external) and internal"
    );
}

#[test]
fn network_mode_is_host_none_or_that_of_a_service() {
    for mode in ["bridge", "default"] {
        assert_eq!(container("", &format!("network_mode: {mode}")).0, serde_json::json!({}));
    }
    let other = "  vpn: {image: i}";
    let (json, _) = container(other, "network_mode: none");
    assert_eq!(json, serde_json::json!({"network_mode": "none"}));
    let project = beside(other, "network_mode: 'service:vpn'").unwrap();
    let named = "  vpn: {image: i, container_name: home-vpn}";
    let by_container = beside(named, "network_mode: 'container:home-vpn'").unwrap();
    assert_eq!(
        by_container.services[0].spec.container.network_mode,
        project.services[0].spec.container.network_mode
    );
    let spec = &project.services[0].spec;
    assert_eq!(
        serde_json::json!(spec.container.network_mode),
        serde_json::json!({"service": "vpn"})
    );
    assert!(spec.depends_on.contains_key(&"vpn".parse().unwrap()));
    assert!(!spec.starts_first(), "both would listen on the same network");
    all_refused(&[
        (
            "network_mode: 'container:x'",
            "services.s.network_mode: 'container:x' names no container of this file: write service:NAME, and x as a service of this file",
        ),
        (
            "network_mode: macvlan",
            "services.s.network_mode: 'macvlan' is not supported: write host, none, service:NAME or bridge",
        ),
        (
            "network_mode: 'service:gone'",
            "services.s.network_mode names no service of the file that is deployed",
        ),
        (
            "network_mode: host\nnetworks: [default]",
            "services.s.networks has no effect with network_mode: keep one of them",
        ),
    ]);
    for (other, lines, refusal) in [
        (
            "  vpn: {image: i, network_mode: 'service:s'}",
            "network_mode: 'service:vpn'",
            "services.s.network_mode names a service that itself has the network of s: name that; services.vpn.network_mode names a service that itself has the network of vpn: name that; services.s.depends_on is a cycle: s -> vpn -> s",
        ),
        (
            "  vpn: {image: i, network_mode: host}",
            "network_mode: 'service:vpn'",
            "services.s.network_mode names a service on the network of its host: write host here too",
        ),
        (
            "  vpn: {image: i}",
            "network_mode: 'service:vpn'\nports: ['80:80']",
            "services.s: ports of a service that has the network of another are ports of the other: write them there",
        ),
        (
            "  vpn: {image: i}",
            "network_mode: 'service:vpn'\nhostname: s",
            "services.s: network_mode is that of another service, whose hostname, extra_hosts, dns, dns_search and dns_opt count: write them there",
        ),
    ] {
        assert_eq!(beside(other, lines).unwrap_err(), refusal);
    }
}

#[test]
fn on_the_network_of_the_host_ports_are_those_of_the_program() {
    let project =
        beside("", "network_mode: host\nports: ['8080:80', '53:53/udp']\nexpose: ['9000']")
            .unwrap();
    let spec = &project.services[0].spec;
    let ports: Vec<String> = spec
        .ports
        .iter()
        .map(|it| {
            format!("{}:{}/{} {:?}", it.published, it.target, it.protocol.as_str(), it.publish)
        })
        .collect();
    assert_eq!(ports, ["53:53/udp Node", "80:80/tcp Node", "9000:9000/tcp Node"]);
    assert!(spec.expose.is_empty());
    assert_eq!(
        project.warnings,
        [
            "services.s publishes 80 as 8080, which has no effect with network_mode: host: the program listens at 80 of its host"
        ]
    );
}

#[test]
fn a_link_is_an_alias_and_a_dependency() {
    let other = "  db: {image: i, networks: [back]}\n  plain: {image: i}\nnetworks: {back: }";
    let project = beside(other, "links: [db, 'db:Database', 'plain:other']").unwrap();
    let networks = |index: usize| {
        let spec = &project.services[index].spec;
        serde_json::to_string(&spec.container.networks).unwrap()
    };
    assert_eq!(
        [networks(0), networks(1)],
        [r#"{"back":["database"]}"#, r#"{"default":["other"]}"#]
    );
    let waits: Vec<&str> =
        project.services[2].spec.depends_on.keys().map(|it| it.as_str()).collect();
    assert_eq!(waits, ["db", "plain"]);
    all_refused(&[
        ("links: [gone]", "services.s.links[0] names no service of the file that is deployed"),
        (
            "links: ['s:a b']",
            "services.s.links[0]: 'a b' is not a host name: use letters, digits, '-', '_' and '.'",
        ),
    ]);
}
