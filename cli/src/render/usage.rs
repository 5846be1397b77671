//! Renders what instances use.

use vc_protocol::control::UsageRow;

use super::Style;
use super::table::{number, table, text};
use super::units::{bytes, percent};

/// Renders `vc stats`.
pub(crate) fn usage(rows: &[UsageRow], style: Style) -> String {
    let cells = rows.iter().map(|row| {
        let limit = row.memory_limit_bytes;
        let share = (row.memory_bytes.saturating_mul(1000)).checked_div(limit);
        let memory = match limit {
            0 => bytes(row.memory_bytes),
            limit => format!("{} / {}", bytes(row.memory_bytes), bytes(limit)),
        };
        vec![
            text(format!("{}.{}", row.service, row.replica)),
            text(&row.node_name),
            number(row.cpu_millis.map_or_else(|| "-".to_owned(), percent)),
            text(memory),
            number(share.map_or_else(|| "-".to_owned(), percent)),
            text(pair(row.network_received_bytes, row.network_sent_bytes)),
            text(pair(row.disk_read_bytes, row.disk_written_bytes)),
            number(row.processes),
        ]
    });
    let columns =
        ["INSTANCE", "NODE", "CPU %", "MEMORY / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    table(&columns, cells, style)
}

/// Formats bytes in and out; nothing if they are not counted.
fn pair(one: Option<u64>, other: Option<u64>) -> String {
    match (one, other) {
        (Some(one), Some(other)) => format!("{} / {}", bytes(one), bytes(other)),
        _ => String::new(),
    }
}
