use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;
use vc_protocol::Keypair;
use vc_protocol::audit::ChangeRef;

use super::*;

const SMALL: Limits = Limits { segment: 2000, segments: 3 };

fn node() -> NodeId {
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    NodeId::of(&key.public()).expect("ed25519")
}

fn event(number: u64) -> AuditRow {
    let row = note(node(), "h1", number, format!("event {number}"));
    AuditRow { action: AuditAction::Exec, user: Some("ann".to_owned()), ..row }
}

fn change(seq: u64, part: u32) -> AuditRow {
    let change = ChangeRef { generation: 1, actor: "a".to_owned(), seq, part };
    AuditRow { change: Some(change), action: AuditAction::ServiceScaled, ..event(0) }
}

fn open(dir: &TempDir) -> AuditLog {
    AuditLog::open(dir.path(), SMALL, (node(), "h1"), 99).expect("opens")
}

fn all(dir: &TempDir) -> Read {
    read_part(dir.path(), &AuditQuery::default()).expect("reads")
}

fn times(read: &Read) -> Vec<u64> {
    read.rows.iter().map(|row| row.time).collect()
}

/// Edits the text of the newest segment.
fn edit(dir: &TempDir, change: impl Fn(&str) -> String) {
    let segment = segments(dir.path()).expect("lists").pop().expect("a segment");
    let path = path(dir.path(), segment);
    let text = fs::read_to_string(&path).expect("reads");
    fs::write(&path, change(&text)).expect("writes");
}

#[test]
fn records_are_read_in_order_and_a_restart_continues_the_chain() {
    let dir = TempDir::new().expect("a directory");
    assert_eq!(all(&dir).records, 0);
    open(&dir).append(&[event(1), event(2)]).expect("written");
    open(&dir).append(&[event(3)]).expect("written");
    let read = all(&dir);
    assert_eq!(times(&read), [1, 2, 3]);
    assert_eq!((read.records, read.since, read.problem.as_str()), (3, Some(1), ""));
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&path(dir.path(), 1)), 0o600);

    let (rows, end) = read_part_from(dir.path(), read.end, &AuditQuery::default()).expect("reads");
    assert_eq!((rows.len(), end), (0, read.end));
    open(&dir).append(&[event(4)]).expect("written");
    let (rows, _) = read_part_from(dir.path(), read.end, &AuditQuery::default()).expect("reads");
    assert_eq!(rows, [event(4)]);
    let query = AuditQuery { since: Some(3), user: Some("ann".to_owned()), ..Default::default() };
    assert_eq!(read_part(dir.path(), &query).expect("reads").rows, [event(3), event(4)]);
    let other = AuditQuery { user: Some("bob".to_owned()), ..AuditQuery::default() };
    assert!(read_part(dir.path(), &other).expect("reads").rows.is_empty());
}

