//! Docker networks of projects, and those that projects share.
//!
//! Each network is a Docker bridge of its own on this node, so containers of different networks cannot
//! reach each other. Nothing is registered with Docker's DNS: the node's DNS server answers names, the same on every
//! node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bollard::errors::Error;
use bollard::models::{Ipam, IpamConfig, Network, NetworkCreateRequest};
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder};
use data_encoding::BASE32_NOPAD;
use ipnet::Ipv4Net;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use vc_protocol::spec::ContainerSpec;
use vc_protocol::{Name, NetworkKey};

use super::client::DockerClient;
use super::labels;
use super::podman::create_network;
use super::subnets::{NetworkPool, SUBNET_LENGTH, routes};
use crate::docker_error;
use crate::identity::Identity;

/// The label with the network's name.
const NETWORK_LABEL: &str = "vc.network";
/// What Docker's names of internal networks begin with.
const INTERNAL: &str = "vci-";
/// Docker's option for the name of the bridge.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// How long a query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long Docker may take to create or remove a network.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a network outlives its last container and the last request for it: an update that stops before it starts
/// must not create it anew, and a container is created some time after its networks are requested.
const LINGER: Duration = Duration::from_secs(120);

/// How many subnets are tried that Docker says are taken, although it lists no such network.
const MAX_SUBNETS: usize = 16;

/// Why an instance's networks cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetworkError {
    #[error(
        "the network pool {pool} of this node has no free /{SUBNET_LENGTH} left for network {name}: remove services, or give it a \
         larger one with 'vc-node run --network-pool RANGE'"
    )]
    PoolFull { pool: NetworkPool, name: String },
    /// Removing services would not help.
    #[error(
        "the network pool {pool} of this node overlaps {taken}, which this host uses otherwise, and has no room left for network \
         {name}: give it another one with 'vc-node run --network-pool RANGE'"
    )]
    PoolTaken { pool: NetworkPool, taken: Ipv4Net, name: String },
    #[error("{}", docker_error::message(.0))]
    Docker(#[from] Error),
}

/// A container and one of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerByIp {
    /// One of its IPv4 addresses.
    pub address: Ipv4Addr,
    /// All networks that it is in. It sends from one address, whichever network it means.
    pub networks: BTreeSet<NetworkKey>,
    /// Whether all of them are internal.
    pub is_isolated: bool,
    /// Its own DNS servers.
    pub dns: Vec<IpAddr>,
}

/// A network of this node.
struct NodeNetwork {
    /// Its name in Docker.
    name: String,
    key: NetworkKey,
    is_internal: bool,
}

impl DockerClient {
    /// Returns Docker's names of the networks of an instance, the primary one first. Its default route is Docker's choice: that of
    /// the first name in alphabetical order.
    pub(super) fn network_names(&self, project: &Name, spec: &ContainerSpec) -> Vec<String> {
        let networks = spec.networks(project);
        let (internal, others): (Vec<_>, Vec<_>) =
            networks.keys().partition(|network| spec.is_internal(network));
        let names = others.into_iter().map(|it| (it, false));
        let names = names.chain(internal.into_iter().map(|it| (it, true)));
        names.map(|(network, internal)| docker_name(&self.identity, network, internal)).collect()
    }

    /// Returns whether a network is one of this node's, by Docker's name.
    pub(super) fn is_own_network(&self, name: &str) -> bool {
        let is_of_node = name.strip_suffix(&self.identity.node.short());
        is_of_node.is_some_and(|it| it.ends_with('-'))
            && ["vc-", INTERNAL].iter().any(|prefix| name.starts_with(prefix))
    }

    /// Creates the networks of an instance that do not exist. They are kept for at least two minutes, so call this right
    /// before the container is started.
    pub(super) async fn ensure_networks(
        &self,
        project: &Name,
        spec: &ContainerSpec,
    ) -> Result<(), NetworkError> {
        for network in spec.networks(project).keys() {
            self.ensure_network(network, spec.is_internal(network)).await?;
        }
        Ok(())
    }

    /// Returns the DNS servers of a new container with its `own` ones; `None`: Docker's default. The first answers for services,
    /// and asks the own ones for other names; Docker asks the next where one fails.
    pub(super) fn dns_servers(&self, own: &[IpAddr]) -> Option<Vec<String>> {
        let enabled = self.dns.enabled.load(Ordering::Relaxed);
        let mut servers = if enabled { (self.dns.servers)() } else { Vec::new() };
        if !own.is_empty() {
            servers.truncate(1);
            servers.extend(own);
        }
        (enabled || !own.is_empty()).then(|| servers.iter().map(ToString::to_string).collect())
    }

