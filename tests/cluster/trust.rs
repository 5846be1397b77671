//! Authentication and authorization. A refusal has exit code 1 and one line with the fix.

use crate::harness::cluster::Cluster;
use crate::harness::fixtures::{logging_service, with};
use crate::harness::{DEADLINE, running, sleeping_service, until};

/// Changes one character in one part of a token.
fn altered(token: &str, part: usize) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let middle = parts[part].len() / 2;
    let replacement = if parts[part].as_bytes()[middle] == b'A' { "B" } else { "A" };
    parts[part].replace_range(middle..=middle, replacement);
    parts.join(".")
}

#[test]
fn requests_are_checked_against_the_role_and_refusals_name_the_role_needed() {
    let cluster = Cluster::found();
    let file = cluster.file("web.yaml", &sleeping_service("shop", "web", 1));
    let viewer = cluster.user_token(0, "vera", "viewer");
    let deployer = cluster.user_token(0, "dora", "deployer");

    cluster.vc_as(&viewer, 0, &["deploy", &file]).refused_with("--role deployer");
    cluster.vc_as(&viewer, 0, &["scale", "web=2"]).refused_with("--role deployer");
    cluster.vc_as(&viewer, 0, &["rm", "web"]).refused_with("--role deployer");
    assert!(cluster.rows(0, &["services"]).is_empty(), "a refused command changes nothing");
    for command in [&["nodes"][..], &["ps"], &["services"], &["status"], &["plan", &file]] {
        cluster.vc_as(&viewer, 0, command).done();
    }

    cluster.vc_as(&deployer, 0, &["deploy", &file]).done();
    cluster.vc_as(&deployer, 0, &["drain", "n1"]).refused_with("--role admin");
    cluster.vc_as(&deployer, 0, &["token", "create", "--node"]).refused_with("--role admin");
    cluster
        .vc_as(&deployer, 0, &["token", "create", "--user", "eve", "--role", "admin"])
        .refused_with("--role admin");
}

#[test]
fn invalid_tokens_are_refused() {
    let cluster = Cluster::found();
    let other = Cluster::found();
    let user = cluster.user_token(0, "ada", "admin");
    let node = cluster.node_token(0, "server");
    let newcomer = cluster.outsider("newcomer");

    // Altered, truncated or malformed tokens.
    for part in [1, 2] {
        cluster.vc_as(&altered(&user, part), 0, &["nodes"]).refused();
        newcomer.attempt(&["join", &altered(&node, part)]).refused();
    }
    cluster.vc_as(&altered(&user, 2), 0, &["nodes"]).refused_with("altered");
    newcomer.attempt(&["join", &node[..node.len() - 4]]).refused_with("cut");
    newcomer.attempt(&["join", &node[..node.len() / 2]]).refused_with("not a token");
    cluster.vc_as("garbage", 0, &["nodes"]).refused_with("neither a file nor a token");
    newcomer.attempt(&["join", "garbage"]).refused_with("not a token");
    newcomer.attempt(&["join", ""]).refused();

    // Tokens for another purpose.
    cluster.vc_as(&node, 0, &["nodes"]).refused_with("user token");
    newcomer.attempt(&["join", &user]).refused_with("--node");

    // A token of another cluster: vc does not send it to the node.
    let foreign = other.user_token(0, "eve", "admin");
    cluster.vc_as(&foreign, 0, &["nodes"]).refused_with("cluster");
    assert!(!newcomer.dir.join("membership.json").exists(), "the node has not joined");
}

#[test]
fn tokens_expire_after_their_ttl() {
    let cluster = Cluster::found();
    let create = |arguments: &[&str]| {
        let arguments = [&["token", "create", "--ttl", "2s"], arguments].concat();
        cluster.vc(0, &arguments).done().trim().to_owned()
    };
    // Expiry has a resolution of one second: the token created first does not expire last.
    let node = create(&["--node"]);
    let user = create(&["--user", "ada", "--role", "admin"]);
    cluster.vc_as(&user, 0, &["nodes"]).done();
    let (output, _) =
        until("the token expires", DEADLINE, || match cluster.vc_as(&user, 0, &["nodes"]) {
            output if output.code == Some(0) => Err("the token is accepted".to_owned()),
            output => Ok(output),
        });
    output.refused_with("expired");
    cluster.outsider("late").attempt(&["join", &node]).refused_with("expired");
}

