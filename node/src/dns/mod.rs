//! DnsServer of services, as containers see them: `http://api:80` reaches service `api` of the same project wherever its
//! instances are, if both are in one of its networks.
//!
//! A name stands for a *virtual address* that is this node's own invention. Docker's resolver inside a container
//! passes what it does not know to [`DNS_SERVER_IP`], which is such an address too; whatever containers send to them is
//! redirected to us on its way through the node (`rules`). So a question is answered here (`resolver`), and a
//! connection is taken here (`proxy`) and goes on the way of published ports, to a healthy instance near or far. One way
//! for all means that health, drains and updates are honoured whoever connects.
//!
//! Who asks is known by his address, which only a container of ours on that bridge has (`containers`); what he may know and
//! reach follows from the networks that he is in (`table`).

mod answer;
mod container_lookup;
mod nat_rules;
mod per_ip_limiter;
mod resolver;
mod table;
mod transparent_proxy;
mod upstream;
mod virtual_ips;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use vc_engine::routes::Routes;
use vc_protocol::ServiceKey;

use container_lookup::ContainerLookup;
use nat_rules::{NatRules, Ports};
use resolver::Resolver;
use table::Table;
use transparent_proxy::TransparentProxy;
pub use upstream::RESOLV_CONF;
use upstream::Upstream;
pub use upstream::container_servers;
pub use virtual_ips::{DNS_SERVER_IP, VIRTUAL_IPS};

use vc_runtime::docker::Docker;

/// How often it is looked whether the rules are still in place, and tried again when they could not be put there.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// UDP ports of services that have a socket here.
const MAX_UDP: usize = 1024;

/// Tells whether datagrams of an address are served.
pub type Admit = Arc<dyn Fn(IpAddr) -> BoxFuture<'static, bool> + Send + Sync>;

/// The way from here to an instance of a service.
pub trait ServiceRouter: Clone + Send + Sync + 'static {
    /// Joins a connection with a port of an instance, to the end.
    fn tcp(
        &self,
        stream: TcpStream,
        service: ServiceKey,
        port: u16,
    ) -> impl Future<Output = ()> + Send;

    /// Exchanges the datagrams of a socket with a port of instances, for ever. Those of an address that is not admitted
    /// are dropped.
    fn udp(
        &self,
        socket: UdpSocket,
        service: ServiceKey,
        port: u16,
        admit: Admit,
    ) -> impl Future<Output = ()> + Send;
}

/// How names are served.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the node says which resolvers it asks.
    pub resolv_conf: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { resolv_conf: RESOLV_CONF.into() }
    }
}

/// A handle to the service of names. Dropping it ends the service and leaves its rules behind; [`DnsServer::stop`] does not.
#[derive(Debug)]
pub struct DnsServer {
    problem: watch::Receiver<Option<String>>,
    stop: CancellationToken,
    reconciler: JoinHandle<()>,
    _servers: [AbortOnDropHandle<()>; 3],
}

impl DnsServer {
    /// Starts to serve the names of these routes to the containers of this engine. Errors: no socket can be had. That
    /// the node's packet filter cannot be used is no error: [`DnsServer::problem`] tells it, and it is tried again.
    pub async fn start<F: ServiceRouter>(
        config: Config,
        docker: Docker,
        routes: watch::Receiver<Arc<Routes>>,
        router: F,
    ) -> std::io::Result<Self> {
        // On every address: bridges, and the addresses that packets are redirected to, come and go. Whoever comes
        // without having been redirected, or is no container of ours, is turned away.
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
        let (told, problem) = watch::channel(None);
        let rules = NatRules::new(&docker.identity().node.short(), &docker.bridge_prefix());
        let containers = Arc::new(ContainerLookup::new(docker.clone()));
        let resolver = Resolver {
            table: table.clone(),
            containers: Arc::clone(&containers),
            upstream: Upstream::of(config.resolv_conf),
        };
        let proxy = TransparentProxy { table, containers, router };
        let servers = [
            tokio::spawn(resolver.clone().serve_udp(udp)),
            tokio::spawn(resolver.serve_tcp(tcp)),
            tokio::spawn(proxy.clone().serve(connections)),
        ];
        let stop = CancellationToken::new();
        let udp = BTreeMap::new();
        let reconciler = Reconciler { docker, routes, tables, proxy, rules, ports, udp, told };
        let reconciler = tokio::spawn(reconciler.run(stop.clone()));
        Ok(Self { problem, stop, reconciler, _servers: servers.map(AbortOnDropHandle::new) })
    }

