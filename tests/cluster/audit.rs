//! The audit log: who did what, as every node tells it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::fixtures::logging_service;
use crate::harness::{DEADLINE, running, sleeping_service, until};
use crate::join::join_as;

/// Returns what `vc audit` prints on a node.
pub fn records(cluster: &Cluster, at: usize, arguments: &[&str]) -> Vec<Value> {
    let arguments = [&["--output", "json", "audit"], arguments].concat();
    let out = cluster.vc(at, &arguments).done();
    out.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}

/// Returns action and text of the records, without sessions.
fn story(rows: &[Value]) -> Vec<(&str, &str)> {
    let rows = rows.iter().filter(|row| !text(row, "action").starts_with("session_"));
    rows.map(|row| (text(row, "action"), text(row, "text"))).collect()
}

fn token_id(token: &str) -> String {
    vc_protocol::token::decode_unverified(token).expect("a token").jti
}

#[test]
fn a_session_is_told_by_every_node_with_user_token_and_address() {
    let mut cluster = Cluster::of(2);
    cluster.join(0, &["worker"]);
    cluster.all_up();
    let ann = cluster.user_token(0, "ann", "deployer");
    let token = token_id(&ann);

    let file = cluster.file("web.yaml", &logging_service("shop", "web", 1));
    cluster.vc_as(&ann, 0, &["deploy", &file]).done();
    until("shop/web runs", DEADLINE, || running(&cluster.ps(0), "shop/web", 1));
    // A worker has a server perform it.
    cluster.vc_as(&ann, 2, &["scale", "web=2"]).done();
    cluster.vc_as(&ann, 1, &["drain", "n1"]).refused_with("--role admin");
    cluster.vc_as(&ann, 0, &["logs", "--tail", "1", "web"]).done();
    let _ = cluster.vc_as(&ann, 0, &["exec", "web.1", "--", "echo", "hunter2"]);
    cluster.vc(1, &["token", "revoke", &token]).done();
    until("the token is refused", DEADLINE, || {
        let output = cluster.vc_as(&ann, 0, &["nodes"]);
        if output.err.contains("revoked") { Ok(()) } else { Err(output) }
    });

    let holder = cluster.ps(0)[0]["node_name"].as_str().expect("a node").to_owned();
    let rows = until("the worker has reported its records", DEADLINE, || {
        let rows = records(&cluster, 1, &["--user", "ann"]);
        let by_worker = |row: &&Value| row["node_name"] == "n3";
        if rows.iter().any(|row| by_worker(&row)) { Ok(rows) } else { Err(rows) }
    })
    .0;
    let ran = format!("ran echo in shop/web.1 on {holder}");
    assert_eq!(
        story(&rows)[..5],
        [
            ("service_deployed", "deployed shop/web (image vc-test:1, 1 replica)"),
            ("service_scaled", "scaled shop/web from 1 to 2"),
            (
                "refused",
                "was refused: drain: 'ann' has the role deployer, and this request needs admin"
            ),
            ("logs_read", "read the logs of web"),
            ("exec", ran.as_str()),
        ]
    );
    assert!(story(&rows)[5..].iter().all(|it| {
        it.0 == "refused" && it.1 == "was refused: the token was revoked: ask for a new one"
    }));
    assert!(story(&rows).len() > 5, "the refusal of the revoked token: {rows:#?}");
    for row in &rows {
        assert_eq!((text(row, "user"), text(row, "token")), ("ann", token.as_str()), "{row}");
        assert_eq!(text(row, "address"), "127.0.0.1", "{row}");
        assert!(!row.to_string().contains("hunter2"), "{row}");
    }
    // The signature of a server is behind what it forwarded; the worker's session is there as well.
    let scaled = rows.iter().find(|row| row["action"] == "service_scaled").expect("told");
    assert!(["n1", "n2"].contains(&text(scaled, "node_name")), "{scaled}");
    let mut sessions = rows.iter().filter(|row| row["action"] == "session_opened");
    assert!(sessions.clone().any(|row| row["node_name"] == "n3"), "{rows:#?}");
    assert!(sessions.all(|row| row["via_name"].is_null()), "the worker tells it alone: {rows:#?}");
    // Every node tells the same, without copies.
    for at in [0, 2] {
        assert_eq!(records(&cluster, at, &["--user", "ann"]), rows, "n{}", at + 1);
    }
    let of_admin = records(&cluster, 2, &["--user", "admin"]);
    let revoked = of_admin.iter().filter(|row| row["action"] == "token_revoked");
    assert_eq!(
        revoked.map(|row| text(row, "text").to_owned()).collect::<Vec<_>>(),
        [format!("revoked token {token} of ann")]
    );
    let joined = records(&cluster, 0, &[]);
    // A node may ask several servers to admit it.
    let joined = joined.iter().filter(|row| row["action"] == "node_joined");
    let joined: BTreeSet<_> = joined.map(|row| text(row, "text")).collect();
    assert_eq!(joined.len(), 2, "{joined:?}");
    assert!(joined.iter().any(|text| text.starts_with("admitted node n3 (")), "{joined:?}");
    let of_service = records(&cluster, 0, &["--service", "shop/web"]);
    assert_eq!(story(&of_service).len(), 4, "{of_service:#?}");
    assert!(records(&cluster, 0, &["--service", "db"]).is_empty());

    // A line reads as a sentence.
    let out = cluster.vc(0, &["audit", "--user", "ann", "--service", "web"]).done();
    let line = out.lines().find(|line| line.contains("scaled")).expect("a line");
    let by = text(scaled, "node_name");
    let told = format!(" ann scaled shop/web from 1 to 2, from 127.0.0.1, by {by}");
    assert!(line.ends_with(&told), "{line}");
}