#[test]
fn a_node_that_cannot_join_or_start_prints_what_to_do() {
    let mut cluster = Cluster::of(2);
    let token = cluster.node_token(0, "server");

    let mut newcomer = cluster.outsider("newcomer");
    newcomer.attempt(&["run"]).refused_with("vc-node init");
    newcomer.port = cluster.outsider("spare").port;
    let port = std::net::TcpListener::bind(("127.0.0.1", newcomer.port.number)).expect("free");
    newcomer.attempt(&["init"]).refused_with("--port");
    assert!(
        !newcomer.dir.join("membership.json").exists(),
        "a node that cannot listen creates no cluster"
    );
    drop(port);
    let socket = std::net::UdpSocket::bind(("127.0.0.1", newcomer.port.number)).expect("free");
    newcomer.attempt(&["init"]).refused_with("UDP");
    drop(socket);

    // The data directory of a running node, and of a member.
    cluster.nodes[1].attempt(&["run"]).refused_with("in use");
    cluster.nodes[1].kill();
    cluster.nodes[1].attempt(&["init"]).refused_with("vc-node run");
    cluster.nodes[1].attempt(&["join", &token]).refused_with("vc-node run");

    // No node is running.
    cluster.nodes[0].kill();
    newcomer.attempt(&["join", &token]).refused_with("127.0.0.1");
    cluster.vc(0, &["nodes"]).refused_with("cannot reach");
    cluster.nodes[0].start(&["run"]);
    newcomer.start(&["join", &token]);
    cluster.nodes.push(newcomer);
    cluster.all_up();
}

#[test]
fn workers_hold_no_cluster_key_and_secret_files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut cluster = Cluster::found();
    cluster.join(0, &["worker"]);
    assert!(cluster.nodes[0].dir.join("cluster.key").exists());
    assert!(!cluster.nodes[1].dir.join("cluster.key").exists());
    for (node, file) in [
        (0, "node.key"),
        (0, "cluster.key"),
        (0, "admin.token"),
        (1, "node.key"),
        (1, "membership.json"),
    ] {
        let path = cluster.nodes[node].dir.join(file);
        let mode = std::fs::metadata(&path).expect("the file exists").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
}

#[test]
fn a_worker_has_servers_perform_the_commands_of_its_users() {
    let mut cluster = Cluster::found();
    cluster.join(0, &["worker"]);
    let roles: Vec<_> = cluster.rows(1, &["nodes"]).iter().map(|row| row["role"].clone()).collect();
    assert_eq!(roles.len(), 2);
    assert!(roles.contains(&"server".into()) && roles.contains(&"worker".into()), "{roles:?}");

    let web = sleeping_service("shop", "web", 1);
    let file = cluster.file("web.yaml", &web);
    cluster.deploy(1, &web);
    cluster.vc(1, &["scale", "web=2"]).done();
    cluster.vc(1, &["restart", "web"]).done();
    cluster.vc(1, &["drain", "n2", "--no-wait"]).done();
    cluster.vc(1, &["undrain", "n2"]).done();
    cluster.vc(1, &["rebalance"]).done();
    assert_eq!(cluster.rows(0, &["services"])[0]["replicas"], 2);
    let deployer = cluster.user_token(1, "dora", "deployer");
    cluster.vc_as(&deployer, 1, &["scale", "web=1"]).done();
    cluster.vc_as(&deployer, 1, &["drain", "n2"]).refused_with("--role admin");
    let viewer = cluster.user_token(1, "vera", "viewer");
    cluster.vc_as(&viewer, 1, &["scale", "web=3"]).refused_with("--role deployer");

    cluster.nodes[0].stop();
    cluster.vc(1, &["deploy", &file]).refused_with("reaches no server");
    cluster.vc(1, &["services"]).done();
}

#[test]
fn a_node_that_was_revoked_is_refused_with_its_keys_and_tokens() {
    let mut cluster = Cluster::of(3);
    let user = cluster.user_token(2, "ada", "admin");
    let admission = cluster.node_token(2, "server");
    cluster.vc_as(&user, 0, &["nodes"]).done();
    let dir = cluster.nodes[2].dir.clone();
    let keys = ["node.key", "cluster.key", "files.key", "membership.json"];
    let stolen = keys.map(|name| std::fs::read(dir.join(name)).expect("a key"));

    cluster.vc(0, &["node", "revoke", "n3"]).done();
    cluster.nodes[2].ends();
    assert!(keys.iter().all(|name| !dir.join(name).exists()), "its keys are deleted");
    for at in [0, 1] {
        until("n3 has left", DEADLINE, || {
            let rows = cluster.rows(at, &["nodes"]);
            let left = rows.iter().any(|row| row["name"] == "n3" && row["state"] == "left");
            if left { Ok(()) } else { Err(format!("{rows:?}")) }
        });
        cluster.vc_as(&user, at, &["nodes"]).refused_with("removed from the cluster");
    }
    let newcomer = cluster.outsider("newcomer");
    newcomer.attempt(&["join", &admission]).refused_with("removed from the cluster");

    for (name, key) in keys.iter().zip(stolen) {
        std::fs::write(dir.join(name), key).expect("written");
    }
    // Before its database was told: the thief has a copy of everything.
    std::fs::remove_file(dir.join("state.redb")).expect("removed");
    cluster.nodes[2].launch(&["run"]);
    for at in [0, 1] {
        until("the thief is refused", DEADLINE, || {
            let log = cluster.nodes[at].log();
            if log.contains("was removed from the cluster") { Ok(()) } else { Err(log) }
        });
    }
    let rows = cluster.rows(0, &["nodes"]);
    let up = rows.iter().filter(|row| row["state"] == "up").count();
    assert_eq!(up, 2, "{rows:?}");
}

