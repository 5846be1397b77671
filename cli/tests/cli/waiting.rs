//! `--wait` of `vc deploy`, `vc restart`, `vc rollback` and `vc scale`.

use std::io::{BufRead as _, BufReader};
use std::process::Command;
use std::time::{Duration, Instant};

use vc_protocol::control::{
    Change, InstanceRow, Reply, Request, Rollout, RolloutState, ServiceDetail, ServiceRow,
};
use vc_protocol::instance::InstanceState;
use vc_protocol::spec::{ContainerSpec, Healthcheck, OnPartition, ServiceMode, ServiceSpec};

use crate::node::{Node, OURS, Plan, instance_row, member, node_id};
use crate::{CommandOutput, Home};

const COMPOSE: &str = "services:\n  web:\n    image: img\n    deploy: {replicas: 2}\n";

fn row(replica: u32, state: InstanceState, current: bool, reason: &str) -> InstanceRow {
    let (node, reason) = (Some(node_id(10)), reason.into());
    InstanceRow { node, state, reason, current, ..instance_row(replica, "alpha") }
}

fn service() -> ServiceRow {
    ServiceRow {
        service: "shop/web".parse().expect("a service"),
        project: "shop".parse().expect("a name"),
        image: "img".to_owned(),
        version: 2,
        mode: ServiceMode::Replicated,
        replicas: 2,
        succeeded: 0,
        failed: 0,
        running: 2,
        healthy: 2,
        has_healthcheck: true,
        on_partition: OnPartition::Available,
        on_partition_effect: String::new(),
        updated: 7,
        revision: 7,
        ports: vec![],
        host_ports: vec![],
        unpublished: vec![],
        rollout: Rollout::default(),
    }
}

/// A node that reports these turns after a deployment.
fn deploys(n: u8, turns: Vec<Vec<InstanceRow>>) -> Plan {
    let mut plan = member(OURS, n, vec![]);
    plan.answer = Box::new(move |request| match request {
        Request::Deploy { .. } => vec![Reply::Done(vec![Change::Created {
            service: "shop/web".parse().expect("a service"),
        }])],
        Request::Watch { services } => {
            assert_eq!(services.len(), 1);
            turns
                .iter()
                .cloned()
                .map(|instances| Reply::Watched { services: vec![], instances })
                .collect()
        }
        other => panic!("{other:?}"),
    });
    plan
}

fn deploy(home: &Home, node: &Node, more: &[&str]) -> CommandOutput {
    let file = home.write("compose.yaml", COMPOSE);
    let token = OURS.token(&[&node.address]);
    home.vc(&[&["--token", &token, "deploy", &file, "-p", "shop", "--wait"], more].concat())
}

#[test]
fn deploy_waits_until_all_instances_run() {
    use InstanceState::{Pulling, Running, Starting};
    let node = Node::start(deploys(
        10,
        vec![
            vec![row(1, Pulling, true, ""), row(2, Starting, true, ""), row(1, Running, false, "")],
            vec![row(1, Pulling, true, "120 of 300 MiB"), row(2, Starting, true, "")],
            vec![row(1, Running, true, ""), row(2, Starting, true, ""), row(1, Running, false, "")],
            vec![row(1, Running, true, ""), row(2, Running, true, ""), row(1, Running, false, "")],
            vec![row(1, Running, true, ""), row(2, Running, true, "")],
        ],
    ));
    let home = Home::new();
    let out = deploy(&home, &node, &[]).ok();
    let (lines, last) = out.trim_end().rsplit_once('\n').expect("lines");
    let expected = "shop/web created\nshop/web.1 is pulling on alpha\nshop/web.2 is starting on alpha\n\
                    shop/web.1 is pulling (120 of 300 MiB) on alpha\n\
                    shop/web.1 is running on alpha\nshop/web.2 is running on alpha";
    assert_eq!(lines, expected);
    assert!(last.starts_with("2/2 running after "), "{last}");
    let rows: Vec<InstanceRow> =
        serde_json::from_str(&deploy(&home, &node, &["--output", "json"]).ok())
            .expect("one document");
    assert_eq!(rows.len(), 2);
}

