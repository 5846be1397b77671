//! DNS and virtual IPs of services as containers use them, with a real Docker engine and the iptables of its network
//! namespace. Has the requirements of `runtime_docker`.

#![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

#[allow(dead_code, reason = "shared with runtime_docker, which uses all of it")]
#[path = "../../runtime/tests/runtime_docker/engine.rs"]
mod engine;
#[allow(dead_code, reason = "shared with runtime_docker, which uses all of it")]
#[path = "../../runtime/tests/runtime_docker/host.rs"]
mod host;

use std::fmt::Display;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use vc_engine::routes::{Routes, ServiceRoutes};
use vc_node::dns::{Admit, Config, DnsServer, RESOLV_CONF, ServiceRouter, container_servers};
use vc_node::handover::Sockets;
use vc_protocol::{NetworkKey, ServiceKey};

use vc_runtime::Runtime;

use engine::Engine;
use host::{Contents, Host, start_in_networks};

/// The only record of the node's own resolver.
const EXTERNAL: (&str, Ipv4Addr) = ("example.test.", Ipv4Addr::new(192, 0, 2, 7));
/// The answer of a UDP service to every DNS query.
const UDP_ANSWER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

impl Engine {
    /// Moves this thread, and all tasks and processes that it starts, into the engine's network namespace.
    fn enter_network(&self) {
        let path = format!("/proc/{}/ns/net", self.process.id());
        let network = File::open(path).expect("the engine's network namespace");
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
    }

    /// Runs a program in a container. Returns whether it succeeded, and its output.
    async fn exec(&self, container: &str, arguments: &[&str]) -> (bool, String) {
        let mut command = tokio::process::Command::from(self.docker(&["exec", container]));
        let output = command.args(arguments).output().await.expect("the docker CLI");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }
}

/// A router that answers TCP connections with their service and port, and UDP queries with [`UDP_ANSWER`].
#[derive(Clone)]
struct TestRouter;

