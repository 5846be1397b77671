//! The log of a server: append-only segments of JSON lines, each chained to the one before by SHA-256. There are two, with bounds
//! of their own: sessions and refusals cannot push out the changes of the cluster document.
//!
//! A line is `{"hash":H,"record":R}` with H the SHA-256 of the bytes of R in hex. R begins with its `number`, from 1 without
//! gaps, and `previous`, the hash of the record before. So an edited record no longer fits its hash, and a missing or inserted
//! one does not fit its neighbours. What the chain cannot show is the loss of the last records, and a log that was written anew
//! as a whole: the other servers have the same changes.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use vc_protocol::audit::{AuditAction, AuditQuery, AuditRow, MAX_RECORDS};
use vc_protocol::{Millis, NodeId};

/// Size of a segment in bytes, after which a new one begins.
const SEGMENT: u64 = 4 << 20;
/// Segments that are kept of each part: the log has at most 64 MiB. With a new one the oldest goes.
const MAX_SEGMENTS: usize = 8;
/// The directories of the parts: changes of the cluster document, and everything else.
const PARTS: [&str; 2] = ["changes", "events"];
/// Longest line that is read, in bytes; a longer one is an altered record.
const MAX_LINE: u64 = 1 << 20;
/// The hash that the first record of a log follows.
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const BEFORE_HASH: &str = "{\"hash\":\"";
const BEFORE_RECORD: &str = "\",\"record\":";

/// The log could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the audit log {path}: {source}", path = .path.display())]
pub(super) struct LogError {
    path: PathBuf,
    source: io::Error,
}

/// A record as it is stored.
#[derive(Serialize, Deserialize)]
struct Record<R> {
    number: u64,
    previous: String,
    #[serde(flatten)]
    row: R,
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    segment: u64,
    offset: u64,
}

/// A position in each part.
pub(super) type Positions = [Position; 2];

/// The records of a query, and what their check found.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// The last [`MAX_RECORDS`] that the query selects, oldest first.
    pub(super) rows: VecDeque<AuditRow>,
    /// How many the query selects that are older.
    pub(super) left_out: u64,
    /// Records that the log has.
    pub(super) records: u64,
    /// Time of the first of them.
    pub(super) since: Option<Millis>,
    /// The first record that does not fit those before it; empty if all do.
    pub(super) problem: String,
    /// Where the next record will be.
    end: Position,
}

/// Both parts of the log, open for appending.
pub(super) struct ServerLog([AuditLog; 2]);

impl ServerLog {
    /// Opens the log in a directory, or creates it. A record that a crash has cut short is removed, which `node` records.
    pub(super) fn open(dir: &Path, node: (NodeId, &str), now: Millis) -> Result<Self, LogError> {
        let limits = Limits { segment: SEGMENT, segments: MAX_SEGMENTS };
        let [changes, events] =
            PARTS.map(|part| AuditLog::open(&dir.join(part), limits, node, now));
        Ok(Self([changes?, events?]))
    }

    /// Appends records, without those of changes that it has, and makes them durable.
    ///
    /// # Errors
    /// The disk is full or broken. Appending the same again adds no change twice.
    pub(super) fn append(&mut self, rows: &[AuditRow]) -> Result<(), LogError> {
        let (changes, events): (Vec<_>, Vec<_>) =
            rows.iter().cloned().partition(|row| row.change.is_some());
        let [of_changes, of_events] = &mut self.0;
        of_changes.append(&changes)?;
        of_events.append(&events)
    }
}

/// One part of the log, open for appending.
struct AuditLog {
    dir: PathBuf,
    limits: Limits,
    segments: Vec<u64>,
    file: File,
    length: u64,
    /// Number and hash of the last record.
    last: (u64, String),
    /// Highest sequence number of each actor in each generation of the cluster document, and its last part.
    changes: BTreeMap<(u64, String), (u64, u32)>,
}

/// The bound of a log.
#[derive(Clone, Copy)]
struct Limits {
    segment: u64,
    segments: usize,
}

