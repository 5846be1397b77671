//! Renders lists: services, instances, nodes, images, volumes, events, audit records and log lines.

use std::fmt::Write as _;

use comfy_table::{Cell, Color};
use vc_protocol::alert::AlertFilter;
use vc_protocol::audit::{AuditAction, AuditCheck, AuditRow};
use vc_protocol::control::{
    DiskUsageRow, EventLevel, EventRow, ImageRow, InstanceRow, LogRow, LogStream, LostLines,
    NodeRow, NodeStatus, ProjectRow, ReceiverRow, ReplicaRow, ReplicaState, Rollout, RolloutState,
    ServiceRow, SnapshotRow, TokenRow, TrustReport, VersionRow, VersionState, VolumeRow,
    VoterReport,
};

use super::Style;
use super::table::{lines, number, of_instance, of_node, table, text};
use super::units::{ago, bytes, cores, cores_used, percent, short_duration, timestamp};
use vc_client::text::{list, one_line};
use vc_protocol::instance::InstanceState;
use vc_protocol::{Millis, Name};

/// Renders `vc services`.
pub(crate) fn services(rows: &[ServiceRow], style: Style) -> String {
    let cells = rows.iter().map(|row| {
        let is_job = row.mode.is_job();
        let running = match is_job {
            true if row.replicas == 0 => text(row.running),
            true => text(format!("{} ({}/{} done)", row.running, row.succeeded, row.replicas)),
            false => text(format!("{}/{}", row.running, row.replicas)),
        };
        vec![
            text(&row.service),
            text(&row.image),
            if row.failed > 0 {
                running.fg(Color::Red)
            } else if row.running < row.replicas && !is_job {
                running.fg(Color::Yellow)
            } else {
                running.fg(Color::Green)
            },
            match row.has_healthcheck {
                true => number(row.healthy),
                false => number("-"),
            },
            text(ports(row)),
            text(row.on_partition.as_str()),
            text(ago(style.now, row.updated)),
            text(rollout(row)),
        ]
    });
    let columns =
        ["SERVICE", "IMAGE", "RUNNING", "HEALTHY", "PORTS", "ON PARTITION", "UPDATED", "ROLLOUT"];
    table(&columns, cells, style)
}

/// Lists published ports; those of `mode: host` with the nodes that publish them: `53:53/udp on attic, shed`.
fn ports(row: &ServiceRow) -> String {
    let nodes_of = |port: &String| row.host_ports.iter().find(|it| it.port == *port);
    let describe = |port: &String| match nodes_of(port).map(|it| it.nodes.as_slice()) {
        None => port.clone(),
        Some([]) => format!("{port} on no node"),
        Some(nodes) => format!("{port} on {}", nodes.join(", ")),
    };
    row.ports.iter().map(describe).collect::<Vec<_>>().join(", ")
}

/// Describes the last update; empty when it is complete.
fn rollout(row: &ServiceRow) -> String {
    let Rollout { state, done, reason, version, image } = &row.rollout;
    match state {
        RolloutState::Complete => String::new(),
        RolloutState::Updating if row.mode.is_job() => "running".to_owned(),
        RolloutState::Paused if row.mode.is_job() => format!("failed: {reason}"),
        RolloutState::Updating => format!("updating {done}/{}", row.replicas),
        RolloutState::Paused => format!("paused: {reason}"),
        // A restart fails as an update to the same version.
        RolloutState::RolledBack if *version == 0 || *version == row.version => {
            format!("rolled back: {reason}")
        }
        RolloutState::RolledBack if *image == row.image => {
            format!("rolled back from version {version}: {reason}")
        }
        RolloutState::RolledBack => {
            format!("rolled back from version {version} ({image}): {reason}")
        }
    }
}