#[test]
fn refused_attempts_are_recorded_and_only_admins_read_them() {
    let cluster = Cluster::found();
    let vera = cluster.user_token(0, "vera", "viewer");
    let dora = cluster.user_token(0, "dora", "deployer");
    cluster.vc_as(&vera, 0, &["audit"]).refused_with("--role admin");
    cluster.vc_as(&dora, 0, &["audit"]).refused_with("--role admin");
    // As an attacker does: vc and vc-node see themselves that the signature does not match.
    let (first, second) = (cluster.node_token(0, "worker"), cluster.node_token(0, "server"));
    let (head, _) = first.rsplit_once('.').expect("a token");
    let (_, signature) = second.rsplit_once('.').expect("a token");
    join_as(&cluster, 0, 1, &format!("{head}.{signature}")).expect_err("it is forged");
    let file = "    cap_add: [SYS_ADMIN]\n";
    let file = crate::harness::fixtures::with("shop", "web", 1, file);
    let file = cluster.file("web.yaml", &file);
    cluster.vc_as(&dora, 0, &["deploy", &file]).refused_with("SYS_ADMIN");
    let newcomer = cluster.outsider("newcomer");
    let join = cluster.node_token(0, "worker");
    cluster.vc(0, &["token", "revoke", &token_id(&join)]).done();
    newcomer.attempt(&["join", &join]).refused_with("revoked");

    let rows = records(&cluster, 0, &[]);
    let refused: Vec<_> = rows.iter().filter(|row| row["action"] == "refused").collect();
    let told: Vec<_> = refused.iter().map(|row| (text(row, "user"), text(row, "text"))).collect();
    let expected = [
        ("vera", "audit: 'vera' has the role viewer"),
        ("dora", "audit: 'dora' has the role deployer"),
        ("", "to join as newcomer-1: the token's signature does not match"),
        ("dora", "shop/web asks for the capability SYS_ADMIN"),
        ("", "to join as newcomer: the token was revoked"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((user, text), (by, words)) in told.into_iter().zip(expected) {
        assert!(user == by && text.contains(words), "{user} {text}");
    }
    assert!(refused.iter().all(|row| row["address"] == "127.0.0.1"), "{refused:?}");
    assert_eq!(text(refused[2], "token"), "", "no token signed it");
    assert_eq!(text(refused[4], "token"), token_id(&join));
    assert!(rows.iter().all(|row| !row.to_string().contains("eyJ")), "no token is in the log");
}

#[test]
fn an_altered_record_is_found_and_a_server_that_is_down_is_named() {
    let mut cluster = Cluster::of(2);
    let file = cluster.file("web.yaml", &sleeping_service("shop", "web", 1));
    cluster.vc(0, &["deploy", &file]).done();
    let checks = cluster.vc(1, &["--output", "json", "audit", "--verify"]).json();
    let names: Vec<_> = checks.as_array().expect("rows").iter().collect();
    assert_eq!(names.len(), 2, "{checks}");
    assert!(names.iter().all(|check| check["problem"] == ""), "{checks}");
    let mut follows = cluster.vc_running(1, &["audit", "-f", "--service", "web"]);
    let line = follows.next_line(DEADLINE).expect("what was there");
    assert!(line.contains("deployed shop/web"), "{line}");

    cluster.nodes[0].kill();
    let log = cluster.nodes[0].dir.join("audit/changes/00000001.jsonl");
    let text = std::fs::read_to_string(&log).expect("the log");
    assert!(text.contains("deployed shop/web"));
    std::fs::write(&log, text.replace("deployed shop/web", "deployed shop/wob")).expect("written");
    until("n1 is named as down", DEADLINE, || {
        let output = cluster.vc(1, &["audit"]);
        if output.err.contains("n1 is down") { Ok(()) } else { Err(output) }
    });
    // What the other server has is complete.
    assert!(cluster.vc(1, &["audit"]).done().contains("admin deployed shop/web"));

    cluster.nodes[0].start(&["run"]);
    cluster.all_up();
    let error = cluster.vc(1, &["audit", "--verify"]).failed();
    assert!(error.contains("the audit log of n1 was altered: in changes, line "), "{error}");
    // Records go on, on both.
    cluster.vc(0, &["scale", "web=2"]).done();
    let line = follows.next_line(DEADLINE).expect("it follows");
    assert!(line.contains("admin scaled shop/web from 1 to 2"), "{line}");
    follows.kill();
}