#[test]
fn an_edited_removed_or_inserted_record_is_named() {
    let dir = TempDir::new().expect("a directory");
    open(&dir).append(&(1..=5).map(event).collect::<Vec<_>>()).expect("written");
    let whole = fs::read_to_string(path(dir.path(), 1)).expect("reads");
    let problem = |text: String| {
        edit(&dir, |_| text.clone());
        all(&dir).problem
    };
    let lines: Vec<&str> = whole.lines().collect();
    let without = |at: usize| {
        let kept = lines.iter().enumerate().filter(|(it, _)| *it != at);
        kept.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    assert_eq!(problem(whole.clone()), "");
    assert_eq!(
        problem(whole.replace("event 3", "event 8")),
        "line 3 of 00000001.jsonl was altered"
    );
    let gap = "does not follow the record before: one was removed or inserted";
    assert_eq!(problem(without(2)), format!("line 3 of 00000001.jsonl {gap}"));
    assert_eq!(problem(without(0)), format!("line 1 of 00000001.jsonl {gap}"));
    let twice = format!("{}\n{whole}", lines[0]);
    assert_eq!(problem(twice), format!("line 2 of 00000001.jsonl {gap}"));
    // With a hash that fits: the next record shows it.
    let (_, record) = split(lines[1]).expect("a record");
    let forged = record.replace("event 2", "event 9");
    let forged = [BEFORE_HASH, &digest(&forged), BEFORE_RECORD, &forged, "}"].concat();
    assert_eq!(
        problem(whole.replace(lines[1], &forged)),
        format!("line 3 of 00000001.jsonl {gap}")
    );
    assert_eq!(problem(whole.replace(lines[4], "{}")), "line 5 of 00000001.jsonl is no record");
    // The others are still read.
    edit(&dir, |_| whole.replace(lines[2], "nonsense"));
    assert_eq!(times(&all(&dir)), [1, 2, 4, 5]);
    open(&dir).append(&[event(6)]).expect("written");
    assert_eq!(all(&dir).problem, "line 3 of 00000001.jsonl is no record");
}

#[test]
fn a_record_that_a_crash_cut_short_is_removed_with_a_note() {
    let dir = TempDir::new().expect("a directory");
    open(&dir).append(&[event(1), event(2)]).expect("written");
    edit(&dir, |text| text[..text.len() - 20].to_owned());
    open(&dir).append(&[event(3)]).expect("written");
    let read = all(&dir);
    assert_eq!((times(&read), read.problem.as_str()), (vec![1, 99, 3], ""));
    assert_eq!(read.rows[1].action, AuditAction::LogRepaired);
    assert!(read.rows[1].text.contains("crash"), "{}", read.rows[1].text);
    // Also if nothing of it is whole.
    edit(&dir, |_| "{\"hash".to_owned());
    open(&dir);
    assert_eq!(times(&all(&dir)), [99]);
}

#[test]
fn the_log_is_bounded_and_the_oldest_records_go() {
    let dir = TempDir::new().expect("a directory");
    let mut log = open(&dir);
    for number in 1..=100 {
        log.append(&[event(number)]).expect("written");
    }
    let size: u64 = segments(dir.path())
        .expect("lists")
        .into_iter()
        .map(|segment| fs::metadata(path(dir.path(), segment)).expect("there").len())
        .sum();
    assert!(size <= 3 * (SMALL.segment + 600), "{size}");
    let read = all(&dir);
    assert_eq!(read.problem, "", "the first that is kept follows one that is gone");
    let times = times(&read);
    assert!(times.len() < 30 && times.last() == Some(&100), "{times:?}");
    assert!(times.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{times:?}");
    log = open(&dir);
    log.append(&[event(101)]).expect("written");
    assert_eq!(all(&dir).problem, "");
}

#[test]
fn each_part_of_a_change_is_recorded_once() {
    let dir = TempDir::new().expect("a directory");
    let mut log = open(&dir);
    log.append(&[change(1, 0), change(1, 1), change(2, 0)]).expect("written");
    // As after a start, when all changes are described again.
    let mut log = open(&dir);
    log.append(&[change(1, 0), change(1, 1), change(2, 0), change(3, 0)]).expect("written");
    let read = all(&dir);
    let seqs: Vec<_> = read.rows.iter().filter_map(|row| row.change.as_ref()).collect();
    let seqs: Vec<_> = seqs.iter().map(|change| (change.seq, change.part)).collect();
    assert_eq!(seqs, [(1, 0), (1, 1), (2, 0), (3, 0)]);
}

#[test]
fn a_full_disk_loses_no_record_that_is_in_the_log() {
    let dir = TempDir::new().expect("a directory");
    let mut log = open(&dir);
    log.append(&[event(1)]).expect("written");
    let file = std::mem::replace(
        &mut log.file,
        OpenOptions::new().append(true).open("/dev/full").expect("Linux has it"),
    );
    let error = log.append(&[event(2)]).expect_err("the disk is full").to_string();
    assert!(error.contains("No space left on device"), "{error}");
    log.file = file;
    log.append(&[event(2), event(3)]).expect("written");
    let read = all(&dir);
    assert_eq!((times(&read), read.problem.as_str()), (vec![1, 2, 3], ""));
}

#[test]
fn events_cannot_push_out_changes() {
    let dir = TempDir::new().expect("a directory");
    let mut log = ServerLog(PARTS.map(|part| {
        AuditLog::open(&dir.path().join(part), SMALL, (node(), "h1"), 99).expect("opens")
    }));
    log.append(&[event(1), change(1, 0), event(2)]).expect("written");
    let (all, ends) = read(dir.path(), &AuditQuery::default()).expect("reads");
    assert_eq!((all.records, all.problem.as_str()), (3, ""));
    for number in 3..=100 {
        log.append(&[event(number)]).expect("written");
    }
    log.append(&[change(1, 0), change(2, 0)]).expect("written");
    let (all, _) = read(dir.path(), &AuditQuery::default()).expect("reads");
    assert_eq!(all.rows.iter().filter(|row| row.change.is_some()).count(), 2);
    assert!(all.records < 35, "{}", all.records);
    let (later, _) = read_from(dir.path(), ends, &AuditQuery::default()).expect("reads");
    assert!(later.contains(&change(2, 0)) && later.contains(&event(100)));
    let first = path(&dir.path().join("changes"), 1);
    let text = fs::read_to_string(&first).expect("reads");
    fs::write(&first, text.replace("event 0", "event 5")).expect("written");
    let (all, _) = read(dir.path(), &AuditQuery::default()).expect("reads");
    assert_eq!(all.problem, "in changes, line 1 of 00000001.jsonl was altered");
}
