//! The requests that commands send, and what they print.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use vc_protocol::control::{
    Change, EventLevel, EventRow, LogRequest, LogRow, LogStream, MoveRow, PlanReport, Reply,
    Request, ServiceDiff, TokenRequest, TokenSubject, VolumeRow,
};
use vc_protocol::token::{NodeRole, UserRole};
use vc_protocol::{ApiError, ErrorCode, ServiceKey};

use crate::node::{Cluster, Node, member, node_id};
use crate::{CommandOutput, Home};

const OURS: Cluster = Cluster(1);
const COMPOSE: &str = "services:\n  web:\n    image: img:${TAG:-1}\n    deploy: {replicas: 2}\n";

/// A home with a token for a node that sends these replies.
fn with(replies: Vec<Reply>) -> (Home, Node) {
    let (home, node) = (Home::new(), Node::start(member(OURS, 10, replies)));
    let token = home.write("token", &OURS.token(&[&node.address]));
    home.vc(&["login", &token]).ok();
    (home, node)
}

fn service(text: &str) -> ServiceKey {
    text.parse().expect("a service")
}

fn scaled(service: &str, to: u32) -> Change {
    Change::Scaled { service: self::service(service), from: 1, to }
}

fn done(change: Change) -> Vec<Reply> {
    vec![Reply::Done(vec![change])]
}

#[test]
fn changes_are_printed() {
    let (home, node) = with(done(scaled("shop/web", 3)));
    assert_eq!(
        home.vc(&["scale", "web=3", "shop/db=0"]).ok(),
        "shop/web scaled from 1 to 3\n".repeat(2)
    );
    assert_eq!(
        home.vc(&["rm", "shop/", "--output", "json"]).ok(),
        "[{\"change\":\"scaled\",\"service\":\"shop/web\",\"from\":1,\"to\":3}]\n"
    );
    home.vc(&["drain", "attic", "--no-wait"]).ok();
    home.vc(&["undrain", "attic"]).ok();
    let expected = [
        Request::Scale { service: "web".into(), replicas: 3 },
        Request::Scale { service: "shop/db".into(), replicas: 0 },
        Request::Remove { service: "shop/".into() },
        Request::Drain { node: "attic".into(), drain: true },
        Request::Drain { node: "attic".into(), drain: false },
    ];
    assert_eq!(node.requests(), expected);
    assert_eq!(node.seen(|seen| seen.tokens.len()), 4, "one session a command");
}

#[test]
fn restart_rollback_leave_and_volume_send_their_requests() {
    let (home, node) = with(done(Change::Restarting { service: service("shop/web") }));
    assert_eq!(home.vc(&["restart", "web", "shop/api"]).ok(), "shop/web is restarting\n".repeat(2));
    assert_eq!(
        home.vc(&["rollback", "web", "--output", "json"]).ok(),
        "[{\"change\":\"restarting\",\"service\":\"shop/web\"}]\n"
    );
    home.vc(&["leave", "attic", "--force"]).ok();
    home.vc(&["volume", "rm", "shop/data"]).ok();
    let expected = [
        Request::Restart { service: "web".into() },
        Request::Restart { service: "shop/api".into() },
        Request::Rollback { service: "web".into() },
        Request::Leave { node: "attic".into(), force: true },
        Request::RemoveVolume { volume: "shop/data".parse().expect("a volume") },
    ];
    assert_eq!(node.requests(), expected);
}

#[test]
fn volumes_are_listed_with_their_node() {
    let row = VolumeRow {
        volume: "shop/data".parse().expect("a volume"),
        node: node_id(1),
        node_name: "attic".into(),
        up: false,
        services: vec!["shop/db".parse().expect("a service")],
        since: 1,
    };
    let (home, _node) = with(vec![Reply::Volumes(vec![row.clone()])]);
    let out = home.vc(&["volume", "ls"]).ok();
    assert!(out.contains("shop/data   attic (down)   shop/db"), "{out}");
    let out = home.vc(&["volume", "ls", "--output", "json"]).ok();
    assert_eq!(serde_json::from_str::<Vec<VolumeRow>>(&out).expect("JSON"), [row]);
}

