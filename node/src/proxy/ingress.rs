//! The ports that this node publishes: listeners come and go as the table changes.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use vc_engine::routes::Routes;
use vc_protocol::spec::{PortProtocol, Publish};
use vc_protocol::{NodeId, ServiceKey};

use super::{Router, Scope, listen, port_owner, udp};

/// Between two attempts to get a port that was taken.
const BIND_RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// A listener that cannot accept, as when files run out, rests so long.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Ports that cannot be published (`8080/tcp`), and why.
pub type PublishErrors = BTreeMap<String, String>;

/// A port of this node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct BindAddr {
    protocol: PortProtocol,
    port: u16,
    address: Option<IpAddr>,
}

impl BindAddr {
    fn name(&self) -> String {
        format!("{}/{}", self.port, self.protocol.as_str())
    }

    fn overlaps(&self, other: &Self) -> bool {
        let same = self.protocol == other.protocol && self.port == other.port;
        let apart = self.address.is_some() && other.address.is_some();
        same && (!apart || self.address == other.address)
    }
}

/// Where what comes to a port goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    service: ServiceKey,
    port: u16,
    scope: Scope,
}

/// A port that is listened on.
struct Listener {
    target: watch::Sender<Target>,
    task: JoinHandle<()>,
}

/// The listeners of this node.
pub struct Ingress {
    router: Router,
    problems: mpsc::Sender<PublishErrors>,
    listeners: BTreeMap<BindAddr, Listener>,
    /// Ports that could not be had, and why.
    failed: BTreeMap<BindAddr, String>,
    reported: PublishErrors,
}

impl Ingress {
    /// Will publish what the router's table says, and tell of ports that it cannot, all of them with each change.
    pub fn new(router: Router, problems: mpsc::Sender<PublishErrors>) -> Self {
        let (listeners, failed) = (BTreeMap::new(), BTreeMap::new());
        Self { router, problems, listeners, failed, reported: PublishErrors::new() }
    }

    /// Listens, until the table ends. Connections that were accepted go on after that.
    pub async fn run(mut self) {
        let mut table = self.router.table();
        loop {
            let routes = Arc::clone(&table.borrow_and_update());
            self.router.inner.connections.sweep();
            let mut problems = self.follow(&routes).await;
            problems.extend(self.failed.iter().map(|(place, why)| (place.name(), why.clone())));
            if problems != self.reported {
                self.reported = problems.clone();
                if self.problems.send(problems).await.is_err() {
                    return;
                }
            }
            let again = async {
                match self.failed.is_empty() {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(BIND_RETRY_INTERVAL).await,
                }
            };
            tokio::select! {
                changed = table.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }

    /// Opens and closes what it takes. Returns the ports that two services want of this node.
    async fn follow(&mut self, routes: &Routes) -> PublishErrors {
        let (wanted, clashes) = wanted(routes, self.router.inner.node);
        self.failed.retain(|place, _| wanted.contains_key(place));
        let kept = |place: &BindAddr, listener: &Listener| match wanted.get(place) {
            // A datagram's way is kept per client, and begins anew with another target.
            Some(target) => {
                place.protocol == PortProtocol::Tcp || *listener.target.borrow() == *target
            }
            None => false,
        };
        let over: Vec<BindAddr> = self
            .listeners
            .iter()
            .filter(|(place, listener)| !kept(place, listener) || listener.task.is_finished())
            .map(|(place, _)| place.clone())
            .collect();
        for listener in over.iter().filter_map(|place| self.listeners.remove(place)) {
            listener.task.abort();
            // Its socket is closed then, and another may have the port.
            let _ = listener.task.await;
        }
        for (place, target) in wanted {
            if let Some(listener) = self.listeners.get(&place) {
                listener.target.send_if_modified(|held| {
                    let new = *held != target;
                    *held = target;
                    new
                });
                continue;
            }
            match self.open(&place, target) {
                Ok(listener) => {
                    tracing::info!(port = place.name(), "published");
                    self.listeners.insert(place.clone(), listener);
                    self.failed.remove(&place);
                }
                // An address of other nodes: it is for them to publish.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                // Who has it was looked for the first time.
                Err(_) if self.failed.contains_key(&place) => {}
                Err(error) => {
                    let why = reason(&place, &error).await;
                    tracing::warn!(port = place.name(), why, "cannot be published");
                    self.failed.insert(place, why);
                }
            }
        }
        clashes
    }

    fn open(&self, place: &BindAddr, target: Target) -> io::Result<Listener> {
        let router = self.router.clone();
        let (sender, receiver) = watch::channel(target.clone());
        let task = match place.protocol {
            PortProtocol::Tcp => {
                let listener = listen::tcp(place.address, place.port)?;
                tokio::spawn(accept(router, listener, receiver))
            }
            PortProtocol::Udp => {
                let socket = listen::udp(place.address, place.port)?;
                let Target { service, port, scope } = target;
                tokio::spawn(udp::serve(router, socket, service, port, scope, None))
            }
        };
        Ok(Listener { target: sender, task })
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        for listener in self.listeners.values() {
            listener.task.abort();
        }
    }
}

/// What this node is to publish, and what it cannot because another service has it.
fn wanted(routes: &Routes, node: NodeId) -> (BTreeMap<BindAddr, Target>, PublishErrors) {
    let mut wanted: BTreeMap<BindAddr, Target> = BTreeMap::new();
    let mut clashes = PublishErrors::new();
    let runs_here = |service: &ServiceKey| {
        let routes = routes.services.get(service);
        routes.is_some_and(|routes| routes.endpoints.iter().any(|it| it.node == node))
    };
    for (&(protocol, port), all) in &routes.ports {
        for published in all {
            let scope = match published.port.publish {
                Publish::Cluster => Scope::Cluster,
                Publish::Node => Scope::Node,
            };
            if scope == Scope::Node && !runs_here(&published.service) {
                continue;
            }
            let place = BindAddr { protocol, port, address: published.port.host_ip };
            let service = published.service.clone();
            match wanted.iter().find(|(held, _)| held.overlaps(&place)) {
                Some((_, held)) if held.service != service => {
                    clashes.insert(place.name(), format!("it is taken there by {}", held.service));
                }
                Some(_) => {}
                None => {
                    let target = Target { service, port: published.port.target, scope };
                    wanted.insert(place, target);
                }
            }
        }
    }
    (wanted, clashes)
}

/// Why a port could not be had, for people.
async fn reason(place: &BindAddr, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::AddrInUse {
        return error.to_string();
    }
    let (protocol, port) = (place.protocol, place.port);
    let port_owner =
        tokio::task::spawn_blocking(move || port_owner::port_owner(protocol, port)).await;
    match port_owner {
        Ok(Some(port_owner)) => format!("it is taken there by {port_owner}"),
        _ => "it is taken there by another program".to_owned(),
    }
}

async fn accept(router: Router, listener: TcpListener, target: watch::Receiver<Target>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let Target { service, port, scope } = target.borrow().clone();
                let router = router.clone();
                tokio::spawn(async move { router.forward(client, service, port, scope).await });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}
