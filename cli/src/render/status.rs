//! Renders the result of `vc status`.

use vc_protocol::control::StatusReport;

use super::Style;
use super::units::{bytes, cores, cores_used};
use vc_client::text::one_line;

/// Renders one line per figure, and one per problem.
pub(crate) fn status(report: &StatusReport, style: Style) -> String {
    let paint = |good: bool, text: String| match (style.colour, good) {
        (false, _) => text,
        (true, true) => format!("\x1b[32m{text}\x1b[0m"),
        (true, false) => format!("\x1b[33m{text}\x1b[0m"),
    };
    let mut lines = vec![
        ("cluster", one_line(&report.cluster)),
        ("answered by", report.node.to_string()),
        (
            "nodes",
            paint(
                report.nodes_up == report.nodes,
                format!("{}/{} up", report.nodes_up, report.nodes),
            ),
        ),
        (
            "voters",
            match report.voters {
                0 => "none yet".to_owned(),
                voters => paint(
                    report.voters_up * 2 > voters,
                    format!("{}/{voters} reachable", report.voters_up),
                ),
            },
        ),
        ("services", report.services.to_string()),
        (
            "instances",
            paint(
                report.running >= report.replicas,
                format!("{}/{} running", report.running, report.replicas),
            ),
        ),
        (
            "CPU",
            format!(
                "{} of {} cores reserved, {} used",
                cores(report.cpu_reserved),
                cores(report.cpu_millis),
                cores_used(report.cpu_used)
            ),
        ),
        (
            "memory",
            format!(
                "{} of {} reserved, {} used",
                bytes(report.memory_reserved),
                bytes(report.memory_bytes),
                bytes(report.memory_used)
            ),
        ),
    ];
    if report.problems.is_empty() {
        lines.push(("problems", paint(true, "none".to_owned())));
    }
    for (at, problem) in report.problems.iter().enumerate() {
        lines.push((if at == 0 { "problems" } else { "" }, paint(false, one_line(problem))));
    }
    for (at, hint) in report.hints.iter().enumerate() {
        lines.push((if at == 0 { "hints" } else { "" }, one_line(hint)));
    }
    lines.into_iter().map(|(name, value)| format!("{name:<13}{value}\n")).collect()
}
