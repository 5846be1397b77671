//! Backups as they should be, and files that are something else.
#![allow(clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;

use vc_protocol::{ClusterId, Keypair};

use super::*;
use crate::format::VolumeEntry;
use crate::write::Writer;

fn content() -> ClusterContent {
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let services = BTreeMap::from([("shop/web".to_owned(), "{}".to_owned())]);
    ClusterContent {
        cluster: ClusterId::of(&key.public()).expect("ed25519"),
        node: "attic".to_owned(),
        taken: 1_767_225_600_000,
        version: "0.1.0".to_owned(),
        entries: BTreeMap::from([("services".to_owned(), services)]),
        files: BTreeMap::from([("shop/secret/0/key".to_owned(), "aHVudGVyMg==".to_owned())]),
    }
}

fn volume(name: &str, included: bool) -> VolumeEntry {
    VolumeEntry {
        volume: name.parse().expect("a volume"),
        primary: "attic".to_owned(),
        bytes: 3,
        snapshot: Some("7-1".to_owned()),
        snapshot_taken: 1,
        included,
        problem: String::new(),
        failed: false,
    }
}

fn snapshot() -> VolumeSnapshot {
    VolumeSnapshot { snapshot: "7-2".to_owned(), taken: 2, bytes: 4 }
}

fn passphrase() -> Passphrase {
    Passphrase::new("correct horse").expect("not empty")
}

/// Returns a backup with these volumes and their data.
fn backup(volumes: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
    let entries = volumes.iter().map(|(name, data)| volume(name, data.is_some()));
    let content = content();
    let manifest = Manifest { header: Header::of(&content), volumes: entries.collect() };
    let mut writer = Writer::begin(Vec::new(), &passphrase(), &manifest, &content).expect("begun");
    for (name, data) in volumes {
        let Some(data) = data else { continue };
        let key = name.parse().expect("a volume");
        let mut volume = writer.volume(&key, &snapshot()).expect("begun");
        for chunk in data.chunks(300_000) {
            volume.append(chunk).expect("appended");
        }
        volume.finish().expect("appended");
    }
    writer.finish().expect("finished")
}

/// Returns a backup without volumes that was taken at this time.
pub(crate) fn backup_of(taken: u64) -> Vec<u8> {
    let content = ClusterContent { taken, ..content() };
    let manifest = Manifest { header: Header::of(&content), volumes: Vec::new() };
    let writer = Writer::begin(Vec::new(), &passphrase(), &manifest, &content).expect("begun");
    writer.finish().expect("finished")
}

/// Keeps what it receives.
#[derive(Default)]
struct Keep {
    files: BTreeMap<String, String>,
    volumes: BTreeMap<String, Vec<u8>>,
}

impl Sink for Keep {
    fn begin(&mut self, contents: &Contents) -> io::Result<()> {
        self.files = contents.cluster.files.clone();
        Ok(())
    }

    fn volume(&mut self, key: &VolumeKey, archive: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        archive.read_to_end(&mut bytes)?;
        self.volumes.insert(key.to_string(), bytes);
        Ok(())
    }
}

fn opened(bytes: &[u8]) -> (tempfile::TempDir, Result<BackupFile, BackupError>) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("backup");
    std::fs::write(&path, bytes).expect("written");
    let file = BackupFile::open(&path);
    (dir, file)
}

fn verified(bytes: &[u8], passphrase: &Passphrase) -> Result<BackupSummary, BackupError> {
    let (_dir, file) = opened(bytes);
    file?.verify(passphrase)
}

/// Replaces the checksum by that of what is before it.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - CHECKSUM);
    let hash = Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

#[test]
fn a_backup_has_what_was_written_and_says_so() {
    // More than two parts, and one of exactly one.
    let large: Vec<u8> =
        (0..2_500_000u32).map(|it| it.to_be_bytes()[3] ^ it.to_be_bytes()[2]).collect();
    let exact = vec![7; PART];
    let bytes =
        backup(&[("shop/data", Some(&large)), ("shop/left", None), ("web/data", Some(&exact))]);
    let (_dir, file) = opened(&bytes);
    let file = file.expect("a backup");
    assert_eq!(file.header(), &Header::of(&content()));
    file.check().expect("whole");
    let mut kept = Keep::default();
    let contents = file.read(&passphrase(), &mut kept).expect("read");
    assert_eq!(contents.cluster, content());
    assert_eq!(kept.files, content().files);
    assert_eq!(kept.volumes.keys().collect::<Vec<_>>(), ["shop/data", "web/data"]);
    assert!(kept.volumes["shop/data"] == large && kept.volumes["web/data"] == exact);
    let summary = file.verify(&passphrase()).expect("verified");
    assert_eq!((summary.services, summary.files, summary.volumes.len()), (1, 1, 3));
    assert_eq!(summary.size, bytes.len() as u64);
    let ids = summary.volumes.iter().map(|it| it.snapshot.as_deref().unwrap_or_default());
    assert_eq!(ids.collect::<Vec<_>>(), ["7-2", "7-1", "7-2"], "those that are in it");
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("hunter2") && !text.contains("shop/web") && !text.contains("aHVudGVy"));
}