#[test]
fn rebalance_shows_the_moves_and_moves_when_confirmed() {
    let row = MoveRow {
        service: "shop/web".parse().expect("a service"),
        replica: 2,
        from: Some(node_id(1)),
        to: Some(node_id(2)),
        reason: "too full".into(),
    };
    let moving = Change::Moving {
        slot: "shop/web.2".parse().expect("a slot"),
        from: node_id(1),
        from_name: "desk".into(),
        to: node_id(2),
        to_name: "attic".into(),
        reason: "too full".into(),
    };
    let mut plan = member(OURS, 10, vec![]);
    let shown = row.clone();
    plan.answer = Box::new(move |request| match request {
        Request::Rebalance { apply: false } => vec![Reply::Moves(vec![shown.clone()])],
        Request::Rebalance { apply: true } => done(moving.clone()),
        _ => vec![Reply::Nodes(vec![])],
    });
    let (home, node) = (Home::new(), Node::start(plan));
    home.vc(&["login", &home.write("token", &OURS.token(&[&node.address]))]).ok();
    // Without a terminal there is no confirmation.
    let out = home.vc(&["rebalance"]);
    assert_eq!(
        (out.code, out.stderr.as_str()),
        (Some(0), "nothing was moved: confirm with --yes\n")
    );
    assert!(out.stdout.contains("shop/web.2") && out.stdout.contains("too full"), "{}", out.stdout);
    let out = home.vc(&["rebalance", "--output", "json"]).ok();
    assert_eq!(serde_json::from_str::<Vec<MoveRow>>(&out).expect("JSON"), [row]);
    assert!(!node.requests().contains(&Request::Rebalance { apply: true }));
    assert_eq!(
        home.vc(&["rebalance", "--yes", "--no-wait"]).ok(),
        "shop/web.2 moves from desk to attic: too full\n"
    );
}

#[test]
fn a_refusal_after_a_change_reports_both() {
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(|request| match request {
        Request::Scale { service, .. } if service == "web" => done(scaled("shop/web", 1)),
        _ => vec![Reply::Error(ApiError::new(
            ErrorCode::NotFound,
            "there is no service 'db'\nsee vc services",
        ))],
    });
    let (home, node) = (Home::new(), Node::start(plan));
    let out = home.vc(&["--token", &OURS.token(&[&node.address]), "scale", "web=1", "db=1"]);
    assert_eq!(out.stdout, "shop/web scaled from 1 to 1\n");
    assert_eq!(out.error(), "there is no service 'db' see vc services");
}

