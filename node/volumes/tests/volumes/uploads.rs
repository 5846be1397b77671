//! Directories that clients upload: going on, replacing, and what hostile archives reach.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use tar::EntryType;
use vc_protocol::control::FileRow;
use vc_volumes::{Error, Source, Uploading};

use crate::faults::SmallDisk;
use crate::support::Node;

const DAY: u64 = 24 * 3_600_000;
/// When the files of these archives were modified.
const MODIFIED: &str = "1700000000.123456789";

/// An entry of an archive: path, kind, target of a link, content, and extended headers.
struct Item<'a>(&'a str, EntryType, &'a str, &'a [u8], Vec<(&'a str, &'a str)>);

fn file<'a>(path: &'a str, content: &'a str) -> Item<'a> {
    Item(path, EntryType::Regular, "", content.as_bytes(), vec![("mtime", MODIFIED)])
}

fn dir(path: &str) -> Item<'_> {
    Item(path, EntryType::Directory, "", b"", vec![("mtime", MODIFIED)])
}

fn end() -> Item<'static> {
    Item(".", EntryType::Directory, "", b"", vec![("VC.end", "1")])
}

/// Written raw: the crate would refuse some paths.
fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for Item(path, kind, link, content, extensions) in items {
        let all = extensions.iter().map(|(key, value)| (*key, value.as_bytes()));
        builder.append_pax_extensions(all).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(if *kind == EntryType::Directory { 0o755 } else { 0o640 });
        header.set_uid(1234);
        header.set_gid(5678);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn uploading(directory: &str, begun: u64) -> Uploading {
    Uploading { directory: directory.to_owned(), begun, bytes: 100 }
}

async fn stage(node: &Node, archive: &[u8]) -> Result<(), Error> {
    node.volume.stage(uploading("a", 5), Cursor::new(archive), 1000).await
}

async fn staged(node: &Node, directory: &str) -> Option<(u64, Vec<FileRow>)> {
    let (to, rows) = std::sync::mpsc::channel();
    let each = move |some| to.send(some).is_ok();
    let begun = node.volume.list_staged(directory, each).await.unwrap()?;
    Some((begun, rows.into_iter().flatten().collect()))
}

fn tree(node: &Node) -> std::path::PathBuf {
    node.dir.path().join("volumes/.uploads/shop/db/data")
}

#[tokio::test]
async fn an_upload_that_broke_off_goes_on_and_has_what_the_last_archive_has() {
    let node = Node::new();
    let long = "0123456789".repeat(100_000);
    let first = archive(&[dir("."), dir("sub"), file("sub/gone", "x"), file("long", &long), end()]);
    let error = stage(&node, &first[..600_000]).await.unwrap_err();
    assert!(matches!(error, Error::Stream { .. } | Error::Unpack { .. }), "{error}");
    assert_eq!(staged(&node, "b").await, None, "of another directory");
    let node = node.restart();
    let (begun, rows) = staged(&node, "a").await.unwrap();
    let at = |path: &str| rows.iter().find(|row| row.path == path).unwrap();
    assert_eq!((begun, at("sub/gone").size), (5, 1));
    let there = at("long");
    assert!(there.size > 0 && there.size < long.len() as u64, "{}", there.size);
    assert_eq!(there.modified_ns, 1_700_000_000_123_456_789);

    // The rest of one file, another one gone, one of another kind.
    let offset = there.size.to_string();
    let left = &long[usize::try_from(there.size).unwrap()..];
    let mut rest = file("long", left);
    rest.4.push(("VC.offset", &offset));
    let mut described = file("attributes", "");
    described.4.push(("VC.xattr.757365722e6e6f7465", "0a00ff"));
    let link = Item("link", EntryType::Link, "described", b"", Vec::new());
    let symbolic = Item("symbolic", EntryType::Symlink, "../nowhere", b"", Vec::new());
    let items = [
        dir("."),
        file("sub", "a file"),
        rest,
        described,
        file("described", "1"),
        link,
        symbolic,
        end(),
    ];
    stage(&node, &archive(&items)).await.unwrap();
    let read = |path: &str| fs::read_to_string(tree(&node).join(path)).unwrap();
    assert!(read("long") == long, "another content");
    assert_eq!(read("sub"), "a file");
    let metadata = fs::metadata(tree(&node).join("long")).unwrap();
    let facts = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777, metadata.mtime_nsec());
    assert_eq!(facts, (1234, 5678, 0o640, 123_456_789));
    let mut value = [0; 8];
    let length =
        rustix::fs::lgetxattr(tree(&node).join("attributes"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"\n\0\xff");
    let links = |path: &str| fs::symlink_metadata(tree(&node).join(path)).unwrap().nlink();
    assert_eq!((links("described"), links("link")), (2, 2));
    assert_eq!(fs::read_link(tree(&node).join("symbolic")).unwrap(), Path::new("../nowhere"));

    // It becomes the first snapshot, and nothing of it is left.
    let manifest = node.volume.begin_with_upload("a", 0, 7000).await.unwrap();
    assert_eq!(manifest.id.to_string(), "0-7");
    let root = fs::metadata(node.data(manifest.id)).unwrap();
    assert_eq!((root.mode() & 0o7777, root.uid(), root.mtime()), (0o755, 1234, 1_700_000_000));
    assert_eq!(fs::read_dir(node.data(manifest.id)).unwrap().count(), 6);
    assert_eq!(staged(&node, "a").await, None);
    let begun = node.begin(1, Some(manifest.id)).await;
    assert!(!begun.kept && begun.conflict.is_none());
    assert_eq!(node.read("sub"), "a file");
}

#[tokio::test]
async fn a_file_goes_on_only_if_it_is_what_the_client_takes_it_for() {
    let node = Node::new();
    stage(&node, &archive(&[dir("."), file("one", "1234"), end()])).await.unwrap();
    for (offset, modified) in [("3", MODIFIED), ("4", "1700000000.5")] {
        let mut rest = file("one", "");
        rest.4 = vec![("mtime", modified), ("VC.offset", offset)];
        let refused = stage(&node, &archive(&[dir("."), rest, end()])).await.unwrap_err();
        assert!(refused.to_string().contains("cannot go on at byte"), "{refused}");
    }
    // Nor if it has two names: the other one would change with it.
    fs::hard_link(tree(&node).join("one"), tree(&node).join("two")).unwrap();
    assert_eq!(staged(&node, "a").await.unwrap().1, []);
    let mut rest = file("one", "5");
    rest.4.push(("VC.offset", "4"));
    stage(&node, &archive(&[dir("."), rest, end()])).await.unwrap_err();
}

#[tokio::test]
async fn a_file_that_was_whole_gets_its_attributes_when_the_upload_goes_on() {
    let node = Node::new();
    stage(&node, &archive(&[dir("."), file("one", "1234"), end()])).await.unwrap();
    let path = tree(&node).join("one");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut rest = file("one", "");
    rest.4.extend([("VC.offset", "4"), ("VC.xattr.757365722e6e6f7465", "0a")]);
    stage(&node, &archive(&[dir("."), rest, end()])).await.unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime_nsec()), (0o640, 123_456_789));
    let mut value = [0; 8];
    assert_eq!(rustix::fs::lgetxattr(&path, "user.note", &mut value), Ok(1));
}

