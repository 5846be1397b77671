//! `join` and `prove_membership` against minimal members on loopback.
#![allow(clippy::expect_used, reason = "tests")]

use futures::StreamExt as _;
use libp2p::swarm::{StreamProtocol, SwarmEvent};
use libp2p::{Multiaddr, Stream, Swarm, noise, tcp, yamux};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vc_client::frames::Frames;
use vc_client::handshake::{HandshakeError, prove_membership};
use vc_client::{ConnectError, join};
use vc_protocol::auth::{
    AuthResponse, ClientHello, Credentials, JoinResponse, MAX_AUTH_FRAME, ServerHello,
};
use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{ClusterId, Keypair, NodeId, ProtocolVersions, wire};

const ROOT: u8 = 1;

fn key(n: u8) -> Keypair {
    Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes")
}

fn node_id(n: u8) -> NodeId {
    NodeId::of(&key(n).public()).expect("ed25519")
}

fn cluster() -> ClusterId {
    ClusterId::of(&key(ROOT).public()).expect("ed25519")
}

fn certificate(root: u8, node: u8) -> String {
    issue_certificate(&key(root), node_id(node), NodeRole::Server, 1).expect("signed")
}

fn new_swarm(n: u8) -> Swarm<libp2p_stream::Behaviour> {
    libp2p::SwarmBuilder::with_existing_identity(key(n))
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .expect("tcp")
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .expect("a behaviour")
        .build()
}

/// A node that answers every handshake with the same response.
struct Member {
    address: Multiaddr,
    task: JoinHandle<()>,
}

impl Member {
    /// Starts node `n` with a certificate of the cluster of root key `root`.
    async fn start(n: u8, root: u8, response: AuthResponse) -> Self {
        Self::speaking(ProtocolVersions::OURS, n, root, response).await
    }

    /// The same, with the protocol versions that it says it speaks.
    async fn speaking(versions: ProtocolVersions, n: u8, root: u8, response: AuthResponse) -> Self {
        let mut swarm = new_swarm(n);
        let mut streams = swarm
            .behaviour()
            .new_control()
            .accept(StreamProtocol::new(wire::AUTH_PROTOCOL))
            .expect("once");
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address")).expect("listens");
        let (ready, address) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut ready = Some(ready);
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => {
                        if let SwarmEvent::NewListenAddr { address, .. } = event
                            && let Some(ready) = ready.take()
                        {
                            let _ = ready.send(address);
                        }
                    }
                    Some((_, stream)) = streams.next() => {
                        let (certificate, response) = (certificate(root, n), response.clone());
                        tokio::spawn(async move { answer(stream, versions, certificate, response).await });
                    }
                }
            }
        });
        Self { address: address.await.expect("listens"), task }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    stream: Stream,
    speaks: ProtocolVersions,
    certificate: String,
    response: AuthResponse,
) -> Option<()> {
    let mut frames = Frames::new(stream, MAX_AUTH_FRAME);
    let ClientHello { versions } = frames.receive().await.ok()?;
    assert_eq!(versions, ProtocolVersions::OURS);
    frames.send(&ServerHello { certificate, versions: speaks }).await.ok()?;
    let _: Credentials = frames.receive().await.ok()?;
    frames.send(&response).await.ok()?;
    frames.close().await.ok()
}

fn admitted() -> AuthResponse {
    AuthResponse::Joined(Box::new(JoinResponse {
        certificate: "certificate".to_owned(),
        // Larger than a frame before authentication.
        certificates: vec!["x".repeat(MAX_AUTH_FRAME); 4],
        cluster_key: None,
        signing_key: None,
        file_key: None,
        peers: vec![],
    }))
}

fn refused(reason: &str) -> AuthResponse {
    AuthResponse::Refused { reason: reason.to_owned(), busy: false, removed: false }
}

async fn join_through(members: &[&Member]) -> Result<JoinResponse, ConnectError> {
    let addresses: Vec<Multiaddr> = members.iter().map(|it| it.address.clone()).collect();
    let name = "attic".parse().expect("a name");
    join(key(9), cluster(), "token", &name, &addresses).await
}

#[tokio::test]
async fn a_node_joins_through_the_member_that_admits_it() {
    let worker = Member::start(2, ROOT, refused("this node is a worker")).await;
    let outsider = Member::start(3, 77, admitted()).await;
    let server = Member::start(4, ROOT, admitted()).await;
    let response = join_through(&[&worker, &outsider, &server]).await.expect("admitted");
    assert_eq!(response.certificates.len(), 4);
}

#[tokio::test]
async fn the_refusal_of_the_only_member_is_returned() {
    let worker = Member::start(2, ROOT, refused("this node is a worker")).await;
    let error = join_through(&[&worker]).await.err().expect("refused").to_string();
    assert_eq!(error, "the cluster refuses the token: this node is a worker");
    let outsider = Member::start(3, 77, admitted()).await;
    let error = join_through(&[&outsider]).await.err().expect("refused").to_string();
    assert!(error.contains("a node of another cluster"), "{error}");
}

#[tokio::test]
async fn a_node_that_speaks_no_common_version_gets_no_credentials() {
    let newer = ProtocolVersions { version: 9, oldest: 8 };
    let member = Member::speaking(newer, 2, ROOT, admitted()).await;
    let error = join_through(&[&member]).await.err().expect("refused").to_string();
    assert!(error.contains("versions 8 to 9") && error.contains("upgrade this program"), "{error}");
    let both = ProtocolVersions { version: 9, oldest: 1 };
    let member = Member::speaking(both, 2, ROOT, admitted()).await;
    join_through(&[&member]).await.expect("admitted");
}

#[tokio::test]
async fn a_member_proves_its_membership_on_an_existing_connection() {
    for (response, expected) in [
        (AuthResponse::Member { known: true }, Ok(true)),
        (AuthResponse::Member { known: false }, Ok(false)),
        (refused("no"), Err("refused: no")),
        (admitted(), Err("the node answered with a message of the wrong kind")),
    ] {
        let member = Member::start(2, ROOT, response).await;
        let mut swarm = new_swarm(9);
        let control = swarm.behaviour().new_control();
        swarm.dial(member.address.clone()).expect("dials");
        let drive = tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        // Opening a stream waits for the connection of the dial, or dials the peer without an address.
        let result: Result<bool, HandshakeError> = loop {
            let attempt =
                prove_membership(control.clone(), node_id(2), cluster(), certificate(ROOT, 9));
            match attempt.await {
                Err(HandshakeError::NotANode) => tokio::task::yield_now().await,
                result => break result,
            }
        };
        assert_eq!(result.map_err(|error| error.to_string()), expected.map_err(str::to_owned));
        drive.abort();
    }
}
