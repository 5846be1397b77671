//! Tables without borders, as `docker ps` prints them.

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, TableStyle};
use vc_protocol::control::{NodeRow, NodeStatus};
use vc_protocol::instance::InstanceState;

use super::Style;
use vc_client::text::one_line;

/// Spaces between two columns.
const GAP: u16 = 3;

/// Renders a table.
pub(super) fn table(
    columns: &[&str],
    rows: impl IntoIterator<Item = Vec<Cell>>,
    style: Style,
) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new());
    // As wide as its content, so that values can be searched and copied.
    table.set_content_arrangement(ContentArrangement::Disabled);
    if style.colour {
        table.enforce_styling()
    } else {
        table.force_no_tty()
    };
    table.set_header(columns.iter().map(Cell::new));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    let mut text: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    if text.is_empty() {
        text.push('\n');
    }
    text
}

/// Returns a cell of text; `-` when it is empty.
pub(super) fn text(value: impl ToString) -> Cell {
    let value = one_line(&value.to_string());
    Cell::new(if value.is_empty() { "-" } else { &value })
}

/// Returns a cell of several lines.
pub(super) fn lines(lines: &[String]) -> Cell {
    let lines: Vec<String> = lines.iter().map(|line| one_line(line)).collect();
    if lines.is_empty() { text("") } else { Cell::new(lines.join("\n")) }
}

/// Returns a right-aligned cell.
pub(super) fn number(value: impl ToString) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

/// Returns the colour of an instance state.
pub(super) fn of_instance(state: InstanceState) -> Color {
    match state {
        InstanceState::Running | InstanceState::Healthy | InstanceState::Completed => Color::Green,
        InstanceState::Unhealthy | InstanceState::Failed => Color::Red,
        InstanceState::Pending
        | InstanceState::Pulling
        | InstanceState::Starting
        | InstanceState::Stopping => Color::Yellow,
    }
}

/// Returns the cell of a node's state.
pub(super) fn of_node(node: &NodeRow) -> Cell {
    let (word, colour) = match node.state {
        NodeStatus::Up if node.restarting => ("restarting", Color::Yellow),
        NodeStatus::Up if node.draining => ("up, draining", Color::Yellow),
        NodeStatus::Up if !node.problem.is_empty() => ("up", Color::Yellow),
        NodeStatus::Up => ("up", Color::Green),
        NodeStatus::Down if node.draining => ("down, draining", Color::Red),
        NodeStatus::Down => ("down", Color::Red),
        NodeStatus::Left => ("left", Color::DarkGrey),
    };
    Cell::new(word).fg(colour)
}
