//! Networks of a project, and a service's aliases on each.

use std::collections::{BTreeMap, BTreeSet};

use super::problem::Problem;
use super::walk::At;
use super::yaml::Node;
use super::{environment, names};
use vc_protocol::Name;
use vc_protocol::spec::validate::is_alias;

/// The network of services that name none; it need not be declared.
const DEFAULT: &str = "default";

/// Why a second name is refused that is the same in lower case.
pub(super) const TWICE: &str =
    "has the name of another one: in lower case, with '-' for each dot, they are the same";

/// Reads `networks:` at the top.
pub(super) fn declared(at: Option<&At<'_>>) -> BTreeSet<Name> {
    let mut found = BTreeSet::new();
    for (key, at) in at.map(At::entries).unwrap_or_default() {
        match names::parse(key) {
            Ok(name) if found.contains(&name) => at.refuse(TWICE),
            Ok(name) => drop(found.insert(name)),
            Err(why) => at.invalid(why),
        }
        if *at.node != Node::Null {
            options(key, &at);
        }
    }
    found
}

fn options(key: &str, at: &At<'_>) {
    let mut fields = at.fields();
    let name = fields.take("name").and_then(|at| at.text()).filter(|name| *name != key);
    if let Some(at) = fields.take("driver")
        && let Some(other) = at.text().filter(|it| !matches!(*it, "bridge" | "overlay"))
    {
        at.invalid(format!(
            "'{other}' is not supported: every network spans the nodes: leave it out"
        ));
    }
    // Checked and otherwise unused.
    fields.take("labels").map(|at| environment::labels(&at));
    fields.take("attachable").and_then(|at| at.bool());
    if fields.take("external").and_then(|at| at.bool()) == Some(true) || name.is_some() {
        at.warn(
            "is the project's own network: services of other projects are not on it, and are reached at the ports that they publish",
        );
    }
    if fields.take("internal").and_then(|at| at.bool()) == Some(true) {
        at.warn("has a way out: 'internal' is not supported, and does not keep its services from the internet");
    }
    if fields.take("ipam").is_some() {
        at.warn("has ipam, which has no effect: each node gives out its own addresses, and services are found by name");
    }
    // The nodes' networks have no IPv6.
    if fields.take("enable_ipv6").and_then(|at| at.bool()) == Some(true) {
        at.warn("has enable_ipv6, which has no effect: instances reach each other over IPv4");
    }
    fields.take("enable_ipv4").and_then(|at| at.bool());
    fields.finish(&[("driver_opts", " is not supported: the cluster makes the network")]);
}

/// Returns the name of the network of services that name none.
pub(super) fn default_name() -> Option<Name> {
    DEFAULT.parse().ok()
}

/// Reads the networks of a service and its aliases on each, from `networks` and `container_name`. Empty: the default
/// network, without aliases. `written` is the name of the service in the file, if it has another one here.
pub(super) fn read(
    networks: Option<&At<'_>>,
    container_name: Option<&At<'_>>,
    written: Option<&str>,
    declared: &BTreeSet<Name>,
) -> BTreeMap<Name, BTreeSet<String>> {
    let mut found: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
    for (name, aliases, at) in networks.map(entries).unwrap_or_default() {
        match names::parse(name) {
            Ok(name) if declared.contains(&name) || name.as_str() == DEFAULT => {
                found.entry(name).or_default().extend(aliases);
            }
            Ok(name) => {
                at.refuse(format!("is not declared: write networks: {{{name}: }} at the top"))
            }
            Err(why) => at.invalid(why),
        }
    }
    let written = written.and_then(|name| alias(name).ok());
    let named = container_name.and_then(|at| at.read(alias));
    for alias in named.into_iter().chain(written) {
        if found.is_empty() {
            found.extend(default_name().map(|name| (name, BTreeSet::new())));
        }
        found.values_mut().for_each(|aliases| aliases.extend([alias.clone()]));
    }
    found
}

/// Returns each network of the list or map at `at`, with its aliases.
fn entries<'a>(at: &At<'a>) -> Vec<(&'a str, Vec<String>, At<'a>)> {
    if let Node::List(_) = at.node {
        let items = at.items().into_iter();
        return items.filter_map(|item| Some((item.text()?, Vec::new(), item))).collect();
    }
    let mut found = Vec::new();
    for (name, at) in at.entries() {
        let mut aliases = Vec::new();
        if *at.node != Node::Null {
            let mut fields = at.fields();
            let items = fields.take("aliases").map(|at| at.items()).unwrap_or_default();
            aliases.extend(items.iter().filter_map(|item| item.read(alias)));
            let ids = ["ipv4_address", "ipv6_address", "link_local_ips", "mac_address"];
            for id in ids.into_iter().filter_map(|key| fields.take(key)) {
                id.warn("has no effect: each node gives out its own addresses; services that name this one by it need its name instead");
            }
            let others = ["priority", "gw_priority", "interface_name", "driver_opts"];
            for other in others.into_iter().filter_map(|key| fields.take(key)) {
                other.warn("has no effect: the cluster makes the networks");
            }
            fields.finish(&[]);
        }
        found.push((name, aliases, at));
    }
    found
}

/// Parses an alias into lower case: DNS ignores case.
pub(super) fn alias(text: &str) -> Result<String, Problem> {
    if is_alias(text) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Problem::new(format!(
            "'{text}' is not a host name: use letters, digits, '-', '_' and '.'"
        )))
    }
}
