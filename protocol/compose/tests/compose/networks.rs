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
    let top = "networks: {front: {driver: overlay, labels: [a=b]}, back: {name: back, external: false}, unused: }";
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
            "networks: [Front]",
            "services.s.networks[0]: 'Front' is not a name: use 1 to 63 lower-case letters, digits and '-', starting with a letter or a digit",
        ),
        (
            "networks: {default: {ipv4_address: 10.0.0.2}}",
            "services.s.networks.default.ipv4_address is not supported: services are found by name",
        ),
        (
            "networks: {default: {priority: 1}}",
            "services.s.networks.default.priority is not supported",
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
            "external: true",
            "networks.n.external: a network is the project's own: declare it without",
        ),
        ("internal: true", "networks.n.internal: networks without a way out are not supported"),
        ("ipam: {}", "networks.n.ipam is not supported: each node gives out its own addresses"),
        (
            "driver_opts: {a: b}",
            "networks.n.driver_opts is not supported: the cluster makes the network",
        ),
        (
            "driver: macvlan",
            "networks.n.driver: 'macvlan' is not supported: every network spans the nodes: leave it out",
        ),
        ("name: other", "networks.n.name is not supported: within the project it is 'n'"),
        ("attachable: true", "networks.n.attachable is not supported"),
    ] {
        let top = format!("networks: {{n: {{{top}}}}}");
        assert_eq!(beside(&top, "").unwrap_err(), refusal);
    }
}
