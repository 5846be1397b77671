//! Names of services, as containers see them: with a real engine, and the packet filter of a network of the test's own.
//! Needs what `runtime_docker` needs.

#![allow(clippy::expect_used, reason = "a test states what must not fail")]

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
use vc_protocol::ServiceKey;

use vc_runtime::Runtime;

use engine::Engine;
use host::{Contents, Host, start_in_networks};

/// What the node's own resolver knows: one name.
const WORLD: (&str, Ipv4Addr) = ("example.test.", Ipv4Addr::new(192, 0, 2, 7));
/// What a service that answers over UDP knows, whatever it is asked.
const TOLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

impl Engine {
    /// Takes this thread, and whatever it starts from now on, into the engine's network.
    fn enter_network(&self) {
        let path = format!("/proc/{}/ns/net", self.process.id());
        let network = File::open(path).expect("the engine's network");
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
    }

    /// Runs a program in a container without holding up the thread: whether it succeeded, and what it said.
    async fn exec(&self, container: &str, arguments: &[&str]) -> (bool, String) {
        let mut command = tokio::process::Command::from(self.docker(&["exec", container]));
        let output = command.args(arguments).output().await.expect("the docker CLI");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }
}

/// Stands for the mesh: tells which service and port it was asked for.
#[derive(Clone)]
struct Teller;

