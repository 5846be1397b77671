//! Renders jobs and their runs.

use comfy_table::Color;
use vc_client::text::one_line;
use vc_protocol::control::{JobRow, RunRow, RunState};

use super::Style;
use super::table::{number, table, text};
use super::units::{ago, minute, short_duration};

/// Renders `vc job ls`.
pub(crate) fn jobs(rows: &[JobRow], style: Style) -> String {
    let cells = rows.iter().map(|row| {
        let last = row.last.as_ref();
        vec![
            text(&row.service),
            text(match row.schedule.as_str() {
                "" => row.mode.as_str().to_owned(),
                schedule => format!("{schedule} ({})", row.time_zone),
            }),
            text(match row.next {
                _ if row.suspended => "suspended".to_owned(),
                0 => String::new(),
                next => minute(next),
            }),
            number(row.running),
            last.map_or_else(|| text(""), |last| text(state(last)).fg(colour(last.state))),
            text(
                last.map_or_else(String::new, |last| ago(style.now, last.ended.max(last.started))),
            ),
        ]
    });
    table(&["JOB", "SCHEDULE", "NEXT", "RUNNING", "LAST RUN", "ENDED"], cells, style)
}

/// Renders `vc job history`.
pub(crate) fn runs(rows: &[RunRow], style: Style) -> String {
    let cells = rows.iter().map(|row| {
        let mut notes = vec![one_line(&row.reason)];
        if row.missed > 0 {
            notes.push(format!("{} times before it passed unseen", row.missed));
        }
        if !row.by.is_empty() {
            notes.push(format!("by {}", row.by));
        }
        notes.retain(|note| !note.is_empty());
        let took = row.ended.saturating_sub(row.started);
        vec![
            number(row.run),
            text(match row.started {
                // The slot of a schedule is its time.
                0 => String::new(),
                started => minute(started),
            }),
            text(row.node_name.clone().unwrap_or_default()),
            text(state(row)).fg(colour(row.state)),
            text(if row.ended > 0 { short_duration(took) } else { String::new() }),
            number(row.restarts),
            text(notes.join("; ")),
        ]
    });
    table(&["RUN", "STARTED", "NODE", "STATE", "TOOK", "RESTARTS", "NOTE"], cells, style)
}

/// Returns the state of a run, with its exit code where that says more.
fn state(row: &RunRow) -> String {
    match row.exit_code {
        Some(code) if row.state == RunState::Failed => format!("failed ({code})"),
        _ => row.state.as_str().to_owned(),
    }
}

fn colour(state: RunState) -> Color {
    match state {
        RunState::Succeeded => Color::Green,
        RunState::Failed | RunState::Missed => Color::Red,
        RunState::Pending | RunState::Running | RunState::Unknown => Color::Yellow,
        RunState::Skipped | RunState::Stopped => Color::DarkGrey,
    }
}