/// Renders `vc history`.
pub(crate) fn versions(rows: &[VersionRow], style: Style) -> String {
    let cells = rows.iter().map(|row| {
        let (word, colour) = match row.state {
            VersionState::Current => ("current", Color::Green),
            VersionState::Updating => ("updating", Color::Yellow),
            VersionState::Failed => ("failed", Color::Red),
            VersionState::RolledBack => ("rolled back", Color::DarkGrey),
            VersionState::Superseded => ("superseded", Color::DarkGrey),
        };
        let mut notes = vec![match row.reason.as_str() {
            "" => word.to_owned(),
            reason => format!("{word}: {reason}"),
        }];
        if !row.missing_files.is_empty() {
            let missing = row.missing_files.join(", ");
            notes.push(format!("cannot run: the content of its {missing} is no longer kept"));
        }
        let mut changes = row.changes.clone();
        if let Some(same) = row.same_as {
            changes.insert(0, format!("the same as version {same}"));
        }
        vec![
            number(row.version),
            match row.deployed {
                0 => text(""),
                deployed => text(ago(style.now, deployed)),
            },
            text(&row.deployed_by),
            text(&row.image),
            lines(&notes).fg(colour),
            lines(&changes),
        ]
    });
    table(&["VERSION", "DEPLOYED", "BY", "IMAGE", "STATE", "CHANGES"], cells, style)
}

/// Renders `vc ps`.
pub(crate) fn instances(rows: &[InstanceRow], style: Style) -> String {
    let cells = rows.iter().map(|row| {
        let state = row.state.as_str();
        let state = match unavailable(row, style.now) {
            _ if !row.current => format!("{state} (old)"),
            Some(missing) => format!("{state} ({missing})"),
            None => state.to_owned(),
        };
        vec![
            text(format!("{}.{}", row.service, row.replica)),
            text(node(row)),
            text(state).fg(of_instance(row.state)),
            text(ago(style.now, row.since)),
            restarts(row),
            number(row.cpu_millis.map_or_else(|| "-".to_owned(), percent)),
            number(row.memory_bytes.map_or_else(|| "-".to_owned(), bytes)),
            text(&row.address),
            text(&row.reason),
        ]
    });
    let columns =
        ["INSTANCE", "NODE", "STATE", "SINCE", "RESTARTS", "CPU %", "MEMORY", "ADDRESS", "REASON"];
    table(&columns, cells, style)
}

/// Describes what a running instance of the spec in effect lacks to be available: `monitoring 3s`, with the time that
/// remains at `now`, or `not healthy yet`. `None` for every other instance.
pub(crate) fn unavailable(row: &InstanceRow, now: Millis) -> Option<String> {
    if row.state != InstanceState::Running || row.available || !row.current {
        return None;
    }
    let remaining = (row.since + row.monitor_ms).saturating_sub(now).min(row.monitor_ms);
    Some(match (row.monitor_ms, remaining) {
        (0, _) => "not healthy yet".to_owned(),
        (_, 0) => "monitoring".to_owned(),
        // Rounded up: the last second is 1s.
        (_, remaining) => {
            format!("monitoring {}", short_duration(remaining.next_multiple_of(1000)))
        }
    })
}

/// Renders the number of restarts, red until the instance is available.
fn restarts(row: &InstanceRow) -> Cell {
    let cell = number(row.restarts);
    if row.restarts > 0 && !row.available { cell.fg(Color::Red) } else { cell }
}

/// Returns the name of the node, or its short id when it has none.
fn node(row: &InstanceRow) -> String {
    match (&row.node_name, row.node) {
        (Some(name), _) if !name.is_empty() => name.clone(),
        (_, Some(node)) => node.short(),
        (_, None) => String::new(),
    }
}

