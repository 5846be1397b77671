//! The requests that commands send, and what they print.

use vc_protocol::control::{
    Change, MoveRow, ReplicaRow, ReplicaState, Reply, Request, SnapshotKind, SnapshotRow,
    StatusReport, TokenRequest, TokenSubject, UsageRow, VolumeRow,
};
use vc_protocol::instance::InstanceState;
use vc_protocol::token::{NodeRole, UserLimits, UserRole};
use vc_protocol::volume::SnapshotId;
use vc_protocol::{ApiError, ErrorCode, VolumeKey};

use crate::Home;
use crate::json::status_report;
use crate::node::{
    Node, OURS, attached_to, done, instance_row, member, node_id, node_row, service, usage_row,
};

pub fn volume_row() -> VolumeRow {
    VolumeRow {
        volume: "shop/data".parse().expect("a volume"),
        project: "shop".into(),
        node: node_id(1),
        node_name: "attic".into(),
        primary: "attic".into(),
        up: false,
        services: vec!["shop/db".parse().expect("a service")],
        since: 1,
        replicas: vec![ReplicaRow {
            node: node_id(2),
            node_name: "desk".into(),
            snapshot: Some("1-3".into()),
            lag_ms: Some(12_345),
            bytes: 5 << 20,
            received: 0,
            state: ReplicaState::Behind,
            problem: String::new(),
        }],
        wanted: 2,
        snapshot: Some("1-4".into()),
        taken: 1,
        epoch: 1,
        bytes: 5 << 20,
        conflicts: 0,
        problem: String::new(),
    }
}

fn scaled(service: &str, to: u32) -> Change {
    Change::Scaled { service: self::service(service), from: 1, to }
}

#[test]
fn changes_are_printed() {
    let (home, node) = attached_to(done(scaled("shop/web", 3)));
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
        Request::Scale { service: "web".into(), replicas: 3, force: false },
        Request::Scale { service: "shop/db".into(), replicas: 0, force: false },
        Request::Remove { service: "shop/".into() },
        Request::Drain { node: "attic".into(), drain: true },
        Request::Drain { node: "attic".into(), drain: false },
    ];
    assert_eq!(node.requests(), expected);
    assert_eq!(node.seen(|seen| seen.tokens.len()), 4, "one session a command");
}

#[test]
fn restart_rollback_leave_and_volume_send_their_requests() {
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(|request| match request {
        Request::Volumes => vec![Reply::Volumes(vec![])],
        _ => done(Change::Restarting { service: service("shop/web") }),
    });
    let (home, node) = (Home::new(), Node::start(plan));
    home.vc(&["login", &home.write("token", &OURS.token(&[&node.address]))]).ok();
    assert_eq!(home.vc(&["restart", "web", "shop/api"]).ok(), "shop/web is restarting\n".repeat(2));
    assert_eq!(
        home.vc(&["rollback", "web", "--output", "json"]).ok(),
        "[{\"change\":\"restarting\",\"service\":\"shop/web\"}]\n"
    );
    home.vc(&["leave", "attic", "--force"]).ok();
    let removed = home.vc(&["volume", "rm", "shop/data"]);
    assert_eq!(removed.stderr, "a last snapshot stays for 24 h: 'vc volume undelete shop/data'\n");
    let expected = [
        Request::Restart { service: "web".into(), force: false },
        Request::Restart { service: "shop/api".into(), force: false },
        Request::Rollback { service: "web".into(), force: false },
        Request::Leave { node: "attic".into(), force: true },
        Request::Volumes,
        Request::RemoveVolume { volume: "shop/data".parse().expect("a volume") },
    ];
    assert_eq!(node.requests(), expected);
}

#[test]
fn a_volume_moves_with_its_services() {
    let (home, node) = attached_to(vec![Reply::Volumes(vec![volume_row()])]);
    home.vc(&["volume", "move", "data", "--to", "attic", "--no-wait"]);
    let to = "attic".to_owned();
    let request = Request::MoveVolume { volume: "shop/data".parse().expect("a volume"), to };
    assert_eq!(node.requests(), [Request::Volumes, request]);
    let failed = home.vc(&["volume", "move", "mail", "--to", "attic"]).error();
    assert!(failed.contains("no volume 'mail'"), "{failed}");
}

