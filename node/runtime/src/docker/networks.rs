//! The networks of projects on this node's engine.
//!
//! Each network of a project is a Docker bridge of its own here, so that containers of different networks cannot reach
//! each other. Nothing is registered with Docker's names: `names` answers those, the same on every node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bollard::errors::Error;
use bollard::models::{Ipam, Network, NetworkCreateRequest};
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder};
use data_encoding::BASE32_NOPAD;
use ipnet::Ipv4Net;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tokio::time::timeout;
use vc_engine::routes::DEFAULT_NETWORK;
use vc_protocol::Name;
use vc_protocol::spec::ContainerSpec;

use super::{Docker, Engine, container};
use crate::Identity;
use crate::reason;

/// The label that holds the network's name in its project.
const NETWORK: &str = "vc.network";
/// Docker's option for the name of a network's bridge.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// How long a question about networks may take.
const ASK: Duration = Duration::from_secs(10);
/// How long Docker may take to make a network or to remove one.
const CHANGE: Duration = Duration::from_secs(60);
/// A network outlives its last container, and the wish for one, by so long: an update that stops before it starts must
/// not make it anew, and between the wish and the container there may be a while.
const LINGER: Duration = Duration::from_secs(120);

/// When each network was last asked for. Whoever makes or removes one holds the lock.
pub(super) type Wishes = Arc<Mutex<BTreeMap<String, Instant>>>;

/// An address of a container, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// One of its addresses.
    pub address: Ipv4Addr,
    /// Its project.
    pub project: Name,
    /// All networks of the project that it is in: it speaks from one address, whichever network it means.
    pub networks: BTreeSet<Name>,
}

/// A network of ours.
struct Ours {
    /// As Docker names it.
    name: String,
    project: Name,
    network: Name,
    subnets: Vec<Ipv4Net>,
}

impl Docker {
    /// Whoever has an address in the networks of the project whose network this address is in; nobody when it is in
    /// none of ours. Errors: Docker does not say.
    pub async fn neighbours(&self, address: Ipv4Addr) -> Result<Vec<Neighbour>, String> {
        self.engine.neighbours(address).await.map_err(|error| reason::of(&error))
    }

    /// What the names of all bridges of our networks begin with, and of no others, another node's on this node
    /// included.
    pub fn bridge_prefix(&self) -> String {
        bridge_prefix(&self.engine.identity)
    }

    /// Whether the engine is on this node.
    pub fn is_local(&self) -> bool {
        self.engine.host.starts_with("unix://")
    }

    /// Sets whether containers created from now on get the DNS servers of [`Config::dns`](super::Config::dns), which
    /// they do by default, or Docker's own.
    pub fn enable_dns(&self, enabled: bool) {
        self.engine.dns.enabled.store(enabled, Ordering::Relaxed);
    }

    /// For whom it runs containers.
    pub fn identity(&self) -> Identity {
        self.engine.identity
    }
}

impl Engine {
    /// Docker's names of the networks that an instance is in, the first being its primary one; those that are missing
    /// are made. They stay for two minutes at least, so ask right before the container is made.
    pub(super) async fn networks_of(
        &self,
        project: &Name,
        spec: &ContainerSpec,
    ) -> Result<Vec<String>, Error> {
        let default = DEFAULT_NETWORK.parse::<Name>().ok().filter(|_| spec.networks.is_empty());
        let mut names = Vec::new();
        for network in spec.networks.keys().chain(default.as_ref()) {
            names.push(self.ensure_network(project, network).await?);
        }
        Ok(names)
    }

    /// Returns the DNS servers that Docker's resolver forwards to; `None`: Docker's default.
    pub(super) fn resolvers(&self) -> Option<Vec<String>> {
        let enabled = self.dns.enabled.load(Ordering::Relaxed);
        enabled.then(|| (self.dns.servers)().iter().map(ToString::to_string).collect())
    }