/// Renders `vc nodes`. CPU and memory show what is reserved of the total.
pub(crate) fn nodes(rows: &[NodeRow], style: Style) -> String {
    let cells = rows.iter().map(|row| {
        vec![
            text(&row.name),
            text(row.id.short()),
            of_node(row),
            number(row.instances),
            text(format!("{}/{}", cores(row.cpu_reserved), cores(row.cpu_millis))),
            text(cores_used(row.cpu_used)),
            text(format!("{}/{}", bytes(row.memory_reserved), bytes(row.memory_bytes))),
            text(bytes(row.memory_used)),
            text(disk(row)),
            text(&row.runtime),
            text(&row.version),
            lines(&node_notes(row)),
        ]
    });
    let columns = [
        "NAME",
        "ID",
        "STATE",
        "INSTANCES",
        "CPU",
        "USED",
        "MEMORY",
        "USED",
        "DISK",
        "RUNTIME",
        "VERSION",
        "NOTES",
    ];
    table(&columns, cells, style)
}

/// Renders `vc nodes --addresses`, one line per address.
pub(crate) fn addresses(rows: &[NodeRow], style: Style) -> String {
    let cells = rows.iter().flat_map(|row| {
        row.addresses.iter().map(|address| vec![text(&row.name), of_node(row), text(address)])
    });
    table(&["NAME", "STATE", "ADDRESS"], cells, style)
}

/// Returns what is in use of a node's disk; nothing if it does not say.
fn disk(row: &NodeRow) -> String {
    match row.disk_bytes {
        0 => String::new(),
        total => format!("{}/{}", bytes(row.disk_used), bytes(total)),
    }
}

fn node_notes(row: &NodeRow) -> Vec<String> {
    let labels: Vec<String> =
        row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let taken = |kind: &str| row.generic_reserved.get(kind).copied().unwrap_or(0);
    let resources = row.generic_resources.iter();
    let resources: Vec<String> =
        resources.map(|(kind, total)| format!("{kind} {}/{total}", taken(kind))).collect();
    let clock = match row.clock_offset_ms / 1000 {
        0 => String::new(),
        seconds if seconds > 0 => format!("clock {seconds} s ahead"),
        seconds => format!("clock {} s behind", seconds.abs()),
    };
    let disk = if row.is_disk_low() { "disk almost full" } else { "" };
    let role = match (row.role == "witness", row.votes) {
        (true, true) => "witness, voter",
        (true, false) => "witness",
        (false, true) => "voter",
        (false, false) => "",
    };
    let (problem, disk) = (row.problem.clone(), disk.to_owned());
    let lines = [role.to_owned(), problem, disk, clock, resources.join(", "), labels.join(" ")];
    lines.into_iter().filter(|line| !line.is_empty()).collect()
}

/// Renders `vc image ls`.
pub(crate) fn images(rows: &[ImageRow], style: Style) -> String {
    let cells = rows.iter().map(|row| {
        let id = row.id.strip_prefix("sha256:").unwrap_or(&row.id);
        let services = row.services.iter().map(ToString::to_string).collect();
        vec![
            text(&row.reference),
            text(id.get(..12).unwrap_or(id)),
            if row.size == 0 { text("") } else { text(bytes(row.size)) },
            text(row.nodes.join(", ")),
            text(list(services, 3)),
            text(ago(style.now, row.pushed)),
        ]
    });
    table(&["IMAGE", "ID", "SIZE", "NODES", "SERVICES", "PUSHED"], cells, style)
}

/// Renders `vc volume ls`.
pub(crate) fn volumes(rows: &[VolumeRow], style: Style) -> String {
    let cells = rows.iter().map(|row| {
        let services: Vec<String> = row.services.iter().map(ToString::to_string).collect();
        let node = text(&row.node_name);
        let replicas: Vec<String> = row.replicas.iter().map(|it| replica(it, row.bytes)).collect();
        vec![
            text(&row.volume),
            text(services.join(", ")),
            if row.up { node } else { text(format!("{} (down)", row.node_name)).fg(Color::Red) },
            text(replicas.join(", ")),
            if row.bytes == 0 { text("") } else { text(bytes(row.bytes)) },
            volume_state(row),
        ]
    });
    table(&["VOLUME", "SERVICES", "PRIMARY", "REPLICAS", "SIZE", "STATE"], cells, style)
}

