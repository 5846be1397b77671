//! `vc drain`, `vc leave` and `vc rebalance`, which wait until instances have moved.

use std::io::{BufRead as _, BufReader};
use std::process::Command;

use vc_protocol::ServiceKey;
use vc_protocol::control::{
    Change, InstanceRow, MoveRow, NodeStatus, PlanReport, Reply, Request, UnplacedRow, VolumeRow,
};
use vc_protocol::instance::InstanceState::{self, Pending, Pulling, Running, Stopping};

use crate::node::{Node, OURS, Plan, instance_row, member, node_id, node_row};
use crate::{CommandOutput, Home};

const ATTIC: u8 = 1;
const DESK: u8 = 2;

/// One reply of a watch.
type Turn = Vec<InstanceRow>;

fn row(name: &str, replica: u32, on: Option<u8>, state: InstanceState) -> InstanceRow {
    let node = |n| if n == ATTIC { "attic" } else { "desk" };
    InstanceRow {
        service: key(name),
        node: on.map(node_id),
        node_name: on.map(|n| node(n).to_owned()),
        state,
        current: on != Some(ATTIC),
        ..instance_row(replica, "attic")
    }
}

fn key(name: &str) -> ServiceKey {
    format!("shop/{name}").parse().expect("a service")
}

/// A node that reports these turns while attic is drained; the data of db is on attic, and big fits on no other node.
fn drains(turns: Vec<Turn>) -> Plan {
    let done = |change: Change| vec![Reply::Done(vec![change])];
    let (node, node_name) = (node_id(ATTIC), "attic".to_owned());
    let unplaced = |name: &str, reasons: &[&str]| UnplacedRow {
        service: key(name),
        replica: 1,
        reasons: reasons.iter().map(|it| (*it).to_owned()).collect(),
    };
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(move |request| match request {
        Request::Drain { drain: true, .. } => {
            done(Change::Drained { node, node_name: node_name.clone() })
        }
        Request::Leave { .. } => done(Change::Left {
            node,
            node_name: node_name.clone(),
            knows_key: false,
            volumes: vec![],
            majority_lost: false,
        }),
        Request::Rebalance { apply: true } => done(Change::Moving {
            slot: "shop/web.1".parse().expect("a slot"),
            from: node,
            from_name: node_name.clone(),
            to: node_id(DESK),
            to_name: "desk".into(),
            reason: "too full".into(),
        }),
        Request::Rebalance { apply: false } => vec![Reply::Moves(vec![MoveRow {
            service: key("web"),
            replica: 1,
            from: Some(node_id(ATTIC)),
            to: Some(node_id(DESK)),
            reason: "too full".into(),
        }])],
        Request::Nodes => {
            vec![Reply::Nodes(vec![node_row(DESK, "desk"), node_row(ATTIC, "attic")])]
        }
        Request::Watch { .. } => turns
            .iter()
            .map(|turn| Reply::Watched { services: vec![], instances: turn.clone() })
            .collect(),
        Request::Plan { deployments } if deployments.is_empty() => vec![Reply::Plan(PlanReport {
            input_digest: String::new(),
            placements: vec![],
            unplaced: vec![
                unplaced("big", &["attic: is draining", "desk: has 1 GiB of 8 GiB memory free"]),
                unplaced("db", &["attic: is draining", "desk: is not attic"]),
            ],
            moves: vec![],
        })],
        Request::Volumes => vec![Reply::Volumes(vec![VolumeRow {
            volume: "shop/data".parse().expect("a volume"),
            node: node_id(ATTIC),
            node_name: "attic".into(),
            up: true,
            services: vec![key("db")],
            since: 1,
            project: "shop".into(),
            primary: "attic".into(),
            replicas: vec![],
            wanted: 1,
            snapshot: None,
            taken: 0,
            epoch: 0,
            bytes: 0,
            conflicts: 0,
            problem: String::new(),
        }])],
        other => panic!("{other:?}"),
    });
    plan
}

/// One instance moves, starting on the new node first.
fn one_moves() -> Vec<Turn> {
    let mut pulling = row("web", 1, Some(DESK), Pulling);
    pulling.reason = "40%".to_owned();
    vec![
        vec![row("web", 1, Some(ATTIC), Running), pulling],
        vec![row("web", 1, Some(ATTIC), Stopping), row("web", 1, Some(DESK), Running)],
        vec![row("web", 1, Some(DESK), Running)],
    ]
}

/// Two instances that no other node can run.
fn two_stay() -> Vec<Turn> {
    let stays =
        ["big", "db"].map(|name| [row(name, 1, Some(ATTIC), Running), row(name, 1, None, Pending)]);
    vec![stays.concat()]
}

fn vc(home: &Home, node: &Node, args: &[&str]) -> CommandOutput {
    home.vc(&[&["--token", &OURS.token(&[&node.address])], args].concat())
}

const PROGRESS: &str = "shop/web.1 waits for desk, where it is pulling (40%)\n\
                        shop/web.1 is stopping on attic\n\
                        shop/web.1 is running on desk\n";

#[test]
fn a_drain_waits_until_the_node_is_empty() {
    let node = Node::start(drains(one_moves()));
    let home = Home::new();
    let out = vc(&home, &node, &["drain", "attic"]).ok();
    assert_eq!(out, format!("attic is being drained\n{PROGRESS}attic is empty\n"));
    assert_eq!(vc(&home, &node, &["drain", "attic", "--output", "json"]).ok(), "[]\n");
    let before = node.requests().len();
    let out = vc(&home, &node, &["drain", "attic", "--no-wait"]).ok();
    assert_eq!((out.as_str(), node.requests().len()), ("attic is being drained\n", before + 1));
}