    async fn ensure_network(&self, project: &Name, network: &Name) -> Result<String, Error> {
        let name = docker_name(&self.identity, project, network);
        let client = self.client()?;
        let mut wishes = self.networks.lock().await;
        wishes.insert(name.clone(), Instant::now());
        match within(ASK, client.inspect_network(&name, None)).await {
            Ok(found) => return self.whose(found.labels.unwrap_or_default(), name),
            Err(error) if reason::status(&error) == Some(404) => {}
            Err(error) => return Err(error),
        }
        let labels = [
            (container::CLUSTER, self.identity.cluster.to_string()),
            (container::NODE, self.identity.node.to_string()),
            (container::PROJECT, project.to_string()),
            (NETWORK, network.to_string()),
        ];
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            options: Some(HashMap::from([(
                BRIDGE_NAME.to_owned(),
                bridge_name(&self.identity, project, network),
            )])),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
            ..NetworkCreateRequest::default()
        };
        let client = client.with_timeout(CHANGE);
        match within(CHANGE, client.create_network(request)).await {
            Ok(_) => {
                tracing::info!(%project, %network, name, "network made");
                Ok(name)
            }
            Err(error) => Err(error),
        }
    }

    /// A network that is there already serves only when it is ours.
    fn whose(&self, labels: HashMap<String, String>, name: String) -> Result<String, Error> {
        if self.read_labels(&labels).is_some() {
            return Ok(name);
        }
        let error = format!(
            "the name {name} is taken by a network that is not ours: docker network rm {name}"
        );
        Err(Error::DockerStreamError { error })
    }

    /// Removes the networks that no container of ours uses, running or not, and that nobody asked for lately.
    pub(super) async fn remove_unused_networks(&self) -> Result<(), Error> {
        let mut wishes = self.networks.lock().await;
        let wanted = |name: &String, wishes: &BTreeMap<String, Instant>| {
            wishes.get(name).is_some_and(|asked| asked.elapsed() < LINGER)
        };
        let mut unused = self.our_networks().await?;
        unused.retain(|ours| !wanted(&ours.name, &wishes));
        if unused.is_empty() {
            return Ok(());
        }
        let client = self.client()?;
        let filters = HashMap::from([("label", container::ours(&self.identity))]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let used: BTreeSet<String> = within(ASK, client.list_containers(Some(options)))
            .await?
            .into_iter()
            .filter_map(|container| container.network_settings?.networks)
            .flat_map(HashMap::into_keys)
            .collect();
        let client = client.with_timeout(CHANGE);
        for Ours { name, project, network, .. } in unused {
            if used.contains(&name) {
                // Its last container may go at any moment: it lingers from now on.
                wishes.insert(name, Instant::now());
                continue;
            }
            match within(CHANGE, client.remove_network(&name)).await {
                Ok(()) => {
                    tracing::info!(%project, %network, name, "network removed: nothing uses it")
                }
                Err(error) if reason::status(&error) == Some(404) => {}
                Err(error) if reason::is_lost(&error) => return Err(error),
                // Somebody else's container is in it.
                Err(error) => {
                    tracing::debug!(
                        name,
                        error = reason::of(&error),
                        "a network cannot be removed"
                    );
                    continue;
                }
            }
            wishes.remove(&name);
        }
        Ok(())
    }

    async fn neighbours(&self, address: Ipv4Addr) -> Result<Vec<Neighbour>, Error> {
        let ours = self.our_networks().await?;
        let around = ours.iter().find(|it| it.subnets.iter().any(|net| net.contains(&address)));
        let Some(project) = around.map(|it| it.project.clone()) else { return Ok(Vec::new()) };
        let client = self.client()?;
        let mut containers: BTreeMap<String, (Vec<Ipv4Addr>, BTreeSet<Name>)> = BTreeMap::new();
        for Ours { name, network, .. } in ours.into_iter().filter(|it| it.project == project) {
            let found = match within(ASK, client.inspect_network(&name, None)).await {
                Err(error) if reason::status(&error) == Some(404) => continue,
                found => found?,
            };
            for (id, endpoint) in found.containers.into_iter().flatten() {
                let (addresses, networks) = containers.entry(id).or_default();
                let net = endpoint.ipv4_address.and_then(|net| net.parse::<Ipv4Net>().ok());
                addresses.extend(net.map(|net| net.addr()));
                networks.insert(network.clone());
            }
        }
        let neighbours = containers.into_values().flat_map(|(addresses, networks)| {
            let project = project.clone();
            addresses.into_iter().map(move |address| Neighbour {
                address,
                project: project.clone(),
                networks: networks.clone(),
            })
        });
        Ok(neighbours.collect())
    }

    async fn our_networks(&self) -> Result<Vec<Ours>, Error> {
        let filters = HashMap::from([("label", container::ours(&self.identity))]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let client = self.client()?;
        let listed = within(ASK, client.list_networks(Some(options))).await?;
        let ours = |network: Network| {
            let (project, name) = self.read_labels(&network.labels.unwrap_or_default())?;
            Some(Ours {
                name: network.name?,
                project,
                network: name,
                subnets: network.ipam.map(subnets).unwrap_or_default(),
            })
        };
        Ok(listed.into_iter().filter_map(ours).collect())
    }

    /// The project and network that labels speak of; `None`: it is not ours.
    fn read_labels(&self, labels: &HashMap<String, String>) -> Option<(Name, Name)> {
        let label = |key: &str| labels.get(key).map_or("", String::as_str);
        let ours = label(container::CLUSTER) == self.identity.cluster.to_string()
            && label(container::NODE) == self.identity.node.to_string();
        let names =
            || Some((label(container::PROJECT).parse().ok()?, label(NETWORK).parse().ok()?));
        ours.then(names).flatten()
    }
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, answer).await.map_err(|_| Error::RequestTimeoutError)?
}