/// Renders `vc volume snapshots` and `vc volume conflicts`.
pub(crate) fn snapshots(rows: &[SnapshotRow], style: Style) -> String {
    let cells = rows.iter().map(|row| {
        vec![
            text(&row.snapshot),
            text(&row.node_name),
            text(ago(style.now, row.time)),
            number(row.files),
            text(bytes(row.bytes)),
        ]
    });
    table(&["SNAPSHOT", "NODE", "TAKEN", "FILES", "SIZE"], cells, style)
}

/// Describes a replica: `attic`, `attic 12 s`, `attic (down)`.
fn replica(row: &ReplicaRow, total: u64) -> String {
    let name = &row.node_name;
    match (row.state, row.lag_ms) {
        (ReplicaState::Down, _) => format!("{name} (down)"),
        (ReplicaState::Failed, _) => format!("{name} (failed)"),
        (ReplicaState::Copying, _) if row.received > 0 => {
            format!("{name} (copying, {} of {})", bytes(row.received), bytes(total))
        }
        (ReplicaState::Copying, _) => format!("{name} (copying)"),
        (ReplicaState::Behind, Some(lag)) => format!("{name} {} s", lag / 1000),
        (ReplicaState::Current | ReplicaState::Behind, _) => name.clone(),
    }
}

/// Describes the state of a volume as a whole.
fn volume_state(row: &VolumeRow) -> Cell {
    let problems = row.replicas.iter().map(|it| &it.problem).chain([&row.problem]);
    if let Some(problem) = problems.into_iter().find(|it| !it.is_empty()) {
        return text(problem).fg(Color::Red);
    }
    let has_data = |row: &&ReplicaRow| row.snapshot.is_some() && row.state != ReplicaState::Down;
    let copies = row.replicas.iter().filter(has_data).count() + usize::from(row.up);
    let wanted = usize::try_from(row.wanted).unwrap_or(usize::MAX);
    let state = match row.conflicts {
        _ if copies < wanted && row.snapshot.is_some() => {
            return text(format!("{copies} of {wanted} copies")).fg(Color::Yellow);
        }
        0 if row.up => "ok".to_owned(),
        0 => return text("down").fg(Color::Red),
        1 => "a conflict".to_owned(),
        conflicts => format!("{conflicts} conflicts"),
    };
    if row.conflicts > 0 { text(state).fg(Color::Yellow) } else { text(state) }
}

/// Renders the table of `vc project ls`.
pub(crate) fn projects(rows: &[ProjectRow], style: Style) -> String {
    let cells = rows
        .iter()
        .map(|row| vec![text(&row.project), number(row.services), text(row.allowed.join(" "))]);
    table(&["PROJECT", "SERVICES", "MAY USE"], cells, style)
}

/// Renders `vc system df`.
pub(crate) fn disk_usage(rows: &[DiskUsageRow], style: Style) -> String {
    let cells = rows.iter().map(|row| {
        vec![
            text(&row.node_name),
            text(&row.kind),
            number(bytes(row.bytes)),
            number(bytes(row.reclaimable)),
            text(&row.hint),
        ]
    });
    table(&["NODE", "WHAT", "SIZE", "RECLAIMABLE", "BY"], cells, style)
}

/// Renders `vc notify ls`.
pub(crate) fn receivers(rows: &[ReceiverRow], style: Style) -> String {
    let cells = rows.iter().map(|row| {
        let AlertFilter { kinds, projects, severity } = &row.filter;
        let kinds = kinds.iter().map(|it| it.as_str());
        let projects = projects.iter().map(|it| it.as_str());
        let only: Vec<&str> = kinds.chain(projects).chain([severity.as_str()]).collect();
        let problem = text(&row.problem);
        vec![
            text(&row.name),
            text(&row.target),
            text(row.format.as_str()),
            text(only.join(" ")),
            text(&row.sender),
            number(row.firing),
            if row.problem.is_empty() { problem } else { problem.fg(Color::Red) },
        ]
    });
    table(&["NAME", "TARGET", "FORMAT", "FILTER", "SENT BY", "FIRING", "PROBLEM"], cells, style)
}

