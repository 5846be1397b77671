//! Renders backups: what one has, and who makes them.

use std::fmt::Write as _;

use vc_backup::BackupSummary;
use vc_client::text::one_line;

use vc_protocol::control::BackupRow;
use vc_protocol::in_words;

use super::Style;
use super::table::{table, text};
use super::units::{ago, bytes, minute};

/// Renders `vc backup`.
pub(crate) fn backup(summary: &BackupSummary) -> String {
    let BackupSummary { file, size, header, services, files, volumes } = summary;
    let included = volumes.iter().filter(|it| it.included);
    let counted = |count: usize, one: &str, many: &str| {
        format!("{count} {}", if count == 1 { one } else { many })
    };
    let mut text = format!(
        "{file}: {}, of cluster {} as {} had it at {}\n{}, {}, the data of {} of {}\n",
        bytes(*size),
        header.cluster,
        one_line(&header.node),
        minute(header.taken),
        counted(*services, "service", "services"),
        counted(*files, "secret or config", "secrets and configs"),
        included.clone().count(),
        counted(volumes.len(), "volume", "volumes"),
    );
    for volume in included {
        let snapshot = volume.snapshot.as_deref().unwrap_or_default();
        let _ = writeln!(
            text,
            "  {}: {}, snapshot {} of {}",
            volume.volume,
            bytes(volume.bytes),
            one_line(snapshot),
            minute(volume.snapshot_taken)
        );
    }
    text
}

/// Renders `vc backup ls`.
pub(crate) fn backups(rows: &[BackupRow], style: Style) -> String {
    let cells = rows.iter().map(|row| {
        let newest = match row.taken {
            0 => "none".to_owned(),
            taken => ago(style.now, taken),
        };
        let problem = match (row.problem.is_empty(), row.up) {
            (true, false) => "the node is down".to_owned(),
            _ => one_line(&row.problem),
        };
        vec![
            text(one_line(&row.node_name)),
            text(in_words(row.every)),
            text(newest),
            text(bytes(row.size)),
            text(problem),
        ]
    });
    table(&["NODE", "EVERY", "NEWEST", "SIZE", "PROBLEM"], cells, style)
}

#[cfg(test)]
mod tests {
    use vc_backup::VolumeEntry;

    use super::*;

    #[test]
    fn a_backup_is_described_with_the_volumes_that_are_in_it() {
        let volume = |name: &str, included| VolumeEntry {
            volume: name.parse().expect("a volume"),
            primary: "attic".to_owned(),
            bytes: 5 << 20,
            snapshot: Some("7-1".to_owned()),
            snapshot_taken: 1_795_446_245_678,
            included,
            problem: String::new(),
            failed: false,
        };
        let header = serde_json::json!({
            "cluster": "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
            "taken": 1_795_446_245_678_u64, "node": "attic", "version": "0.1.0",
        });
        let summary = BackupSummary {
            file: "c.vcb".to_owned(),
            size: 1 << 20,
            header: serde_json::from_value(header).expect("a header"),
            services: 2,
            files: 1,
            volumes: vec![volume("shop/data", true), volume("shop/left", false)],
        };
        let expected = "\
c.vcb: 1 MiB, of cluster 12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN as attic had it at 2026-11-23 15:04 UTC
2 services, 1 secret or config, the data of 1 of 2 volumes
  shop/data: 5 MiB, snapshot 7-1 of 2026-11-23 15:04 UTC
";
        assert_eq!(backup(&summary), expected);
    }
}
