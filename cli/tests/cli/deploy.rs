//! Commands that read Compose files.

use std::io::Write as _;
use std::process::Stdio;

use vc_protocol::control::{Change, PlanReport, Reply, Request, ServiceDiff};
use vc_protocol::spec::Deployment;
use vc_protocol::{ApiError, ErrorCode};

use crate::node::{Node, OURS, attached_to, done, member, service};
use crate::{CommandOutput, Home};

const COMPOSE: &str = "services:\n  web:\n    image: img:${TAG:-1}\n    deploy: {replicas: 2}\n";

#[test]
fn a_compose_file_is_deployed() {
    let (home, node) = attached_to(done(Change::Created { service: service("shop/web") }));
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
    let [
        Request::Deploy { deployments, trace: first, .. },
        Request::Deploy { deployments: again, trace: second, .. },
    ] = requests.as_slice()
    else {
        panic!("{requests:?}")
    };
    assert_eq!(deployments[0].service.to_string(), "shop/web");
    assert_eq!(
        (deployments[0].replicas, deployments[0].spec.container.image.as_str()),
        (Some(2), "img:7")
    );
    assert_eq!(deployments, again);
    assert!(first.is_some() && first != second, "each has an id of its own");
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
        _ => done(Change::Updated { service: service("shop/web"), note: String::new() }),
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
        _ => done(Change::Updated { service: service("shop/web"), note: String::new() }),
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
    let (home, node) = attached_to(vec![]);
    home.write("compose.yaml", "services:\n  web:\n    image: x\n    network_mode: macvlan\n");
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
    let (home, _node) = attached_to(vec![Reply::Plan(report.clone())]);
    home.write("compose.yaml", COMPOSE);
    let out = home.vc(&["plan", "compose.yaml"]).ok();
    assert!(out.contains("shop/web.1   alpha: draining") && out.contains("abc123"), "{out}");
    let out = home.vc(&["plan", "compose.yaml", "--output", "json"]).ok();
    assert_eq!(serde_json::from_str::<PlanReport>(&out).expect("JSON"), report);
}

#[test]
fn the_files_of_a_directory_are_deployed_without_being_named() {
    let (home, node) = attached_to(done(Change::Created { service: service("shop/web") }));
    home.write("compose.yaml", COMPOSE);
    home.write("compose.override.yaml", "services: {web: {user: me}}");
    home.write("prod.yaml", "services: {web: {deploy: {replicas: 5}}}");
    home.write(".env", "TAG=7\nCOMPOSE_PROJECT_NAME=shop\n");
    home.write("other.env", "TAG=8\nCOMPOSE_PROJECT_NAME=other\n");
    let runs: [&[&str]; 3] = [
        &["deploy"],
        &["deploy", "-f", "compose.yaml", "-f", "prod.yaml"],
        &["deploy", "compose.yaml", "--env-file", "other.env"],
    ];
    for args in runs {
        home.vc(args).ok();
    }
    let listed = home.command(&["deploy"]).env("COMPOSE_FILE", "compose.yaml:prod.yaml").output();
    CommandOutput::from(listed.expect("started")).ok();
    let deployed = |request: &Request| {
        let Request::Deploy { deployments, .. } = request else { panic!("{request:?}") };
        let Deployment { service, replicas, spec } = &deployments[0];
        let user = spec.container.user.clone().unwrap_or_default();
        format!("{service} {} {} {user}", spec.container.image, replicas.unwrap_or_default())
    };
    let requests: Vec<String> = node.requests().iter().map(deployed).collect();
    let merged = "shop/web img:7 5 ";
    assert_eq!(requests, ["shop/web img:7 2 me", merged, "other/web img:8 2 ", merged]);
}

#[test]
fn deploy_says_which_ports_were_chosen() {
    let mut plan = member(OURS, 10, vec![]);
    let row = serde_json::json!({
        "service": "shop/web", "project": "shop", "image": "i", "replicas": 1, "running": 0, "healthy": 0,
        "on_partition": "available", "updated": 0, "revision": 1, "ports": ["8080:80/tcp", "23456:81/tcp"]
    });
    plan.answer = Box::new(move |request| match request {
        Request::Services => {
            vec![Reply::Services(vec![serde_json::from_value(row.clone()).expect("a row")])]
        }
        _ => done(Change::Created { service: service("shop/web") }),
    });
    let node = Node::start(plan);
    let home = Home::new();
    home.write("compose.yaml", "services: {web: {image: i, ports: ['8080:80', '81']}}");
    let out = home.vc(&["--token", &OURS.token(&[&node.address]), "deploy", "-p", "shop"]);
    assert_eq!(out.stdout, "shop/web created\n");
    assert!(out.stderr.contains("shop/web publishes 23456:81/tcp"), "{}", out.stderr);
}