fn subnets(ipam: Ipam) -> Vec<Ipv4Net> {
    let subnets = ipam.config.into_iter().flatten().filter_map(|config| config.subnet);
    subnets.filter_map(|subnet| subnet.parse().ok()).collect()
}

/// Docker's name of a network. The dot cannot occur in a project's or network's name, so that no two share one.
fn docker_name(identity: &Identity, project: &Name, network: &Name) -> String {
    format!("vc-{project}.{network}-{}", identity.node.short())
}

/// Five characters tell a handful of nodes on a node apart.
fn bridge_prefix(identity: &Identity) -> String {
    format!("vc{}", hashed(&identity.node.to_string(), 5))
}

/// An interface's name has at most fifteen characters: 40 bits of hash tell a node's networks apart.
fn bridge_name(identity: &Identity, project: &Name, network: &Name) -> String {
    bridge_prefix(identity) + &hashed(&format!("{project}.{network}"), 8)
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
    fn bridges_fit_the_kernel_and_networks_do_not_share_names() {
        let key =
            |byte| vc_protocol::Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes").public();
        let identity = |byte| Identity {
            cluster: vc_protocol::ClusterId::of(&key(1)).expect("ed25519"),
            node: vc_protocol::NodeId::of(&key(byte)).expect("ed25519"),
        };
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let bridge = bridge_name(&identity(2), &name("shop"), &name("default"));
        assert_eq!(bridge.len(), 15);
        assert!(bridge.starts_with(&bridge_prefix(&identity(2))), "{bridge}");
        assert!(!bridge.starts_with(&bridge_prefix(&identity(3))), "{bridge}");
        let pairs = [("a_b", "c"), ("a", "b_c"), ("a-b", "c"), ("a", "b-c")];
        let names = pairs.map(|(a, b)| docker_name(&identity(2), &name(a), &name(b)));
        assert_eq!(BTreeSet::from(names).len(), pairs.len());
        let bridges = pairs.map(|(a, b)| bridge_name(&identity(2), &name(a), &name(b)));
        assert_eq!(BTreeSet::from(bridges).len(), pairs.len());
    }
}