impl AuditLog {
    /// As [`ServerLog::open`].
    fn open(
        dir: &Path,
        limits: Limits,
        (node, name): (NodeId, &str),
        now: Millis,
    ) -> Result<Self, LogError> {
        let failed = |source| LogError { path: dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let mut segments = segments(dir)?;
        if segments.is_empty() {
            segments.push(1);
        }
        let newest = segments.last().copied().unwrap_or(1);
        let file = append(dir, newest)?;
        let length = file.metadata().map_err(failed)?.len();
        let (last, changes) = ((0, NO_HASH.to_owned()), BTreeMap::new());
        let mut log = Self { dir: dir.to_owned(), limits, segments, file, length, last, changes };
        let end = log.scan()?;
        if end < log.length {
            let cut = log.length - end;
            log.file.set_len(end).map_err(failed)?;
            log.length = end;
            let text = format!("removed {cut} bytes of a record that a crash had cut short");
            log.append(&[note(node, name, now, text)])?;
        }
        Ok(log)
    }

    /// Reads the whole log. Returns where the last whole line of the newest segment ends.
    fn scan(&mut self) -> Result<u64, LogError> {
        let mut end = 0;
        for &segment in &self.segments {
            end = lines(&self.dir, Position { segment, offset: 0 }, |_, line| {
                let Some((hash, text)) = split(line) else { return };
                let Ok(record) = serde_json::from_str::<Record<AuditRow>>(text) else { return };
                self.last = (record.number, hash.to_owned());
                saw(&mut self.changes, &record.row);
            })?;
        }
        Ok(end)
    }

    /// Appends records, without those of changes that it has, and makes them durable.
    ///
    /// # Errors
    /// The disk is full or broken: none of them is in the log then.
    fn append(&mut self, rows: &[AuditRow]) -> Result<(), LogError> {
        let (mut last, mut changes) = (self.last.clone(), self.changes.clone());
        let mut lines = Vec::new();
        for row in rows {
            if !saw(&mut changes, row) {
                continue;
            }
            let record = Record { number: last.0 + 1, previous: last.1, row };
            // Plain data.
            let text = serde_json::to_string(&record).unwrap_or_default();
            let hash = digest(&text);
            lines.extend_from_slice(
                [BEFORE_HASH, &hash, BEFORE_RECORD, &text, "}\n"].concat().as_bytes(),
            );
            last = (record.number, hash);
        }
        if lines.is_empty() {
            return Ok(());
        }
        if self.length >= self.limits.segment {
            self.rotate()?;
        }
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // A part of them may be there.
            let _ = self.file.set_len(self.length);
            return Err(LogError { path: self.dir.clone(), source });
        }
        self.length += lines.len() as u64;
        (self.last, self.changes) = (last, changes);
        Ok(())
    }

    /// Begins a new segment, and removes the oldest beyond the bound.
    fn rotate(&mut self) -> Result<(), LogError> {
        let next = self.segments.last().map_or(1, |last| last + 1);
        self.file = append(&self.dir, next)?;
        self.length = 0;
        self.segments.push(next);
        while self.segments.len() > self.limits.segments {
            let oldest = self.segments.remove(0);
            let path = path(&self.dir, oldest);
            fs::remove_file(&path).map_err(|source| LogError { path, source })?;
        }
        Ok(())
    }
}

/// Reads both parts of a log and checks them. Returns where the next records will be.
pub(super) fn read(dir: &Path, query: &AuditQuery) -> Result<(Read, Positions), LogError> {
    let (mut all, mut ends) = (Read::default(), Positions::default());
    for (part, end) in PARTS.iter().zip(&mut ends) {
        let read = read_part(&dir.join(part), query)?;
        all.rows.extend(read.rows);
        all.left_out += read.left_out;
        all.records += read.records;
        all.since = all.since.into_iter().chain(read.since).min();
        if all.problem.is_empty() && !read.problem.is_empty() {
            all.problem = format!("in {part}, {}", read.problem);
        }
        *end = read.end;
    }
    Ok((all, ends))
}

/// Reads the records from these positions on that a query selects; returns where the next will be.
pub(super) fn read_from(
    dir: &Path,
    mut from: Positions,
    query: &AuditQuery,
) -> Result<(Vec<AuditRow>, Positions), LogError> {
    let mut all = Vec::new();
    for (part, at) in PARTS.iter().zip(&mut from) {
        let (rows, end) = read_part_from(&dir.join(part), *at, query)?;
        all.extend(rows);
        *at = end;
    }
    Ok((all, from))
}

fn read_part(dir: &Path, query: &AuditQuery) -> Result<Read, LogError> {
    let mut read = Read::default();
    let mut last: Option<(u64, String)> = None;
    for segment in segments(dir)? {
        let offset = lines(dir, Position { segment, offset: 0 }, |number, line| {
            read.records += 1;
            let (row, problem) = check(line, last.as_ref(), segment);
            if let (Some(problem), true) = (&problem, read.problem.is_empty()) {
                read.problem = format!("line {number} of {} {problem}", name(segment));
            }
            last = match &row {
                Some((record, hash)) => Some((record.number, hash.clone())),
                None => last.take().map(|(number, hash)| (number + 1, hash)),
            };
            let Some((Record { row, .. }, _)) = row else { return };
            read.since.get_or_insert(row.time);
            if query.selects(&row) {
                if read.rows.len() == MAX_RECORDS {
                    read.rows.pop_front();
                    read.left_out += 1;
                }
                read.rows.push_back(row);
            }
        })?;
        read.end = Position { segment, offset };
    }
    Ok(read)
}

