//! The DNS server: its sockets, and the reconcile loop that keeps the table, UDP ports and NAT rules up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
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
use vc_protocol::ServiceKey;
use vc_runtime::docker::Docker;

use super::container_lookup::ContainerLookup;
use super::error::NatError;
use super::nat_rules::{NatRules, Ports};
use super::resolver::Resolver;
use super::service_router::ServiceRouter;
use super::table::Table;
use super::transparent_proxy::TransparentProxy;
use super::upstream::{RESOLV_CONF, Upstream};

/// Interval at which the NAT rules are checked, and applied again when they are missing or could not be applied.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Limit of UDP ports of services that have a socket on this node.
const MAX_UDP_PORTS: usize = 1024;

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
    reconciler: JoinHandle<()>,
    _servers: [AbortOnDropHandle<()>; 3],
}

impl DnsServer {
    /// Starts to answer queries of the engine's containers for the services in `routes`. Errors: a socket cannot be
    /// bound. Failing NAT rules are no error: they are retried, and [`DnsServer::problem`] reports them.
    pub async fn start<F: ServiceRouter>(
        config: Config,
        docker: Docker,
        routes: watch::Receiver<Arc<Routes>>,
        router: F,
    ) -> std::io::Result<Self> {
        // On all addresses, since bridges and redirect targets come and go. Clients that are not containers of this
        // node, or were not redirected, are rejected.
        let any = (Ipv4Addr::UNSPECIFIED, 0);
        let (udp, tcp) = (UdpSocket::bind(any).await?, TcpListener::bind(any).await?);
        let connections = TcpListener::bind(any).await?;
        let ports = Ports {
            resolver_udp: udp.local_addr()?.port(),
            resolver_tcp: tcp.local_addr()?.port(),
            proxy: connections.local_addr()?.port(),
            udp: BTreeMap::new(),
        };
        let (tables, table) = watch::channel(Arc::new(Table::default()));
        let (report, problem) = watch::channel(None);
        let rules = NatRules::new(&docker.identity().node.short(), &docker.bridge_prefix());
        let containers = Arc::new(ContainerLookup::new(docker.clone()));
        let resolver = Resolver {
            table: table.clone(),
            containers: Arc::clone(&containers),
            upstream: Upstream::new(config.resolv_conf),
        };
        let proxy = TransparentProxy { table, containers, router };
        let servers = [
            tokio::spawn(resolver.clone().serve_udp(udp)),
            tokio::spawn(resolver.serve_tcp(tcp)),
            tokio::spawn(proxy.clone().serve(connections)),
        ];
        let stop = CancellationToken::new();
        let sockets = BTreeMap::new();
        let reconciler =
            Reconciler { docker, routes, tables, proxy, rules, ports, sockets, report };
        let reconciler = tokio::spawn(reconciler.run(stop.clone()));
        Ok(Self { problem, stop, reconciler, _servers: servers.map(AbortOnDropHandle::new) })
    }

    /// Returns why containers of this node cannot resolve services, in one line; `None`: they can.
    pub fn problem(&self) -> watch::Receiver<Option<String>> {
        self.problem.clone()
    }

    /// Stops redirecting packets and ends the server. What containers then send to virtual IPs is rejected at once,
    /// until the next server starts.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.reconciler.await;
    }
}

/// The state of the reconcile loop.
struct Reconciler<F> {
    docker: Docker,
    routes: watch::Receiver<Arc<Routes>>,
    tables: watch::Sender<Arc<Table>>,
    proxy: TransparentProxy<F>,
    rules: NatRules,
    ports: Ports,
    /// The sockets of services' UDP ports, by virtual IP and port.
    sockets: BTreeMap<(Ipv4Addr, u16), AbortOnDropHandle<()>>,
    report: watch::Sender<Option<String>>,
}

impl<F: ServiceRouter> Reconciler<F> {
    async fn run(mut self, stop: CancellationToken) {
        self.update_table().await;
        self.apply_rules().await;
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
                        self.apply_rules().await;
                    }
                }
                () = sleep_until(check) => {
                    if self.report.borrow().is_some() || !self.rules.are_in_place().await {
                        self.apply_rules().await;
                    }
                    check = Instant::now() + CHECK_INTERVAL;
                }
            }
        }
        self.rules.remove().await;
    }

    /// Publishes the table of the current routes, and opens and closes UDP sockets. Returns whether the NAT rules change.
    async fn update_table(&mut self) -> bool {
        let routes = Arc::clone(&self.routes.borrow_and_update());
        let table = Arc::new(self.tables.borrow().next(&routes));
        self.tables.send_replace(Arc::clone(&table));
        let before = self.ports.udp.clone();
        let wanted: BTreeSet<_> = table.udp().keys().take(MAX_UDP_PORTS).collect();
        self.sockets.retain(|at, _| wanted.contains(at));
        self.ports.udp.retain(|at, _| wanted.contains(at));
        for (&at, service) in table.udp().iter().take(MAX_UDP_PORTS) {
            if self.sockets.contains_key(&at) {
                continue;
            }
            match self.serve_udp_port(at.1, service).await {
                Ok((port, task)) => {
                    self.sockets.insert(at, task);
                    self.ports.udp.insert(at, port);
                }
                Err(error) => {
                    tracing::warn!(%service, port = at.1, %error, "cannot bind a socket for a service's UDP port");
                }
            }
        }
        before != self.ports.udp
    }

    /// Serves a UDP port of a service on a socket, whose port it returns.
    async fn serve_udp_port(
        &self,
        port: u16,
        service: &ServiceKey,
    ) -> std::io::Result<(u16, AbortOnDropHandle<()>)> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        let local_port = socket.local_addr()?.port();
        let (proxy, service) = (self.proxy.clone(), service.clone());
        let task = tokio::spawn(async move {
            let admit = proxy.admit(service.clone());
            proxy.router.udp(socket, service, port, admit).await;
        });
        Ok((local_port, AbortOnDropHandle::new(task)))
    }

    /// Applies the NAT rules. Logs when they begin to fail and when they work again.
    async fn apply_rules(&self) {
        let applied = match self.docker.is_local() {
            true => self.rules.apply(&self.ports).await,
            false => Err(NatError::RemoteEngine),
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