#[test]
fn a_node_that_was_removed_while_it_was_away_stops_everything_when_it_returns() {
    let mut cluster = Cluster::of(3);
    let pinned = "    deploy: {placement: {constraints: [node.name == n3]}}\n";
    cluster.deploy(0, &with("shop", "web", 1, pinned));
    until("it runs on n3", DEADLINE, || running(&cluster.ps(0), "shop/web", 1));
    let instances = cluster.nodes[2].dir.join("instances");
    let count = || std::fs::read_dir(&instances).expect("a directory").count();
    cluster.nodes[2].kill();
    cluster.vc(0, &["leave", "n3", "--force"]).done();
    assert_ne!(count(), 0, "its instances outlive its process");

    // No member tells it of anything any more: they refuse it.
    cluster.nodes[2].launch(&["run"]);
    cluster.nodes[2].ends();
    assert_eq!(count(), 0, "its instances are gone");
    assert!(!cluster.nodes[2].dir.join("node.key").exists(), "its keys are deleted");
}

#[test]
fn a_deployer_gives_no_container_its_host() {
    let cluster = Cluster::found();
    let deployer = cluster.user_token(0, "dora", "deployer");
    let spec = |extra: &str| cluster.file("web.yaml", &with("shop", "web", 1, extra));
    let constructs = [
        ("    privileged: true\n", "privileged"),
        ("    devices: [/dev/kvm]\n", "the device /dev/kvm"),
        ("    cap_add: [SYS_ADMIN]\n", "the capability SYS_ADMIN"),
        ("    security_opt: [apparmor=unconfined]\n", "the security option apparmor=unconfined"),
    ];
    for (construct, named) in constructs {
        cluster.vc_as(&deployer, 0, &["deploy", &spec(construct)]).refused_with(named);
    }
    assert!(cluster.rows(0, &["services"]).is_empty(), "a refused command changes nothing");
    // What an admin has deployed stays deployable as it is, and only so.
    let file = spec("    cap_add: [SYS_ADMIN]\n");
    cluster.vc(0, &["deploy", &file]).done();
    cluster.vc_as(&deployer, 0, &["deploy", &file]).done();
    cluster.vc_as(&deployer, 0, &["scale", "web=2"]).done();
    let other = spec("    cap_add: [SYS_ADMIN]\n    environment: {A: b}\n");
    cluster.vc_as(&deployer, 0, &["deploy", &other]).refused_with("SYS_ADMIN");
}

#[test]
fn revoked_tokens_are_refused_on_every_node_and_end_their_sessions() {
    let cluster = Cluster::of(3);
    cluster.deploy(0, &logging_service("shop", "web", 1));
    let first = cluster.user_token(0, "ada", "deployer");
    let second = cluster.user_token(1, "ada", "viewer");
    let other = cluster.user_token(2, "bob", "viewer");
    let rows = cluster.rows(2, &["token", "ls"]);
    let of = |name: &str| rows.iter().filter(|row| row["name"] == name).count();
    assert_eq!((of("ada"), of("bob")), (2, 1), "{rows:?}");
    let id = rows.iter().find(|row| row["role"] == "deployer").expect("listed")["id"].clone();
    let id = id.as_str().expect("text");
    cluster.vc_as(&first, 0, &["token", "ls"]).refused_with("--role admin");

    until("shop/web runs", DEADLINE, || running(&cluster.ps(0), "shop/web", 1));
    let mut session = cluster.vc_running_as(&first, 2, &["logs", "-f", "web"]);
    assert!(session.next_line(DEADLINE).is_some(), "the session is open");
    cluster.vc(0, &["token", "revoke", id]).done();
    assert_eq!(session.end(), Some(1), "the session ends");
    for at in 0..3 {
        until("the token is refused", DEADLINE, || {
            let output = cluster.vc_as(&first, at, &["nodes"]);
            if output.err.contains("revoked") { Ok(()) } else { Err(output) }
        });
        cluster.vc_as(&second, at, &["nodes"]).done();
    }
    cluster.vc(1, &["token", "revoke", "--user", "ada"]).done();
    cluster.vc_as(&second, 1, &["nodes"]).refused_with("revoked");
    cluster.vc_as(&other, 1, &["nodes"]).done();
    let revoked =
        cluster.rows(1, &["token", "ls"]).iter().filter(|row| row["revoked"] == true).count();
    assert_eq!(revoked, 2);
    cluster.vc(1, &["token", "revoke", "nonsense"]).refused_with("vc token ls");
}
