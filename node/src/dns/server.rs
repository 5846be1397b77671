//! The DNS server: its sockets, and the reconcile loop that keeps the table, UDP ports and NAT rules up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use vc_engine::routes::Routes;
use vc_protocol::{NetworkKey, ServiceKey};
use vc_runtime::docker::Docker;

use super::container_lookup::ContainerLookup;
use super::error::NatError;
use super::nat_rules::{NatRules, Ports};
use super::resolver::Resolver;
use super::service_router::ServiceRouter;
use super::table::Table;
use super::transparent_proxy::TransparentProxy;
use super::upstream::{RESOLV_CONF, Upstream};
use crate::handover::Sockets;

/// Interval at which the NAT rules are checked, and applied again when they are missing or could not be applied.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Limit of UDP ports of services that have a socket on this node.
const MAX_UDP_PORTS: usize = 1024;
/// Limit of virtual IPs, in each of their networks, that answer echo requests.
const MAX_ECHO_RULES: usize = 2048;
/// Names of the sockets of the resolver and the proxy when they are handed over.
const RESOLVER_UDP: &str = "dns resolver/udp";
const RESOLVER_TCP: &str = "dns resolver/tcp";
const PROXY: &str = "dns proxy/tcp";
/// What the names of the sockets of services' UDP ports begin with.
const UDP_PORT: &str = "dns port/udp ";

/// Configuration of the DNS server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that lists the host's resolvers, which answer all other names.
    pub resolv_conf: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { resolv_conf: RESOLV_CONF.into() }
    }
}

/// A handle to the DNS server. Dropping it ends the server but leaves the NAT rules in place; [`DnsServer::stop`] removes
/// them.
#[derive(Debug)]
pub struct DnsServer {
    problem: watch::Receiver<Option<String>>,
    stop: CancellationToken,
    /// Ends with the rules and the sockets of services' UDP ports.
    reconciler: JoinHandle<(NatRules, Sockets)>,
    servers: [AbortOnDropHandle<()>; 3],
    sockets: Sockets,
}

impl DnsServer {
    /// Starts to answer queries of the engine's containers for the services in `routes`, on the sockets that the process before
    /// has `left`. Errors: a socket cannot be bound. Failing NAT rules are no error: they are retried, and
    /// [`DnsServer::problem`] reports them.
    pub async fn start<F: ServiceRouter>(
        config: Config,
        docker: Docker,
        routes: watch::Receiver<Arc<Routes>>,
        router: F,
        left: &mut Sockets,
    ) -> std::io::Result<Self> {
        // On all addresses, since bridges and redirect targets come and go. Clients that are not containers of this
        // node, or were not redirected, are rejected.
        let udp = bind_udp(left.take_udp(RESOLVER_UDP)).await?;
        let tcp = bind_tcp(left.take_tcp(RESOLVER_TCP)).await?;
        let connections = bind_tcp(left.take_tcp(PROXY)).await?;
        let mut sockets = Sockets::default();
        sockets.insert_duplicate(RESOLVER_UDP, &udp)?;
        sockets.insert_duplicate(RESOLVER_TCP, &tcp)?;
        sockets.insert_duplicate(PROXY, &connections)?;
        let ports = Ports {
            resolver_udp: udp.local_addr()?.port(),
            resolver_tcp: tcp.local_addr()?.port(),
            proxy: connections.local_addr()?.port(),
            udp: BTreeMap::new(),
            echo: BTreeSet::new(),
        };
        let (tables, table) = watch::channel(Arc::new(Table::default()));
        let (report, problem) = watch::channel(None);
        let node = docker.identity().node.short();
        let rules = NatRules::new(&node, &docker.bridge_prefix(), &docker.internal_bridge_prefix());
        let containers = Arc::new(ContainerLookup::new(docker.clone()));
        let resolver = Resolver {
            table: table.clone(),
            containers: Arc::clone(&containers),
            upstream: Upstream::new(config.resolv_conf),
        };
        let proxy = TransparentProxy { table, containers, router };
        let stop = CancellationToken::new();
        let servers = [
            tokio::spawn(resolver.clone().serve_udp(udp, stop.clone())),
            tokio::spawn(resolver.serve_tcp(tcp, stop.clone())),
            tokio::spawn(proxy.clone().serve(connections, stop.clone())),
        ];
        let servers = servers.map(AbortOnDropHandle::new);
        let left = left.split_off(UDP_PORT);
        let udp = BTreeMap::new();
        let reconciler = Reconciler {
            docker,
            routes,
            tables,
            proxy,
            rules,
            drops_forged: false,
            ports,
            left,
            udp,
            report,
        };
        let reconciler = tokio::spawn(reconciler.run(stop.clone()));
        Ok(Self { problem, stop, reconciler, servers, sockets })
    }

    /// Returns why containers of this node cannot resolve services, in one line; `None`: they can.
    pub fn problem(&self) -> watch::Receiver<Option<String>> {
        self.problem.clone()
    }

    /// Stops redirecting packets and ends the server. What containers then send to virtual IPs is rejected at once,
    /// until the next server starts.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Ok((rules, _)) = self.reconciler.await {
            rules.remove().await;
        }
    }

    /// Stops accepting connections and queries, and returns the sockets for the next process: what containers send meanwhile
    /// waits. The NAT rules stay in place. Connections that were accepted are served while the servers are not dropped.
    pub(crate) async fn hand_over(self) -> (Sockets, [AbortOnDropHandle<()>; 3]) {
        self.stop.cancel();
        let mut sockets = self.sockets;
        if let Ok((_, udp)) = self.reconciler.await {
            sockets.extend(udp);
        }
        (sockets, self.servers)
    }
}

async fn bind_udp(left: Option<UdpSocket>) -> std::io::Result<UdpSocket> {
    match left {
        Some(socket) => Ok(socket),
        None => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await,
    }
}

