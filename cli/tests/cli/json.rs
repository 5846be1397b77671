//! Compares `docs/json.md` with the JSON that the program prints.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vc_backup::{BackupSummary, Header, VolumeEntry};
use vc_protocol::alert::{AlertFilter, AlertFormat, ProblemKind};
use vc_protocol::audit::{AuditAction, AuditCheck, AuditRow, ChangeRef};
use vc_protocol::control::{
    BackupRow, Change, DiskUsageRow, EventLevel, EventRow, ExportRow, FileCount, ImageRow,
    InstanceRow, JobRow, LogRow, LogStream, LostLines, MoveRow, NodeRow, NodeStatus, PlacementRow,
    PlanReport, ProblemId, ProjectRow, ReceiverRow, ReplicaRow, ReplicaState, Reply, Rollout,
    RunRow, RunState, ServiceDetail, ServiceDiff, ServiceRow, SnapshotKind, SnapshotRow,
    StatusReport, TokenRow, TrustReport, TrustRow, UnplacedRow, UpgradeRow, UpgradeStep,
    UploadDiff, UploadPlan, UsageRow, VersionRow, VersionState, VolumeRow, VoterReport, VoterRow,
};
use vc_protocol::spec::{OnPartition, ServiceMode, ServiceSpec};
use vc_protocol::{ApiError, ClusterId, ErrorCode, Keypair, ServiceKey};

use crate::Home;
use crate::node::{Node, OURS, instance_row, member, node_id, node_row, usage_row};

const PAGE: &str = include_str!("../../../docs/json.md");

/// Returns the lines of the page with the heading above each.
fn lines() -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut heading = "";
    PAGE.lines().filter_map(move |line| match line.trim_start_matches('#').strip_prefix(' ') {
        Some(text) if line.starts_with('#') => {
            heading = text.trim_matches('`');
            None
        }
        _ => Some((heading, line)),
    })
}

/// The first columns of the tables of the page, by the heading above them.
fn tables() -> BTreeMap<String, BTreeSet<String>> {
    let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (heading, line) in lines() {
        let Some(row) = line.strip_prefix("| `") else { continue };
        let (field, _) = row.split_once('`').expect("a closed code span");
        assert!(
            tables.entry(heading.to_owned()).or_default().insert(field.to_owned()),
            "{heading}.{field} is documented twice"
        );
    }
    tables
}

/// The examples of the page below a heading, one per line; each is what `T` serializes to.
fn examples<T: Serialize + DeserializeOwned>(name: &str) -> Vec<T> {
    let examples = lines().filter(|(heading, line)| *heading == name && line.starts_with('{'));
    let read = |line: &str| {
        let example: T = serde_json::from_str(line).unwrap_or_else(|why| panic!("{line}: {why}"));
        let written = serde_json::to_value(&example).expect("JSON");
        assert_eq!(written, serde_json::from_str::<Value>(line).expect("JSON"), "{name}");
        example
    };
    examples.map(|(_, line)| read(line)).collect()
}

fn fields(value: &impl Serialize) -> BTreeSet<String> {
    let value = serde_json::to_value(value).expect("JSON");
    value.as_object().expect("an object").keys().cloned().collect()
}

fn service() -> ServiceKey {
    "shop/web".parse().expect("a service")
}

fn instance() -> InstanceRow {
    instance_row(1, "alpha")
}

