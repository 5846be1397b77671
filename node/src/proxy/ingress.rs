//! Ingress: opens and closes the listeners of published ports as the routes change.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vc_engine::routes::Routes;
use vc_protocol::spec::{
    Port, PortProtocol, ProxyProtocol, Publish, port_of_address, share_an_address,
};
use vc_protocol::{NodeId, ServiceKey};

use super::host_ports::{BoundPorts, HostPort};
use super::limits::ACCEPT_BACKOFF;
use super::load_balancer::Scope;
use super::router::Router;
use super::{listen, port_owner, udp};
use crate::handover::Sockets;

/// Interval of attempts to bind a port that is in use, and of looking for the addresses that ports name: one may come and go
/// with a VPN, DHCP or keepalived.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);
/// The port of multicast DNS.
const MDNS: u16 = 5353;
/// Why a port of an address is not published.
const NO_ADDRESS: &str = "this host has no such address";
/// How long a socket from the process before stays open without a service that publishes its port.
const UNUSED_TIMEOUT: Duration = Duration::from_secs(10);

/// Ports that cannot be published, such as `8080/tcp`, with the reason.
pub type PublishErrors = BTreeMap<String, String>;

/// A port to bind; no `address` means all of the host's.
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

    /// Returns the name of its socket when that is handed over, such as `port 8080/tcp`, or `port 8080/tcp of ::1`.
    fn socket_name(&self) -> String {
        match self.address {
            Some(address) => format!("port {}", port_of_address(&self.name(), address)),
            None => format!("port {}", self.name()),
        }
    }

    /// Returns the address, if this host does not have it now.
    fn absent(&self) -> Option<IpAddr> {
        self.address.filter(|address| !listen::has_address(*address))
    }

    fn overlaps(&self, other: &Self) -> bool {
        let same = self.protocol == other.protocol && self.port == other.port;
        same && share_an_address(self.address, other.address)
    }
}

/// The instances' port that a published port forwards to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    service: ServiceKey,
    port: u16,
    scope: Scope,
    proxy_protocol: Option<ProxyProtocol>,
}

/// An open port.
struct Listener {
    target: watch::Sender<Target>,
    task: JoinHandle<()>,
    /// A duplicate, which is handed over when the node restarts.
    socket: OwnedFd,
}

/// The open ports of this node.
pub struct Ingress {
    router: Router,
    problems: mpsc::Sender<PublishErrors>,
    /// Sockets that the process before has left and that are not used yet.
    unused: Sockets,
    listeners: BTreeMap<BindAddr, Listener>,
    /// Ports that could not be bound, with the reason.
    failed: BTreeMap<BindAddr, String>,
    /// Ports that are not bound because this host has no such address.
    absent: BTreeSet<BindAddr>,
    reported: PublishErrors,
    /// The ports of [`Scope::Node`] that are bound, for the NAT rules.
    host_ports: watch::Sender<BoundPorts>,
}

impl Ingress {
    /// Returns an ingress for the router's routes, with the sockets that the process before has left. With each change it sends
    /// all ports that cannot be published to `problems`.
    pub fn new(router: Router, problems: mpsc::Sender<PublishErrors>, left: Sockets) -> Self {
        Self {
            router,
            problems,
            unused: left,
            listeners: BTreeMap::new(),
            failed: BTreeMap::new(),
            absent: BTreeSet::new(),
            reported: PublishErrors::new(),
            host_ports: watch::Sender::default(),
        }
    }

    /// Returns the ports that are bound for this node's own instances, as they change.
    pub(crate) fn host_ports(&self) -> watch::Receiver<BoundPorts> {
        self.host_ports.subscribe()
    }