impl ServiceRouter for Teller {
    async fn tcp(&self, mut stream: TcpStream, service: ServiceKey, port: u16) {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        let answer = format!("this is {service} port {port}");
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    async fn udp(&self, socket: UdpSocket, _: ServiceKey, _: u16, admit: Admit) {
        let know = move |_, from| {
            let admitted = admit(from);
            async move { admitted.await.then_some(TOLD) }.boxed()
        };
        answer_questions(socket, know).await;
    }
}

/// Answers questions for addresses: `None`: not at all.
async fn answer_questions(
    socket: UdpSocket,
    know: impl Fn(String, IpAddr) -> BoxFuture<'static, Option<Ipv4Addr>>,
) {
    let mut question = [0; 512];
    loop {
        let (bytes, from) = socket.recv_from(&mut question).await.expect("a question");
        let mut message = Message::from_vec(&question[..bytes]).expect("a question");
        message.metadata.message_type = MessageType::Response;
        // Else Docker asks the next resolver, which is the node's own and not reached from here.
        message.metadata.authoritative = true;
        let query = message.queries[0].clone();
        match know(query.name().to_ascii(), from.ip()).await {
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

/// Services, each with its networks.
fn routes(services: &[(&str, &[&str])]) -> Routes {
    let mut routes = Routes::default();
    for (service, networks) in services {
        let networks = networks
            .iter()
            .map(|network| (network.parse().expect("a name"), ["Alias".to_owned()].into()));
        let wanted = ServiceRoutes {
            networks: networks.collect(),
            udp: [53].into(),
            ..ServiceRoutes::default()
        };
        routes.services.insert(service.parse().expect("a service"), wanted);
    }
    routes
}

fn filter() -> String {
    let rules = Command::new("iptables-save").output().expect("iptables");
    assert!(rules.status.success());
    String::from_utf8_lossy(&rules.stdout).into_owned()
}

/// The address that a name has in a container; none when it does not exist there.
async fn lookup(engine: &Engine, container: &str, name: &str) -> Option<Ipv4Addr> {
    let (found, said) = engine.exec(container, &["nslookup", name]).await;
    // The first address is the resolver's.
    let mut addresses =
        said.lines().filter_map(|line| line.strip_prefix("Address: ")?.parse().ok());
    let address = addresses.next_back();
    assert_eq!(found, address.is_some(), "{said}");
    assert!(found || said.contains("NXDOMAIN"), "{said}");
    address
}

/// What is told at a port of a name or an address, or why there is nothing.
async fn told(engine: &Engine, container: &str, host: impl Display, port: u16) -> String {
    let ask = format!("echo hello | nc -w 5 {host} {port}");
    engine.exec(container, &["sh", "-c", &ask]).await.1
}

#[tokio::test]
async fn a_service_is_reached_by_its_name_and_only_from_the_networks_that_it_is_in() {
    let engine = Engine::new();
    engine.enter_network();
    // A firewall that lets in only what it knows.
    for rule in [["-P", "INPUT", "DROP"].as_slice(), &["-A", "INPUT", "-i", "lo", "-j", "ACCEPT"]] {
        assert!(Command::new("iptables").args(rule).status().expect("iptables").success());
    }
    let resolv_conf = engine.dir.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1\n").expect("written");
    let world = UdpSocket::bind("127.0.0.1:53").await.expect("a socket");
    tokio::spawn(answer_questions(world, |name, _| {
        let known = if name == WORLD.0 { WORLD.1 } else { Ipv4Addr::UNSPECIFIED };
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
    let names = DnsServer::start(config, docker, watched, Teller).await.expect("sockets");
    table.send_replace(Arc::new(routes(&services)));

    let web = start_in_networks(&mut host, &engine, "shop/web.1", &["front"]).await;
    let api = start_in_networks(&mut host, &engine, "shop/api.1", &["front", "back"]).await;
    let blog = start_in_networks(&mut host, &engine, "blog/web.1", &[]).await;

    // Any port of a service, by its names.
    for (name, port) in [("api", 80), ("API.shop", 80), ("api", 9999)] {
        assert_eq!(told(&engine, &web, name, port).await, format!("this is shop/api port {port}"));
    }
    // Of the same name, each project sees its own.
    assert_eq!(told(&engine, &web, "web", 80).await, "this is shop/web port 80");
    assert_eq!(told(&engine, &blog, "alias", 80).await, "this is blog/web port 80");

    // A network of the project that only one of them is in: a container in two networks has one address for both.
    assert_eq!(told(&engine, &api, "db", 80).await, "this is shop/db port 80");
    assert_eq!(told(&engine, &api, "web", 80).await, "this is shop/web port 80");
    let db = lookup(&engine, &api, "db").await.expect("an address");
    assert_eq!(told(&engine, &api, db, 80).await, "this is shop/db port 80");
    for other in [&web, &blog] {
        assert_eq!(lookup(&engine, other, "db").await, None);
        assert_eq!(lookup(&engine, other, "db.shop").await, None);
        // Who knows the address gets nowhere with it.
        let said = told(&engine, other, db, 80).await;
        assert!(!said.contains("this is"), "{said}");
    }

    // Datagrams to a port that the service named.
    let server = db.to_string();
    let (answered, said) = engine.exec(&api, &["nslookup", "-type=a", "x.test", &server]).await;
    assert!(answered && said.contains(&TOLD.to_string()), "{said}");
    let (answered, said) = engine.exec(&web, &["nslookup", "-type=a", "x.test", &server]).await;
    assert!(!answered && !said.contains(&TOLD.to_string()), "{said}");

    // The rest of the world is as the node sees it.
    assert_eq!(lookup(&engine, &blog, "example.test").await, Some(WORLD.1));
    assert_eq!(lookup(&engine, &blog, "printer").await, None);

    // A service that comes later has a name, and one that is gone has none.
    let services = [("shop/queue", ["front"].as_slice()), ("shop/web", &["front"])];
    table.send_replace(Arc::new(routes(&services)));
    assert_eq!(told(&engine, &web, "queue", 80).await, "this is shop/queue port 80");
    assert_eq!(lookup(&engine, &web, "api").await, None);

    assert_eq!(*names.problem().borrow(), None);
    assert!(filter().contains("198.18.0.53/32"));
    names.stop().await;
    let left = filter();
    assert!(!left.contains("REDIRECT --to-ports"), "{left}");
    // Running containers continue, and get an answer at once that the name is unknown.
    let refused = told(&engine, &web, db, 80).await;
    assert!(refused.contains("can't connect"), "{refused}");
}
