//! Which snapshot of a volume a command is about.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vc_client::{Session, SessionError, expect_reply};
use vc_protocol::control::{ReplicaState, Request, SnapshotKind, SnapshotRow, VolumeRow};
use vc_protocol::volume::SnapshotId;
use vc_protocol::{ApiError, ErrorCode, Millis, NodeId, VolumeKey};

use super::snapshot::take;
use crate::app::{App, ago};
use crate::args::duration;
use crate::error::Result;
use crate::render::{self, note};

/// A snapshot, or the newest that is not later than a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Snapshot(SnapshotId),
    Time(Millis),
    Ago(Duration),
}

/// The text names no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is neither a snapshot as 'vc volume snapshots' shows it, nor a time as 2026-11-28T10:00:00Z, nor an age as 2h or 3d"
)]
pub(super) struct AtError(String);

impl std::str::FromStr for At {
    type Err = AtError;

    fn from_str(text: &str) -> std::result::Result<Self, AtError> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Snapshot(id));
        }
        if let Ok(age) = duration(text) {
            return Ok(Self::Ago(age));
        }
        let bad = || AtError(text.to_owned());
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| bad())?;
        let millis = time.unix_timestamp_nanos() / 1_000_000;
        Ok(Self::Time(Millis::try_from(millis).map_err(|_| bad())?))
    }
}

/// Returns the row of the volume that a text names, with its project or without. Errors: there is none, or there are several.
pub(super) async fn find(session: &mut Session, text: &str) -> Result<VolumeRow> {
    let rows = expect_reply!(session.ask(&Request::Volumes).await?, Volumes)?;
    let named =
        |row: &VolumeRow| row.volume.to_string() == text || row.volume.volume.as_str() == text;
    let mut found: Vec<VolumeRow> = rows.into_iter().filter(named).collect();
    match (found.pop(), found.is_empty()) {
        (Some(row), true) => Ok(row),
        (None, _) => {
            let error = ApiError::new(ErrorCode::NotFound, format!("no volume '{text}'"));
            Err(error.with_hint("see 'vc volume ls'").into())
        }
        (Some(last), false) => {
            found.push(last);
            let names: Vec<String> = found.iter().map(|row| row.volume.to_string()).collect();
            let message = format!("several volumes are named '{text}'");
            let error = ApiError::new(ErrorCode::InvalidArgument, message);
            Err(error.with_hint(format!("name one of {}", names.join(", "))).into())
        }
    }
}

/// Returns what the nodes that are up keep of a volume, the newest first. A node that does not answer is left out, with a note.
pub(super) async fn kept(
    session: &mut Session,
    row: &VolumeRow,
    kind: SnapshotKind,
) -> Result<Vec<SnapshotRow>> {
    let replicas = row.replicas.iter().filter(|it| it.state != ReplicaState::Down);
    let nodes = row.up.then_some(row.node).into_iter().chain(replicas.map(|it| it.node));
    let mut kept = on_nodes(session, &row.volume, nodes.collect()).await?;
    kept.retain(|row| row.kind == kind);
    kept.sort_by_cached_key(|row| {
        (std::cmp::Reverse(row.snapshot.parse::<SnapshotId>().ok()), row.node_name.clone())
    });
    Ok(kept)
}

