//! Volumes that begin with data: plain archives, snapshots of other volumes, directories; and single files out of snapshots.

use std::fs;
use std::io::{Cursor, Read as _};
use std::os::unix::fs::{MetadataExt as _, symlink};

use vc_protocol::volume::SnapshotId;
use vc_volumes::{Error, Source};

use crate::fidelity;
use crate::support::{Node, assert_equal};

/// Returns what tar writes of a directory.
fn tar(directory: &std::path::Path, options: &[&str]) -> Vec<u8> {
    tar_of(directory, &[options, &["."]].concat())
}

/// Returns what tar writes of files in a directory.
fn tar_of(directory: &std::path::Path, what: &[&str]) -> Vec<u8> {
    let mut command = std::process::Command::new("tar");
    command.args(["-C"]).arg(directory).args(["-cf", "-"]).args(what);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[tokio::test]
async fn an_archive_that_is_not_compressed_is_imported_and_one_that_was_cut_off_between_files_is_not()
 {
    let source = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        fs::write(source.path().join(name), vec![1; 1024]).unwrap();
    }
    let archive = tar(source.path(), &[]);
    let node = Node::new();
    let imported = node.volume.import(Cursor::new(&archive), 0, 7000).await.unwrap();
    assert_eq!((imported.id.to_string().as_str(), imported.taken), ("0-7", 7000));
    assert_eq!(fs::read_dir(node.data(imported.id)).unwrap().count(), 2);
    // What is not said in an archive is as in a new volume of Docker's.
    let bare = tar_of(source.path(), &["a"]);
    let node = Node::new();
    let imported = node.volume.import(Cursor::new(&bare), 0, 7).await.unwrap();
    assert_eq!(fs::metadata(node.data(imported.id)).unwrap().mode() & 0o7777, 0o755);

    let node = Node::new();
    // The directory, and a file with its header: the next one is missing.
    let cut = &archive[..512 + 512 + 1024];
    let error = node.volume.import(Cursor::new(cut), 0, 7).await.unwrap_err();
    assert!(error.to_string().contains("ends too early"), "{error}");
    let gzip = tar(source.path(), &["-z"]);
    let error = node.volume.import(Cursor::new(&gzip), 0, 7).await.unwrap_err();
    assert!(error.to_string().contains("gunzip"), "{error}");
    assert!(!node.volume_dir().exists());
}

#[tokio::test]
async fn a_clone_has_links_to_the_files_of_the_snapshot_and_what_is_written_to_it_stays_there() {
    let node = Node::new();
    fidelity::make(&node.working());
    node.write("file", "one");
    node.begin(3, None).await;
    let manifest = node.take(3).await;
    let copy = node.store.volume(&"shop/copy".parse().unwrap());
    let cloned = copy.link_from(&node.volume, manifest.id, 0, 9000).await.unwrap();
    assert_eq!((cloned.digest.as_str(), cloned.taken), (manifest.digest.as_str(), manifest.taken));
    let of_clone = node.dir.path().join("volumes/shop/copy/snapshots/0-9/data");
    assert_equal(&node.data(manifest.id), &of_clone);
    let inode = |path: &std::path::Path| fs::metadata(path.join("file")).unwrap().ino();
    assert_eq!(inode(&node.data(manifest.id)), inode(&of_clone));

    // Each has a working directory of its own.
    let working = node.dir.path().join("other");
    fs::create_dir(&working).unwrap();
    copy.begin(&working, 9, Some(cloned.id), 1000).await.unwrap();
    fs::write(working.join("file"), "two").unwrap();
    copy.snapshot(&working, 9, 1000, &crate::support::no_pause()).await.unwrap();
    node.volume.restore(Source::Snapshot(manifest.id), &node.working(), 3, 1000).await.unwrap();
    assert_eq!(node.read("file"), "one");

    let again = copy.link_from(&node.volume, manifest.id, 0, 9000).await;
    assert!(matches!(again, Err(Error::Exists { .. })), "{again:?}");
    let third = node.store.volume(&"shop/third".parse().unwrap());
    let missing = SnapshotId { epoch: 1, number: 1 };
    let missing = third.link_from(&node.volume, missing, 0, 9000).await;
    assert!(matches!(missing, Err(Error::Missing { .. })), "{missing:?}");
    assert!(!node.dir.path().join("volumes/shop/third").exists());
}