#[tokio::test]
async fn extended_attributes_that_no_client_sends_are_refused() {
    let node = Node::new();
    node.begin(3, None).await;
    // trusted.x, security.selinux
    for name in ["747275737465642e78", "73656375726974792e73656c696e7578"] {
        let key = format!("VC.xattr.{name}");
        let mut described = file("one", "1");
        described.4.push((&key, "00"));
        let bytes = archive(&[dir("."), described, end()]);
        let staged = stage(&node, &bytes).await.unwrap_err().to_string();
        let what = ("/", "x");
        let copied = node.volume.copy_in(&node.working(), what, Cursor::new(&bytes), 3, 1).await;
        for refused in [staged, copied.unwrap_err().to_string()] {
            assert!(refused.contains("has the extended attribute"), "{refused}");
        }
    }
}

#[tokio::test]
async fn files_of_the_host_are_not_listed_whatever_a_container_replaces_directories_by() {
    let node = Node::new();
    node.begin(3, None).await;
    let outside = node.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "").unwrap();
    for dir in ["one", "two"] {
        fs::create_dir(node.working().join(dir)).unwrap();
        // More than are listed at once: the other directory is still to be opened then.
        for number in 0..1100 {
            node.write(&format!("{dir}/{number}"), "");
        }
    }
    symlink(&outside, node.working().join("link")).unwrap();
    let mut paths = Vec::new();
    let replace_both = |rows: Vec<FileRow>| {
        if paths.is_empty() {
            for dir in ["one", "two"] {
                let path = node.working().join(dir);
                fs::rename(&path, node.dir.path().join(dir)).unwrap();
                symlink(&outside, path).unwrap();
            }
        }
        paths.extend(rows.into_iter().map(|row| row.path));
        true
    };
    node.volume.list_files(&node.working(), replace_both).unwrap();
    assert!(!paths.iter().any(|path| path.ends_with("secret")), "{paths:?}");
    let below = |dir: &str| paths.iter().filter(|path| path.starts_with(dir)).count();
    assert_eq!(below("one/") + below("two/"), 1100, "that which was open is listed");
    assert_eq!(paths.len(), 1103);
}

