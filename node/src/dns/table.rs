//! The service discovery table: names and virtual IPs as each container may see them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use vc_engine::routes::Routes;
use vc_protocol::{NetworkKey, ServiceKey};

use super::virtual_ips::VirtualIps;

/// The container that sends a query or connects: what it may see depends on its networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Querier {
    /// The networks that the container is in.
    pub(super) networks: BTreeSet<NetworkKey>,
    /// Whether nothing outside of them is reached from it.
    pub(super) is_isolated: bool,
    /// Its own DNS servers; empty for those of the host.
    pub(super) dns: Vec<IpAddr>,
}

/// The names, aliases, networks and UDP ports of all services. Lookups see the networks of the querier only.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    addresses: VirtualIps,
    names: BTreeMap<NetworkKey, BTreeMap<String, BTreeSet<Ipv4Addr>>>,
    networks: BTreeMap<ServiceKey, BTreeSet<NetworkKey>>,
    udp: BTreeMap<(Ipv4Addr, u16), ServiceKey>,
    /// Virtual IPs of services that have an instance that takes connections, by network.
    answering: BTreeSet<(NetworkKey, Ipv4Addr)>,
    internal: BTreeSet<NetworkKey>,
}

impl Table {
    /// Returns the table for new routes. Services keep the virtual IPs that they have in this one.
    pub(super) fn next(&self, routes: &Routes) -> Self {
        let mut addresses = self.addresses.clone();
        addresses.assign(routes.services.keys());
        let mut table = Self { addresses, ..Self::default() };
        for (key, service) in &routes.services {
            let Some(address) = table.addresses.of(key) else { continue };
            for (network, aliases) in &service.networks {
                if !service.endpoints.is_empty() {
                    table.answering.insert((network.clone(), address));
                }
                let names = table.names.entry(network.clone()).or_default();
                let own = [key.service.to_string(), format!("{}.{}", key.service, key.project)];
                for name in own.into_iter().chain(aliases.iter().map(|it| it.to_lowercase())) {
                    names.entry(name).or_default().insert(address);
                }
            }
            table.internal.extend(service.internal.iter().cloned());
            table.networks.insert(key.clone(), service.networks.keys().cloned().collect());
            table.udp.extend(service.udp.iter().map(|&port| ((address, port), key.clone())));
        }
        table
    }

    /// Returns the virtual IPs of a name: several if services share an alias, none if the querier sees no such name. A name in a
    /// network of its project hides the same name in the networks that projects share.
    pub(super) fn lookup(&self, querier: &Querier, name: &str) -> BTreeSet<Ipv4Addr> {
        let name = name.strip_suffix('.').unwrap_or(name).to_lowercase();
        let (shared, own): (Vec<_>, Vec<_>) =
            querier.networks.iter().partition(|it| matches!(it, NetworkKey::Shared(_)));
        let find = |networks: Vec<&NetworkKey>| -> BTreeSet<Ipv4Addr> {
            let names = networks.into_iter().filter_map(|network| self.names.get(network));
            names.filter_map(|names| names.get(&name)).flatten().copied().collect()
        };
        let found = find(own);
        if found.is_empty() { find(shared) } else { found }
    }

    /// Returns the service of a virtual IP if the querier may reach it.
    pub(super) fn reach(&self, querier: &Querier, address: Ipv4Addr) -> Option<&ServiceKey> {
        let service = self.addresses.service(address)?;
        self.admits(querier, service).then_some(service)
    }

    /// Returns whether the querier shares a network with a service.
    pub(super) fn admits(&self, querier: &Querier, service: &ServiceKey) -> bool {
        let shares = |networks: &BTreeSet<NetworkKey>| !networks.is_disjoint(&querier.networks);
        self.networks.get(service).is_some_and(shares)
    }

    /// Returns the virtual IPs that answer an echo request, by network.
    pub(super) fn answering(&self) -> &BTreeSet<(NetworkKey, Ipv4Addr)> {
        &self.answering
    }

    /// Returns the networks from which nothing outside of them is reached.
    pub(super) fn internal(&self) -> &BTreeSet<NetworkKey> {
        &self.internal
    }

    /// Returns the UDP ports of services, by virtual IP and port.
    pub(super) fn udp(&self) -> &BTreeMap<(Ipv4Addr, u16), ServiceKey> {
        &self.udp
    }
}

#[cfg(test)]
pub(super) mod tests {
    use vc_engine::routes::{Endpoint, ServiceRoutes};

    use super::*;

    /// Returns a network of a project; `*NAME` is a shared one.
    fn network(project: &str, text: &str) -> NetworkKey {
        let name = |text: &str| text.parse().expect("a name");
        match text.strip_prefix('*') {
            Some(shared) => NetworkKey::Shared(name(shared)),
            None => NetworkKey::Project(name(project), name(text)),
        }
    }

    pub(in crate::dns) fn key(text: &str) -> ServiceKey {
        text.parse().expect("a service")
    }

    pub(in crate::dns) fn querier(project: &str, networks: &[&str]) -> Querier {
        let networks = networks.iter().map(|it| network(project, it)).collect();
        Querier { networks, is_isolated: false, dns: Vec::new() }
    }