/// Returns what these nodes keep of a volume.
pub(super) async fn on_nodes(
    session: &mut Session,
    volume: &VolumeKey,
    nodes: Vec<NodeId>,
) -> Result<Vec<SnapshotRow>> {
    let mut kept = Vec::new();
    for node in nodes {
        let request = Request::Snapshots { volume: volume.clone(), node };
        match session.ask(&request).await {
            Ok(reply) => kept.extend(expect_reply!(reply, Snapshots)?),
            Err(SessionError::Refused(error)) if error.code == ErrorCode::Unavailable => {
                note(&format!("its snapshots are left out: {}", error.message));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(kept)
}

/// Returns the snapshot that is meant; without `at` the newest, which is taken if there is none. Errors: no node that is up has one.
pub(super) async fn choose(
    app: &App,
    session: &mut Session,
    row: &VolumeRow,
    at: Option<At>,
) -> Result<(SnapshotRow, SnapshotId)> {
    let volume = &row.volume;
    let mut rows = kept(session, row, SnapshotKind::Snapshot).await?;
    if rows.is_empty() && at.is_none() && row.up {
        // As of a volume with one copy.
        take(app, session, volume).await?;
        rows = kept(session, row, SnapshotKind::Snapshot).await?;
    }
    let found = select(&rows, at).and_then(|row| Some((row.clone(), row.snapshot.parse().ok()?)));
    found.ok_or_else(|| {
        let (what, hint) = match (rows.last(), at) {
            (None, _) => (
                format!("volume {volume} has no snapshot on a node that is up"),
                "see 'vc volume ls' and 'vc nodes'".to_owned(),
            ),
            (Some(_), Some(At::Snapshot(id))) => (
                format!("volume {volume} has no snapshot {id} on a node that is up"),
                format!("see 'vc volume snapshots {volume}'"),
            ),
            (Some(oldest), _) => (
                format!("volume {volume} has no snapshot that is that old"),
                format!("the oldest, {}, is of {}", oldest.snapshot, render::minute(oldest.time)),
            ),
        };
        ApiError::new(ErrorCode::NotFound, what).with_hint(hint).into()
    })
}

/// Returns the snapshot that is meant of these, the newest first.
fn select(rows: &[SnapshotRow], at: Option<At>) -> Option<&SnapshotRow> {
    match at {
        None => rows.first(),
        Some(At::Snapshot(id)) => rows.iter().find(|row| row.snapshot == id.to_string()),
        Some(At::Time(time)) => rows.iter().find(|row| row.time <= time),
        Some(At::Ago(age)) => rows.iter().find(|row| row.time <= ago(age)),
    }
}

/// Describes a snapshot: `snapshot 1000003-12 of shop/data, taken 2026-11-28 10:00 UTC`.
pub(super) fn describe(row: &SnapshotRow) -> String {
    format!("snapshot {} of {}, taken {}", row.snapshot, row.volume, render::minute(row.time))
}

/// Returns a new volume's name, by default in the project of another one. Errors: it is none.
pub(super) fn beside(other: &VolumeKey, text: &str) -> Result<VolumeKey> {
    let named = match text.contains('/') {
        true => text.parse().ok(),
        false => {
            text.parse().ok().map(|volume| VolumeKey { project: other.project.clone(), volume })
        }
    };
    named.ok_or_else(|| {
        let message = format!("'{text}' is no name of a volume");
        let error = ApiError::new(ErrorCode::InvalidArgument, message);
        error.with_hint("write NAME or PROJECT/NAME, of a-z, 0-9, '-' and '_'").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_by_its_id_a_time_or_an_age() {
        let id = SnapshotId { epoch: 1_000_003, number: 12 };
        for (text, at) in [
            ("1000003-12", At::Snapshot(id)),
            ("2h", At::Ago(Duration::from_secs(7200))),
            ("3d", At::Ago(Duration::from_secs(3 * 86_400))),
            ("1970-01-02T00:00:01Z", At::Time(86_401_000)),
            ("1970-01-02T02:00:01.5+02:00", At::Time(86_401_500)),
        ] {
            assert_eq!(text.parse(), Ok(at), "{text}");
        }
        for text in ["", "yesterday", "2026-11-28", "1969-01-01T00:00:00Z", "12"] {
            assert!(text.parse::<At>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_newest_snapshot_that_is_not_later_is_taken() {
        let node = "12D3KooWSrKnMZUcSxK8G7wmBbXdU8nFEfWGhLu6H8xjn8LmCSJb";
        let row = |snapshot: &str, time| SnapshotRow {
            volume: "shop/data".parse().expect("a volume"),
            kind: SnapshotKind::Snapshot,
            snapshot: snapshot.to_owned(),
            node: node.parse().expect("an id"),
            node_name: "attic".to_owned(),
            time,
            files: 1,
            bytes: 1,
            expires: 0,
        };
        let rows = [row("3-9", 900), row("3-8", 800), row("2-7", 700)];
        let of = |at| select(&rows, at).map(|row| row.snapshot.as_str());
        assert_eq!(of(None), Some("3-9"));
        assert_eq!(of(Some(At::Time(899))), Some("3-8"));
        assert_eq!(of(Some(At::Time(800))), Some("3-8"));
        assert_eq!(of(Some(At::Time(699))), None);
        assert_eq!(of(Some(At::Ago(Duration::ZERO))), Some("3-9"));
        assert_eq!(of(Some(At::Snapshot(SnapshotId { epoch: 2, number: 7 }))), Some("2-7"));
    }
}