#[test]
fn instances_that_cannot_move_are_listed_with_the_reason() {
    let node = Node::start(drains(two_stay()));
    let home = Home::new();
    let out = vc(&home, &node, &["drain", "attic"]).ok();
    let expected = "attic is being drained\n\
                    shop/big.1 stays on attic\n\
                    shop/db.1 stays on attic\n\
                    shop/big.1 stays: desk has 1 GiB of 8 GiB memory free\n\
                    shop/db.1 stays: attic holds the data of volume shop/data\n";
    assert_eq!(out, expected);
    let out = vc(&home, &node, &["drain", "attic", "--output", "json"]).ok();
    let rows: Vec<InstanceRow> = serde_json::from_str(&out).expect("JSON");
    assert_eq!(rows[1].reason, "attic holds the data of volume shop/data");
}

#[test]
fn a_drain_continues_after_the_timeout_of_the_wait() {
    let node = Node::start(drains(one_moves()[..1].to_vec()));
    let error = vc(&Home::new(), &node, &["drain", "attic", "--timeout", "300ms"]);
    let expected = "0 of 1 moved after 300ms: shop/web.1 waits for desk, where it is pulling (40%); \
                    attic stays drained";
    assert_eq!(error.error(), expected);
}

#[test]
fn ctrl_c_ends_the_wait_and_not_the_drain() {
    let node = Node::start(drains(one_moves()[..1].to_vec()));
    let home = Home::new();
    let token = OURS.token(&[&node.address]);
    let mut child = home.command(&["--token", &token, "drain", "attic"]).spawn().expect("started");
    let lines = BufReader::new(child.stdout.as_mut().expect("piped")).lines();
    let mut lines = lines.map(|line| line.expect("text"));
    assert!(lines.any(|line| line.contains("pulling")));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("signalled");
    let out = CommandOutput::from(child.wait_with_output().expect("ended"));
    let told = "attic stays drained; undo it with 'vc undrain attic'\n";
    assert_eq!((out.code, out.stderr.as_str()), (Some(130), told));
    let is_undone = |it: &Request| matches!(it, Request::Drain { drain: false, .. });
    assert!(!node.requests().iter().any(is_undone));
}

#[test]
fn the_wait_for_a_drain_continues_on_another_node() {
    let other = Node::start(drains(one_moves()));
    let mut plan = drains(vec![]);
    let rest = std::mem::replace(&mut plan.answer, Box::new(|_| vec![]));
    plan.peers = vec![other.address.clone()];
    plan.answer = Box::new(move |request| match request {
        Request::Watch { .. } => vec![Reply::End],
        request => rest(request),
    });
    let out = vc(&Home::new(), &Node::start(plan), &["drain", "attic"]).ok();
    assert!(out.ends_with("attic is empty\n"), "{out}");
}

#[test]
fn drain_does_not_wait_for_a_node_that_is_down() {
    let mut plan = drains(vec![]);
    let rest = std::mem::replace(&mut plan.answer, Box::new(|_| vec![]));
    let mut attic = node_row(ATTIC, "attic");
    attic.state = NodeStatus::Down;
    plan.answer = Box::new(move |request| match request {
        Request::Nodes => vec![Reply::Nodes(vec![attic.clone()])],
        request => rest(request),
    });
    let node = Node::start(plan);
    let home = Home::new();
    let out = vc(&home, &node, &["drain", "attic"]).ok();
    assert_eq!(
        out,
        "attic is being drained\nattic is down; its instances are replaced on other nodes\n"
    );
    let out = vc(&home, &node, &["leave", "attic"]).ok();
    assert_eq!(out, "attic is being drained\nattic has left the cluster\n");
}

#[test]
fn leave_removes_the_node_when_it_is_empty() {
    let node = Node::start(drains(one_moves()));
    let home = Home::new();
    let out = vc(&home, &node, &["leave", "attic"]).ok();
    assert_eq!(out, format!("attic is being drained\n{PROGRESS}attic has left the cluster\n"));
    let leave = |force| Request::Leave { node: "attic".into(), force };
    assert_eq!(node.requests().last(), Some(&leave(false)));
    let before = node.requests().len();
    vc(&home, &node, &["leave", "attic", "--force"]).ok();
    assert_eq!(node.requests()[before..], [leave(true)]);
}

#[test]
fn a_node_with_instances_that_cannot_move_does_not_leave() {
    let node = Node::start(drains(two_stay()));
    let out = vc(&Home::new(), &node, &["leave", "attic"]);
    let expected = "shop/big.1 stays: desk has 1 GiB of 8 GiB memory free, shop/db.1 stays: attic holds the data of \
                    volume shop/data; attic stays drained; 'vc leave attic --force' removes it all the same";
    assert_eq!(out.error(), expected);
    assert!(!node.requests().iter().any(|it| matches!(it, Request::Leave { .. })));
}

#[test]
fn rebalance_waits_until_the_moves_are_done() {
    let node = Node::start(drains(one_moves()));
    let home = Home::new();
    let told = "shop/web.1 moves from attic to desk: too full\n";
    let out = vc(&home, &node, &["rebalance", "--yes"]).ok();
    let rest = out.strip_prefix(&format!("{told}{PROGRESS}")).unwrap_or_else(|| panic!("{out}"));
    assert!(rest.starts_with("1 of 1 moved after "), "{rest}");
    let watched =
        |request: &Request| matches!(request, Request::Watch { services } if services.len() == 1);
    assert_eq!(node.requests().iter().filter(|it| watched(it)).count(), 1);
    assert_eq!(vc(&home, &node, &["rebalance", "--yes", "--no-wait"]).ok(), told);
    assert_eq!(node.requests().iter().filter(|it| watched(it)).count(), 1);
}