#[tokio::test]
async fn an_archive_without_an_end_removes_nothing_and_is_not_whole() {
    let node = Node::new();
    stage(&node, &archive(&[dir("."), file("one", "1"), end()])).await.unwrap();
    let refused = stage(&node, &archive(&[dir(".")])).await.unwrap_err();
    assert!(refused.to_string().contains("ends too early"), "{refused}");
    assert!(tree(&node).join("one").exists());
    let missing = node.volume.begin_with_upload("a", 0, 7000).await.unwrap_err();
    assert!(matches!(missing, Error::Missing { .. }), "{missing}");
    // Another upload of the directory, that began at zero.
    let upload = uploading("a", 6);
    let empty = archive(&[dir("."), end()]);
    node.volume.stage(upload, Cursor::new(&empty), 1000).await.unwrap();
    assert!(!tree(&node).join("one").exists());
}

#[tokio::test]
async fn what_is_staged_is_deleted_a_day_after_it_was_used_or_when_the_host_has_started_again() {
    let node = Node::new();
    stage(&node, &archive(&[dir("."), file("one", "1"), end()])).await.unwrap();
    node.store.expire(1000 + DAY - 1).unwrap();
    assert!(staged(&node, "a").await.is_some());
    // What cannot be read of another volume is no reason to keep this one.
    let unreadable = node.dir.path().join("volumes/.uploads/shop/a/upload.json");
    fs::create_dir_all(&unreadable).unwrap();
    node.store.expire(1000 + DAY).unwrap();
    assert!(unreadable.exists());
    assert!(staged(&node, "a").await.is_none() && !tree(&node).exists());

    stage(&node, &archive(&[dir("."), file("one", "1"), end()])).await.unwrap();
    let path = node.dir.path().join("volumes/.uploads/shop/db/upload.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json["boot"] = "another".into();
    fs::write(&path, json.to_string()).unwrap();
    let node = node.restart();
    assert!(!tree(&node).exists());
}

#[tokio::test]
async fn a_volume_is_replaced_by_an_upload_and_what_it_had_can_be_restored() {
    let node = Node::new();
    node.begin(3, None).await;
    node.write("state", "written by the service");
    stage(&node, &archive(&[dir("."), file("state", "uploaded"), end()])).await.unwrap();
    let replaced = node.volume.replace_with_upload("a", &node.working(), 2000).await.unwrap();
    assert_eq!(node.read("state"), "uploaded");
    assert!(replaced.before < replaced.manifest.id, "{replaced:?}");
    assert_eq!(staged(&node, "a").await, None);
    let before = Source::Snapshot(replaced.before);
    node.volume.restore(before, &node.working(), 3, 3000).await.unwrap();
    assert_eq!(node.read("state"), "written by the service");
}

#[tokio::test]
async fn a_volume_that_cannot_be_replaced_is_as_it_was() {
    let parent = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&parent.path().join("working"), "4m");
    let node = Node::at(parent);
    node.begin(3, None).await;
    node.write("state", "written by the service");
    let large = "0123456789".repeat(800_000);
    let items = [dir("."), file("a-new", "1"), file("state", &large), end()];
    stage(&node, &archive(&items)).await.unwrap();
    let failed = node.volume.replace_with_upload("a", &node.working(), 2000).await.unwrap_err();
    assert!(matches!(failed, Error::NoSpace { .. }), "{failed}");
    assert_eq!(node.read("state"), "written by the service");
    assert!(!node.working().join("a-new").exists());
    assert!(staged(&node, "a").await.is_some(), "it can be tried again");
    drop((node, disk));
}