#[tokio::test]
async fn an_import_that_a_crash_ended_leaves_nothing_after_the_next_start() {
    let node = Node::new();
    // Its stream goes on and on, until the process is killed.
    let (reader, mut writer) = tokio::io::duplex(1 << 16);
    tokio::io::AsyncWriteExt::write_all(&mut writer, &[0x1, 0x2, 0x3, 0x4]).await.unwrap();
    let volume = node.volume.clone();
    let importing = tokio::spawn(async move { volume.import(reader, 0, 7).await });
    while !node.volume_dir().join("staging/incoming/data").exists() {
        tokio::task::yield_now().await;
    }
    importing.abort();
    importing.await.unwrap_err();
    assert!(node.volume_dir().exists());
    let node = node.restart();
    assert!(!node.volume_dir().exists());
    assert!(node.store.copies().unwrap().is_empty());
}

#[tokio::test]
async fn a_directory_is_copied_and_stays_as_it_is() {
    let node = Node::new();
    let source = tempfile::tempdir().unwrap();
    fidelity::make(source.path());
    let copied = node.volume.copy_from(source.path(), 0, 5).await.unwrap();
    assert_equal(source.path(), &node.data(copied.id));
    let none = node.store.volume(&"shop/none".parse().unwrap());
    none.copy_from(&source.path().join("nowhere"), 0, 5).await.unwrap_err();
    assert!(!node.dir.path().join("volumes/shop/none").exists());
}

#[tokio::test]
async fn what_is_forgotten_does_not_expire_and_what_is_undeleted_and_removed_does() {
    let node = Node::new();
    let key = "shop/db".parse().unwrap();
    node.write("file", "one");
    node.begin(3, None).await;
    let forgotten = node.volume.forget(Some(&node.working()), None, 1000).await.unwrap().unwrap();
    assert_eq!((forgotten.removed, forgotten.expires), (1000, u64::MAX));
    assert_eq!(node.read("file"), "one", "the directory is the caller's");
    let later = 1000 + 30 * 24 * 3_600_000;
    node.store.expire(later).unwrap();
    node.store.undelete(&key, 1000).unwrap();
    let volume = node.store.volume(&key);
    assert_eq!(volume.snapshots().unwrap().len(), 1);
    let removed = volume.trash(None, Some(7), later).await.unwrap().unwrap();
    assert_eq!(removed.expires, later + 24 * 3_600_000);
    assert_eq!((forgotten.decided, removed.decided), (1000, 7));
}

#[tokio::test]
async fn a_path_of_a_snapshot_is_an_archive_with_its_name_and_links_do_not_lead_out() {
    let node = Node::new();
    let working = node.working();
    fs::create_dir_all(working.join("etc/app")).unwrap();
    node.write("etc/app/conf", "x=1");
    node.write("--help", "a file");
    symlink("etc", working.join("inside")).unwrap();
    symlink("/etc", working.join("outside")).unwrap();
    node.begin(1, None).await;
    let id = node.take(1).await.id;
    let names = async |path: &str| {
        let mut archive = Vec::new();
        node.volume.export_path(id, path, &mut archive).await?;
        let mut listing = std::process::Command::new("tar")
            .args(["-tf", "-"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut listing.stdin.take().unwrap(), &archive).unwrap();
        let mut text = String::new();
        listing.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        listing.wait().unwrap();
        Ok::<_, Error>(text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(names("/etc/app/conf").await.unwrap(), "conf");
    assert_eq!(names("etc/app/").await.unwrap(), "app/ app/conf");
    assert_eq!(names("inside/app").await.unwrap(), "app/ app/conf");
    assert_eq!(names("--help").await.unwrap(), "--help");
    let all =
        "data/ data/--help data/etc/ data/etc/app/ data/etc/app/conf data/inside data/outside";
    assert_eq!(names("/").await.unwrap(), all);
    for path in ["nothing", "outside/passwd", "etc/../../../etc/passwd", "etc/app/conf/x"] {
        let refused = names(path).await;
        assert!(matches!(refused, Err(Error::NoPath { .. })), "{path}: {refused:?}");
    }
}