#[test]
fn volumes_are_listed_with_their_copies() {
    let row = volume_row();
    let (home, _node) = attached_to(vec![Reply::Volumes(vec![row.clone()])]);
    let out = home.vc(&["volume", "ls"]).ok();
    let line = out.lines().nth(1).unwrap_or_default();
    let words: Vec<&str> = line.split("   ").map(str::trim).filter(|it| !it.is_empty()).collect();
    let expected = ["shop/data", "shop/db", "attic (down)", "desk 12 s", "5 MiB", "1 of 2 copies"];
    assert_eq!(words, expected, "{out}");
    let out = home.vc(&["volume", "ls", "--output", "json"]).ok();
    assert_eq!(serde_json::from_str::<Vec<VolumeRow>>(&out).expect("JSON"), [row]);
}

#[test]
fn status_ends_with_1_if_there_are_problems_and_that_is_asked_for() {
    let ill = StatusReport { problems: vec!["node attic is down".into()], ..status_report() };
    let (home, _node) = attached_to(vec![Reply::Status(ill)]);
    assert!(home.vc(&["status"]).ok().contains("node attic is down"));
    let output = home.vc(&["status", "--exit-code"]);
    assert_eq!((output.code, output.stderr.as_str()), (Some(1), ""));
    assert!(output.stdout.contains("node attic is down"));
    let (home, _node) = attached_to(vec![Reply::Status(status_report())]);
    home.vc(&["status", "--exit-code"]).ok();
}

#[test]
fn the_first_copy_of_a_volume_shows_its_progress() {
    let mut row = volume_row();
    let copy = &mut row.replicas[0];
    (copy.snapshot, copy.lag_ms, copy.bytes) = (None, None, 0);
    (copy.state, copy.received) = (ReplicaState::Copying, 1 << 20);
    let (home, _node) = attached_to(vec![Reply::Volumes(vec![row])]);
    let out = home.vc(&["volume", "ls"]).ok();
    assert!(out.contains("desk (copying, 1 MiB of 5 MiB)"), "{out}");
}

#[test]
fn snapshots_are_listed_from_all_nodes_and_the_newest_of_the_trash_is_undeleted() {
    let mut row = volume_row();
    row.up = true;
    let kept = |node, name: &str, kind, snapshot: &str| SnapshotRow {
        volume: "shop/data".parse().expect("a volume"),
        kind,
        snapshot: snapshot.to_owned(),
        node: node_id(node),
        node_name: name.to_owned(),
        time: 1,
        files: 3,
        bytes: 5 << 20,
        expires: 0,
    };
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(move |request| match request {
        Request::Volumes => vec![Reply::Volumes(vec![row.clone()])],
        Request::Nodes => vec![Reply::Nodes(vec![node_row(1, "attic"), node_row(2, "desk")])],
        Request::Snapshots { node, .. } if *node == node_id(1) => vec![Reply::Snapshots(vec![
            kept(1, "attic", SnapshotKind::Snapshot, "1-9"),
            kept(1, "attic", SnapshotKind::Snapshot, "1-10"),
            kept(1, "attic", SnapshotKind::Conflict, "1-8"),
            kept(1, "attic", SnapshotKind::Removed, "1-9"),
        ])],
        Request::Snapshots { .. } => vec![Reply::Snapshots(vec![
            kept(2, "desk", SnapshotKind::Snapshot, "1-9"),
            kept(2, "desk", SnapshotKind::Removed, "1-10"),
        ])],
        _ => done(Change::Unknown),
    });
    let (home, node) = (Home::new(), Node::start(plan));
    home.vc(&["login", &home.write("token", &OURS.token(&[&node.address]))]).ok();
    let words = |out: &str| -> Vec<String> {
        let of = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        out.lines().skip(1).map(of).collect()
    };
    let out = home.vc(&["volume", "snapshots", "data"]).ok();
    assert_eq!(words(&out), ["1-10 attic", "1-9 attic", "1-9 desk"], "{out}");
    let out = home.vc(&["volume", "conflicts", "data"]).ok();
    assert_eq!(words(&out), ["1-8 attic"], "{out}");
    home.vc(&["volume", "undelete", "shop/data"]).ok();
    home.vc(&["volume", "restore", "data", "--at", "1-9"]).ok();
    home.vc(&["volume", "restore", "data", "--conflict", "1-8"]).ok();
    let volume: VolumeKey = "shop/data".parse().expect("a volume");
    let restore = |number, conflict| Request::RestoreVolume {
        volume: volume.clone(),
        snapshot: SnapshotId { epoch: 1, number },
        conflict,
    };
    let requests = node.requests();
    let undelete = Request::UndeleteVolume { volume: volume.clone(), node: node_id(2) };
    for request in [undelete, restore(9, false), restore(8, true)] {
        assert!(requests.contains(&request), "{request:?}: {requests:?}");
    }
}

