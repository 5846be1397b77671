//! A node that completes the handshake like a real one and sends the replies of the test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, StreamProtocol, SwarmEvent};
use libp2p::{Multiaddr, Stream, mdns, noise, tcp, yamux};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use vc_client::frames::{FrameError, Frames};
use vc_protocol::auth::{AuthResponse, ClientHello, Credentials, MAX_AUTH_FRAME, ServerHello};
use vc_protocol::control::{Change, InstanceRow, NodeRow, NodeStatus, Reply, Request, UsageRow};
use vc_protocol::exec::ExecFrame;
use vc_protocol::instance::InstanceState;
use vc_protocol::token::{self, Issuer, NodeRole, Scope, TokenError, UserRole, issue_certificate};
use vc_protocol::{ClusterId, Keypair, NodeId, ProtocolVersions, ServiceKey, wire};

use crate::Home;

/// A cluster whose root key is derived from one number.
#[derive(Clone, Copy)]
pub struct Cluster(pub u8);

/// The cluster of the user.
pub const OURS: Cluster = Cluster(1);

pub const HOUR: u64 = 3_600_000;

pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_millis().try_into().expect("before the year 500 million")
}

pub fn key(n: u8) -> Keypair {
    Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes")
}

pub fn node_id(n: u8) -> NodeId {
    NodeId::of(&key(n).public()).expect("ed25519")
}

impl Cluster {
    pub fn id(self) -> ClusterId {
        ClusterId::of(&key(self.0).public()).expect("ed25519")
    }

    pub fn certificate(self, node: u8) -> String {
        issue_certificate(&key(self.0), node_id(node), NodeRole::Server, now()).expect("signed")
    }

    pub fn token(self, peers: &[&Multiaddr]) -> String {
        self.token_at(now(), peers)
    }

    pub fn token_at(self, issued: u64, peers: &[&Multiaddr]) -> String {
        let peers = peers.iter().map(|it| it.to_string().parse().expect("an address")).collect();
        let certificate = self.certificate(200);
        Issuer { cluster: self.id(), key: &key(200), certificate: &certificate }
            .issue(Scope::User(UserRole::Admin), "ada", peers, 7, issued, HOUR)
            .expect("signed")
    }
}

type Answer = Box<dyn Fn(&Request) -> Vec<Reply> + Send>;
type Download = Box<dyn Fn(&Request) -> Vec<ExecFrame> + Send>;

/// The behaviour of a node.
pub struct Plan {
    /// Its key is derived from this number.
    pub key: u8,
    /// The certificate that it sends.
    pub certificate: String,
    /// Its cluster.
    pub cluster: Cluster,
    /// The reason with which it refuses every token.
    pub refuses: Option<String>,
    /// The addresses of members that it sends.
    pub peers: Vec<Multiaddr>,
    /// Its replies. After an empty list it never replies again; after a list of `Reply::End` alone it closes the stream.
    pub answer: Answer,
    /// The frames that follow its [`Reply::Ready`] to [`Request::ExportVolume`] and [`Request::Backup`]; then it closes the stream.
    pub download: Download,
    /// The name of its auth protocol.
    pub protocol: &'static str,
    /// Whether it listens on QUIC instead of TCP.
    pub quic: bool,
    /// Whether it listens on all interfaces and answers mDNS.
    pub mdns: bool,
}

/// Returns the behaviour of a member of `cluster` that answers every request with `replies`.
pub fn member(cluster: Cluster, n: u8, replies: Vec<Reply>) -> Plan {
    Plan {
        key: n,
        certificate: cluster.certificate(n),
        cluster,
        refuses: None,
        peers: vec![],
        answer: Box::new(move |_| replies.clone()),
        download: Box::new(|_| Vec::new()),
        protocol: wire::AUTH_PROTOCOL,
        quic: false,
        mdns: false,
    }
}

/// What a node received.
#[derive(Default)]
pub struct Seen {
    pub tokens: Vec<String>,
    pub requests: Vec<Request>,
    /// The bytes of an import, and whether their end came.
    pub imported: Vec<u8>,
    pub is_whole: bool,
    pub connections: usize,
    pub goodbyes: usize,
}

