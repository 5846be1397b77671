//! The events on the disk: `DIR/events.jsonl`, an [`EventRow`] as JSON a line, oldest first.
//!
//! Losing the last ones in a power cut is acceptable, as is losing all on a broken disk: nothing depends on them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;
use vc_protocol::control::EventRow;

use super::log::MAX_EVENTS;

const FILE: &str = "events.jsonl";
/// Size in bytes from which the file is replaced by one of the last events.
const MAX_SIZE: u64 = 8 << 20;
/// Size in bytes of the last events that are kept then, and read at a start.
const KEPT_SIZE: usize = 4 << 20;

/// The file, open for appending.
pub(super) struct EventFile {
    path: PathBuf,
    /// Whether the last attempt to write has failed, which is logged once.
    is_failing: bool,
}

impl EventFile {
    /// Opens the file of a data directory, and returns its events; lines that this version cannot read are left out.
    pub(super) async fn open(dir: PathBuf) -> (Self, Vec<EventRow>) {
        let path = dir.join(FILE);
        let file = Self { path: path.clone(), is_failing: false };
        let rows = spawn_blocking(move || read(&path)).await.unwrap_or_else(|_| Ok(Vec::new()));
        let rows = rows.unwrap_or_else(|error| {
            tracing::warn!(path = %file.path.display(), %error, "cannot read the events of before");
            Vec::new()
        });
        (file, rows)
    }

    /// Appends events.
    pub(super) async fn append(&mut self, rows: &[EventRow]) {
        let text = lines(rows);
        self.write(move |path| append(path, text.as_bytes())).await;
    }

    /// Replaces the content.
    pub(super) async fn replace(&mut self, rows: Vec<EventRow>) {
        self.write(move |path| vc_atomic_file::write(path, lines(&rows).as_bytes(), 0o600)).await;
    }

    async fn write(&mut self, write: impl FnOnce(&Path) -> io::Result<()> + Send + 'static) {
        let path = self.path.clone();
        // An error of the task means that the node is stopping.
        let written = spawn_blocking(move || write(&path)).await.unwrap_or(Ok(()));
        let was_failing = std::mem::replace(&mut self.is_failing, written.is_err());
        if let (Err(error), false) = (written, was_failing) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot keep events: a restart will lose those from now on");
        }
    }
}

/// Formats events as lines.
fn lines(rows: &[EventRow]) -> String {
    // Plain data.
    rows.iter().map(|row| serde_json::to_string(row).unwrap_or_default() + "\n").collect()
}

fn append(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    if file.metadata()?.len() + text.len() as u64 > MAX_SIZE {
        let mut kept = lines(&read(path)?).into_bytes();
        kept.extend_from_slice(text);
        return vc_atomic_file::write(path, &kept, 0o600);
    }
    file.write_all(text)
}

/// Reads the last events. A line that a crash has cut short gets an end, so that the next one does not continue it.
fn read(path: &Path) -> io::Result<Vec<EventRow>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if bytes.last().is_some_and(|last| *last != b'\n') {
        OpenOptions::new().append(true).open(path)?.write_all(b"\n")?;
    }
    let kept = &bytes[bytes.len().saturating_sub(KEPT_SIZE)..];
    let rows = kept.split(|&it| it == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let mut rows: Vec<EventRow> = rows.collect();
    rows.drain(..rows.len().saturating_sub(MAX_EVENTS));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use vc_protocol::control::EventLevel;

    use super::*;

    fn row(n: usize) -> EventRow {
        let (level, subject) = (EventLevel::Error, "shop/web.1".to_owned());
        EventRow { time: 7, level, subject, text: format!("event {n}") }
    }

    async fn kept(dir: &Path) -> Vec<EventRow> {
        EventFile::open(dir.to_owned()).await.1
    }

    #[tokio::test]
    async fn events_survive_a_restart_and_a_line_that_was_cut_short() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut file, rows) = EventFile::open(dir.path().to_owned()).await;
        assert!(rows.is_empty());
        file.append(&[row(1), row(2)]).await;
        append(&dir.path().join(FILE), b"{\"time\":7,\"le").expect("written");
        let (mut file, rows) = EventFile::open(dir.path().to_owned()).await;
        assert_eq!(rows, [row(1), row(2)]);
        file.append(&[row(3)]).await;
        assert_eq!(kept(dir.path()).await, [row(1), row(2), row(3)]);
        file.replace(vec![row(9)]).await;
        assert_eq!(kept(dir.path()).await, [row(9)]);
    }

    #[tokio::test]
    async fn lines_of_a_newer_version_are_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let newer = br#"{"time":7,"level":"info","subject":"n1","text":"new","color":"red"}
{"time":7,"level":"fatal","subject":"n1","text":"a level of a newer version"}
"#;
        append(&dir.path().join(FILE), newer).expect("written");
        let rows = kept(dir.path()).await;
        assert_eq!(rows.iter().map(|row| row.text.as_str()).collect::<Vec<_>>(), ["new"]);
    }

    #[tokio::test]
    async fn the_file_is_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut file, _) = EventFile::open(dir.path().to_owned()).await;
        let rows: Vec<EventRow> = (0..MAX_EVENTS).map(row).collect();
        for _ in 0..20 {
            file.append(&rows).await;
            assert!(fs::metadata(dir.path().join(FILE)).expect("there").len() <= MAX_SIZE);
        }
        assert_eq!(kept(dir.path()).await, rows);
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_loses_no_events_in_memory() {
        let (mut file, rows) = EventFile::open(PathBuf::from("/proc/none")).await;
        assert!(rows.is_empty());
        file.append(&[row(1)]).await;
        assert!(file.is_failing);
    }
}
