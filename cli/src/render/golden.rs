//! Compares rendered tables with the files in `golden/`; `VC_BLESS=1` rewrites them.

use std::collections::BTreeMap;
use std::path::Path;

use vc_protocol::control::{
    HostPort, InstanceRow, LogRow, LogStream, MoveRow, NodeRow, NodeStatus, PlacementRow,
    PlanReport, Rollout, RolloutState, ServiceDiff, ServiceRow, StatusReport, UnplacedRow,
    VersionRow, VersionState,
};
use vc_protocol::instance::InstanceState;
use vc_protocol::spec::{OnPartition, ServiceMode};
use vc_protocol::{Keypair, NodeId};

use super::Style;

pub(crate) const NOW: u64 = 1_800_000_000_000;
const MINUTE: u64 = 60_000;

fn check(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/render/golden").join(name);
    if std::env::var_os("VC_BLESS").is_some() {
        std::fs::write(&path, found).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{name} differs; it is now:\n{found}");
}

fn plain() -> Style {
    Style { colour: false, now: NOW }
}

pub(crate) fn node_id(n: u8) -> NodeId {
    NodeId::of(&Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes").public()).expect("ed25519")
}

pub(crate) fn node(n: u8, name: &str, state: NodeStatus) -> NodeRow {
    NodeRow {
        id: node_id(n),
        name: name.to_owned(),
        state,
        role: "server".to_owned(),
        votes: false,
        problem: String::new(),
        draining: false,
        restarting: false,
        down_since: 0,
        cpu_millis: 4000,
        memory_bytes: 8_242_049_024,
        cpu_reserved: 1250,
        memory_reserved: 512 << 20,
        generic_resources: BTreeMap::new(),
        generic_reserved: BTreeMap::new(),
        cpu_used: 310,
        memory_used: 2 << 30,
        disk_bytes: 40 << 30,
        disk_used: 12 << 30,
        instances: 3,
        runtime: "docker".to_owned(),
        platform: "linux/amd64".to_owned(),
        addresses: vec![],
        labels: BTreeMap::new(),
        version: "0.1.0".to_owned(),
        unreachable: vec![],
        clock_offset_ms: 0,
        left: 0,
        backups: None,
    }
}

pub(crate) fn nodes() -> Vec<NodeRow> {
    let mut alpha = node(1, "alpha", NodeStatus::Up);
    alpha.labels = BTreeMap::from([("disk".into(), "ssd".into()), ("room".into(), "attic".into())]);
    alpha.votes = true;
    alpha.generic_resources = BTreeMap::from([("gpu".into(), 2), ("licence".into(), 5)]);
    alpha.generic_reserved = BTreeMap::from([("gpu".into(), 1), ("licence".into(), 0)]);
    let mut beta = node(2, "beta", NodeStatus::Up);
    beta.draining = true;
    let mut gamma = node(3, "gamma", NodeStatus::Up);
    gamma.problem = "Docker does not answer".to_owned();
    gamma.labels = BTreeMap::from([("disk".into(), "hdd".into())]);
    let mut delta = node(4, "delta", NodeStatus::Down);
    (delta.cpu_used, delta.memory_used, delta.instances) = (0, 0, 12);
    let mut zeta = node(6, "zeta", NodeStatus::Up);
    (zeta.role, zeta.votes, zeta.runtime) = ("witness".to_owned(), true, String::new());
    (zeta.cpu_millis, zeta.memory_bytes, zeta.instances) = (0, 0, 0);
    (zeta.cpu_reserved, zeta.memory_reserved) = (0, 0);
    vec![alpha, beta, gamma, delta, zeta, node(5, "epsilon", NodeStatus::Left)]
}

/// Returns a summary of a cluster without problems.
pub(crate) fn status_report() -> StatusReport {
    StatusReport {
        cluster: node_id(9).to_string(),
        node: node_id(1),
        nodes_up: 3,
        nodes: 3,
        voters: 3,
        voters_up: 3,
        services: 4,
        replicas: 10,
        running: 10,
        cpu_millis: 12_000,
        cpu_reserved: 4500,
        cpu_used: 1200,
        memory_bytes: 48 << 30,
        memory_reserved: 6 << 30,
        memory_used: 3 << 29,
        problems: vec![],
        problem_ids: vec![],
        hints: vec![],
    }
}

pub(crate) fn instance(replica: u32, state: InstanceState) -> InstanceRow {
    InstanceRow {
        service: "shop/web".parse().expect("a service"),
        replica,
        node: Some(node_id(1)),
        node_name: Some("alpha".to_owned()),
        state,
        reason: String::new(),
        address: "10.0.0.1:8080".to_owned(),
        restarts: 0,
        since: NOW - 3 * MINUTE,
        current: true,
        available: false,
        monitor_ms: 0,
        digest: String::new(),
        terminal: false,
        ended: false,
        cpu_millis: None,
        memory_bytes: None,
    }
}

pub(crate) fn instances() -> Vec<InstanceRow> {
    let mut old = instance(1, InstanceState::Stopping);
    old.current = false;
    let mut failed = instance(3, InstanceState::Failed);
    failed.reason =
        "exited with code 1: reading configuration\n\u{1b}[31mno such file: web.conf; starts \
                     again after 8 s"
            .to_owned();
    failed.restarts = 12;
    failed.node_name = None;
    failed.address = String::new();
    let mut pending = instance(4, InstanceState::Pending);
    (pending.node, pending.node_name, pending.since) = (None, None, 0);
    pending.address = String::new();
    pending.reason = "no node has 64 GiB of memory free".to_owned();
    vec![
        InstanceRow {
            available: true,
            cpu_millis: Some(1255),
            memory_bytes: Some(70 << 20),
            ..instance(1, InstanceState::Running)
        },
        old,
        InstanceRow {
            cpu_millis: Some(20),
            memory_bytes: Some(300 << 20),
            ..instance(2, InstanceState::Healthy)
        },
        failed,
        pending,
        InstanceRow { since: NOW - 2000, monitor_ms: 5000, ..instance(5, InstanceState::Running) },
        InstanceRow { since: NOW - 2000, ..instance(6, InstanceState::Running) },
    ]
}

#[test]
fn lists() {
    check("nodes.txt", &super::nodes(&nodes(), plain()));
    check("instances.txt", &super::instances(&instances(), plain()));
    let service = |name: &str, running| ServiceRow {
        service: format!("shop/{name}").parse().expect("a service"),
        project: "shop".parse().expect("a name"),
        image: format!("registry.example/{name}:1.2"),
        version: 4,
        mode: ServiceMode::Replicated,
        replicas: 3,
        succeeded: 0,
        failed: 0,
        running,
        healthy: running,
        has_healthcheck: name != "database",
        on_partition: OnPartition::Available,
        on_partition_effect: String::new(),
        updated: NOW - 26 * 60 * MINUTE,
        revision: 7,
        ports: vec![],
        host_ports: vec![],
        unpublished: vec![],
        rollout: Rollout::default(),
    };
    let goes = |name: &str, state, reason: &str| ServiceRow {
        rollout: Rollout {
            state,
            done: 2,
            reason: reason.to_owned(),
            version: 5,
            image: format!("registry.example/{name}:1.3"),
        },
        ..service(name, 3)
    };
    let failed = "shop/api.1 on alpha: exited with code 1: cannot open\nits configuration";
    let services = [
        ServiceRow {
            ports: vec!["8080:80/tcp".into(), "53:53/udp".into()],
            host_ports: vec![HostPort {
                port: "53:53/udp".into(),
                nodes: vec!["attic".into(), "shed".into()],
            }],
            ..service("web", 3)
        },
        service("database", 1),
        goes("cart", RolloutState::Updating, ""),
        goes("api", RolloutState::RolledBack, failed),
        goes("mail", RolloutState::Paused, "shop/mail.3 on beta: not healthy"),
    ];
    check("services.txt", &super::services(&services, plain()));
    let version = |version, state, reason: &str| VersionRow {
        service: "shop/web".parse().expect("a service"),
        version,
        state,
        reason: reason.to_owned(),
        deployed: NOW - 30 * MINUTE + u64::from(version) * MINUTE,
        deployed_by: "ada".to_owned(),
        image: format!("web:{version}"),
        image_id: None,
        changes: vec![format!("container.image: \"web:{}\" -> \"web:{version}\"", version - 1)],
        same_as: None,
        missing_files: vec![],
        rollback_target: version == 2,
    };
    let versions = [
        VersionRow { same_as: Some(2), ..version(5, VersionState::Current, "") },
        version(4, VersionState::RolledBack, ""),
        version(3, VersionState::Failed, "shop/web.1 on attic: exited with code 1"),
        version(2, VersionState::Superseded, ""),
        VersionRow {
            deployed: 0,
            deployed_by: String::new(),
            changes: vec![],
            missing_files: vec!["secret 'db'".to_owned()],
            ..version(1, VersionState::Superseded, "")
        },
    ];
    check("versions.txt", &super::versions(&versions, plain()));
    check("nothing.txt", &super::instances(&[], plain()));
}

#[test]
fn colours_change_no_column() {
    let style = Style { colour: true, now: NOW };
    let coloured = super::nodes(&nodes(), style) + &super::instances(&instances(), style);
    assert!(coloured.contains("\u{1b}["), "{coloured}");
    let mut stripped = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        stripped.push_str(before);
        rest = after.split_once('m').expect("a whole sequence").1;
    }
    stripped.push_str(rest);
    assert_eq!(
        stripped,
        super::nodes(&nodes(), plain()) + &super::instances(&instances(), plain())
    );
}

#[test]
fn glance() {
    let mut report = status_report();
    let good = super::status(&report, plain());
    (report.nodes_up, report.running) = (2, 7);
    report.problems = vec!["delta is down".to_owned(), "shop/web has 2 of 3 instances".to_owned()];
    check("status.txt", &format!("{good}\n{}", super::status(&report, plain())));
}

#[test]
fn plan() {
    let service = || "shop/web".parse().expect("a service");
    let placement = |replica, n, name: &str| PlacementRow {
        service: service(),
        replica,
        node: node_id(n),
        node_name: name.to_owned(),
        reasons: vec![
            "the most room left of 3 nodes".to_owned(),
            "no other replica there".to_owned(),
        ],
    };
    let report = PlanReport {
        input_digest: "9f86d081884c7d65".to_owned(),
        placements: vec![placement(1, 1, "alpha"), placement(2, 2, "beta")],
        unplaced: vec![UnplacedRow {
            service: service(),
            replica: 3,
            reasons: vec![
                "alpha: 2 GiB of memory free, 4 GiB needed".to_owned(),
                "beta: draining".to_owned(),
            ],
        }],
        moves: vec![
            MoveRow {
                service: service(),
                replica: 1,
                from: Some(node_id(3)),
                to: Some(node_id(1)),
                reason: "gamma is down".to_owned(),
            },
            MoveRow {
                service: service(),
                replica: 2,
                from: None,
                to: Some(node_id(2)),
                reason: "new".to_owned(),
            },
        ],
    };
    check("plan.txt", &super::plan(&report, plain()));
}

#[test]
fn diff() {
    let change = |name: &str, created, changes: &[&str]| ServiceDiff {
        service: format!("shop/{name}").parse().expect("a service"),
        created,
        changes: changes.iter().map(|it| (*it).to_owned()).collect(),
    };
    let web = change("web", true, &["container.image: \"web:1\"", "replicas: 2"]);
    let api = change(
        "api",
        false,
        &["container.image: \"api:1\" -> \"api:2\"", "replicas: 2 -> 3", "a\u{1b}[2J\nb: 1"],
    );
    let some = super::diff(&[web, api], plain());
    check("diff.txt", &format!("{some}\n{}", super::diff(&[], plain())));
}

#[test]
fn log_lines() {
    let mut row = LogRow {
        service: "shop/web".parse().expect("a service"),
        replica: 2,
        node: node_id(1),
        time: Some(NOW),
        stream: LogStream::Stdout,
        line: "\u{1b}[1mhello\u{1b}[0m  world".to_owned(),
        lost: None,
    };
    let mut look = super::LogStyle { prefix: true, timestamps: false, width: 0, style: plain() };
    let said = "\u{1b}[1mhello\u{1b}[0m  world\n";
    assert_eq!(super::log_line(&row, &mut look), format!("web.2 | {said}"), "as it was written");
    row.replica = 10;
    assert_eq!(super::log_line(&row, &mut look), format!("web.10 | {said}"));
    row.replica = 2;
    assert_eq!(super::log_line(&row, &mut look), format!("web.2  | {said}"), "below one another");
    look = super::LogStyle { prefix: false, timestamps: true, ..look };
    let line = super::log_line(&row, &mut look);
    assert_eq!(line.split_once(' ').map(|(time, line)| (time.len(), line)), Some((24, said)));
    row.stream = LogStream::Stderr;
    look.style.colour = true;
    let coloured = super::log_line(&row, &mut look);
    assert!(coloured.ends_with("\u{1b}[0m\n"), "no colour is left on");
}