    /// Why containers of this node cannot use names, in one line; `None`: they can.
    pub fn problem(&self) -> watch::Receiver<Option<String>> {
        self.problem.clone()
    }

    /// Ends the service: nothing comes to it any more. What containers send to names is rejected, at once, until the
    /// next one starts.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.reconciler.await;
    }
}

/// Keeps table, sockets and rules as the routes want them.
struct Reconciler<F> {
    docker: Docker,
    routes: watch::Receiver<Arc<Routes>>,
    tables: watch::Sender<Arc<Table>>,
    proxy: TransparentProxy<F>,
    rules: NatRules,
    ports: Ports,
    udp: BTreeMap<(Ipv4Addr, u16), AbortOnDropHandle<()>>,
    told: watch::Sender<Option<String>>,
}

impl<F: ServiceRouter> Reconciler<F> {
    async fn run(mut self, stop: CancellationToken) {
        self.follow().await;
        self.apply().await;
        let mut look = Instant::now() + CHECK_INTERVAL;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.routes.changed() => {
                    if changed.is_err() {
                        // Whoever knew the routes is gone: so is the node, soon.
                        stop.cancelled().await;
                        break;
                    }
                    if self.follow().await {
                        self.apply().await;
                    }
                }
                () = sleep_until(look) => {
                    if self.told.borrow().is_some() || !self.rules.are_in_place().await {
                        self.apply().await;
                    }
                    look = Instant::now() + CHECK_INTERVAL;
                }
            }
        }
        self.rules.remove().await;
    }

    /// Publishes the table that follows from the routes; whether other rules follow as well.
    async fn follow(&mut self) -> bool {
        let routes = Arc::clone(&self.routes.borrow_and_update());
        let table = Arc::new(self.tables.borrow().next(&routes));
        self.tables.send_replace(Arc::clone(&table));
        let before = self.ports.udp.clone();
        let wanted: BTreeSet<_> = table.udp().keys().take(MAX_UDP).collect();
        self.udp.retain(|at, _| wanted.contains(at));
        self.ports.udp.retain(|at, _| wanted.contains(at));
        for (&at, service) in table.udp().iter().take(MAX_UDP) {
            if self.udp.contains_key(&at) {
                continue;
            }
            match self.open(at.1, service).await {
                Ok((port, serving)) => {
                    self.udp.insert(at, serving);
                    self.ports.udp.insert(at, port);
                }
                Err(error) => {
                    tracing::warn!(%service, port = at.1, %error, "no socket for a UDP port of a service");
                }
            }
        }
        before != self.ports.udp
    }

    async fn open(
        &self,
        port: u16,
        service: &ServiceKey,
    ) -> std::io::Result<(u16, AbortOnDropHandle<()>)> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        let ours = socket.local_addr()?.port();
        let (proxy, service) = (self.proxy.clone(), service.clone());
        let serving = tokio::spawn(async move {
            let admit = proxy.admit(service.clone());
            proxy.router.udp(socket, service, port, admit).await;
        });
        Ok((ours, AbortOnDropHandle::new(serving)))
    }

    /// Puts the rules in place; tells it once when that cannot be done, and once when it can again.
    async fn apply(&self) {
        let before = self.told.borrow().clone();
        let now = match self.docker.is_local() {
            true => self.rules.apply(&self.ports).await.err(),
            false => {
                Some("Docker may be on another node: they work with a unix:// engine only".into())
            }
        };
        // Containers that are made while this cannot be put right ask the node's resolvers instead.
        self.docker.enable_dns(now.is_none());
        match (&before, &now) {
            (None, Some(problem)) => {
                tracing::warn!(problem, "names of services do not work inside containers");
            }
            (Some(_), None) => tracing::info!("names of services work inside containers"),
            _ => {}
        }
        self.told.send_replace(now);
    }
}
