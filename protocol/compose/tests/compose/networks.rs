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

#[test]
fn a_network_that_is_not_as_elsewhere_is_warned_of() {
    let own = "networks.n is the project's own network: services of other projects are not on it, and are reached at the ports that \
               they publish";
    for (options, warning) in [
        ("external: true", own),
        ("external: true, name: proxy", own),
        ("name: other, attachable: true", own),
        (
            "internal: true",
            "networks.n has a way out: 'internal' is not supported, and does not keep its services from the internet",
        ),
    ] {
        let top = format!("networks: {{n: {{{options}}}}}");
        let project = beside(&top, "networks: [n]").unwrap();
        assert_eq!(project.warnings, [warning], "{options}");
    }
    let project = beside("networks: {n: {external: false, name: n}}", "networks: [n]").unwrap();
    assert_eq!(project.warnings, [""; 0]);
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