impl ServiceRouter for TestRouter {
    async fn tcp(&self, mut stream: TcpStream, service: ServiceKey, port: u16) {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        let answer = format!("{service} port {port}");
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    async fn udp(&self, socket: UdpSocket, _: ServiceKey, _: u16, admit: Admit) {
        let resolve = move |_, from| {
            let admitted = admit(from);
            async move { admitted.await.then_some(UDP_ANSWER) }.boxed()
        };
        serve_dns(socket, resolve).await;
    }
}

/// Serves DNS queries. `resolve` returns the address of a name, the unspecified address for NXDOMAIN, `None` for no
/// response.
async fn serve_dns(
    socket: UdpSocket,
    resolve: impl Fn(String, IpAddr) -> BoxFuture<'static, Option<Ipv4Addr>>,
) {
    let mut query = [0; 512];
    loop {
        let (bytes, from) = socket.recv_from(&mut query).await.expect("a query");
        let mut message = Message::from_vec(&query[..bytes]).expect("a query");
        message.metadata.message_type = MessageType::Response;
        // Otherwise Docker asks the next resolver, the node's own, which is unreachable from here.
        message.metadata.authoritative = true;
        let query = message.queries[0].clone();
        match resolve(query.name().to_ascii(), from.ip()).await {
            None => continue,
            Some(Ipv4Addr::UNSPECIFIED) => message.metadata.response_code = ResponseCode::NXDomain,
            Some(ip) if query.query_type() == RecordType::A => {
                message.add_answer(Record::from_rdata(query.name().clone(), 60, RData::A(A(ip))));
            }
            Some(_) => {}
        }
        let answer = message.to_vec().expect("an answer");
        socket.send_to(&answer, from).await.expect("sent");
    }
}

/// Returns routes with these services and their networks.
fn routes(services: &[(&str, &[&str])]) -> Routes {
    let mut routes = Routes::default();
    for (service, networks) in services {
        let key: ServiceKey = service.parse().expect("a service");
        let networks = networks.iter().map(|network| {
            let network = network.parse().expect("a name");
            (NetworkKey::Project(key.project.clone(), network), ["Alias".to_owned()].into())
        });
        let routes_of_service = ServiceRoutes {
            networks: networks.collect(),
            udp: [53].into(),
            ..ServiceRoutes::default()
        };
        routes.services.insert(key, routes_of_service);
    }
    routes
}

/// Returns the iptables rules of the network namespace.
fn iptables_rules() -> String {
    let rules = Command::new("iptables-save").output().expect("iptables");
    assert!(rules.status.success());
    String::from_utf8_lossy(&rules.stdout).into_owned()
}

/// Resolves a name in a container; `None`: NXDOMAIN.
async fn lookup(engine: &Engine, container: &str, name: &str) -> Option<Ipv4Addr> {
    let (found, output) = engine.exec(container, &["nslookup", name]).await;
    // The first address is the resolver's.
    let mut addresses =
        output.lines().filter_map(|line| line.strip_prefix("Address: ")?.parse().ok());
    let address = addresses.next_back();
    assert_eq!(found, address.is_some(), "{output}");
    assert!(found || output.contains("NXDOMAIN"), "{output}");
    address
}

/// Connects from a container to a port. Returns the answer, or the error of `nc`.
async fn ask(engine: &Engine, container: &str, host: impl Display, port: u16) -> String {
    let command = format!("echo hello | nc -w 5 {host} {port}");
    engine.exec(container, &["sh", "-c", &command]).await.1
}

#[tokio::test]
async fn services_are_reachable_by_name_from_their_own_networks_only() {
    let engine = Engine::new();
    engine.enter_network();
    // A firewall that drops incoming packets by default.
    for rule in [["-P", "INPUT", "DROP"].as_slice(), &["-A", "INPUT", "-i", "lo", "-j", "ACCEPT"]] {
        assert!(Command::new("iptables").args(rule).status().expect("iptables").success());
    }
    let resolv_conf = engine.dir.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1\n").expect("written");
    let external = UdpSocket::bind("127.0.0.1:53").await.expect("a socket");
    tokio::spawn(serve_dns(external, |name, _| {
        let known = if name == EXTERNAL.0 { EXTERNAL.1 } else { Ipv4Addr::UNSPECIFIED };
        futures::future::ready(Some(known)).boxed()
    }));
    let dir = tempfile::tempdir().expect("a directory");
    let dns = Arc::new(|| container_servers(Path::new(RESOLV_CONF)));
    let mut host = Host::with(engine.host(), 2, Contents::default(), Vec::new(), dir, dns);
    host.listed().await;
    let Runtime::Docker(docker) = host.runtime.clone() else { panic!("no Docker") };
    let services: [(&str, &[&str]); 4] = [
        ("shop/api", &["front", "back"]),
        ("shop/db", &["back"]),
        ("shop/web", &["front"]),
        ("blog/web", &["default"]),
    ];
    let (table, watched) = watch::channel(Arc::new(Routes::default()));
    let config = Config { resolv_conf };
    let mut left = Sockets::default();
    let names = DnsServer::start(config, docker, watched, TestRouter, &mut left);
    let names = names.await.expect("sockets");
    table.send_replace(Arc::new(routes(&services)));

    let web = start_in_networks(&mut host, &engine, "shop/web.1", &["front"]).await;
    let api = start_in_networks(&mut host, &engine, "shop/api.1", &["front", "back"]).await;
    let blog = start_in_networks(&mut host, &engine, "blog/web.1", &[]).await;

    // Any port of a service, by each of its names.
    for (name, port) in [("api", 80), ("API.shop", 80), ("api", 9999)] {
        assert_eq!(ask(&engine, &web, name, port).await, format!("shop/api port {port}"));
    }
    // Each project resolves a name to its own service.
    assert_eq!(ask(&engine, &web, "web", 80).await, "shop/web port 80");
    assert_eq!(ask(&engine, &blog, "alias", 80).await, "blog/web port 80");

    // Only api is in the network of db. A container in two networks has one virtual IP for both.
    assert_eq!(ask(&engine, &api, "db", 80).await, "shop/db port 80");
    assert_eq!(ask(&engine, &api, "web", 80).await, "shop/web port 80");
    let db = lookup(&engine, &api, "db").await.expect("an address");
    assert_eq!(ask(&engine, &api, db, 80).await, "shop/db port 80");
    for other in [&web, &blog] {
        assert_eq!(lookup(&engine, other, "db").await, None);
        assert_eq!(lookup(&engine, other, "db.shop").await, None);
        // The virtual IP does not work in other networks.
        let output = ask(&engine, other, db, 80).await;
        assert!(!output.contains("shop/db"), "{output}");
    }

    // Datagrams to a declared UDP port.
    let server = db.to_string();
    let (answered, output) = engine.exec(&api, &["nslookup", "-type=a", "x.test", &server]).await;
    assert!(answered && output.contains(&UDP_ANSWER.to_string()), "{output}");
    let (answered, output) = engine.exec(&web, &["nslookup", "-type=a", "x.test", &server]).await;
    assert!(!answered && !output.contains(&UDP_ANSWER.to_string()), "{output}");

    // All other names are resolved by the node's own resolver.
    assert_eq!(lookup(&engine, &blog, "example.test").await, Some(EXTERNAL.1));
    assert_eq!(lookup(&engine, &blog, "printer").await, None);

    // A new service resolves; a removed one does not.
    let services = [("shop/queue", ["front"].as_slice()), ("shop/web", &["front"])];
    table.send_replace(Arc::new(routes(&services)));
    assert_eq!(ask(&engine, &web, "queue", 80).await, "shop/queue port 80");
    assert_eq!(lookup(&engine, &web, "api").await, None);

    assert_eq!(*names.problem().borrow(), None);
    assert!(iptables_rules().contains("198.18.0.53/32"));
    names.stop().await;
    let left = iptables_rules();
    assert!(!left.contains("REDIRECT --to-ports"), "{left}");
    // Connections of running containers to the virtual IP are refused.
    let refused = ask(&engine, &web, db, 80).await;
    assert!(refused.contains("can't connect"), "{refused}");
}
