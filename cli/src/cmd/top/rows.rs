//! What the tables of `vc top` show: cells with what they are sorted by.

use std::collections::BTreeMap;

use vc_client::text::one_line;
use vc_protocol::control::{InstanceRow, NodeRow, NodeStatus, RolloutState, ServiceRow};
use vc_protocol::instance::InstanceState;
use vc_protocol::{Millis, ServiceKey};

use crate::render::{ago, bytes, cores, cores_used, percent};

/// What the nodes said last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) nodes: Vec<NodeRow>,
    pub(super) services: Vec<ServiceRow>,
    pub(super) instances: Vec<InstanceRow>,
    /// What `vc status` lists.
    pub(super) problems: Vec<String>,
    /// When it was read, by this computer's clock.
    pub(super) now: Millis,
}

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Nodes,
    Services,
    Instances,
}

impl Tab {
    pub(super) const ALL: [Self; 3] = [Self::Nodes, Self::Services, Self::Instances];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Services => "services",
            Self::Instances => "instances",
        }
    }

    /// Returns the titles of the columns.
    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Nodes => &[
                "NAME",
                "STATE",
                "INSTANCES",
                "CPU USED",
                "CPU",
                "MEM USED",
                "MEMORY",
                "DISK",
                "VERSION",
                "PROBLEM",
            ],
            Self::Services => &[
                "SERVICE", "RUNNING", "HEALTHY", "CPU %", "MEMORY", "RESTARTS", "UPDATED", "IMAGE",
                "ROLLOUT",
            ],
            Self::Instances => {
                &["INSTANCE", "NODE", "STATE", "CPU %", "MEMORY", "RESTARTS", "SINCE", "REASON"]
            }
        }
    }

    /// Returns the rows of the table, in the order of the nodes' answers.
    pub(super) fn rows(self, data: &Data) -> Vec<Row> {
        match self {
            Self::Nodes => data.nodes.iter().map(node).collect(),
            Self::Services => services(data),
            Self::Instances => data.instances.iter().map(|row| instance(row, data.now)).collect(),
        }
    }
}

/// How a row is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Changing,
    Bad,
    Plain,
}

/// What a cell is sorted by. Numbers that are not known come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SortKey {
    Number(Option<u64>),
    Text(String),
}

/// A cell of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) sort: SortKey,
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// What it is about, the same in the next answer: a node's name, a service, an instance.
    pub(super) key: String,
    pub(super) tone: Tone,
    pub(super) cells: Vec<Cell>,
}

fn text(value: impl ToString) -> Cell {
    let text = one_line(&value.to_string());
    Cell { sort: SortKey::Text(text.clone()), text }
}

fn number(value: Option<u64>, format: impl Fn(u64) -> String) -> Cell {
    let text = value.map_or_else(|| "-".to_owned(), format);
    Cell { text, sort: SortKey::Number(value) }
}

fn count(value: u32) -> Cell {
    number(Some(value.into()), |it| it.to_string())
}

/// A time in the past: the latest is sorted first.
fn past(now: Millis, then: Millis) -> Cell {
    Cell { text: ago(now, then), sort: SortKey::Number(Some(now.saturating_sub(then))) }
}

fn node(row: &NodeRow) -> Row {
    let (state, tone) = match row.state {
        NodeStatus::Up if row.restarting => ("restarting", Tone::Changing),
        NodeStatus::Up if row.draining => ("draining", Tone::Changing),
        NodeStatus::Up if !row.problem.is_empty() => ("up", Tone::Changing),
        NodeStatus::Up => ("up", Tone::Good),
        NodeStatus::Down => ("down", Tone::Bad),
        NodeStatus::Left => ("left", Tone::Plain),
    };
    let reported = |value: u64| (row.state == NodeStatus::Up && value > 0).then_some(value);
    let share = (row.disk_used.saturating_mul(1000)).checked_div(row.disk_bytes);
    Row {
        key: row.name.clone(),
        tone,
        cells: vec![
            text(&row.name),
            text(state),
            count(row.instances),
            number(reported(row.cpu_used), cores_used),
            number(Some(row.cpu_millis), cores),
            number(reported(row.memory_used), bytes),
            number(Some(row.memory_bytes), bytes),
            number(share, percent),
            text(&row.version),
            text(&row.problem),
        ],
    }
}

/// What the instances of a service use together; `None` if nothing is known of any.
#[derive(Debug, Default)]
struct Sum {
    cpu: Option<u64>,
    memory: Option<u64>,
    restarts: u32,
}

fn services(data: &Data) -> Vec<Row> {
    let mut sums: BTreeMap<&ServiceKey, Sum> = BTreeMap::new();
    for row in &data.instances {
        let sum = sums.entry(&row.service).or_default();
        let add = |sum: &mut Option<u64>, value: Option<u64>| {
            if let Some(value) = value {
                *sum = Some(sum.unwrap_or(0).saturating_add(value));
            }
        };
        add(&mut sum.cpu, row.cpu_millis);
        add(&mut sum.memory, row.memory_bytes);
        sum.restarts = sum.restarts.saturating_add(row.restarts);
    }
    let of = |row: &ServiceRow| {
        let sum = sums.remove(&row.service).unwrap_or_default();
        service(row, &sum, data.now)
    };
    data.services.iter().map(of).collect()
}

fn service(row: &ServiceRow, sum: &Sum, now: Millis) -> Row {
    let is_short = row.healthy < row.replicas && !row.mode.is_job();
    let (rollout, tone) = match row.rollout.state {
        RolloutState::Updating => ("updating", Tone::Changing),
        RolloutState::Paused => ("paused", Tone::Bad),
        RolloutState::RolledBack => ("rolled back", Tone::Changing),
        RolloutState::Complete if row.healthy == 0 && is_short => ("", Tone::Bad),
        RolloutState::Complete if is_short => ("", Tone::Changing),
        RolloutState::Complete => ("", Tone::Good),
    };
    let running = Cell {
        text: format!("{}/{}", row.running, row.replicas),
        sort: SortKey::Number(Some(row.running.into())),
    };
    Row {
        key: row.service.to_string(),
        tone,
        cells: vec![
            text(&row.service),
            running,
            count(row.healthy),
            number(sum.cpu, percent),
            number(sum.memory, bytes),
            count(sum.restarts),
            past(now, row.updated),
            text(&row.image),
            text(rollout),
        ],
    }
}

/// Returns the key of an instance's row.
pub(super) fn key_of(row: &InstanceRow) -> String {
    format!("{}.{}@{}", row.service, row.replica, row.digest)
}

fn instance(row: &InstanceRow, now: Millis) -> Row {
    let tone = match row.state {
        InstanceState::Running | InstanceState::Healthy if !row.current => Tone::Changing,
        InstanceState::Running | InstanceState::Healthy => Tone::Good,
        InstanceState::Completed => Tone::Plain,
        InstanceState::Unhealthy | InstanceState::Failed => Tone::Bad,
        InstanceState::Pending
        | InstanceState::Pulling
        | InstanceState::Starting
        | InstanceState::Stopping => Tone::Changing,
    };
    let old = if row.current { "" } else { " (old)" };
    Row {
        key: key_of(row),
        tone,
        cells: vec![
            text(format!("{}.{}", row.service, row.replica)),
            text(row.node_name.as_deref().unwrap_or_default()),
            text(format!("{}{old}", row.state.as_str())),
            number(row.cpu_millis, percent),
            number(row.memory_bytes, bytes),
            count(row.restarts),
            past(now, row.since),
            text(&row.reason),
        ],
    }
}