#[test]
fn a_compose_file_is_deployed() {
    let (home, node) = with(done(Change::Created { service: service("shop/web") }));
    home.write("compose.yaml", COMPOSE);
    home.write(".env", "TAG=7\n");
    assert_eq!(home.vc(&["deploy", "compose.yaml", "-p", "shop"]).ok(), "shop/web created\n");
    let mut child = home
        .command(&["deploy", "-", "-p", "shop"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("started");
    child.stdin.take().expect("piped").write_all(COMPOSE.as_bytes()).expect("written");
    CommandOutput::from(child.wait_with_output().expect("ended")).ok();
    let requests = node.requests();
    let Request::Deploy { deployments, .. } = &requests[0] else { panic!("{requests:?}") };
    assert_eq!(deployments[0].service.to_string(), "shop/web");
    assert_eq!(
        (deployments[0].replicas, deployments[0].spec.container.image.as_str()),
        (Some(2), "img:7")
    );
    assert_eq!(requests[0], requests[1]);
}

#[test]
fn deploy_shows_the_changes_first_on_request() {
    let diff = ServiceDiff {
        service: "shop/web".parse().expect("a service"),
        created: false,
        changes: vec!["replicas: 1 -> 2".into()],
    };
    let mut plan = member(OURS, 10, vec![]);
    let rows = vec![diff.clone()];
    plan.answer = Box::new(move |request| match request {
        Request::Diff { .. } => vec![Reply::Diff(rows.clone())],
        _ => done(Change::Updated { service: service("shop/web") }),
    });
    let node = Node::start(plan);
    let home = Home::new();
    home.write("compose.yaml", COMPOSE);
    let token = OURS.token(&[&node.address]);
    let deploy = |more: &[&str]| {
        home.command(&[&["--token", &token, "deploy", "compose.yaml", "-p", "shop"], more].concat())
    };
    let run = |more: &[&str]| CommandOutput::from(deploy(more).output().expect("started"));
    let told = "~ shop/web\n    replicas: 1 -> 2\n";
    assert_eq!(run(&["--dry-run"]).ok(), told);
    let out = run(&["--dry-run", "--output", "json"]).ok();
    assert_eq!(serde_json::from_str::<Vec<ServiceDiff>>(&out).expect("JSON"), [diff]);
    let changes = |it: &Request| !matches!(it, Request::Diff { .. });
    assert!(!node.requests().iter().any(changes), "a dry run changes nothing");
    let before = node.requests().len();
    assert_eq!(run(&[]).ok(), "shop/web updated\n");
    assert!(
        node.requests()[before..].iter().all(changes),
        "no changes are shown without a terminal"
    );
    assert_eq!(run(&["--diff"]).ok(), format!("{told}shop/web updated\n"));
    let out = run(&["--diff", "--output", "json"]);
    assert_eq!((out.code, out.stdout.as_str()), (Some(1), ""));
    assert!(out.stderr.contains("use --dry-run with --output json"), "{}", out.stderr);
}

#[test]
fn deploy_works_with_a_node_that_does_not_support_diff() {
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(|request| match request {
        Request::Diff { .. } => vec![Reply::Error(ApiError::new(
            ErrorCode::NotFound,
            "this node does not understand it",
        ))],
        _ => done(Change::Updated { service: service("shop/web") }),
    });
    let node = Node::start(plan);
    let home = Home::new();
    home.write("compose.yaml", COMPOSE);
    let token = OURS.token(&[&node.address]);
    let out = home.vc(&["--token", &token, "deploy", "compose.yaml", "--diff"]);
    let note = "cannot show the changes: this node does not understand it\n";
    assert_eq!((out.code, out.stdout.as_str()), (Some(0), "shop/web updated\n"));
    assert_eq!(out.stderr, note);
    let out = home.vc(&["--token", &token, "deploy", "compose.yaml", "--dry-run"]);
    assert_eq!(out.error(), "this node does not understand it");
}

#[test]
fn an_invalid_file_is_rejected_before_connecting() {
    let (home, node) = with(vec![]);
    home.write("compose.yaml", "services:\n  web:\n    image: x\n    network_mode: host\n");
    let error = home.vc(&["deploy", "compose.yaml"]).error();
    assert!(error.starts_with("compose.yaml: services.web.network_mode"), "{error}");
    assert_eq!(
        home.vc(&["plan", "nothing.yaml"]).error(),
        "cannot read nothing.yaml: no such file or directory"
    );
    assert_eq!(node.seen(|seen| seen.connections), 0);
}

#[test]
fn a_plan_is_printed_as_tables_and_as_json() {
    let report = PlanReport {
        input_digest: "abc123".into(),
        placements: vec![],
        unplaced: vec![vc_protocol::control::UnplacedRow {
            service: "shop/web".parse().expect("a service"),
            replica: 1,
            reasons: vec!["alpha: draining".into()],
        }],
        moves: vec![],
    };
    let (home, _node) = with(vec![Reply::Plan(report.clone())]);
    home.write("compose.yaml", COMPOSE);
    let out = home.vc(&["plan", "compose.yaml"]).ok();
    assert!(out.contains("shop/web.1   alpha: draining") && out.contains("abc123"), "{out}");
    let out = home.vc(&["plan", "compose.yaml", "--output", "json"]).ok();
    assert_eq!(serde_json::from_str::<PlanReport>(&out).expect("JSON"), report);
}

#[test]
fn only_the_created_token_is_printed() {
    let (home, node) = with(vec![Reply::Token("eyJ.new.token".into())]);
    assert_eq!(
        home.vc(&["token", "create", "--node", "--role", "worker", "--ttl", "1h"]).ok(),
        "eyJ.new.token\n"
    );
    home.vc(&["token", "create", "--user", "ada"]).ok();
    let worker = TokenSubject::Node { name: "node".parse().unwrap(), role: NodeRole::Worker };
    let ada = TokenSubject::User { name: "ada".parse().expect("a name"), role: UserRole::Viewer };
    let expected = [
        Request::CreateToken(TokenRequest { subject: worker, ttl_ms: 3_600_000, browser: false }),
        Request::CreateToken(TokenRequest {
            subject: ada,
            ttl_ms: 30 * 86_400_000,
            browser: false,
        }),
    ];
    assert_eq!(node.requests(), expected);
    for args in
        [["--node", "--role=admin"], ["--user=ada", "--role=server"], ["--node", "--user=ada"]]
    {
        let out = home.vc(&["token", "create", args[0], args[1]]);
        assert_eq!((out.code, out.stdout.as_str()), (Some(2), ""), "{args:?}: {}", out.stderr);
    }
}

fn log(replica: u32, line: &str) -> Reply {
    Reply::Log(LogRow {
        service: "shop/web".parse().expect("a service"),
        replica,
        node: node_id(10),
        time: None,
        stream: LogStream::Stdout,
        line: line.into(),
    })
}

#[test]
fn logs_are_printed_as_they_were_written() {
    let (home, node) = with(vec![log(1, "one"), log(2, "two"), Reply::End]);
    assert_eq!(home.vc(&["logs", "web", "--tail", "5"]).ok(), "web.1 | one\nweb.2 | two\n");
    let out = home.vc(&["logs", "web", "--output", "json"]).ok();
    assert_eq!(
        out.lines()
            .map(|line| serde_json::from_str::<LogRow>(line).expect("a row").replica)
            .sum::<u32>(),
        3
    );
    home.vc(&["logs", "web.2", "--since", "1h"]).ok();
    let Some(Request::Logs(LogRequest { since, replica, follow, tail, .. })) =
        node.requests().pop()
    else {
        panic!("no request for logs")
    };
    assert_eq!((replica, follow, tail), (Some(2), false, None));
    let hour_ago = crate::node::now() - crate::node::HOUR;
    assert!(hour_ago.abs_diff(since.expect("given")) < 60_000);
}

#[test]
fn events_are_printed_one_per_line() {
    let row = |level, text: &str| EventRow {
        time: 1_795_446_245_678,
        level,
        subject: "shop/web.2".into(),
        text: text.into(),
    };
    let rows =
        [row(EventLevel::Info, "runs on attic"), row(EventLevel::Error, "failed: \x1b[2Jcode 1")];
    let replies = rows.iter().cloned().map(Reply::Event).chain([Reply::End]);
    let (home, node) = with(replies.collect());
    assert_eq!(
        home.vc(&["events"]).ok(),
        "2026-11-23T15:04:05.678Z shop/web.2: runs on attic\n\
         2026-11-23T15:04:05.678Z shop/web.2: failed: [2Jcode 1\n"
    );
    let out = home.vc(&["events", "-f", "--output", "json"]).ok();
    let shown: Vec<EventRow> =
        out.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
    assert_eq!(shown, rows);
    assert_eq!(node.requests(), [false, true].map(|follow| Request::Events { follow }));
}

#[test]
fn ctrl_c_ends_following() {
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(|_| vec![log(1, "one")]);
    let (home, node) = (Home::new(), Node::start(plan));
    let token = OURS.token(&[&node.address]);
    let mut child =
        home.command(&["--token", &token, "logs", "-f", "web"]).spawn().expect("started");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("read");
    assert_eq!(line, "web.1 | one\n");
    let pid = child.id().to_string();
    let started = Instant::now();
    std::process::Command::new("kill").args(["-INT", &pid]).status().expect("signalled");
    let out = CommandOutput::from(child.wait_with_output().expect("ended"));
    assert_eq!((out.code, out.stdout.as_str(), out.stderr.as_str()), (Some(130), "", ""));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn a_closed_output_is_not_an_error() {
    let lines = (0..10_000)
        .map(|n| log(1, &format!("line {n} of many that are not read")))
        .chain([Reply::End]);
    let (home, _node) = with(lines.collect());
    let mut child = home.command(&["logs", "web"]).spawn().expect("started");
    let mut line = String::new();
    BufReader::with_capacity(16, child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("read");
    let out = CommandOutput::from(child.wait_with_output().expect("ended"));
    assert_eq!((out.code, out.stderr.as_str()), (Some(0), ""));
}

#[test]
fn an_unexpected_reply_is_reported() {
    // An end where a row is due closes the stream.
    let (home, _node) = with(vec![Reply::End]);
    assert_eq!(
        home.vc(&["ps"]).error(),
        "this version of vc does not understand the node's answer; use the version of vc that the nodes run"
    );
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(|request| match request {
        Request::Scale { service, .. } if service == "first" => vec![Reply::End],
        _ => unreachable!("the stream is closed"),
    });
    let (home, node) = (Home::new(), Node::start(plan));
    let token = OURS.token(&[&node.address]);
    let error = home.vc(&["--token", &token, "scale", "first=1"]).error();
    assert_eq!(
        error,
        "this version of vc does not understand the node's answer; use the version of vc that the nodes run"
    );
}

#[test]
fn local_commands_need_no_cluster() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(home.vc(&["completions", shell]).ok().contains("undrain"), "{shell}");
    }
    assert!(home.vc(&["--version"]).ok().starts_with("vc "));
    assert!(home.vc(&["token", "create", "--help"]).ok().contains("Examples:"));
    let out = home.vc(&["frobnicate"]);
    assert_eq!((out.code, out.stdout.as_str()), (Some(2), ""));
    let out = home.vc(&["--peer", "/ip4/10.0.0.1/udp/1", "ps"]);
    assert_eq!(out.code, Some(2));
    assert!(out.stderr.contains("is not an address of a node"), "{}", out.stderr);
}