#[test]
fn a_volume_that_failed_has_no_data_and_the_others_have_theirs() {
    let key = |name: &str| name.parse::<VolumeKey>().expect("a volume");
    let names = ["shop/cut", "shop/data", "shop/never"];
    let content = content();
    let volumes = names.map(|name| volume(name, true)).to_vec();
    let manifest = Manifest { header: Header::of(&content), volumes };
    let mut writer = Writer::begin(Vec::new(), &passphrase(), &manifest, &content).expect("begun");
    let mut cut = writer.volume(&key(names[0]), &snapshot()).expect("begun");
    cut.append(&vec![1; PART + 5]).expect("appended");
    writer.failed(&key(names[0]), "the node has died").expect("appended");
    let mut data = writer.volume(&key(names[1]), &snapshot()).expect("begun");
    data.append(b"abc").expect("appended");
    data.finish().expect("appended");
    writer.failed(&key(names[2]), "no snapshot").expect("appended");
    let bytes = writer.finish().expect("finished");

    let (_dir, file) = opened(&bytes);
    let mut kept = Keep::default();
    let read = file.expect("a backup").read(&passphrase(), &mut kept).expect("read");
    assert_eq!(kept.volumes, BTreeMap::from([(names[1].to_owned(), b"abc".to_vec())]));
    let problems = read.manifest.volumes.iter().map(|it| (it.included, it.problem.as_str()));
    let expected = [(false, "the node has died"), (true, ""), (false, "no snapshot")];
    assert_eq!(problems.collect::<Vec<_>>(), expected);
    let summary = verified(&bytes, &passphrase()).expect("verified");
    assert_eq!(summary.failed().count(), 2);
}

#[test]
fn another_passphrase_is_said_to_be_another_one() {
    let bytes = backup(&[]);
    let other = Passphrase::new("Correct horse").expect("not empty");
    let error = verified(&bytes, &other).expect_err("refused");
    assert!(matches!(error, BackupError::Passphrase(_)), "{error}");
}

#[test]
fn a_cut_off_or_changed_file_is_damaged_wherever_that_is() {
    let bytes = backup(&[("shop/data", Some(b"abc"))]);
    let second = bytes.iter().position(|it| *it == b'\n').expect("a line") + 1;
    for length in [second, second + 9, bytes.len() / 2, bytes.len() - CHECKSUM, bytes.len() - 1] {
        let error = verified(&bytes[..length], &passphrase()).expect_err("refused");
        assert!(matches!(error, BackupError::Damaged(_)), "{length}: {error}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(verified(&longer, &passphrase()), Err(BackupError::Damaged(_))));
    for at in [second + 2, bytes.len() / 2, bytes.len() - CHECKSUM - 1, bytes.len() - 1] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        let error = verified(&flipped, &passphrase()).expect_err("refused");
        assert!(matches!(error, BackupError::Damaged(_)), "{at}: {error}");
    }
}

#[test]
fn a_changed_file_with_a_checksum_of_its_own_is_refused_too() {
    let bytes = backup(&[("shop/data", Some(b"abc"))]);
    for at in [bytes.len() / 2, bytes.len() - CHECKSUM - 1] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        verified(&with_checksum(flipped), &passphrase()).expect_err("refused");
    }
    // Another header than the one that is encrypted.
    let header = serde_json::to_string(&Header::of(&content())).expect("JSON");
    let at = bytes.windows(header.len()).position(|it| it == header.as_bytes()).expect("there");
    let mut other = bytes.clone();
    let node = header.find("attic").expect("the node");
    other[at + node] = b'b';
    let error = verified(&with_checksum(other), &passphrase()).expect_err("refused");
    assert!(error.to_string().contains("header"), "{error}");
    // A cut at the end of a chunk of age.
    let cut = with_checksum(bytes[..bytes.len() - 20].to_vec());
    verified(&cut, &passphrase()).expect_err("refused");
}