#[test]
fn instances_that_do_not_run_in_time_are_named() {
    let turn = vec![
        row(1, InstanceState::Failed, true, "exited with code 1"),
        row(2, InstanceState::Pending, true, "no node has 64 GiB free"),
    ];
    let node = Node::start(deploys(10, vec![turn]));
    let started = Instant::now();
    let error = deploy(&Home::new(), &node, &["--timeout", "500ms"]).error();
    let expected = "0/2 running after 500ms: shop/web.1 is failed (exited with code 1), shop/web.2 is pending (no \
                    node has 64 GiB free)";
    assert_eq!(error, expected);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn a_rolled_back_update_is_an_error_with_its_reason() {
    let reason = "shop/web.1 on alpha: exited with code 1: cannot open its configuration";
    let rollout = Rollout {
        state: RolloutState::RolledBack,
        done: 2,
        reason: reason.to_owned(),
        version: 3,
        image: "img:3".to_owned(),
    };
    let service = ServiceRow { rollout, ..service() };
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(move |request| match request {
        Request::Deploy { .. } => vec![Reply::Done(vec![])],
        _ => vec![Reply::Watched {
            services: vec![service.clone()],
            instances: vec![
                row(1, InstanceState::Running, true, ""),
                row(2, InstanceState::Running, true, ""),
            ],
        }],
    });
    let error = deploy(&Home::new(), &Node::start(plan), &[]).error();
    let hint = "see 'vc history shop/web'";
    assert_eq!(error, format!("shop/web was rolled back to version 2 (img): {reason}; {hint}"));
}

#[test]
fn restart_rollback_and_scale_wait_like_deploy() {
    use InstanceState::{Healthy, Running};
    let spec = ServiceSpec {
        container: ContainerSpec {
            healthcheck: Some(Healthcheck {
                test: vec!["CMD".into(), "true".into()],
                interval_ms: None,
                timeout_ms: None,
                retries: None,
                start_period_ms: None,
                start_interval_ms: None,
            }),
            ..ContainerSpec::default()
        },
        ..ServiceSpec::default()
    };
    let detail = ServiceDetail {
        row: service(),
        deployed_by: "ada".into(),
        spec: spec.into(),
        previous: None,
        instances: vec![],
    };
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(move |request| match request {
        Request::Inspect { service, .. } if service == "web" => {
            vec![Reply::Service(Box::new(detail.clone()))]
        }
        Request::Watch { services } => {
            assert_eq!(services, &["shop/web".parse().expect("a service")]);
            // It runs, and is not healthy yet.
            let first = vec![row(1, Healthy, true, ""), row(2, Running, true, "")];
            let last = vec![row(1, Healthy, true, ""), row(2, Healthy, true, "")];
            let turn = |instances| Reply::Watched { services: vec![], instances };
            [first, last].map(turn).to_vec()
        }
        _ => vec![Reply::Done(vec![Change::Restarting {
            service: "shop/web".parse().expect("a service"),
        }])],
    });
    let node = Node::start(plan);
    let home = Home::new();
    let token = OURS.token(&[&node.address]);
    for command in [["restart", "web"], ["rollback", "web"], ["scale", "web=2"]] {
        let out = home.vc(&[&["--token", &token][..], &command, &["--wait"]].concat()).ok();
        let seen = "shop/web is restarting\nshop/web.1 is healthy on alpha\nshop/web.2 is running on alpha\n\
                    shop/web.2 is healthy on alpha\n2/2 running after ";
        assert!(out.starts_with(seen), "{command:?}: {out}");
    }
    let out = home.vc(&["--token", &token, "restart", "web", "--wait", "--output", "json"]).ok();
    assert_eq!(serde_json::from_str::<Vec<InstanceRow>>(&out).expect("JSON").len(), 2);
}

#[test]
fn a_wait_continues_on_another_node() {
    let good =
        vec![row(1, InstanceState::Running, true, ""), row(2, InstanceState::Running, true, "")];
    let other = Node::start(deploys(11, vec![good]));
    let mut plan = member(OURS, 10, vec![]);
    plan.peers = vec![other.address.clone()];
    plan.answer = Box::new(|request| match request {
        Request::Deploy { .. } => vec![Reply::Done(vec![])],
        // Closes the stream, as a node does that is stopped.
        _ => vec![Reply::End],
    });
    let first = Node::start(plan);
    let home = Home::new();
    let out = deploy(&home, &first, &[]).ok();
    assert!(out.contains("2/2 running"), "{out}");
    assert!(other.requests().iter().any(|request| matches!(request, Request::Watch { .. })));
}

#[test]
fn ctrl_c_ends_the_wait() {
    let turn = vec![row(1, InstanceState::Pulling, true, "")];
    let node = Node::start(deploys(10, vec![turn]));
    let home = Home::new();
    let file = home.write("compose.yaml", COMPOSE);
    let token = OURS.token(&[&node.address]);
    let args = ["--token", &token, "deploy", &file, "-p", "shop", "--wait"];
    let mut child = home.command(&args).spawn().expect("started");
    let mut lines = BufReader::new(child.stdout.as_mut().expect("piped"))
        .lines()
        .map(|line| line.expect("text"));
    assert!(lines.any(|line| line == "shop/web.1 is pulling on alpha"));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("signalled");
    let out = CommandOutput::from(child.wait_with_output().expect("ended"));
    assert_eq!((out.code, out.stderr.as_str()), (Some(130), ""));
}
