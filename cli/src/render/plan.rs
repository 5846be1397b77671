//! Renders plans: placements with their reasons, moves, and the changes of a deployment.

use std::collections::BTreeMap;

use comfy_table::Color;
use vc_protocol::NodeId;
use vc_protocol::control::{MoveRow, NodeRow, PlanReport, ServiceDiff};

use super::Style;
use super::table::{lines, table, text};
use vc_client::text::one_line;

/// Renders `vc plan`; tables without rows are omitted.
pub(crate) fn plan(report: &PlanReport, style: Style) -> String {
    // Moves name nodes by id; the placements have their names.
    let names: BTreeMap<NodeId, &str> =
        report.placements.iter().map(|row| (row.node, row.node_name.as_str())).collect();
    let node = |node: Option<NodeId>| match node {
        None => String::new(),
        Some(node) => names
            .get(&node)
            .filter(|name| !name.is_empty())
            .map_or(node.short(), |&name| name.to_owned()),
    };
    let mut parts = Vec::new();
    if !report.placements.is_empty() {
        let rows = report.placements.iter().map(|row| {
            vec![
                text(format!("{}.{}", row.service, row.replica)),
                text(node(Some(row.node))),
                lines(&row.reasons),
            ]
        });
        parts.push(table(&["INSTANCE", "NODE", "REASONS"], rows, style));
    }
    if !report.unplaced.is_empty() {
        let rows = report.unplaced.iter().map(|row| {
            vec![
                text(format!("{}.{}", row.service, row.replica)).fg(Color::Red),
                lines(&row.reasons),
            ]
        });
        parts.push(table(&["UNPLACED", "REASONS"], rows, style));
    }
    if !report.moves.is_empty() {
        let rows = report.moves.iter().map(|row| {
            vec![
                text(format!("{}.{}", row.service, row.replica)),
                text(node(row.from)),
                text(node(row.to)),
                text(&row.reason),
            ]
        });
        parts.push(table(&["CHANGES", "FROM", "TO", "REASON"], rows, style));
    }
    parts.push(format!("input digest {}\n", report.input_digest));
    parts.join("\n")
}

/// Renders the moves of `vc rebalance`.
pub(crate) fn moves(rows: &[MoveRow], nodes: &[NodeRow], style: Style) -> String {
    if rows.is_empty() {
        return "nothing to move: instances are spread evenly\n".to_owned();
    }
    let node = |node: Option<NodeId>| {
        let name = nodes.iter().find(|row| Some(row.id) == node).map(|row| row.name.clone());
        name.or_else(|| node.map(|node| node.short())).unwrap_or_default()
    };
    let rows = rows.iter().map(|row| {
        vec![
            text(format!("{}.{}", row.service, row.replica)),
            text(node(row.from)),
            text(node(row.to)),
            text(&row.reason),
        ]
    });
    table(&["MOVES", "FROM", "TO", "REASON"], rows, style)
}

/// Renders the changes of `vc deploy`: each service, and below it one line per value.
pub(crate) fn diff(rows: &[ServiceDiff], style: Style) -> String {
    if rows.is_empty() {
        return "no changes\n".to_owned();
    }
    let mut text = String::new();
    for row in rows {
        let (line, colour) = match row.created {
            true => (format!("+ {} (new)", row.service), 32),
            false => (format!("~ {}", row.service), 33),
        };
        text += &match style.colour {
            true => format!("\x1b[{colour}m{line}\x1b[0m\n"),
            false => format!("{line}\n"),
        };
        for change in &row.changes {
            text += &format!("    {}\n", one_line(change));
        }
    }
    text
}