fn service_row() -> ServiceRow {
    ServiceRow {
        service: service(),
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

/// Returns a report without problems.
pub fn status_report() -> StatusReport {
    StatusReport {
        cluster: String::new(),
        node: node_id(1),
        nodes_up: 1,
        nodes: 1,
        voters: 1,
        voters_up: 1,
        services: 1,
        replicas: 1,
        running: 1,
        cpu_millis: 1,
        cpu_reserved: 1,
        cpu_used: 1,
        memory_bytes: 1,
        memory_reserved: 1,
        memory_used: 1,
        problems: vec![],
        problem_ids: vec![],
        hints: vec![],
    }
}

/// A value of every row type, by its name on the page.
fn rows() -> BTreeMap<&'static str, BTreeSet<String>> {
    let placement = PlacementRow {
        service: service(),
        replica: 1,
        node: node_id(1),
        node_name: String::new(),
        reasons: vec![],
    };
    let unplaced = UnplacedRow { service: service(), replica: 1, reasons: vec![] };
    let moved =
        MoveRow { service: service(), replica: 1, from: None, to: None, reason: String::new() };
    let status = status_report();
    let files = FileCount::default;
    let upload = UploadDiff {
        volume: "shop/data".parse().expect("a volume"),
        directory: String::new(),
        files: 1,
        bytes: 1,
        only_in_volume: files(),
        newer_in_volume: files(),
        different: files(),
        only_in_directory: files(),
    };
    let detail = ServiceDetail {
        row: service_row(),
        deployed_by: "ada".into(),
        spec: ServiceSpec::default().into(),
        previous: None,
        instances: vec![],
    };
    let version = VersionRow {
        service: service(),
        version: 1,
        state: VersionState::Current,
        reason: String::new(),
        deployed: 1,
        deployed_by: String::new(),
        image: String::new(),
        image_id: None,
        changes: vec![],
        same_as: None,
        missing_files: vec![],
        rollback_target: false,
    };
    let volume = VolumeRow {
        volume: "shop/data".parse().expect("a volume"),
        project: String::new(),
        node: node_id(1),
        node_name: String::new(),
        primary: String::new(),
        up: true,
        services: vec![],
        since: 1,
        replicas: vec![ReplicaRow {
            node: node_id(2),
            node_name: String::new(),
            snapshot: None,
            lag_ms: None,
            bytes: 0,
            received: 0,
            state: ReplicaState::Copying,
            problem: String::new(),
        }],
        wanted: 2,
        snapshot: None,
        taken: 0,
        epoch: 0,
        bytes: 0,
        conflicts: 0,
        problem: String::new(),
    };
    let snapshot = SnapshotRow {
        volume: volume.volume.clone(),
        kind: SnapshotKind::Snapshot,
        snapshot: String::new(),
        node: node_id(1),
        node_name: String::new(),
        time: 1,
        files: 1,
        bytes: 1,
        expires: 0,
    };
    let certificate = TrustRow {
        id: node_id(1),
        name: String::new(),
        role: String::new(),
        up: true,
        certificate: String::new(),
    };
    let trust = TrustReport {
        epoch: 0,
        key: node_id(1),
        rotated: None,
        rotated_by: None,
        nodes: vec![certificate],
    };
    let voter = VoterRow {
        id: node_id(1),
        name: String::new(),
        role: String::new(),
        state: NodeStatus::Up,
        votes: true,
        since: 1,
        wish: None,
    };
    let voters = VoterReport {
        number: 1,
        lease_ms: 6000,
        forced: false,
        waits_for: String::new(),
        nodes: vec![voter],
    };
    let token = TokenRow {
        id: String::new(),
        kind: String::new(),
        name: String::new(),
        role: String::new(),
        created_by: String::new(),
        created: 0,
        expires: 0,
        revoked: true,
        projects: None,
        logs: true,
        uses_left: None,
    };
    let project =
        ProjectRow { project: "shop".parse().expect("a name"), services: 1, allowed: vec![] };
    let usage = DiskUsageRow {
        node: node_id(1),
        node_name: String::new(),
        kind: String::new(),
        bytes: 0,
        reclaimable: 0,
        hint: String::new(),
    };
    let receiver = ReceiverRow {
        name: "ops".parse().expect("a name"),
        kind: String::new(),
        target: String::new(),
        format: AlertFormat::Json,
        filter: AlertFilter::default(),
        sender: String::new(),
        firing: 0,
        problem: String::new(),
        added_by: String::new(),
        added: 0,
    };
    let image = ImageRow {
        reference: String::new(),
        id: String::new(),
        size: 0,
        nodes: vec![],
        services: vec![],
        pushed: 0,
    };
    let log = LogRow {
        service: service(),
        replica: 1,
        node: node_id(1),
        time: None,
        stream: LogStream::Stdout,
        line: String::new(),
        lost: Some(LostLines::default()),
    };
    let event =
        EventRow { time: 1, level: EventLevel::Info, subject: String::new(), text: String::new() };
    let audit = AuditRow {
        time: 1,
        action: AuditAction::Exec,
        text: String::new(),
        user: None,
        token: None,
        address: None,
        service: None,
        node: node_id(1),
        node_name: String::new(),
        via: None,
        via_name: None,
        more: 0,
        change: None,
        event: 1,
    };
    let change = ChangeRef { generation: 0, actor: String::new(), seq: 1, part: 0 };
    let check = AuditCheck {
        node: node_id(1),
        node_name: String::new(),
        records: 0,
        left_out: 0,
        since: None,
        problem: String::new(),
    };
    let plan = PlanReport {
        input_digest: String::new(),
        placements: vec![],
        unplaced: vec![],
        moves: vec![],
    };
    let run = RunRow {
        service: service(),
        run: 1,
        state: RunState::Succeeded,
        reason: String::new(),
        node: None,
        node_name: None,
        started: 0,
        ended: 0,
        exit_code: None,
        restarts: 0,
        missed: 0,
        by: String::new(),
    };
    let job = JobRow {
        service: service(),
        project: "shop".parse().expect("a name"),
        mode: ServiceMode::ReplicatedJob,
        schedule: String::new(),
        time_zone: String::new(),
        overlap: String::new(),
        at_most_once: true,
        suspended: false,
        next: 0,
        running: 0,
        last: None,
    };
    let diff = ServiceDiff { service: service(), created: true, changes: vec![] };
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes").public();
    let entry = VolumeEntry {
        volume: "shop/data".parse().expect("a volume"),
        primary: String::new(),
        bytes: 0,
        snapshot: None,
        snapshot_taken: 0,
        included: false,
        problem: String::new(),
        failed: false,
    };
    let backup_row = BackupRow {
        node: node_id(1),
        node_name: String::new(),
        up: true,
        every: 0,
        taken: 0,
        size: 0,
        problem: String::new(),
    };
    let export = ExportRow {
        project: "shop".parse().expect("a name"),
        file: None,
        text: String::new(),
        supply: vec![],
        inexact: vec![],
    };
    let problem = ProblemId { kind: ProblemKind::Disk, id: String::new() };
    let upgrade = UpgradeRow {
        step: UpgradeStep::Planned,
        node: node_id(1),
        node_name: String::new(),
        from: String::new(),
        to: String::new(),
        digest: String::new(),
        reason: String::new(),
    };
    let header = Header {
        cluster: ClusterId::of(&key).expect("ed25519"),
        taken: 0,
        node: String::new(),
        version: String::new(),
    };
    let backup = BackupSummary {
        file: String::new(),
        size: 0,
        header,
        services: 0,
        files: 0,
        volumes: vec![entry],
    };
    BTreeMap::from([
        ("ServiceRow", fields(&service_row())),
        ("Rollout", fields(&Rollout::default())),
        ("InstanceRow", fields(&instance())),
        ("UsageRow", fields(&usage_row(1, "alpha"))),
        ("NodeRow", fields(&node_row(1, "alpha"))),
        ("StatusReport", fields(&status)),
        ("ServiceDetail", fields(&detail)),
        ("ServiceDiff", fields(&diff)),
        ("PlanReport", fields(&plan)),
        ("PlacementRow", fields(&placement)),
        ("UnplacedRow", fields(&unplaced)),
        ("MoveRow", fields(&moved)),
        ("VersionRow", fields(&version)),
        ("JobRow", fields(&job)),
        ("RunRow", fields(&run)),
        ("VolumeRow", fields(&volume)),
        ("ReplicaRow", fields(&volume.replicas[0])),
        ("SnapshotRow", fields(&snapshot)),
        ("TokenRow", fields(&token)),
        ("ProjectRow", fields(&project)),
        ("ReceiverRow", fields(&receiver)),
        ("DiskUsageRow", fields(&usage)),
        ("TrustReport", fields(&trust)),
        ("TrustRow", fields(&trust.nodes[0])),
        ("VoterReport", fields(&voters)),
        ("VoterRow", fields(&voters.nodes[0])),
        ("ImageRow", fields(&image)),
        ("LogRow", fields(&log)),
        ("EventRow", fields(&event)),
        ("AuditRow", fields(&audit)),
        ("ChangeRef", fields(&change)),
        ("AuditCheck", fields(&check)),
        ("BackupSummary", fields(&backup)),
        ("VolumeEntry", fields(&backup.volumes[0])),
        ("BackupRow", fields(&backup_row)),
        ("ExportRow", fields(&export)),
        ("ProblemId", fields(&problem)),
        ("UpgradeRow", fields(&upgrade)),
        ("UploadPlan", fields(&UploadPlan { services: vec![], uploads: vec![] })),
        ("UploadDiff", fields(&upload)),
    ])
}

#[test]
fn documented_fields_are_those_of_the_rows() {
    let tables = tables();
    let rows = rows();
    for (name, fields) in &rows {
        let documented = tables.get(*name).unwrap_or_else(|| panic!("{name} is not documented"));
        assert_eq!(documented, fields, "{name}");
    }
    // The other tables have tests of their own.
    let others: Vec<&str> =
        tables.keys().map(String::as_str).filter(|name| !rows.contains_key(name)).collect();
    assert_eq!(others, ["Change", "Codes", "Commands", "ConsoleLink", "error"]);
}

#[test]
fn every_row_has_an_example() {
    let counts = [
        ("ServiceRow", examples::<ServiceRow>("ServiceRow").len()),
        ("Rollout", examples::<Rollout>("Rollout").len()),
        ("InstanceRow", examples::<InstanceRow>("InstanceRow").len()),
        ("UsageRow", examples::<UsageRow>("UsageRow").len()),
        ("NodeRow", examples::<NodeRow>("NodeRow").len()),
        ("StatusReport", examples::<StatusReport>("StatusReport").len()),
        ("ServiceDetail", examples::<ServiceDetail>("ServiceDetail").len()),
        ("ServiceDiff", examples::<ServiceDiff>("ServiceDiff").len()),
        ("PlanReport", examples::<PlanReport>("PlanReport").len()),
        ("PlacementRow", examples::<PlacementRow>("PlacementRow").len()),
        ("UnplacedRow", examples::<UnplacedRow>("UnplacedRow").len()),
        ("MoveRow", examples::<MoveRow>("MoveRow").len()),
        ("VersionRow", examples::<VersionRow>("VersionRow").len()),
        ("JobRow", examples::<JobRow>("JobRow").len()),
        ("RunRow", examples::<RunRow>("RunRow").len()),
        ("VolumeRow", examples::<VolumeRow>("VolumeRow").len()),
        ("ReplicaRow", examples::<ReplicaRow>("ReplicaRow").len()),
        ("SnapshotRow", examples::<SnapshotRow>("SnapshotRow").len()),
        ("TokenRow", examples::<TokenRow>("TokenRow").len()),
        ("ProjectRow", examples::<ProjectRow>("ProjectRow").len()),
        ("TrustReport", examples::<TrustReport>("TrustReport").len()),
        ("TrustRow", examples::<TrustRow>("TrustRow").len()),
        ("DiskUsageRow", examples::<DiskUsageRow>("DiskUsageRow").len()),
        ("ReceiverRow", examples::<ReceiverRow>("ReceiverRow").len()),
        ("VoterReport", examples::<VoterReport>("VoterReport").len()),
        ("VoterRow", examples::<VoterRow>("VoterRow").len()),
        ("ImageRow", examples::<ImageRow>("ImageRow").len()),
        ("ProblemId", examples::<ProblemId>("ProblemId").len()),
        ("UpgradeRow", examples::<UpgradeRow>("UpgradeRow").len()),
        ("LogRow", examples::<LogRow>("LogRow").len()),
        ("EventRow", examples::<EventRow>("EventRow").len()),
        ("AuditRow", examples::<AuditRow>("AuditRow").len()),
        ("ChangeRef", examples::<ChangeRef>("ChangeRef").len()),
        ("AuditCheck", examples::<AuditCheck>("AuditCheck").len()),
        ("BackupSummary", examples::<BackupSummary>("BackupSummary").len()),
        ("VolumeEntry", examples::<VolumeEntry>("VolumeEntry").len()),
        ("BackupRow", examples::<BackupRow>("BackupRow").len()),
        ("ExportRow", examples::<ExportRow>("ExportRow").len()),
        ("UploadPlan", examples::<UploadPlan>("UploadPlan").len()),
        ("UploadDiff", examples::<UploadDiff>("UploadDiff").len()),
    ];
    assert_eq!(BTreeMap::from(counts), rows().into_keys().map(|name| (name, 1)).collect());
}

#[test]
fn documented_changes_are_those_of_the_protocol() {
    let examples: Vec<Change> = examples("Change");
    let mut names = BTreeSet::new();
    for change in &examples {
        // A new change does not compile until it is listed here.
        match change {
            Change::Created { .. }
            | Change::Updated { .. }
            | Change::Redeployed { .. }
            | Change::Unchanged { .. }
            | Change::Scaled { .. }
            | Change::Removed { .. }
            | Change::Restarting { .. }
            | Change::RunBegun { .. }
            | Change::RunStopped { .. }
            | Change::RolledBack { .. }
            | Change::Moving { .. }
            | Change::Drained { .. }
            | Change::Undrained { .. }
            | Change::Left { .. }
            | Change::Adopted { .. }
            | Change::Upgrading { .. }
            | Change::ImagePushed { .. }
            | Change::ImageUnchanged { .. }
            | Change::ImageRemoved { .. }
            | Change::VolumeRemoved { .. }
            | Change::VolumeForgotten { .. }
            | Change::SnapshotTaken { .. }
            | Change::VolumeRestored { .. }
            | Change::VolumeReplaced { .. }
            | Change::VolumeChanged { .. }
            | Change::VolumeCreated { .. }
            | Change::VolumeUndeleted { .. }
            | Change::TokenRevoked { .. }
            | Change::UserRevoked { .. }
            | Change::PolicyChanged { .. }
            | Change::Traced { .. }
            | Change::ReceiverAdded { .. }
            | Change::ReceiverRemoved { .. }
            | Change::ReceiverTested { .. }
            | Change::SigningKeyRotated { .. }
            | Change::VoterWished { .. }
            | Change::VotersForced { .. }
            | Change::FilesSealed { .. }
            | Change::Unknown => {}
        }
        let value = serde_json::to_value(change).expect("JSON");
        let name = value["change"].as_str().expect("a string").to_owned();
        let row = lines().find(|(_, line)| line.starts_with(&format!("| `{name}` |")));
        let (_, row) = row.unwrap_or_else(|| panic!("{name} is not documented"));
        let column = row.split('|').nth(2).expect("a second column");
        let mut documented: BTreeSet<String> =
            column.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        documented.insert("change".to_owned());
        assert_eq!(documented, fields(change), "{name}");
        names.insert(name);
    }
    assert_eq!(names.len(), 39, "an example of each change");
    assert_eq!(tables()["Change"], names);
}

#[test]
fn documented_codes_are_those_of_the_protocol() {
    use ErrorCode::*;
    let all = [
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        PermissionDenied,
        Unauthenticated,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        Aborted,
        Unimplemented,
        Internal,
        Unknown,
    ];
    // A new code does not compile until it is listed here.
    for code in all {
        match code {
            InvalidArgument | NotFound | AlreadyExists | FailedPrecondition | PermissionDenied
            | Unauthenticated | ResourceExhausted | Unavailable | DeadlineExceeded | Aborted
            | Unimplemented | Internal | Unknown => {}
        }
    }
    let codes = all.map(|code| serde_json::to_value(code).expect("JSON"));
    let codes: BTreeSet<String> =
        codes.iter().map(|code| code.as_str().expect("a string").to_owned()).collect();
    assert_eq!(tables()["Codes"], codes);
}

#[test]
fn documented_commands_are_those_of_the_program() {
    let help = Home::new().vc(&["--help"]).ok();
    let commands = help.split("Commands:").nth(1).expect("a list");
    let commands = commands.lines().map_while(|line| match line.trim() {
        "" => Some(None),
        text if text.starts_with("Options") || text.starts_with("Global") => None,
        text => Some(text.split_whitespace().next().filter(|_| line.starts_with("  "))),
    });
    for command in commands.flatten().filter(|it| *it != "completions") {
        assert!(PAGE.contains(&format!("`vc {command}")), "vc {command} is not documented");
    }
}

#[test]
fn the_console_link_has_the_documented_fields() {
    let node = Node::start(member(OURS, 10, vec![Reply::Nodes(vec![node_row(10, "attic")])]));
    let token = OURS.token(&[&node.address]);
    let url = "https://console.example/";
    let out = Home::new().vc(&["--token", &token, "console", "--url", url, "--output", "json"]);
    let link: Value = serde_json::from_str(&out.stdout).expect("JSON");
    assert_eq!(tables()["ConsoleLink"], fields(&link));
}

#[test]
fn errors_are_printed_as_one_json_object() {
    let home = Home::new();
    let error = |args: &[&str]| -> Value {
        let out = home.vc(&[args, &["--output", "json"]].concat());
        assert_eq!((out.code, out.stdout.as_str()), (Some(1), ""), "{}", out.stderr);
        assert_eq!(out.stderr.lines().count(), 1, "{}", out.stderr);
        let mut document: Value = serde_json::from_str(&out.stderr).expect("JSON");
        let error = document["error"].take();
        assert_eq!(tables()["error"], fields(&error));
        error
    };
    // Without a cluster.
    assert_eq!(error(&["ps"])["code"], "unauthenticated");
    let token = OURS.token(&[]);
    let unreachable = error(&["--token", &token, "--peer", "127.0.0.1:1", "ps"]);
    assert_eq!(unreachable["code"], "unavailable");
    assert_eq!(unreachable["hint"], "is a node running there?");
    assert_eq!(error(&["plan", "nothing.yaml"])["code"], "not_found");
    home.write("compose.yaml", "services: {web: {image: x, network_mode: macvlan}}");
    assert_eq!(error(&["plan", "compose.yaml"])["code"], "invalid_argument");
    let cut = &token[..token.len() - 10];
    assert_eq!(error(&["--token", cut, "ps"])["code"], "unauthenticated");
    // From a node.
    let refused =
        ApiError::new(ErrorCode::NotFound, "no service 'db'\nhere").with_hint("see 'vc services'");
    let node = Node::start(member(OURS, 10, vec![Reply::Error(refused)]));
    let token = OURS.token(&[&node.address]);
    let expected = serde_json::json!({
        "code": "not_found", "message": "no service 'db' here", "hint": "see 'vc services'",
    });
    assert_eq!(error(&["--token", &token, "rm", "db"]), expected);
}