    async fn ensure_network(
        &self,
        network: &NetworkKey,
        internal: bool,
    ) -> Result<String, NetworkError> {
        let name = docker_name(&self.identity, network, internal);
        let client = self.client()?;
        let mut pending = self.networks.lock().await;
        pending.insert(name.clone(), Instant::now());
        match within(QUERY_TIMEOUT, client.inspect_network(&name, None)).await {
            Ok(found) => return Ok(self.check_owner(found.labels.unwrap_or_default(), name)?),
            Err(error) if docker_error::status(&error) == Some(404) => {}
            Err(error) => return Err(error.into()),
        }
        let labels = network_labels(&self.identity, network);
        let bridge = bridge_name(&self.identity, network, internal);
        let podman = self.info.get(&client, &self.host).await?.podman;
        let mut taken = self.taken_subnets(&client).await?;
        let client = client.with_timeout(CHANGE_TIMEOUT);
        let seed = seed(&name);
        for attempt in 1.. {
            let Some(subnet) = self.pool.free(seed, &taken) else {
                return Err(self.pool_full(&taken, name));
            };
            let created = async {
                if podman {
                    return create_network(&self.host, &name, &bridge, subnet, &labels).await;
                }
                let request = request(&name, &bridge, subnet, &labels);
                client.create_network(request).await.map(drop)
            };
            match within(CHANGE_TIMEOUT, created).await {
                Ok(()) => {
                    tracing::info!(%network, name, %subnet, "network created");
                    return Ok(name);
                }
                Err(error)
                    if attempt < MAX_SUBNETS && is_overlap(docker_error::raw_message(&error)) =>
                {
                    taken.push(subnet);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(self.pool_full(&taken, name))
    }

    fn pool_full(&self, taken: &[Ipv4Net], name: String) -> NetworkError {
        let pool = self.pool;
        match pool.overlapping(taken) {
            Some(taken) => NetworkError::PoolTaken { pool, taken, name },
            None => NetworkError::PoolFull { pool, name },
        }
    }

    /// Returns the subnets of Docker's networks and, if it runs on this host, where its routes lead.
    async fn taken_subnets(&self, client: &bollard::Docker) -> Result<Vec<Ipv4Net>, Error> {
        let listed = within(QUERY_TIMEOUT, client.list_networks(None)).await?;
        let configs = listed.into_iter().filter_map(|network| network.ipam?.config).flatten();
        let subnets = configs.filter_map(|config| config.subnet?.parse().ok());
        let routes = if self.is_local() { routes() } else { Vec::new() };
        Ok(subnets.chain(routes).collect())
    }

    /// Accepts an existing network only if it belongs to this node.
    fn check_owner(&self, labels: HashMap<String, String>, name: String) -> Result<String, Error> {
        if self.read_labels(&labels).is_some() {
            return Ok(name);
        }
        let error = format!(
            "the name {name} is taken by a network of another owner; remove it with 'docker network rm {name}'"
        );
        Err(Error::DockerStreamError { error })
    }

    /// Removes the networks that no container of this node uses, running or not, and that were not requested lately.
    pub(super) async fn remove_unused_networks(&self) -> Result<(), Error> {
        let mut pending = self.networks.lock().await;
        let requested = |name: &String, pending: &BTreeMap<String, Instant>| {
            pending.get(name).is_some_and(|asked| asked.elapsed() < LINGER)
        };
        let mut unused = self.list_networks().await?;
        unused.retain(|network| !requested(&network.name, &pending));
        if unused.is_empty() {
            return Ok(());
        }
        let client = self.client()?;
        let filters = HashMap::from([("label", labels::filters(&self.identity))]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let used: BTreeSet<String> = within(QUERY_TIMEOUT, client.list_containers(Some(options)))
            .await?
            .into_iter()
            .filter_map(|container| container.network_settings?.networks)
            .flat_map(HashMap::into_keys)
            .collect();
        let client = client.with_timeout(CHANGE_TIMEOUT);
        for NodeNetwork { name, key: network, .. } in unused {
            if used.contains(&name) {
                // Its last container may be removed at any moment: it lingers from then on.
                pending.insert(name, Instant::now());
                continue;
            }
            match within(CHANGE_TIMEOUT, client.remove_network(&name)).await {
                Ok(()) => {
                    tracing::info!(%network, name, "unused network removed")
                }
                Err(error) if docker_error::status(&error) == Some(404) => {}
                Err(error) if docker_error::is_unreachable(&error) => return Err(error),
                // A container of another owner is connected.
                Err(error) => {
                    tracing::debug!(
                        name,
                        error = docker_error::message(&error),
                        "cannot remove a network"
                    );
                    continue;
                }
            }
            pending.remove(&name);
        }
        Ok(())
    }

    pub(super) async fn containers_by_ip(&self) -> Result<Vec<ContainerByIp>, Error> {
        let client = self.client()?;
        /// The addresses of a container, its networks, and whether one of them has a way out.
        type Attached = (Vec<Ipv4Addr>, BTreeSet<NetworkKey>, bool);
        let mut containers: BTreeMap<String, Attached> = BTreeMap::new();
        for NodeNetwork { name, key, is_internal } in self.list_networks().await? {
            let found = match within(QUERY_TIMEOUT, client.inspect_network(&name, None)).await {
                Err(error) if docker_error::status(&error) == Some(404) => continue,
                found => found?,
            };
            for (id, endpoint) in found.containers.into_iter().flatten() {
                let (addresses, networks, has_way_out) = containers.entry(id).or_default();
                *has_way_out |= !is_internal;
                let net = endpoint.ipv4_address.and_then(|net| net.parse::<Ipv4Net>().ok());
                addresses.extend(net.map(|net| net.addr()));
                networks.insert(key.clone());
            }
        }
        let mut servers = self.own_dns_servers().await?;
        let found = containers.into_iter().flat_map(|(id, (addresses, networks, has_way_out))| {
            let dns = servers.remove(&id).unwrap_or_default();
            addresses.into_iter().map(move |address| ContainerByIp {
                address,
                networks: networks.clone(),
                is_isolated: !has_way_out,
                dns: dns.clone(),
            })
        });
        Ok(found.collect())
    }

    /// Returns the DNS servers of the containers of this node that have their own, by container id.
    async fn own_dns_servers(&self) -> Result<HashMap<String, Vec<IpAddr>>, Error> {
        let mut with_label = labels::filters(&self.identity);
        with_label.push(labels::DNS.to_owned());
        let filters = HashMap::from([("label", with_label)]);
        let options = ListContainersOptionsBuilder::default().filters(&filters).build();
        let listed = within(QUERY_TIMEOUT, self.client()?.list_containers(Some(options))).await?;
        let servers = listed.into_iter().filter_map(|container| {
            let text = container.labels?.remove(labels::DNS)?;
            Some((container.id?, text.split(',').filter_map(|ip| ip.parse().ok()).collect()))
        });
        Ok(servers.collect())
    }

    async fn list_networks(&self) -> Result<Vec<NodeNetwork>, Error> {
        let filters = HashMap::from([("label", labels::filters(&self.identity))]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let client = self.client()?;
        let listed = within(QUERY_TIMEOUT, client.list_networks(Some(options))).await?;
        let node_network = |network: Network| {
            let key = self.read_labels(&network.labels.unwrap_or_default())?;
            let name = network.name?;
            Some(NodeNetwork { is_internal: name.starts_with(INTERNAL), name, key })
        };
        Ok(listed.into_iter().filter_map(node_network).collect())
    }

    /// Returns the network that labels identify; `None` when it is not of this node.
    fn read_labels(&self, labels: &HashMap<String, String>) -> Option<NetworkKey> {
        let label = |key: &str| labels.get(key).map_or("", String::as_str);
        let is_own = label(labels::CLUSTER) == self.identity.cluster.to_string()
            && label(labels::NODE) == self.identity.node.to_string();
        let network: Name = label(NETWORK_LABEL).parse().ok()?;
        let key = match labels.get(labels::PROJECT) {
            Some(project) => NetworkKey::Project(project.parse().ok()?, network),
            None => NetworkKey::Shared(network),
        };
        is_own.then_some(key)
    }
}

/// Returns the labels that identify a network of this node.
fn network_labels(identity: &Identity, network: &NetworkKey) -> HashMap<String, String> {
    let (project, name) = match network {
        NetworkKey::Project(project, name) => (Some(project), name),
        NetworkKey::Shared(name) => (None, name),
    };
    let labels = [
        (labels::CLUSTER, identity.cluster.to_string()),
        (labels::NODE, identity.node.to_string()),
        (NETWORK_LABEL, name.to_string()),
    ];
    let project = project.map(|project| (labels::PROJECT, project.to_string()));
    labels.into_iter().chain(project).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Recognizes the messages of Docker and podman for a subnet that is in use.
fn is_overlap(message: &str) -> bool {
    message.contains("overlaps") || message.contains("already used")
}

/// Returns the request for a bridge network.
fn request(
    name: &str,
    bridge: &str,
    subnet: Ipv4Net,
    labels: &HashMap<String, String>,
) -> NetworkCreateRequest {
    let config = IpamConfig { subnet: Some(subnet.to_string()), ..IpamConfig::default() };
    NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("bridge".to_owned()),
        options: Some(HashMap::from([(BRIDGE_NAME.to_owned(), bridge.to_owned())])),
        labels: Some(labels.clone()),
        ipam: Some(Ipam { config: Some(vec![config]), ..Ipam::default() }),
        ..NetworkCreateRequest::default()
    }
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, answer).await.map_err(|_| Error::RequestTimeoutError)?
}

/// Returns Docker's name of a network. A dot cannot occur in the name of a project or network, so no two share one. Internal ones come
/// last in alphabetical order: a container that is in another network too gets its default route there.
fn docker_name(identity: &Identity, network: &NetworkKey, internal: bool) -> String {
    let prefix = if internal { INTERNAL } else { "vc-" };
    match network {
        NetworkKey::Project(project, network) => {
            format!("{prefix}{project}.{network}-{}", identity.node.short())
        }
        NetworkKey::Shared(network) => format!("{prefix}{network}-{}", identity.node.short()),
    }
}

/// Returns where the search for a subnet begins, by the name of the network.
fn seed(name: &str) -> u64 {
    let digest = Sha256::digest(name);
    digest.iter().take(8).fold(0, |seed, &byte| seed << 8 | u64::from(byte))
}

/// Returns the prefix of bridge names. Five characters of a hash distinguish the few nodes on one host.
pub(super) fn bridge_prefix(identity: &Identity) -> String {
    format!("vc{}", hashed(&identity.node.to_string(), 5))
}

/// Returns the prefix of the names of internal networks' bridges. The names of others do not have it: hashes have no `-`.
pub(super) fn internal_bridge_prefix(identity: &Identity) -> String {
    bridge_prefix(identity) + "-"
}

/// Returns the name of a network's bridge. An interface name has at most 15 characters; 40 bits of a hash, or 35, distinguish
/// the networks of a node.
pub(super) fn bridge_name(identity: &Identity, network: &NetworkKey, internal: bool) -> String {
    let name = match network {
        NetworkKey::Project(project, network) => format!("{project}.{network}"),
        NetworkKey::Shared(network) => network.to_string(),
    };
    match internal {
        true => internal_bridge_prefix(identity) + &hashed(&name, 7),
        false => bridge_prefix(identity) + &hashed(&name, 8),
    }
}

fn hashed(text: &str, characters: usize) -> String {
    let mut text = BASE32_NOPAD.encode(&Sha256::digest(text)).to_lowercase();
    text.truncate(characters);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridge_names_fit_the_kernel_limit_and_network_names_are_unique() {
        let key =
            |byte| vc_protocol::Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes").public();
        let identity = |byte| Identity {
            cluster: vc_protocol::ClusterId::of(&key(1)).expect("ed25519"),
            node: vc_protocol::NodeId::of(&key(byte)).expect("ed25519"),
        };
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let of_project = |project, network| NetworkKey::Project(name(project), name(network));
        let bridge = bridge_name(&identity(2), &of_project("shop", "default"), false);
        assert_eq!(bridge.len(), 15);
        assert!(bridge.starts_with(&bridge_prefix(&identity(2))), "{bridge}");
        assert!(!bridge.starts_with(&bridge_prefix(&identity(3))), "{bridge}");
        let mut networks = [("a_b", "c"), ("a", "b_c"), ("a-b", "c"), ("a", "b-c")]
            .map(|(a, b)| of_project(a, b))
            .to_vec();
        networks.extend(["a", "a_b", "a-b-c"].map(|shared| NetworkKey::Shared(name(shared))));
        let all = || networks.iter().flat_map(|it| [(it, false), (it, true)]);
        let names: BTreeSet<_> =
            all().map(|(it, internal)| docker_name(&identity(2), it, internal)).collect();
        assert_eq!(names.len(), all().count());
        let bridges: BTreeSet<_> =
            all().map(|(it, internal)| bridge_name(&identity(2), it, internal)).collect();
        assert_eq!(bridges.len(), all().count());
    }
}