    /// Publishes ports until `stop` is cancelled, or the routes' channel closes. Returns the sockets, in whose backlogs
    /// clients wait from then on. Accepted connections stay open.
    pub async fn run(mut self, stop: CancellationToken) -> Sockets {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.publish() => {}
        }
        let mut sockets = Sockets::default();
        for (address, Listener { task, socket, .. }) in std::mem::take(&mut self.listeners) {
            task.abort();
            let _ = task.await;
            sockets.insert(address.socket_name(), socket);
        }
        sockets
    }

    async fn publish(&mut self) {
        let mut table = self.router.table();
        let unused_until = tokio::time::Instant::now() + UNUSED_TIMEOUT;
        loop {
            let routes = Arc::clone(&table.borrow_and_update());
            self.router.inner.connections.sweep();
            let mut problems = self.follow(&routes).await;
            self.host_ports.send_if_modified(|held| {
                let bound = Some(host_ports(&self.listeners));
                let changed = *held != bound;
                *held = bound;
                changed
            });
            problems.extend(self.failed.iter().map(|(address, why)| (address.name(), why.clone())));
            let mut has_addresses = false;
            for address in self.listeners.keys().chain(&self.absent) {
                has_addresses |= address.address.is_some();
                if let Some(absent) = address.absent() {
                    let name = port_of_address(&address.name(), absent);
                    problems.insert(name, NO_ADDRESS.to_owned());
                }
            }
            if problems != self.reported {
                self.reported = problems.clone();
                if self.problems.send(problems).await.is_err() {
                    return;
                }
            }
            let again = async {
                match self.failed.is_empty() && !has_addresses {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(CHECK_INTERVAL).await,
                }
            };
            tokio::select! {
                changed = table.changed() => if changed.is_err() { return },
                () = again => {}
                () = tokio::time::sleep_until(unused_until), if !self.unused.is_empty() => {
                    self.unused.clear();
                }
            }
        }
    }

    /// Opens and closes ports to match the routes. Returns the ports that several services want.
    async fn follow(&mut self, routes: &Routes) -> PublishErrors {
        let (wanted, clashes) = wanted(routes, self.router.inner.node);
        self.failed.retain(|address, _| wanted.contains_key(address));
        self.absent.retain(|address| wanted.contains_key(address));
        let kept = |address: &BindAddr, listener: &Listener| match wanted.get(address) {
            // UDP sessions keep their target: another target needs a new socket.
            Some(target) => {
                address.protocol == PortProtocol::Tcp || *listener.target.borrow() == *target
            }
            None => false,
        };
        let unwanted: Vec<BindAddr> = self
            .listeners
            .iter()
            .filter(|(address, listener)| !kept(address, listener) || listener.task.is_finished())
            .map(|(address, _)| address.clone())
            .collect();
        for listener in unwanted.iter().filter_map(|address| self.listeners.remove(address)) {
            let Listener { task, .. } = listener;
            task.abort();
            // The socket is closed when the task has ended; the port may be needed below.
            let _ = task.await;
        }
        for (address, target) in wanted {
            if let Some(listener) = self.listeners.get(&address) {
                listener.target.send_if_modified(|held| {
                    let new = *held != target;
                    *held = target;
                    new
                });
                continue;
            }
            match self.open(&address, target) {
                Ok(listener) => {
                    tracing::info!(port = address.name(), "port published");
                    self.listeners.insert(address.clone(), listener);
                    self.failed.remove(&address);
                    self.absent.remove(&address);
                }
                // It may be another node's, which publishes it.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    self.absent.insert(address);
                }
                // The owner was looked up at the first failure.
                Err(_) if self.failed.contains_key(&address) => {}
                Err(error) => {
                    let why = reason(&address, &error).await;
                    tracing::warn!(port = address.name(), why, "port not published");
                    self.failed.insert(address, why);
                }
            }
        }
        clashes
    }

    fn open(&mut self, address: &BindAddr, target: Target) -> io::Result<Listener> {
        let router = self.router.clone();
        let left = address.socket_name();
        let (sender, receiver) = watch::channel(target.clone());
        let (task, socket) = match address.protocol {
            PortProtocol::Tcp => {
                let listener = match self.unused.take_tcp(&left) {
                    Some(listener) => listener,
                    None => listen::tcp(address.address, address.port)?,
                };
                let socket = listener.as_fd().try_clone_to_owned()?;
                (tokio::spawn(accept(router, listener, receiver)), socket)
            }
            PortProtocol::Udp => {
                let bound = match self.unused.take_udp(&left) {
                    Some(bound) => bound,
                    None => listen::udp(address.address, address.port)?,
                };
                let socket = bound.as_fd().try_clone_to_owned()?;
                let Target { service, port, scope, .. } = target;
                (tokio::spawn(udp::serve(router, bound, service, port, scope, None)), socket)
            }
        };
        Ok(Listener { target: sender, task, socket })
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        for listener in self.listeners.values() {
            listener.task.abort();
        }
    }
}

/// Returns the ports that NAT rules can redirect: what they pass on has no header of the PROXY protocol.
fn host_ports(listeners: &BTreeMap<BindAddr, Listener>) -> BTreeMap<HostPort, (ServiceKey, u16)> {
    let host_port = |(bound, listener): (&BindAddr, &Listener)| {
        let Target { service, port, scope, proxy_protocol } = listener.target.borrow().clone();
        let address = match bound.address {
            None => None,
            Some(IpAddr::V4(ip)) => Some(ip).filter(|ip| !ip.is_unspecified()),
            Some(IpAddr::V6(_)) => return None,
        };
        let host_port = HostPort { protocol: bound.protocol, port: bound.port, address };
        (scope == Scope::Node && proxy_protocol.is_none()).then_some((host_port, (service, port)))
    };
    listeners.iter().filter_map(host_port).collect()
}

/// Returns the ports that this node is to publish, and those that another service already has.
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
            let address = BindAddr { protocol, port, address: published.port.host_ip };
            let service = published.service.clone();
            match wanted.iter().find(|(held, _)| held.overlaps(&address)) {
                Some((_, held)) if held.service != service => {
                    clashes
                        .insert(address.name(), format!("already published by {}", held.service));
                }
                Some(_) => {}
                None => {
                    let Port { target: port, proxy_protocol, .. } = published.port;
                    let target = Target { service, port, scope, proxy_protocol };
                    wanted.insert(address, target);
                }
            }
        }
    }
    (wanted, clashes)
}

/// Returns why a port could not be bound, for people.
async fn reason(address: &BindAddr, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::AddrInUse {
        return error.to_string();
    }
    let (protocol, port) = (address.protocol, address.port);
    let owner = tokio::task::spawn_blocking(move || port_owner::port_owner(protocol, port)).await;
    let is_own = |owner: &str| owner.ends_with(&format!("(pid {})", std::process::id()));
    match owner {
        Ok(Some(owner)) if is_own(&owner) && (protocol, port) == (PortProtocol::Udp, MDNS) => {
            "this node has it for mDNS: publish another port, or run the node with --no-mdns"
                .to_owned()
        }
        Ok(Some(owner)) if is_own(&owner) => {
            "this node has it itself: publish another port, or run the node with another --port"
                .to_owned()
        }
        Ok(Some(owner)) => format!("already in use by {owner}"),
        _ => "already in use by another process".to_owned(),
    }
}

async fn accept(router: Router, listener: TcpListener, target: watch::Receiver<Target>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let Target { service, port, scope, proxy_protocol } = target.borrow().clone();
                let router = router.clone();
                tokio::spawn(async move {
                    router.forward(client, service, port, scope, proxy_protocol).await;
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}
