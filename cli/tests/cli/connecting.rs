//! Finds a member, and sends the token to no other node.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use vc_protocol::control::Reply;

use crate::Home;
use crate::node::{Cluster, HOUR, Node, OURS, member, node_row, now};

const THEIRS: Cluster = Cluster(2);

fn nodes(name: &str) -> Vec<Reply> {
    vec![Reply::Nodes(vec![node_row(10, name)])]
}

fn closed_port() -> Multiaddr {
    "/ip4/127.0.0.1/tcp/1".parse().expect("an address")
}

#[test]
fn a_token_suffices_to_connect() {
    let (home, node) = (Home::new(), Node::start(member(OURS, 10, nodes("alpha"))));
    let token = OURS.token(&[&node.address]);
    let file = home.write("admin.token", &token);
    let started = Instant::now();
    let out = home.vc(&["--token", &file, "nodes"]).ok();
    assert!(out.contains("alpha"), "{out}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let out = home.vc(&["nodes", "--token", &token, "--output", "json"]).ok();
    let rows: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(rows, serde_json::to_value([node_row(10, "alpha")]).expect("JSON"));
    assert_eq!(node.seen(|seen| seen.tokens.clone()), [token.clone(), token]);
}

#[test]
fn a_node_is_reached_over_quic() {
    let mut plan = member(OURS, 10, nodes("alpha"));
    plan.quic = true;
    let (home, node) = (Home::new(), Node::start(plan));
    assert!(home.vc(&["--token", &OURS.token(&[&node.address]), "nodes"]).ok().contains("alpha"));
    // It closed the connection, or the node would wait for its idle timeout.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(node.seen(|seen| (seen.connections, seen.goodbyes)), (1, 1));
}

#[test]
fn the_token_is_sent_to_no_node_without_a_valid_certificate() {
    // It has a certificate of another cluster, or one of this cluster that belongs to another node.
    let mut stolen = member(OURS, 11, nodes("stolen"));
    stolen.certificate = OURS.certificate(10);
    for (plan, why) in [
        (member(THEIRS, 11, nodes("theirs")), "a node of another cluster"),
        (stolen, "invalid certificate: the certificate belongs to another node"),
    ] {
        let (home, node) = (Home::new(), Node::start(plan));
        let address = node.address.to_string();
        let error = home.vc(&["--token", &OURS.token(&[]), "--peer", &address, "nodes"]).error();
        assert!(error.starts_with(&format!(
            "cannot reach any node of cluster {}: tried 127.0.0.1:",
            OURS.id()
        )));
        assert!(error.ends_with(&format!(" ({why}); is a node running there?")), "{error}");
        assert_eq!(node.seen(|seen| (seen.connections, seen.tokens.len())), (1, 0));
    }
}

#[test]
fn a_node_of_another_cluster_does_not_prevent_the_connection() {
    let impostor = Node::start(member(THEIRS, 11, nodes("theirs")));
    let node = Node::start(member(OURS, 10, nodes("alpha")));
    let home = Home::new();
    for _ in 0..5 {
        let token = OURS.token(&[&impostor.address, &closed_port(), &node.address]);
        assert!(home.vc(&["--token", &token, "nodes"]).ok().contains("alpha"));
    }
    assert_eq!(impostor.seen(|seen| seen.tokens.len()), 0);
}

#[test]
fn one_reachable_address_suffices() {
    let (home, node) = (Home::new(), Node::start(member(OURS, 10, nodes("alpha"))));
    // One refuses connections, one is unroutable (TEST-NET-2, RFC 5737), one accepts and stays silent, one does not resolve.
    let nowhere: Multiaddr = "/ip4/198.51.100.1/tcp/4777".parse().expect("an address");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let silent: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("an address");
    let unknown: Multiaddr = "/dns4/nothing.invalid/tcp/1".parse().expect("an address");
    let token = OURS.token(&[&closed_port(), &nowhere, &silent, &unknown, &node.address]);
    let started = Instant::now();
    assert!(home.vc(&["--token", &token, "nodes"]).ok().contains("alpha"));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn an_unreachable_cluster_is_reported_with_every_address() {
    let home = Home::new();
    let error = home.vc(&[
        "--token",
        &OURS.token(&[]),
        "--peer",
        "127.0.0.1:1",
        "--peer",
        "/ip4/127.0.0.1/tcp/2",
        "ps",
    ]);
    let tried = "tried 127.0.0.1:1 (connection refused), 127.0.0.1:2 (connection refused)";
    let expected = format!(
        "cannot reach any node of cluster {}: {tried}; is a node running there?",
        OURS.id()
    );
    assert_eq!(error.error(), expected);
    // Without --peer, mDNS is asked too; no node of this cluster answers.
    let started = Instant::now();
    let error = home.vc(&["--token", &OURS.token(&[&closed_port()]), "ps"]).error();
    assert!(error.contains("tried 127.0.0.1:1 (connection refused)"), "{error}");
    assert!(error.ends_with("is a node running? name one with --peer"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(11), "{:?}", started.elapsed());
}

/// Needs an interface beside loopback that supports multicast, for mDNS.
#[test]
fn mdns_is_asked_last() {
    // A cluster of its own: other tests use mDNS as well.
    let lonely = Cluster(3);
    let mut plan = member(lonely, 10, nodes("alpha"));
    plan.mdns = true;
    let (home, _node) = (Home::new(), Node::start(plan));
    assert!(
        home.vc(&["--token", &lonely.token(&[&closed_port()]), "nodes"]).ok().contains("alpha")
    );
    // Not with --peer.
    home.vc(&["--token", &lonely.token(&[]), "--peer", "127.0.0.1:1", "nodes"]).error();
}

#[test]
fn a_peer_without_the_auth_protocol_is_reported() {
    let mut plan = member(OURS, 10, nodes("alpha"));
    plan.protocol = "/something/else";
    let (home, node) = (Home::new(), Node::start(plan));
    let address = node.address.to_string();
    let error = home.vc(&["--token", &OURS.token(&[]), "--peer", &address, "nodes"]).error();
    assert!(error.contains("(not a node of a Virtual Cluster)"), "{error}");
}

#[test]
fn a_refusal_is_reported_in_the_words_of_the_node() {
    let mut plan = member(OURS, 10, nodes("alpha"));
    plan.refuses = Some("the token was revoked".to_owned());
    let (home, node) = (Home::new(), Node::start(plan));
    let started = Instant::now();
    let error =
        home.vc(&["--token", &OURS.token(&[&closed_port(), &node.address]), "nodes"]).error();
    assert_eq!(error, "the cluster refuses the token: the token was revoked");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn members_are_remembered_for_when_the_first_is_gone() {
    let home = Home::new();
    let other = Node::start(member(OURS, 11, nodes("beta")));
    let mut plan = member(OURS, 10, nodes("alpha"));
    plan.peers = vec![other.address.clone()];
    let first = Node::start(plan);
    let token = OURS.token(&[&first.address]);
    assert!(home.vc(&["--token", &token, "nodes"]).ok().contains("alpha"));
    let memory = home.path().join(format!(".local/state/vc/{}.json", OURS.id()));
    let mode = std::fs::metadata(&memory).expect("remembered").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(first);
    assert!(home.vc(&["--token", &token, "nodes"]).ok().contains("beta"));
    // A damaged file of known peers is ignored.
    std::fs::write(&memory, "nonsense").expect("written");
    assert!(home.vc(&["--token", &OURS.token(&[&other.address]), "nodes"]).ok().contains("beta"));
    // So is a home that cannot be written to.
    std::fs::remove_dir_all(home.path().join(".local")).expect("removed");
    home.write(".local", "a file");
    assert!(home.vc(&["--token", &OURS.token(&[&other.address]), "nodes"]).ok().contains("beta"));
}

#[test]
fn the_token_is_taken_from_the_flag_then_the_environment_then_the_login() {
    let node = Node::start(member(OURS, 10, nodes("alpha")));
    let home = Home::new();
    let none = home.vc(&["nodes"]).error();
    assert_eq!(
        none,
        "no token; give one with --token FILE, set VC_TOKEN, or store one with 'vc login TOKEN'"
    );

    let tokens: Vec<String> =
        (1..4).map(|n| OURS.token_at(now() - n * 1000, &[&node.address])).collect();
    let kept = home.write("kept", &tokens[0]);
    let said = home.vc(&["login", &kept]).ok();
    let path = home.path().join(".config/vc/token");
    assert_eq!(
        said,
        format!("ada (admin) of cluster {}, stored in {}\n", OURS.id(), path.display())
    );
    assert_eq!(std::fs::metadata(&path).expect("kept").permissions().mode() & 0o777, 0o600);

    home.vc(&["nodes"]).ok();
    let environment = |args: &[&str]| {
        let peer = format!("{}, 127.0.0.1:1", node.address);
        home.command(args)
            .env("VC_TOKEN", &tokens[1])
            .env("VC_PEER", peer)
            .output()
            .expect("started")
    };
    crate::CommandOutput::from(environment(&["nodes"])).ok();
    crate::CommandOutput::from(environment(&["nodes", "--token", &tokens[2]])).ok();
    let empty =
        home.command(&["nodes"]).env("VC_TOKEN", "").env("VC_PEER", "").output().expect("started");
    crate::CommandOutput::from(empty).ok();
    let order = [&tokens[0], &tokens[1], &tokens[2], &tokens[0]].map(Clone::clone);
    assert_eq!(node.seen(|seen| seen.tokens.clone()), order);
    let help =
        home.command(&["nodes", "--help"]).env("VC_TOKEN", &tokens[1]).output().expect("started");
    assert!(
        !crate::CommandOutput::from(help).ok().contains(&tokens[1]),
        "the help does not show the secret"
    );
}

#[test]
fn a_token_that_has_expired_by_this_clock_is_judged_by_the_node() {
    let node = Node::start(member(OURS, 10, nodes("alpha")));
    let expired = OURS.token_at(now() - 2 * HOUR, &[&node.address]);
    let error = Home::new().vc(&["--token", &expired, "nodes"]).error();
    assert_eq!(
        error,
        "the cluster refuses the token: the token expired, by the node's clock: ask for a new one with 'vc token create'"
    );
    assert_eq!(node.seen(|seen| seen.tokens.clone()), [expired]);
}

#[test]
fn an_invalid_token_is_not_sent() {
    let node = Node::start(member(OURS, 10, nodes("alpha")));
    let home = Home::new();
    let good = OURS.token(&[&node.address]);
    for (token, why) in [
        (
            &good[..good.len() - 10],
            "the token's signature does not match: it was altered, or cut when it was copied",
        ),
        ("eyJhbGciOi", "this is not a token of a Virtual Cluster"),
        ("nonsense", "'nonsense' is neither a file nor a token of a Virtual Cluster"),
    ] {
        assert_eq!(home.vc(&["--token", token, "nodes"]).error(), why);
        assert_eq!(home.vc(&["login", token]).error(), why);
    }
    assert_eq!(node.seen(|seen| seen.connections), 0);
}