#[tokio::test]
async fn a_volume_that_was_being_replaced_when_the_node_was_killed_is_as_it_was() {
    let node = Node::new();
    node.begin(3, None).await;
    node.write("state", "written by the service");
    let before = node.take(3).await;
    node.volume.close(&node.working(), 3, 2000).await.unwrap();
    // As it is in the middle.
    let path = node.volume_dir().join("state.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json["replacing"] = true.into();
    fs::write(&path, json.to_string()).unwrap();
    node.write("state", "half");
    let node = node.restart();
    let begun = node.begin(4, Some(before.id)).await;
    assert!(begun.conflict.is_none());
    assert_eq!(node.read("state"), "written by the service");
}

#[tokio::test]
async fn a_volume_that_no_instance_has_begun_with_begins_with_the_last_upload() {
    let node = Node::new();
    stage(&node, &archive(&[dir("."), file("state", "first"), end()])).await.unwrap();
    let first = node.volume.begin_with_upload("a", 0, 7000).await.unwrap();
    stage(&node, &archive(&[dir("."), file("state", "second"), end()])).await.unwrap();
    let replaced = node.volume.replace_with_upload("a", &node.working(), 7000).await.unwrap();
    assert_eq!((replaced.before, replaced.manifest.id.to_string()), (first.id, "0-8".to_owned()));
    node.begin(1, Some(replaced.manifest.id)).await;
    assert_eq!(node.read("state"), "second");
}

#[tokio::test]
async fn files_are_copied_into_a_volume_and_a_closed_one_gets_a_snapshot() {
    let node = Node::new();
    node.begin(3, None).await;
    fs::create_dir(node.working().join("sub")).unwrap();
    fs::set_permissions(node.working().join("sub"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("sub", node.working().join("inside")).unwrap();
    let copy = async |path: &str, name: &str, items: &[Item<'_>]| {
        let bytes = archive(items);
        let what = (path, name);
        node.volume.copy_in(&node.working(), what, Cursor::new(&bytes), 3, 2000).await
    };
    let one = |content| [file(".", content), end()];
    copy("/sub", "one", &one("1")).await.unwrap();
    copy("/inside/", "two", &one("2")).await.unwrap();
    copy("new", "three", &one("3")).await.unwrap();
    copy("new", "three", &one("again")).await.unwrap();
    let tree = [dir("."), dir("deep"), file("deep/four", "4"), end()];
    copy("/", "dir", &tree).await.unwrap();
    copy("/sub", ".", &tree).await.unwrap();
    for (path, content) in [
        ("sub/one", "1"),
        ("sub/two", "2"),
        ("new", "again"),
        ("dir/deep/four", "4"),
        ("sub/deep/four", "4"),
    ] {
        assert_eq!(node.read(path), content, "{path}");
    }
    let metadata = fs::metadata(node.working().join("new")).unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (1234, 0o640));
    let sub = fs::metadata(node.working().join("sub")).unwrap();
    assert_eq!(sub.mode() & 0o7777, 0o700, "what is there stays as it is");

    for (path, why) in
        [("none/", "no directory"), ("none/x", "no directory"), ("/new/x", "no directory")]
    {
        let refused = copy(path, "x", &one("x")).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{path}: {refused}");
    }
    let refused = copy("/", "sub", &one("x")).await.unwrap_err().to_string();
    assert!(refused.contains("is a directory"), "{refused}");

    node.volume.close(&node.working(), 3, 2000).await.unwrap();
    copy("/", "late", &one("5")).await.unwrap();
    let copied = node.volume.copy().unwrap();
    assert!(copied.closed);
    let snapshot = node.data(copied.snapshot.unwrap());
    assert_eq!(fs::read_to_string(snapshot.join("late")).unwrap(), "5");
}

#[tokio::test]
async fn nothing_outside_of_a_volume_is_written_whatever_an_archive_says() {
    let node = Node::new();
    node.begin(3, None).await;
    let outside = node.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "kept").unwrap();
    let out = outside.to_str().unwrap();
    let link = |to| Item("x", EntryType::Symlink, to, b"", Vec::new());
    let through = || file("x/precious", "bad");
    let absolute = format!("{out}/precious");
    let hard = Item("x", EntryType::Link, "../outside/precious", b"", Vec::new());
    let device = Item("x", EntryType::Char, "", b"", Vec::new());
    let hostile: [Vec<Item<'_>>; 6] = [
        vec![dir("."), link(out), through(), end()],
        vec![dir("."), link("../../../../../outside"), through(), end()],
        vec![dir("."), file("../../outside/precious", "bad"), end()],
        vec![dir("."), file(&absolute, "bad"), end()],
        vec![dir("."), hard, end()],
        vec![dir("."), device, end()],
    ];
    for (number, items) in hostile.iter().enumerate() {
        stage(&node, &archive(items)).await.expect_err(&number.to_string());
        let what = ("/", "x");
        let bytes = archive(items);
        let copied = node.volume.copy_in(&node.working(), what, Cursor::new(&bytes), 3, 1).await;
        copied.expect_err(&number.to_string());
    }
    // Links of the volume itself.
    symlink(out, node.working().join("away")).unwrap();
    symlink(&absolute, node.working().join("file")).unwrap();
    let (one, working) = (archive(&[file(".", "bad"), end()]), node.working());
    for (path, name) in
        [("/away", "precious"), ("/away/precious", "y"), ("/file", "y"), ("/..", "y"), ("/", "..")]
    {
        let copied = node.volume.copy_in(&working, (path, name), Cursor::new(&one), 3, 1).await;
        copied.expect_err(path);
    }
    assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "kept");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}