#[test]
fn other_files_and_newer_ones_are_told_apart() {
    for bytes in [&b""[..], b"vc-backup", b"vc-backup x\n{}\n", b"vc-backup 0\n{}\n", &[0; 9000]] {
        let error = verified(bytes, &passphrase()).expect_err("refused");
        assert!(matches!(error, BackupError::NotABackup(_)), "{error}");
    }
    let error = verified(b"vc-backup 2\n{}\nanything", &passphrase()).expect_err("refused");
    assert!(matches!(error, BackupError::Newer { found: 2, .. }), "{error}");
    let (dir, _) = opened(b"");
    assert!(matches!(BackupFile::open(dir.path()), Err(BackupError::NotABackup(_))));
    let missing = BackupFile::open(&dir.path().join("missing")).expect_err("missing");
    assert!(matches!(missing, BackupError::Read { .. }));
}

/// Returns a backup whose archive `write` makes, as one that knows the passphrase can.
fn crafted(write: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    write(&mut archive);
    let archive = archive.into_inner().expect("finished");
    let mut recipient = age::scrypt::Recipient::new(passphrase().0);
    recipient.set_work_factor(2);
    let encrypted = age::encrypt(&recipient, &archive).expect("encrypted");
    let header = serde_json::to_string(&Header::of(&content())).expect("JSON");
    let start = format!("{MAGIC}{FORMAT}\n{header}\n").into_bytes();
    with_checksum([&start[..], &encrypted, &[0; CHECKSUM]].concat())
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    archive.append_data(&mut header, name, bytes).expect("appended");
}

#[test]
fn an_archive_of_something_else_is_refused() {
    let content = content();
    let json = |volumes: Vec<VolumeEntry>| {
        let manifest = Manifest { header: Header::of(&content), volumes };
        serde_json::to_vec(&manifest).expect("JSON")
    };
    let cluster = serde_json::to_vec(&content).expect("JSON");
    let (first, part) = ("volumes/shop/data.json", "volumes/shop/data.tar.zst/00000000");
    let taken = serde_json::to_vec(&snapshot()).expect("JSON");
    let one = || vec![volume("shop/data", true)];
    let whole = crafted(|archive| {
        append(archive, MANIFEST, &json(one()));
        append(archive, CLUSTER, &cluster);
        append(archive, first, &taken);
        append(archive, part, b"abc");
    });
    verified(&whole, &passphrase()).expect("it is as the writer makes it");
    let bad: [(&str, Vec<u8>); 8] = [
        ("nothing", crafted(|_| {})),
        ("another order", crafted(|archive| append(archive, CLUSTER, &cluster))),
        ("no JSON", crafted(|archive| append(archive, MANIFEST, b"{"))),
        (
            "a volume that is missing",
            crafted(|archive| {
                append(archive, MANIFEST, &json(one()));
                append(archive, CLUSTER, &cluster);
            }),
        ),
        (
            "a volume without its snapshot",
            crafted(|archive| {
                append(archive, MANIFEST, &json(one()));
                append(archive, CLUSTER, &cluster);
                append(archive, part, b"abc");
            }),
        ),
        (
            "a part that is missing",
            crafted(|archive| {
                append(archive, MANIFEST, &json(one()));
                append(archive, CLUSTER, &cluster);
                append(archive, first, &taken);
                append(archive, "volumes/shop/data.tar.zst/00000001", b"abc");
            }),
        ),
        (
            "an oversized part",
            crafted(|archive| {
                append(archive, MANIFEST, &json(one()));
                append(archive, CLUSTER, &cluster);
                append(archive, first, &taken);
                append(archive, part, &vec![0; PART + 1]);
            }),
        ),
        (
            "something that nothing names",
            crafted(|archive| {
                append(archive, MANIFEST, &json(Vec::new()));
                append(archive, CLUSTER, &cluster);
                append(archive, "etc/passwd", b"root");
            }),
        ),
    ];
    for (what, bytes) in bad {
        let error = verified(&bytes, &passphrase()).expect_err(what);
        assert!(matches!(error, BackupError::Malformed { .. }), "{what}: {error}");
    }
}

#[test]
fn a_passphrase_that_costs_too_much_is_not_tried() {
    let bytes = backup(&[]);
    let at = bytes.windows(4).position(|it| it == b" 17\n").expect("the work factor");
    let mut costly = bytes.clone();
    costly[at + 1..at + 3].copy_from_slice(b"30");
    let error = verified(&with_checksum(costly), &passphrase()).expect_err("refused");
    assert!(matches!(error, BackupError::TooMuchWork(_)), "{error}");
}