    /// A network and the aliases in it.
    type Aliases<'a> = (&'a str, &'a [&'a str]);

    /// Returns a table of services, each with its networks and the aliases there.
    pub(in crate::dns) fn table(services: &[(&str, &[Aliases<'_>])]) -> Table {
        let mut routes = Routes::default();
        for (service, networks) in services {
            let aliases = |aliases: &[&str]| aliases.iter().map(|&it| it.to_owned()).collect();
            let key = key(service);
            let at = |net: &str| network(key.project.as_str(), net);
            let networks = networks.iter().map(|(net, names)| (at(net), aliases(names)));
            let service_routes =
                ServiceRoutes { networks: networks.collect(), ..ServiceRoutes::default() };
            routes.services.insert(key, service_routes);
        }
        Table::default().next(&routes)
    }

    fn one(table: &Table, querier: &Querier, name: &str) -> Option<ServiceKey> {
        let found = table.lookup(querier, name);
        assert!(found.len() <= 1, "{found:?}");
        table.reach(querier, found.first().copied()?).cloned()
    }

    #[test]
    fn names_and_aliases_are_case_insensitive_and_may_end_with_a_dot() {
        let table = table(&[("shop/api", &[("default", &["Backend", "api.internal"])])]);
        let web = querier("shop", &["default"]);
        for text in ["api", "API", "api.", "backend", "BackEnd.", "api.internal", "api.shop"] {
            assert_eq!(one(&table, &web, text), Some(key("shop/api")), "{text}");
        }
        for text in ["", ".", "ap", "api.blog", "api.default", "api.shop.x", "internal"] {
            assert_eq!(one(&table, &web, text), None, "{text}");
        }
    }

    #[test]
    fn services_with_an_instance_that_takes_connections_answer_echo_requests() {
        let mut routes = Routes::default();
        let node = vc_protocol::Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes").public();
        let endpoint = Endpoint {
            instance: "shop/db.1@0".parse().expect("an instance"),
            node: vc_protocol::NodeId::of(&node).expect("ed25519"),
            address: "10.0.0.1".to_owned(),
        };
        for (service, endpoints) in [("shop/api", vec![]), ("shop/db", vec![endpoint])] {
            let networks = [(network("shop", "back"), BTreeSet::new())].into();
            let of_service = ServiceRoutes { networks, endpoints, ..ServiceRoutes::default() };
            routes.services.insert(key(service), of_service);
        }
        let table = Table::default().next(&routes);
        let db = table.lookup(&querier("shop", &["back"]), "db");
        let at = network("shop", "back");
        let expected = db.into_iter().map(|address| (at.clone(), address)).collect();
        assert_eq!(*table.answering(), expected);
        assert_eq!(expected.len(), 1);
    }

    #[test]
    fn names_and_addresses_of_other_projects_are_not_visible() {
        let table = table(&[
            ("shop/api", &[("default", &[])]),
            ("shop/db", &[("default", &[])]),
            ("blog/api", &[("default", &[])]),
        ]);
        let (shop, blog) = (querier("shop", &["default"]), querier("blog", &["default"]));
        assert_eq!(one(&table, &shop, "api"), Some(key("shop/api")));
        assert_eq!(one(&table, &blog, "api"), Some(key("blog/api")));
        assert_eq!(one(&table, &blog, "db"), None);
        assert_eq!(one(&table, &blog, "db.shop"), None);
        let db = table.lookup(&shop, "db").first().copied().expect("an address");
        assert_eq!(table.reach(&shop, db), Some(&key("shop/db")));
        assert_eq!(table.reach(&blog, db), None);
        assert!(!table.admits(&blog, &key("shop/db")));
    }

    #[test]
    fn services_of_two_projects_see_each_other_on_a_network_that_they_share() {
        let table = table(&[
            ("proxy/nginx", &[("*web", &[])]),
            ("shop/app", &[("default", &[]), ("*web", &["shop.local"])]),
            ("shop/db", &[("default", &[])]),
            ("blog/app", &[("*web", &["db"])]),
        ]);
        let nginx = querier("proxy", &["*web"]);
        assert_eq!(one(&table, &nginx, "shop.local"), Some(key("shop/app")));
        assert_eq!(one(&table, &nginx, "app.blog"), Some(key("blog/app")));
        assert_eq!(table.lookup(&nginx, "app").len(), 2, "as with Docker, both");
        assert!(!table.admits(&nginx, &key("shop/db")), "it is not on the shared network");
        // An alias of another project does not hide a service of the own one.
        let app = querier("shop", &["default", "*web"]);
        assert_eq!(one(&table, &app, "db"), Some(key("shop/db")));
        assert_eq!(one(&table, &querier("shop", &["*other"]), "nginx"), None);
    }

    #[test]
    fn networks_of_a_project_are_isolated_and_a_container_in_two_sees_both() {
        let table = table(&[
            ("shop/web", &[("front", &[])]),
            ("shop/api", &[("front", &[]), ("back", &["store"])]),
            ("shop/db", &[("back", &["store"])]),
        ]);
        let (front, back) = (querier("shop", &["front"]), querier("shop", &["back"]));
        let both = querier("shop", &["back", "front"]);
        assert_eq!(one(&table, &front, "db"), None);
        assert_eq!(one(&table, &back, "web"), None);
        assert_eq!(one(&table, &both, "web"), Some(key("shop/web")));
        assert_eq!(one(&table, &both, "db"), Some(key("shop/db")));
        // An alias is a name in its network only.
        assert_eq!(table.lookup(&front, "store").len(), 0);
        assert_eq!(table.lookup(&back, "store").len(), 2);
        let db = table.lookup(&back, "db").first().copied().expect("an address");
        assert_eq!(table.reach(&front, db), None);
    }
}
