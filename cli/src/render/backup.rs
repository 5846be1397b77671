//! Renders what a backup has.

use std::fmt::Write as _;

use vc_backup::BackupSummary;
use vc_client::text::one_line;

use super::units::{bytes, minute};

/// Renders `vc backup`.
pub(crate) fn backup(summary: &BackupSummary) -> String {
    let BackupSummary { file, size, header, services, files, volumes } = summary;
    let included = volumes.iter().filter(|it| it.included);
    let mut text = format!(
        "{file}: {}, of cluster {} as {} had it at {}\n{services} services, {files} secrets and configs, the data of {} of {} volumes\n",
        bytes(*size),
        header.cluster,
        one_line(&header.node),
        minute(header.taken),
        included.clone().count(),
        volumes.len(),
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