/// Renders the table of `vc token ls`.
pub(crate) fn tokens(rows: &[TokenRow], style: Style) -> String {
    let cells = rows.iter().map(|row| {
        let projects = match &row.projects {
            Some(projects) => projects.iter().map(Name::as_str).collect::<Vec<_>>().join(", "),
            None if row.kind == "user" => "all".to_owned(),
            None => String::new(),
        };
        let state = match row.uses_left {
            _ if row.revoked => text("revoked").fg(Color::Red),
            Some(0) => text("used"),
            Some(left) => text(format!("valid, {left} left")),
            None => text("valid"),
        };
        vec![
            text(&row.id),
            text(&row.kind),
            text(&row.name),
            text(&row.role),
            text(projects),
            text(&row.created_by),
            text(timestamp(row.created)),
            text(timestamp(row.expires)),
            state,
        ]
    });
    let columns =
        ["TOKEN", "KIND", "NAME", "ROLE", "PROJECTS", "CREATED BY", "CREATED", "EXPIRES", "STATE"];
    table(&columns, cells, style)
}

/// Renders the answer to `vc trust show`.
pub(crate) fn trust(report: &TrustReport, style: Style) -> String {
    let since = match (report.rotated, &report.rotated_by) {
        (Some(at), Some(by)) => format!("rotated {} by {}", timestamp(at), one_line(by)),
        _ => "the root key, never rotated".to_owned(),
    };
    let cells = report.nodes.iter().map(|row| {
        let certificate = match row.certificate.as_str() {
            "missing" => text("missing").fg(Color::Red),
            "issued" => text("issued, not in use yet").fg(Color::Yellow),
            other => text(other),
        };
        let state = if row.up { "up" } else { "down" };
        vec![text(&row.name), text(&row.role), text(state), certificate]
    });
    let table = table(&["NODE", "ROLE", "STATE", "CERTIFICATE"], cells, style);
    format!("epoch {}: {since}\nkey {}\n\n{table}", report.epoch, report.key)
}

/// Renders the answer to `vc voters`.
pub(crate) fn voters(report: &VoterReport, style: Style) -> String {
    let cells = report.nodes.iter().map(|row| {
        let state = match row.state {
            NodeStatus::Up => text("up").fg(Color::Green),
            NodeStatus::Down => text("down").fg(Color::Red),
            NodeStatus::Left => text("left").fg(Color::DarkGrey),
        };
        let since = match row.since {
            0 => String::new(),
            since => format!("set {since}"),
        };
        let wish = match row.wish {
            Some(true) => "voter",
            Some(false) => "no voter",
            None => "",
        };
        let votes = if row.votes { "yes" } else { "no" };
        vec![text(&row.name), text(&row.role), state, text(votes), text(since), text(wish)]
    });
    let table = table(&["NODE", "ROLE", "STATE", "VOTES", "SINCE", "WISHED"], cells, style);
    let (voters, up) = report.reachable();
    let head = match report.number {
        0 => format!("not chosen yet: waits for {}", one_line(&report.waits_for)),
        number => {
            let forced = if report.forced { ", forced" } else { "" };
            let lease = short_duration(report.lease_ms);
            format!("set {number}{forced}: {up} of {voters} voters reachable, lease time {lease}")
        }
    };
    format!("{head}\n\n{table}")
}

/// Renders a line of `vc events`: time, subject and text.
pub(crate) fn event_line(row: &EventRow, style: Style) -> String {
    let (time, subject) = (timestamp(row.time), one_line(&row.subject));
    let text = one_line(&row.text);
    let colour = match row.level {
        EventLevel::Error => "31",
        EventLevel::Warning => "33",
        EventLevel::Info => "0",
    };
    if style.colour {
        format!("\x1b[2m{time}\x1b[0m {subject}: \x1b[{colour}m{text}\x1b[0m\n")
    } else {
        format!("{time} {subject}: {text}\n")
    }
}

