//! The networks of a service: those that the file declares, with its aliases on each, or what it has instead.

use std::collections::{BTreeMap, BTreeSet};

use super::model::Service;
use super::problem::Problem;
use super::walk::{At, Fields, Walk};
use super::yaml::Node;
use super::{declared, environment, names};
use vc_protocol::Name;
use vc_protocol::spec::validate::is_alias;
use vc_protocol::spec::{
    ContainerSpec, DEFAULT_NETWORK, Dependency, Deployment, NetworkMode, Port, Publish, ServiceMode,
};

/// Why a second name is refused that is the same in lower case.
pub(super) const TWICE: &str =
    "has the name of another one: in lower case, with '-' for each dot, they are the same";

/// A network that the file declares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Declared {
    /// Its name in the cluster, if projects share it.
    shared: Option<Name>,
    /// Whether nothing outside of it is reached.
    internal: bool,
}

/// What services can name in `networks` and `network_mode`.
pub(super) struct Networks {
    declared: BTreeMap<Name, Declared>,
    /// The services by their `container_name`, where they have one.
    containers: BTreeMap<String, Name>,
}

impl Networks {
    /// Reads `networks:` at the top; `services` are the services of the file, unread.
    pub(super) fn read(at: Option<&At<'_>>, services: &[(&str, At<'_>)]) -> Self {
        let container = |(name, at): &(&str, At<'_>)| match at.node {
            Node::Map(map) => match map.get("container_name")? {
                Node::Text(container) => Some((container.clone(), names::parse(name).ok()?)),
                _ => None,
            },
            _ => None,
        };
        let containers = services.iter().filter_map(container).collect();
        Self { declared: declared(at), containers }
    }

    /// Parses `network_mode`; `None`: the networks of the service.
    fn mode(&self, text: &str) -> Result<Option<NetworkMode>, Problem> {
        match text {
            "bridge" | "default" => return Ok(None),
            "host" => return Ok(Some(NetworkMode::Host)),
            "none" => return Ok(Some(NetworkMode::None)),
            _ => {}
        }
        match text.split_once(':') {
            Some(("service", name)) => {
                let name = names::parse(name).map_err(|why| Problem::new(why.to_string()))?;
                Ok(Some(NetworkMode::Service(name)))
            }
            Some(("container", name)) => match self.containers.get(name) {
                Some(service) => Ok(Some(NetworkMode::Service(service.clone()))),
                None => Err(Problem::new(format!(
                    "'{text}' names no container of this file: write service:NAME, and {name} as a service of this file"
                ))),
            },
            _ => Err(Problem::new(format!(
                "'{text}' is not supported: write host, none, service:NAME or bridge"
            ))),
        }
    }
}

/// Reads `networks:` at the top.
fn declared(at: Option<&At<'_>>) -> BTreeMap<Name, Declared> {
    let mut found = BTreeMap::new();
    for (key, at) in at.map(At::entries).unwrap_or_default() {
        let declared = match at.node {
            Node::Null => Declared::default(),
            _ => options(key, &at),
        };
        match names::parse(key) {
            Ok(name) if found.contains_key(&name) => at.refuse(TWICE),
            Ok(name) => drop(found.insert(name, declared)),
            Err(why) => at.invalid(why),
        }
    }
    found
}

/// Reads a declaration. A name, or that it is external, makes it one that projects share.
fn options(key: &str, at: &At<'_>) -> Declared {
    let mut fields = at.fields();
    let mut name = fields.take("name").and_then(|at| at.read(names::parse));
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
    let (external, old_name) = declared::external(&mut fields);
    name = old_name.and_then(|at| at.read(names::parse)).or(name);
    let internal = fields.take("internal").and_then(|at| at.bool()) == Some(true);
    if fields.take("ipam").is_some() {
        at.warn("has ipam, which has no effect: each node gives out its own addresses, and services are found by name");
    }
    // The nodes' networks have no IPv6.
    if fields.take("enable_ipv6").and_then(|at| at.bool()) == Some(true) {
        at.warn("has enable_ipv6, which has no effect: instances reach each other over IPv4");
    }
    fields.take("enable_ipv4").and_then(|at| at.bool());
    fields.finish(&[("driver_opts", " is not supported: the cluster makes the network")]);
    let shared = match name {
        None if external => names::parse(key).ok(),
        name => name,
    };
    if shared.is_some() && internal {
        at.refuse(
            "is shared by projects and internal: write one of name (or external) and internal",
        );
    }
    Declared { shared, internal }
}