#[test]
fn usage_is_printed_with_a_note_for_each_node_that_did_not_answer() {
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(|request| match request {
        Request::Usage { service: Some(_), .. } => vec![
            Reply::Note("what runs on cellar is missing".to_owned()),
            Reply::Usage(vec![usage_row(1, "attic"), usage_row(2, "desk")]),
        ],
        _ => vec![Reply::Error(ApiError::new(ErrorCode::NotFound, "nothing else is asked"))],
    });
    let (home, node) = (Home::new(), Node::start(plan));
    home.vc(&["login", &home.write("token", &OURS.token(&[&node.address]))]).ok();
    let out = home.vc(&["stats", "--no-stream", "web.2", "web", "--node", "desk"]);
    assert_eq!(
        (out.code, out.stderr.as_str()),
        (Some(0), "what runs on cellar is missing\n"),
        "once, though two requests say it"
    );
    let expected = "\
INSTANCE     NODE    CPU %    MEMORY / LIMIT     MEM %   NET I/O         BLOCK I/O   PIDS
shop/web.1   attic   125.5%   64 MiB / 128 MiB   50.0%   2 KiB / 512 B   -              3
shop/web.2   desk    125.5%   64 MiB / 128 MiB   50.0%   2 KiB / 512 B   -              3
";
    assert_eq!(out.stdout, expected);
    let asked = Request::Usage { service: Some("web".into()), node: Some("desk".into()) };
    assert_eq!(node.requests(), [asked.clone(), asked]);
    let json = home.vc(&["stats", "--no-stream", "web.2", "--output", "json"]).stdout;
    let rows: Vec<UsageRow> = serde_json::from_str(&json).expect("JSON");
    assert_eq!(rows, [usage_row(2, "desk")]);
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
fn removals_ask_on_a_terminal() {
    let instance = instance_row(1, "attic");
    let volume = volume_row();
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(move |request| match request {
        Request::Instances { .. } => vec![Reply::Instances(vec![instance.clone()])],
        Request::Volumes => vec![Reply::Volumes(vec![volume.clone()])],
        _ => done(scaled("shop/web", 0)),
    });
    let (home, node) = (Home::new(), Node::start(plan));
    home.vc(&["login", &home.write("token", &OURS.token(&[&node.address]))]).ok();
    let changes = |requests: Vec<Request>| {
        let reads = |it: &Request| matches!(it, Request::Instances { .. } | Request::Volumes);
        requests.into_iter().filter(|it| !reads(it)).count()
    };

    let commands: [(&[&str], &str); 3] = [
        (&["rm", "web"], "Remove web with shop/web.1? [y/N]"),
        (
            &["volume", "rm", "shop/data"],
            "Delete the data of shop/data on attic (down) and desk? [y/N]",
        ),
        (
            &["leave", "attic", "--force"],
            "Remove node attic, with all that it runs and holds, from the cluster for good? [y/N]",
        ),
    ];
    for (n, (command, question)) in commands.into_iter().enumerate() {
        let shown = home.vc_on_terminal(command, "n");
        assert!(shown.contains(question), "{shown}");
        assert!(shown.contains("nothing was"), "{shown}");
        assert_eq!(changes(node.requests()), 2 * n, "{command:?}");
        home.vc_on_terminal(command, "y");
        assert_eq!(changes(node.requests()), 2 * n + 1, "{command:?}");
        let shown = home.vc_on_terminal(&[command, &["-y"]].concat(), "");
        assert!(!shown.contains("[y/N]"), "{shown}");
        assert_eq!(changes(node.requests()), 2 * n + 2, "{command:?}");
    }
}

#[test]
fn commands_in_a_service_take_the_first_replica_and_say_which() {
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(|request| match request {
        Request::Instances { service, .. } if service.as_deref() == Some("one") => {
            vec![Reply::Instances(vec![instance_row(1, "attic")])]
        }
        Request::Instances { .. } => {
            let mut rows = [(3, "cellar"), (2, "attic"), (1, "desk")]
                .map(|(replica, node)| instance_row(replica, node));
            rows[2].state = InstanceState::Pending;
            vec![Reply::Instances(rows.to_vec())]
        }
        _ => vec![Reply::Error(ApiError::new(ErrorCode::Unavailable, "the end of the test"))],
    });
    let (home, node) = (Home::new(), Node::start(plan));
    home.vc(&["login", &home.write("token", &OURS.token(&[&node.address]))]).ok();
    let chosen = || match node.requests().pop() {
        Some(Request::Exec(exec)) => exec.replica,
        Some(Request::CopyOut(copy) | Request::CopyIn(copy)) => copy.replica,
        other => panic!("{other:?}"),
    };
    let says = "using shop/web.2 on attic: --replica, or web.N, chooses another\n";
    for command in
        [&["exec", "web", "--", "env"][..], &["cp", "web:/x", "."], &["cp", ".", "web:/x"]]
    {
        let out = home.vc(command);
        assert!(out.stderr.starts_with(says), "{}", out.stderr);
        assert_eq!(chosen(), Some(2), "{command:?}");
    }
    home.vc(&["exec", "web.3", "--", "env"]).error();
    assert_eq!(chosen(), Some(3));
    home.vc(&["exec", "one", "--", "env"]).error();
    assert_eq!(chosen(), Some(1));
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
fn only_the_created_token_is_printed() {
    let (home, node) = attached_to(vec![Reply::Token("eyJ.new.token".into())]);
    assert_eq!(
        home.vc(&["token", "create", "--node", "--worker", "--uses", "3"]).ok(),
        "eyJ.new.token\n"
    );
    home.vc(&["token", "create", "--user", "ada"]).ok();
    let worker = TokenSubject::Node { name: "node".parse().unwrap(), role: NodeRole::Worker };
    let ada = TokenSubject::User {
        name: "ada".parse().expect("a name"),
        role: UserRole::Viewer,
        limits: UserLimits::default(),
    };
    let expected = [
        Request::CreateToken(TokenRequest {
            subject: worker,
            ttl_ms: 3_600_000,
            browser: false,
            uses: Some(3),
        }),
        Request::CreateToken(TokenRequest {
            subject: ada,
            ttl_ms: 30 * 86_400_000,
            browser: false,
            uses: None,
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

#[test]
fn an_unexpected_reply_is_reported() {
    // An end where a row is due closes the stream.
    let (home, _node) = attached_to(vec![Reply::End]);
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
    assert!(home.vc(&["--version"]).ok().starts_with("vc "));
    assert!(home.vc(&["token", "create", "--help"]).ok().contains("Examples:"));
    let out = home.vc(&["frobnicate"]);
    assert_eq!((out.code, out.stdout.as_str()), (Some(2), ""));
    let out = home.vc(&["--peer", "/ip4/10.0.0.1/udp/1", "ps"]);
    assert_eq!(out.code, Some(2));
    assert!(out.stderr.contains("is not an address of a node"), "{}", out.stderr);
}
