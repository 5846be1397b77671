//! Joins, and reconnections after restarts.

use std::time::Instant;

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, measured, until};

#[test]
fn three_nodes_join_as_servers_and_workers_and_see_each_other() {
    let start = Instant::now();
    let mut cluster = Cluster::found();
    cluster.join(0, &["server", "worker"]);
    cluster.all_up();
    measured("three nodes founded, joined and up", start.elapsed());

    for at in 0..3 {
        let rows = cluster.rows(at, &["nodes"]);
        let ids: Vec<&str> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
        assert!(
            cluster.nodes.iter().all(|node| ids.contains(&node.id())),
            "the peer ids are those of the nodes"
        );
        assert!(
            rows.iter().all(|row| row["cpu_millis"] == 4000 && row["memory_bytes"] == 4_u64 << 30),
            "{rows:?}"
        );
    }
    // A server creates join tokens, a worker has one do it.
    cluster.node_token(1, "server");
    cluster.node_token(2, "worker");
}

#[test]
fn a_second_server_admits_nodes_when_the_first_is_down() {
    let mut cluster = Cluster::found();
    cluster.join(0, &["server"]);
    cluster.all_up();
    let old = cluster.node_token(0, "server");
    cluster.nodes[0].kill();

    // With a token of the remaining server, and with one that the dead server created.
    cluster.join(1, &["worker"]);
    let mut late = cluster.outsider("n4");
    late.start(&["join", &old]);
    cluster.nodes.push(late);
    cluster.all_up();
    // Without --peer, vc finds a running node.
    let admin = cluster.nodes[0].dir.join("admin.token").display().to_string();
    cluster.vc_anywhere(&admin, &["nodes"]).done();
}

#[test]
fn the_admin_token_names_every_member_so_that_it_outlives_the_first_node() {
    let mut cluster = Cluster::found();
    let path = cluster.nodes[0].dir.join("admin.token");
    let claims = || {
        let token = std::fs::read_to_string(&path).expect("the token");
        vc_protocol::token::decode_unverified(token.trim()).expect("its claims")
    };
    let first = claims();
    cluster.join(0, &["server", "worker"]);
    cluster.all_up();
    let ids: Vec<String> = cluster.nodes.iter().map(|node| node.id().to_owned()).collect();
    until("the token names every member", DEADLINE, || {
        let peers: Vec<String> = claims().peers.iter().map(ToString::to_string).collect();
        let named = |id: &&String| peers.iter().any(|peer| peer.ends_with(id.as_str()));
        if ids.iter().all(|id| named(&id)) { Ok(()) } else { Err(format!("{peers:?}")) }
    });
    let now = claims();
    assert_eq!((now.jti, now.exp, now.scope), (first.jti, first.exp, first.scope));

    cluster.nodes[0].kill();
    // A fresh `vc`, which remembers no addresses.
    std::fs::remove_dir_all(cluster.path("state")).expect("what vc remembered");
    cluster.vc_anywhere(&path.display().to_string(), &["nodes"]).done();
}

/// Joins as a node with this key, as `vc-node join` does, without starting a node.
pub fn join_as(cluster: &Cluster, at: usize, key: u8, token: &str) -> Result<(), String> {
    let name = format!("newcomer-{key}").parse().expect("a name");
    let key = vc_protocol::Keypair::ed25519_from_bytes([key; 32]).expect("32 bytes");
    let id = vc_protocol::token::decode_unverified(token).expect("a token").aud;
    let address = cluster.nodes[at].address().parse().expect("an address");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let joined = runtime.block_on(vc_client::join(key, id, token, &name, &[address]));
    joined.map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_token_lets_one_node_join_and_that_node_repeat_it() {
    let cluster = &Cluster::found();
    let token = &cluster.node_token(0, "worker");
    // Both at once: one of them is admitted.
    let results = std::thread::scope(|scope| {
        let joins = [1, 2].map(|key| (key, scope.spawn(move || join_as(cluster, 0, key, token))));
        joins.map(|(key, join)| (key, join.join().expect("no panic")))
    });
    let (admitted, refused): (Vec<_>, Vec<_>) = results.iter().partition(|(_, it)| it.is_ok());
    let [(key, _)] = admitted[..] else { panic!("{results:?}") };
    let [(other, Err(error))] = refused[..] else { panic!("{results:?}") };
    assert!(error.contains("it lets 1 node join"), "{error}");
    assert!(error.contains("vc token create --node"), "{error}");
    // A lost answer costs no other token.
    assert_eq!(join_as(cluster, 0, *key, token), Ok(()));
    join_as(cluster, 0, *other, token).expect_err("it is used");
    let left = |cluster: &Cluster| -> Vec<_> {
        let rows = cluster.rows(0, &["token", "ls"]);
        rows.iter().map(|row| row["uses_left"].clone()).collect()
    };
    assert_eq!(left(cluster), [0]);

    let two = cluster.vc(0, &["token", "create", "--node", "--uses", "2"]).done();
    assert_eq!(left(cluster), [2, 0]);
    for key in [5, 6, 5] {
        assert_eq!(join_as(cluster, 0, key, two.trim()), Ok(()));
    }
    let error = join_as(cluster, 0, 7, two.trim()).expect_err("it is used");
    assert!(error.contains("it lets 2 nodes join"), "{error}");
    assert_eq!(left(cluster), [0, 0]);
}

#[test]
fn restarted_nodes_reconnect_from_the_addresses_on_their_disk() {
    let mut cluster = Cluster::of(3);
    let id = cluster.nodes[2].id().to_owned();
    cluster.nodes[2].kill();
    cluster.nodes[2].start(&["run"]);
    assert_eq!(cluster.nodes[2].id(), id, "the peer id is unchanged");
    cluster.all_up();
    cluster.nodes[1].stop();
    cluster.nodes[1].start(&["run"]);
    cluster.all_up();

    // All nodes at once, started in reverse order.
    cluster.nodes.iter_mut().for_each(|node| node.kill());
    let start = Instant::now();
    cluster.nodes.iter_mut().rev().for_each(|node| node.launch(&["run"]));
    cluster.nodes.iter_mut().for_each(|node| node.ready());
    cluster.all_up();
    measured("three nodes restarted and up", start.elapsed());
}

#[test]
fn a_node_whose_port_changed_is_reconnected() {
    let mut cluster = Cluster::of(3);
    for moved in [2, 0] {
        cluster.nodes[moved].kill();
        let other = cluster.outsider("elsewhere").port;
        cluster.nodes[moved].port = other;
        cluster.nodes[moved].start(&["run"]);
    }
    cluster.all_up();
    until("all nodes know the new address", DEADLINE, || {
        let port = format!("/tcp/{}", cluster.nodes[2].port.number);
        (0..3).try_for_each(|at| {
            let rows = cluster.rows(at, &["nodes"]);
            let row = rows.iter().find(|row| row["name"] == "n3").ok_or("no n3")?;
            let known = row["addresses"].to_string();
            if known.contains(&port) { Ok(()) } else { Err(known) }
        })
    });
    // n2 restarts and reconnects with the addresses that it has stored.
    cluster.nodes[1].kill();
    cluster.nodes[1].start(&["run"]);
    cluster.all_up();
}
