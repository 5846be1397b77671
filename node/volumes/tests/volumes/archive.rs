//! Archives, restoring, the trash.

use std::fs;
use std::io::Cursor;

use vc_protocol::volume::Keep;
use vc_volumes::{Error, Source};

use crate::fidelity;
use crate::support::{Node, assert_equal, confined_tree};

const DAY: u64 = 24 * 3_600_000;

#[tokio::test]
async fn an_archive_has_everything_of_a_snapshot_but_sockets() {
    let (one, two) = (Node::new(), Node::new());
    fidelity::make(&one.working());
    fs::remove_file(one.working().join("socket")).unwrap();
    one.begin(1, None).await;
    let manifest = one.take(1).await;
    let mut archive = Vec::new();
    one.volume.export(manifest.id, &mut archive).await.unwrap();
    assert!(archive.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]), "zstd");
    let imported = two.volume.import(Cursor::new(&archive), 3, 2000).await.unwrap();
    assert_eq!(imported.id.to_string(), "3-2", "the second");
    assert_equal(&one.working(), &two.data(imported.id));
    assert_eq!(imported.digest, manifest.digest);
    let begun = two.begin(3, Some(imported.id)).await;
    assert!(!begun.kept && begun.conflict.is_none());
    assert_equal(&one.working(), &two.working());
    let again = two.volume.import(Cursor::new(&archive), 4, 2000).await;
    assert!(matches!(again, Err(Error::Exists { .. })), "{again:?}");
}

#[tokio::test]
async fn an_archive_that_is_cut_off_or_leads_outside_leaves_nothing() {
    let node = Node::new();
    let secret = node.dir.path().join("secret");
    fs::write(&secret, "unchanged").unwrap();
    // A link to a directory outside, then files through it, above and at the root.
    let mut tar = tar_header("link", b'2', &node.dir.path().to_string_lossy(), b"");
    tar.extend(tar_header("link/secret", b'0', "", b"through the link"));
    tar.extend(tar_header("../../../../../secret", b'0', "", b"above"));
    tar.extend(tar_header(&secret.to_string_lossy(), b'0', "", b"absolute"));
    tar.extend([0; 1024]);
    let hostile = zstd::encode_all(Cursor::new(tar), 3).unwrap();
    let before = confined_tree(node.dir.path());
    let _ = node.volume.import(Cursor::new(&hostile), 1, 1).await;
    assert_eq!(fs::read_to_string(&secret).unwrap(), "unchanged");
    assert_eq!(confined_tree(node.dir.path()), before);

    let node = Node::new();
    node.write("file", vec![1; 1 << 20]);
    node.begin(1, None).await;
    let manifest = node.take(1).await;
    let mut archive = Vec::new();
    node.volume.export(manifest.id, &mut archive).await.unwrap();
    let other = Node::new();
    for cut in [&archive[..archive.len() / 2], b"no archive at all", b""] {
        other.volume.import(Cursor::new(cut), 1, 1).await.unwrap_err();
        assert!(other.volume.snapshots().unwrap().is_empty());
        assert!(!other.volume_dir().join("staging").exists());
    }
}

/// An entry of a tar archive.
fn tar_header(name: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0_u8; 512];
    block[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    block[136..148].copy_from_slice(b"00000000001\0");
    block[148..156].copy_from_slice(b"        ");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

#[tokio::test]
async fn snapshots_and_conflicts_are_restored_and_nothing_is_lost_by_that() {
    let (one, two) = (Node::new(), Node::new());
    one.write("file", "1");
    one.begin(1, None).await;
    let first = one.take(1).await;
    one.write("file", "2");
    let restored =
        one.volume.restore(Source::Snapshot(first.id), &one.working(), 1, 1000).await.unwrap();
    assert_eq!(one.read("file"), "1");
    // The second snapshot has what was replaced, the third what was restored.
    assert_eq!(restored.id.number, 3);
    let second = first.id.to_string().replace("1-1", "1-2").parse().unwrap();
    assert_eq!(fs::read_to_string(one.data(second).join("file")).unwrap(), "2");

    crate::support::copy(&one, &two, &restored).await;
    one.write("file", "lost");
    two.begin(2, Some(restored.id)).await;
    two.write("file", "of two");
    let newer = two.take(2).await;
    crate::support::copy(&two, &one, &newer).await;
    let begun = one.begin(3, Some(newer.id)).await;
    let conflict = begun.conflict.expect("put aside");
    assert_eq!(one.read("file"), "of two");
    let id = conflict.manifest.id;
    one.volume.restore(Source::Conflict(id), &one.working(), 3, 1000).await.unwrap();
    assert_eq!(one.read("file"), "lost");
    let unknown = Source::Snapshot("9-9".parse().unwrap());
    let missing = one.volume.restore(unknown, &one.working(), 3, 1).await;
    assert!(matches!(missing, Err(Error::Missing { .. })));

    let keep = Keep { last: 1, hourly: 0, daily: 0 };
    assert_eq!(conflict.expires, conflict.manifest.taken + 7 * DAY);
    one.volume.prune(keep, conflict.expires - 1).await.unwrap();
    assert_eq!(one.volume.conflicts().unwrap().len(), 1);
    one.volume.prune(keep, conflict.expires).await.unwrap();
    assert!(one.volume.conflicts().unwrap().is_empty());
    assert_eq!(one.volume.snapshots().unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_removed_can_be_taken_back_for_a_day_with_what_was_written_last() {
    let node = Node::new();
    node.write("file", "1");
    node.begin(4, None).await;
    node.take(4).await;
    node.write("file", "2");
    let key = node.volume.key().clone();
    let trashed =
        node.volume.trash(Some(&node.working()), None, 1000).await.unwrap().expect("moved");
    assert_eq!(trashed.newest.as_ref().map(|it| it.id.to_string()).as_deref(), Some("4-2"));
    assert_eq!((trashed.removed, trashed.expires), (1000, 1000 + DAY));
    assert!(node.store.copies().unwrap().is_empty());
    assert_eq!(node.store.trashed().unwrap(), std::slice::from_ref(&trashed));
    // What was never there is not moved.
    assert_eq!(node.store.volume(&key).trash(None, None, 2000).await.unwrap(), None);

    node.store.expire(trashed.expires - 1).unwrap();
    node.store.volume(&key).raise_fence(9).await.unwrap();
    node.store.undelete(&key, 1000).unwrap();
    assert!(node.store.trashed().unwrap().is_empty());
    let volume = node.store.volume(&key);
    let copy = volume.copy().unwrap();
    assert_eq!((copy.written, copy.closed), (None, false));
    fs::remove_dir_all(node.working()).unwrap();
    fs::create_dir(node.working()).unwrap();
    let lower = volume.begin(&node.working(), 8, copy.snapshot, 1).await;
    assert!(matches!(lower, Err(Error::Fenced { fence: 9, .. })), "{lower:?}");
    volume.begin(&node.working(), 9, copy.snapshot, 1).await.unwrap();
    assert_eq!(node.read("file"), "2");

    volume.trash(Some(&node.working()), None, 5000).await.unwrap().expect("moved");
    let again = node.store.volume(&key);
    fs::create_dir_all(node.working()).unwrap();
    again.begin(&node.working(), 10, None, 1).await.unwrap();
    again.snapshot(&node.working(), 10, 1, &crate::support::no_pause()).await.unwrap();
    assert!(matches!(node.store.undelete(&key, 5000), Err(Error::Exists { .. })));
    node.store.expire(5000 + DAY).unwrap();
    assert!(matches!(node.store.undelete(&key, 5000), Err(Error::Missing { .. })));
}