fn read_part_from(
    dir: &Path,
    from: Position,
    query: &AuditQuery,
) -> Result<(Vec<AuditRow>, Position), LogError> {
    let (mut rows, mut end) = (Vec::new(), from);
    for segment in segments(dir)?.into_iter().filter(|&it| it >= from.segment) {
        let offset = if segment == from.segment { from.offset } else { 0 };
        let offset = lines(dir, Position { segment, offset }, |_, line| {
            let record = split(line).and_then(|(_, text)| serde_json::from_str(text).ok());
            let row = record.map(|Record { row, .. }: Record<AuditRow>| row);
            rows.extend(row.filter(|row| query.selects(row)));
        })?;
        end = Position { segment, offset };
    }
    Ok((rows, end))
}

/// Returns a record of the log about itself.
pub(super) fn note(node: NodeId, name: &str, time: Millis, text: String) -> AuditRow {
    AuditRow {
        time,
        action: AuditAction::LogRepaired,
        text,
        user: None,
        token: None,
        address: None,
        service: None,
        node,
        node_name: name.to_owned(),
        via: None,
        via_name: None,
        more: 0,
        change: None,
        event: time,
    }
}

/// Checks a line of a segment against the number and hash of the record before. Returns its record with its hash, and what does
/// not fit.
fn check(
    line: &str,
    last: Option<&(u64, String)>,
    segment: u64,
) -> (Option<(Record<AuditRow>, String)>, Option<&'static str>) {
    let Some((hash, text)) = split(line) else { return (None, Some("is no record")) };
    let Ok(record) = serde_json::from_str::<Record<AuditRow>>(text) else {
        return (None, Some("is no record"));
    };
    let follows = match last {
        Some((number, hash)) => record.number == number + 1 && record.previous == *hash,
        // The first record that is kept follows one that went with its segment.
        None => segment > 1 || (record.number == 1 && record.previous == NO_HASH),
    };
    let problem = match () {
        () if digest(text) != hash => Some("was altered"),
        () if !follows => Some("does not follow the record before: one was removed or inserted"),
        () => None,
    };
    (Some((record, hash.to_owned())), problem)
}

/// Returns whether a record is new, and remembers the change that it is about.
fn saw(changes: &mut BTreeMap<(u64, String), (u64, u32)>, row: &AuditRow) -> bool {
    let Some(change) = &row.change else { return true };
    let at = (change.seq, change.part);
    match changes.get_mut(&(change.generation, change.actor.clone())) {
        Some(last) if *last >= at => false,
        Some(last) => {
            *last = at;
            true
        }
        None => {
            changes.insert((change.generation, change.actor.clone()), at);
            true
        }
    }
}

fn digest(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text))
}

/// Splits a line into the hash and the record.
fn split(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix(BEFORE_HASH)?;
    let (hash, rest) = rest.split_at_checked(NO_HASH.len())?;
    Some((hash, rest.strip_prefix(BEFORE_RECORD)?.strip_suffix('}')?))
}

/// Calls `visit` with the number and the text of each whole line from a position on. Returns where the last one ends.
fn lines(dir: &Path, from: Position, mut visit: impl FnMut(u64, &str)) -> Result<u64, LogError> {
    let path = path(dir, from.segment);
    let failed = |source| LogError { path: path.clone(), source };
    let mut file = match File::open(&path) {
        Ok(file) => BufReader::new(file),
        // It went with the bound meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(from.offset),
        Err(error) => return Err(failed(error)),
    };
    file.seek(SeekFrom::Start(from.offset)).map_err(failed)?;
    let (mut end, mut line) = (from.offset, Vec::new());
    for number in 1.. {
        line.clear();
        let mut limited = io::Read::take(&mut file, MAX_LINE);
        let length = limited.read_until(b'\n', &mut line).map_err(failed)? as u64;
        if line.pop_if(|last| *last == b'\n').is_none() && length < MAX_LINE {
            break;
        }
        end += length;
        visit(number, &String::from_utf8_lossy(&line));
    }
    Ok(end)
}

/// Returns the numbers of the segments in a directory, oldest first.
fn segments(dir: &Path) -> Result<Vec<u64>, LogError> {
    let failed = |source| LogError { path: dir.to_owned(), source };
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let file = entry.map_err(failed)?.file_name();
        let number = file.to_str().and_then(|file| file.strip_suffix(".jsonl")?.parse().ok());
        found.extend(number.filter(|&number| name(number).as_str() == file));
    }
    found.sort_unstable();
    Ok(found)
}

fn name(segment: u64) -> String {
    format!("{segment:08}.jsonl")
}

fn path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(name(segment))
}

fn append(dir: &Path, segment: u64) -> Result<File, LogError> {
    let path = path(dir, segment);
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    opened.map_err(|source| LogError { path, source })
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
#[path = "log/tests.rs"]
mod tests;