/// A node that runs until it is dropped.
pub struct Node {
    pub address: Multiaddr,
    seen: Arc<Mutex<Seen>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Node {
    pub fn start(plan: Plan) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = std::sync::mpsc::channel();
        let shared = seen.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(run(plan, shared, ready, stopped));
        });
        let address = address.recv_timeout(Duration::from_secs(10)).expect("listens");
        Self { address, seen, stop: Some(stop), thread: Some(thread) }
    }

    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().expect("not poisoned"))
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen(|seen| seen.requests.clone())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the node did not panic");
        }
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    stream: libp2p_stream::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

async fn run(
    plan: Plan,
    seen: Arc<Mutex<Seen>>,
    ready: std::sync::mpsc::Sender<Multiaddr>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut swarm = libp2p::SwarmBuilder::with_existing_identity(key(plan.key))
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .expect("tcp")
        .with_quic()
        .with_behaviour(|key| {
            let mdns =
                || mdns::tokio::Behaviour::new(mdns::Config::default(), key.public().to_peer_id());
            let mdns = plan.mdns.then(|| mdns().expect("a network")).into();
            Behaviour { stream: libp2p_stream::Behaviour::new(), mdns }
        })
        .expect("a behaviour")
        .build();
    let mut streams = swarm
        .behaviour()
        .stream
        .new_control()
        .accept(StreamProtocol::new(plan.protocol))
        .expect("once");
    let listen = match plan.quic {
        true => "/ip4/127.0.0.1/udp/0/quic-v1",
        false if plan.mdns => "/ip4/0.0.0.0/tcp/0",
        false => "/ip4/127.0.0.1/tcp/0",
    };
    swarm.listen_on(listen.parse().expect("an address")).expect("listens");
    let plan = std::rc::Rc::new(plan);
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => match event {
                        SwarmEvent::NewListenAddr { address, .. } => {
                            let id = *swarm.local_peer_id();
                            let _ = ready.send(address.with_p2p(id).expect("no other peer"));
                        }
                        SwarmEvent::ConnectionEstablished { .. } => seen.lock().unwrap().connections += 1,
                        SwarmEvent::ConnectionClosed { .. } => seen.lock().unwrap().goodbyes += 1,
                        _ => {}
                    },
                    Some((_, stream)) = streams.next() => {
                        tokio::task::spawn_local(serve(plan.clone(), stream, seen.clone()));
                    }
                    _ = &mut stopped => break,
                }
            }
        })
        .await;
}

async fn serve(plan: std::rc::Rc<Plan>, stream: Stream, seen: Arc<Mutex<Seen>>) -> Option<()> {
    let mut frames = Frames::new(stream, MAX_AUTH_FRAME);
    macro_rules! send {
        ($value:expr) => {
            frames.send(&$value).await.ok()?
        };
    }
    let greeting: ClientHello = receive(&mut frames).await?;
    assert_eq!(greeting.versions, ProtocolVersions::OURS);
    let versions = ProtocolVersions::OURS;
    send!(ServerHello { certificate: plan.certificate.clone(), versions });
    let Credentials::User { token, .. } = receive(&mut frames).await? else { panic!("not a user") };
    seen.lock().unwrap().tokens.push(token.clone());
    let expired = match token::verify(&token, plan.cluster.id(), now()) {
        Err(error @ TokenError::Expired) => Some(error.to_string()),
        verified => verified.map(|_| None).expect("only a valid token is sent"),
    };
    if let Some(reason) = expired.or(plan.refuses.clone()) {
        send!(AuthResponse::Refused { reason, busy: false, removed: false });
        return Some(());
    }
    let peers = plan.peers.iter().map(|it| it.to_string().parse().expect("an address")).collect();
    send!(AuthResponse::User { role: UserRole::Admin, peers });
    frames.set_max(wire::MAX_FRAME);
    loop {
        let request: Request = receive(&mut frames).await?;
        let replies = (plan.answer)(&request);
        let imports = matches!(request, Request::ImportVolume { .. });
        let exports = matches!(request, Request::ExportVolume { .. } | Request::Backup);
        let download = (plan.download)(&request);
        seen.lock().unwrap().requests.push(request);
        if replies.is_empty() {
            std::future::pending::<()>().await;
        }
        let closes = replies == [Reply::End];
        for reply in replies {
            let is_ready = reply == Reply::Ready;
            send!(reply);
            if is_ready && imports {
                loop {
                    let bytes = frames.receive_bytes().await.ok()?;
                    let mut seen = seen.lock().unwrap();
                    seen.imported.extend_from_slice(&bytes);
                    seen.is_whole = bytes.is_empty();
                    if seen.is_whole {
                        break;
                    }
                }
            }
            if is_ready && exports {
                for frame in &download {
                    frames.send_bytes(frame.encode()).await.ok()?;
                }
                frames.close().await.ok()?;
                return Some(());
            }
        }
        if closes {
            return Some(());
        }
    }
}