async fn bind_tcp(left: Option<TcpListener>) -> std::io::Result<TcpListener> {
    match left {
        Some(listener) => Ok(listener),
        None => TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await,
    }
}

/// Returns the name of the socket of a service's UDP port when it is handed over.
fn udp_name((address, port): (Ipv4Addr, u16)) -> String {
    format!("{UDP_PORT}{address}:{port}")
}

/// Which rules are applied.
#[derive(Debug, Clone, Copy)]
enum Scope {
    All,
    /// Those that depend on the ports; the others were applied before.
    Ports,
}

/// The state of the reconcile loop.
struct Reconciler<F> {
    docker: Docker,
    routes: watch::Receiver<Arc<Routes>>,
    tables: watch::Sender<Arc<Table>>,
    proxy: TransparentProxy<F>,
    rules: NatRules,
    /// Whether the rules have dropped queries with forged sources: a kernel may lack the match.
    drops_forged: bool,
    ports: Ports,
    /// Sockets of services' UDP ports that the process before has left and that are not used yet.
    left: Sockets,
    /// The servers of services' UDP ports, by virtual IP and port, with a duplicate of their sockets.
    udp: BTreeMap<(Ipv4Addr, u16), (AbortOnDropHandle<()>, OwnedFd)>,
    report: watch::Sender<Option<String>>,
}

impl<F: ServiceRouter> Reconciler<F> {
    async fn run(mut self, stop: CancellationToken) -> (NatRules, Sockets) {
        self.update_table().await;
        self.left.clear();
        self.apply_rules(Scope::All).await;
        let mut check = Instant::now() + CHECK_INTERVAL;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.routes.changed() => {
                    if changed.is_err() {
                        // The node is shutting down.
                        stop.cancelled().await;
                        break;
                    }
                    if self.update_table().await {
                        let scope =
                            if self.report.borrow().is_some() { Scope::All } else { Scope::Ports };
                        self.apply_rules(scope).await;
                    }
                }
                () = sleep_until(check) => {
                    if self.report.borrow().is_some() || !self.rules.are_in_place(self.drops_forged).await {
                        self.apply_rules(Scope::All).await;
                    }
                    check = Instant::now() + CHECK_INTERVAL;
                }
            }
        }
        let mut sockets = Sockets::default();
        for (at, (_, socket)) in self.udp {
            sockets.insert(udp_name(at), socket);
        }
        (self.rules, sockets)
    }

    /// Publishes the table of the current routes, and opens and closes UDP sockets. Returns whether the NAT rules change.
    async fn update_table(&mut self) -> bool {
        let routes = Arc::clone(&self.routes.borrow_and_update());
        let table = Arc::new(self.tables.borrow().next(&routes));
        self.tables.send_replace(Arc::clone(&table));
        let before = (self.ports.udp.clone(), self.ports.echo.clone());
        let bridge = |network: &NetworkKey| {
            self.docker.bridge_name(network, table.internal().contains(network))
        };
        let answering = table.answering().iter().take(MAX_ECHO_RULES);
        self.ports.echo = answering.map(|(network, address)| (bridge(network), *address)).collect();
        let wanted: BTreeSet<_> = table.udp().keys().take(MAX_UDP_PORTS).collect();
        self.udp.retain(|at, _| wanted.contains(at));
        self.ports.udp.retain(|at, _| wanted.contains(at));
        for (&at, service) in table.udp().iter().take(MAX_UDP_PORTS) {
            if self.udp.contains_key(&at) {
                continue;
            }
            match self.serve_udp_port(at, service).await {
                Ok((port, task, socket)) => {
                    self.udp.insert(at, (task, socket));
                    self.ports.udp.insert(at, port);
                }
                Err(error) => {
                    tracing::warn!(%service, port = at.1, %error, "cannot bind a socket for a service's UDP port");
                }
            }
        }
        before != (self.ports.udp.clone(), self.ports.echo.clone())
    }

    /// Serves a UDP port of a service on a socket. Returns its port and a duplicate.
    async fn serve_udp_port(
        &mut self,
        at: (Ipv4Addr, u16),
        service: &ServiceKey,
    ) -> std::io::Result<(u16, AbortOnDropHandle<()>, OwnedFd)> {
        let socket = bind_udp(self.left.take_udp(&udp_name(at))).await?;
        let (port, local_port) = (at.1, socket.local_addr()?.port());
        let duplicate = socket.as_fd().try_clone_to_owned()?;
        let (proxy, service) = (self.proxy.clone(), service.clone());
        let task = tokio::spawn(async move {
            let admit = proxy.admit(service.clone());
            proxy.router.udp(socket, service, port, admit).await;
        });
        Ok((local_port, AbortOnDropHandle::new(task), duplicate))
    }

    /// Applies NAT rules. Logs when they begin to fail and when they work again.
    async fn apply_rules(&mut self, scope: Scope) {
        let applied = match scope {
            _ if !self.docker.is_local() => Err(NatError::RemoteEngine),
            Scope::All => {
                let applied = self.rules.apply(&self.ports).await.map_err(NatError::from);
                applied.map(|dropped| self.drops_forged = dropped)
            }
            Scope::Ports => self.rules.replace(&self.ports).await.map_err(NatError::from),
        };
        let problem = applied.err().map(|error| error.to_string());
        // While the rules fail, new containers use the host's resolvers.
        self.docker.enable_dns(problem.is_none());
        match (&*self.report.borrow(), &problem) {
            (None, Some(problem)) => {
                tracing::warn!(problem, "containers cannot resolve services");
            }
            (Some(_), None) => tracing::info!("containers can resolve services again"),
            _ => {}
        }
        self.report.send_replace(problem);
    }
}