/// Sets the networks of a service and its aliases on each, from `networks` and `container_name`, or what it has instead, from
/// `network_mode`. `written` is the name of the service in the file, if it has another one here.
pub(super) fn take(
    fields: &mut Fields<'_>,
    written: Option<&str>,
    top: &Networks,
    to: &mut ContainerSpec,
) {
    let named = fields.take("container_name").and_then(|at| at.read(alias));
    let written = written.and_then(|name| alias(name).ok());
    let alias: BTreeSet<String> = named.into_iter().chain(written).collect();
    let networks = fields.take("networks");
    let mode = fields.take("network_mode").and_then(|at| at.read(|text| top.mode(text)));
    to.network_mode = mode.flatten();
    let declared = &top.declared;
    if let (Some(_), Some(at)) = (&to.network_mode, &networks) {
        at.refuse("has no effect with network_mode: keep one of them");
    }
    if to.network_mode.is_some() {
        return;
    }
    let mut named: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
    for (name, aliases, at) in networks.as_ref().map(entries).unwrap_or_default() {
        match names::parse(name) {
            Ok(name) if declared.contains_key(&name) || name.as_str() == DEFAULT_NETWORK => {
                named.entry(name).or_default().extend(aliases);
            }
            Ok(name) => {
                at.refuse(format!("is not declared: write networks: {{{name}: }} at the top"))
            }
            Err(why) => at.invalid(why),
        }
    }
    let default = || DEFAULT_NETWORK.parse::<Name>().ok();
    // The default network without an alias need not be said, unless it is another than it seems.
    if named.is_empty()
        && let Some(default) = default()
        && (!alias.is_empty()
            || declared.get(&default).is_some_and(|it| *it != Declared::default()))
    {
        named.insert(default, BTreeSet::new());
    }
    for (name, mut aliases) in named {
        aliases.extend(alias.clone());
        let Declared { shared, internal } = declared.get(&name).cloned().unwrap_or_default();
        match shared {
            Some(shared) => to.shared_networks.entry(shared).or_default().extend(aliases),
            None => {
                to.internal_networks.extend(internal.then(|| name.clone()));
                to.networks.insert(name, aliases);
            }
        }
    }
}

/// Gives a service another name on all of its networks. One without networks of its own has none.
pub(super) fn add_alias(container: &mut ContainerSpec, alias: &str) {
    if container.network_mode.is_some() {
        return;
    }
    if container.networks.is_empty() && container.shared_networks.is_empty() {
        let default = DEFAULT_NETWORK.parse().ok();
        container.networks.extend(default.map(|name: Name| (name, BTreeSet::new())));
    }
    let all = container.networks.values_mut().chain(container.shared_networks.values_mut());
    all.for_each(|aliases| aliases.extend([alias.to_owned()]));
}

/// Returns the ports that a program on the network of its host binds itself, of those that it publishes and exposes.
pub(super) fn host_ports(
    at: &At<'_>,
    ports: Vec<Port>,
    exposed: Vec<vc_protocol::spec::Expose>,
) -> Vec<Port> {
    if let Some(port) = ports.iter().find(|it| it.published != it.target) {
        at.warn(format!(
            "publishes {} as {}, which has no effect with network_mode: host: the program listens at {} of its host",
            port.target, port.published, port.target
        ));
    }
    if ports.iter().any(|it| it.proxy_protocol.is_some()) {
        at.refuse("has x-vc.proxy_protocol, but with network_mode: host no node forwards its connections: leave it out");
    }
    let published = ports.into_iter().map(|it| (it.target, it.protocol));
    let all: BTreeSet<_> =
        published.chain(exposed.into_iter().map(|it| (it.target, it.protocol))).collect();
    let port = |(port, protocol)| Port {
        host_ip: None,
        published: port,
        target: port,
        protocol,
        publish: Publish::Node,
        proxy_protocol: None,
    };
    all.into_iter().map(port).collect()
}

/// Checks the services that have the network of another one, and lets them wait for it.
pub(super) fn check(services: &mut [Service], walk: &Walk<'_>) {
    let modes: BTreeMap<Name, (Option<NetworkMode>, ServiceMode)> = services
        .iter()
        .map(|Service { deployment: Deployment { service, spec, .. }, .. }| {
            (service.service.clone(), (spec.container.network_mode.clone(), spec.mode))
        })
        .collect();
    for Service { deployment, .. } in services {
        let Some(NetworkMode::Service(owner)) = &deployment.spec.container.network_mode else {
            continue;
        };
        let refuse = |reason: &str| {
            walk.refuse(&format!("services.{}.network_mode", deployment.service.service), reason);
        };
        let Some((network, mode)) = modes.get(owner) else {
            refuse(" names no service of the file that is deployed");
            continue;
        };
        match network {
            Some(NetworkMode::Service(of)) => {
                refuse(&format!(" names a service that itself has the network of {of}: name that"));
            }
            Some(NetworkMode::Host) => {
                refuse(" names a service on the network of its host: write host here too");
            }
            Some(NetworkMode::None) | None => {}
        }
        if [*mode, deployment.spec.mode].iter().any(|mode| *mode != ServiceMode::Replicated) {
            refuse(" is for services with deploy.mode: replicated, both of them");
        }
        let owner = owner.clone();
        deployment.spec.depends_on.entry(owner).or_insert(Dependency::ServiceStarted);
    }
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