/// Renders a line of `vc audit`: time, who, what, from where, and which node says so.
pub(crate) fn audit_line(row: &AuditRow, style: Style) -> String {
    let is_refused = row.action == AuditAction::Refused;
    let (who, by) = match &row.user {
        Some(user) => (one_line(user), true),
        None if is_refused => {
            let member = row.via_name.as_deref().map(one_line);
            (member.unwrap_or_else(|| "an unauthenticated client".to_owned()), true)
        }
        None => (one_line(&row.node_name), false),
    };
    let mut line = format!("{who} {}", one_line(&row.text));
    if let Some(address) = &row.address {
        let _ = write!(line, ", from {}", one_line(address));
    }
    if by {
        let _ = write!(line, ", by {}", one_line(&row.node_name));
    }
    if let Some(via) = row.via_name.as_ref().filter(|_| row.user.is_some()) {
        let _ = write!(line, " through {}", one_line(via));
    }
    if row.more > 0 {
        let _ = write!(line, " (and {} more before)", row.more);
    }
    let time = timestamp(row.time);
    match style.colour {
        true if is_refused => format!("\x1b[2m{time}\x1b[0m \x1b[31m{line}\x1b[0m\n"),
        true => format!("\x1b[2m{time}\x1b[0m {line}\n"),
        false => format!("{time} {line}\n"),
    }
}

/// Renders what servers found when they checked their audit logs.
pub(crate) fn audit_checks(checks: &[AuditCheck], style: Style) -> String {
    let cells = checks.iter().map(|check| {
        let state = match check.problem.as_str() {
            "" => text("unaltered").fg(Color::Green),
            problem => text(problem).fg(Color::Red),
        };
        let since = check.since.map_or_else(String::new, timestamp);
        vec![text(&check.node_name), text(check.records), text(since), state]
    });
    table(&["SERVER", "RECORDS", "SINCE", "STATE"], cells, style)
}

/// Options of [`log_line`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogStyle {
    /// Whether to print the instance.
    pub(crate) prefix: bool,
    /// Whether to print the time.
    pub(crate) timestamps: bool,
    /// The width of the widest prefix so far, in bytes.
    pub(crate) width: usize,
    /// How to colour the line.
    pub(crate) style: Style,
}

/// Describes the lines of an instance that are missing before a line of it.
pub(crate) fn lost_lines(row: &LogRow, lost: LostLines) -> String {
    let count = match lost.lines {
        0 => format!("{} of lines", bytes(lost.bytes)),
        1 => "1 line".to_owned(),
        lines => format!("{lines} lines"),
    };
    let (service, replica) = (one_line(row.service.service.as_str()), row.replica);
    format!("{service}.{replica}: {count} lost here: they were read too slowly")
}

/// Renders a line of `vc logs`: the prefix of its instance, then the line as it was written.
pub(crate) fn log_line(row: &LogRow, look: &mut LogStyle) -> String {
    const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 96];
    let colour = look.style.colour;
    let mut text = String::new();
    if look.prefix {
        let prefix = format!("{}.{}", one_line(row.service.service.as_str()), row.replica);
        look.width = look.width.max(prefix.len());
        let prefix = format!("{prefix:<width$} |", width = look.width);
        let prefix_colour = COLOURS[row.replica as usize % COLOURS.len()];
        text += &if colour {
            format!("\x1b[{prefix_colour}m{prefix}\x1b[0m ")
        } else {
            format!("{prefix} ")
        };
    }
    if look.timestamps {
        // As wide as a time, when it is not known.
        let time = row.time.map_or_else(|| format!("{:24}", "-"), timestamp);
        text += &if colour { format!("\x1b[2m{time}\x1b[0m ") } else { format!("{time} ") };
    }
    if colour && row.stream == LogStream::Stderr {
        text += "\x1b[31m!\x1b[0m ";
    }
    text += &row.line;
    // The line may leave a colour on.
    text += if colour { "\x1b[0m\n" } else { "\n" };
    text
}