/// Receives a frame; `None` when the client has closed the stream.
async fn receive<T: DeserializeOwned>(frames: &mut Frames<Stream>) -> Option<T> {
    match frames.receive().await {
        Err(FrameError::Json(error)) => panic!("not a known message: {error}"),
        result => result.ok(),
    }
}

/// Returns a row of a node with this name.
pub fn node_row(n: u8, name: &str) -> NodeRow {
    NodeRow {
        id: node_id(n),
        name: name.to_owned(),
        state: NodeStatus::Up,
        role: "server".to_owned(),
        votes: false,
        problem: String::new(),
        draining: false,
        restarting: false,
        down_since: 0,
        cpu_millis: 4000,
        memory_bytes: 8 << 30,
        cpu_reserved: 500,
        memory_reserved: 1 << 30,
        generic_resources: BTreeMap::new(),
        generic_reserved: BTreeMap::new(),
        cpu_used: 100,
        memory_used: 2 << 30,
        disk_bytes: 40 << 30,
        disk_used: 12 << 30,
        instances: 1,
        runtime: "process".to_owned(),
        platform: "linux/amd64".to_owned(),
        addresses: vec![],
        labels: BTreeMap::new(),
        version: "0.1.0".to_owned(),
        unreachable: vec![],
        clock_offset_ms: 0,
        left: 0,
        backups: None,
    }
}

/// Returns a home logged in to a node that sends these replies.
pub fn attached_to(replies: Vec<Reply>) -> (Home, Node) {
    let (home, node) = (Home::new(), Node::start(member(OURS, 10, replies)));
    let token = home.write("token", &OURS.token(&[&node.address]));
    home.vc(&["login", &token]).ok();
    (home, node)
}

pub fn service(text: &str) -> ServiceKey {
    text.parse().expect("a service")
}

/// The replies to a request that made one change.
pub fn done(change: Change) -> Vec<Reply> {
    vec![Reply::Done(vec![change])]
}

/// Returns an instance of shop/web that runs.
pub fn instance_row(replica: u32, node: &str) -> InstanceRow {
    InstanceRow {
        service: service("shop/web"),
        replica,
        node: Some(node_id(1)),
        node_name: Some(node.to_owned()),
        state: InstanceState::Running,
        reason: String::new(),
        address: String::new(),
        restarts: 0,
        since: 1,
        current: true,
        available: true,
        monitor_ms: 0,
        digest: String::new(),
        terminal: false,
        ended: false,
        cpu_millis: None,
        memory_bytes: None,
    }
}

/// Returns what an instance of shop/web uses.
pub fn usage_row(replica: u32, node: &str) -> UsageRow {
    UsageRow {
        service: service("shop/web"),
        replica,
        node: node_id(1),
        node_name: node.to_owned(),
        digest: String::new(),
        container: String::new(),
        cpu_millis: Some(1255),
        cpu_limit_millis: 2000,
        cpu_ms: 7000,
        memory_bytes: 64 << 20,
        memory_total_bytes: 80 << 20,
        memory_limit_bytes: 128 << 20,
        network_received_bytes: Some(2048),
        network_sent_bytes: Some(512),
        disk_read_bytes: None,
        disk_written_bytes: None,
        processes: 3,
        started: 1,
        measured: 2,
    }
}
