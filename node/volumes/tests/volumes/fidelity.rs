//! Everything of every kind of file arrives.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};

use crate::support::{Node, assert_equal, copy};

/// Makes every kind of entry.
pub fn make(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("dir/empty")).unwrap();
    fs::write(at("dir/file"), "content").unwrap();
    fs::write(at("none"), "").unwrap();
    for (name, content) in [
        (&b"a space"[..], "1"),
        (b"new\nline", "2"),
        (b"invalid \xff\xfe utf-8", "3"),
        (b"-rf", "4"),
        (b"* [a] ?", "5"),
        (b"\\#012", "6"),
        ("grün:x@y".as_bytes(), "7"),
        (b".hidden", "8"),
        (b"all\x01\x02\x1b\x7f", "9"),
    ] {
        fs::write(root.join(OsStr::from_bytes(name)), content).unwrap();
    }
    fs::create_dir(root.join(OsStr::from_bytes(b"dir \xff\n"))).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"dir \xff\n/x")), "inside").unwrap();

    fs::hard_link(at("dir/file"), at("linked")).unwrap();
    fs::hard_link(at("dir/file"), at("dir/empty/linked too")).unwrap();
    symlink("/etc/passwd", at("outside")).unwrap();
    symlink("../../../../etc", at("upwards")).unwrap();
    symlink("dir/file", at("inside")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    fs::hard_link(at("dangling"), at("linked symlink")).unwrap();

    let mut sparse = File::create(at("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all(b"start").unwrap();

    for (name, kind, device) in [
        ("null", FileType::CharacterDevice, makedev(1, 3)),
        ("loop", FileType::BlockDevice, makedev(7, 200)),
        ("fifo", FileType::Fifo, 0),
    ] {
        mknodat(CWD, at(name), kind, Mode::from(0o640), device).unwrap();
    }
    drop(UnixListener::bind(at("socket")).unwrap());

    let attribute = |name: &str, key: &str, value: &[u8]| {
        lsetxattr(at(name), key, value, XattrFlags::empty()).unwrap();
    };
    attribute("dir/file", "user.comment", b"text\0with zero");
    attribute("dir", "user.of a directory", b"");
    attribute("none", "trusted.secret", b"1");
    // cap_net_bind_service=ep, in the format of version 2.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    attribute("none", "security.capability", &capability);
    // user::rw- user:1234:rwx group::r-- mask::rwx other::---
    let entry = |tag: u16, permissions: u16, id: u32| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let any = u32::MAX;
    let acl = [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 6, any),
        entry(2, 7, 1234),
        entry(4, 4, any),
        entry(16, 7, any),
        entry(32, 0, any),
    ]
    .concat();
    attribute(".hidden", "system.posix_acl_access", &acl);
    attribute("dir", "system.posix_acl_default", &acl);

    chown(at("dir/file"), Some(1000), Some(2000)).unwrap();
    chown(at("dir"), Some(70_000), Some(0)).unwrap();
    std::os::unix::fs::lchown(at("outside"), Some(33), Some(34)).unwrap();
    for (name, mode) in
        [("dir/empty", 0o1777), ("-rf", 0o4711), ("a space", 0o000), ("fifo", 0o666)]
    {
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let time = |name: &str, since: Duration| {
        let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + since);
        File::open(at(name)).unwrap().set_times(times).unwrap();
    };
    time("dir/file", Duration::new(1_000_000_000, 123_456_789));
    time("none", Duration::ZERO);
    time(".hidden", Duration::new(4_000_000_000, 1));
    time("dir", Duration::new(1_500_000_000, 987_654_321));
    fs::set_permissions(root, fs::Permissions::from_mode(0o2750)).unwrap();
    chown(root, Some(999), Some(998)).unwrap();
    time("", Duration::new(1_600_000_000, 5));
}

#[tokio::test]
async fn a_tree_of_every_kind_of_entry_is_the_same_in_snapshots_replicas_and_their_working_directories()
 {
    let (primary, replica) = (Node::new(), Node::new());
    make(&primary.working());
    primary.begin(1, None).await;
    let manifest = primary.take(1).await;
    assert_equal(&primary.working(), &primary.data(manifest.id));
    copy(&primary, &replica, &manifest).await;
    assert_equal(&primary.working(), &replica.data(manifest.id));
    replica.volume.follow(&replica.working(), 1000).await.unwrap();
    assert_equal(&primary.working(), &replica.working());
    assert_eq!(replica.volume.copy().unwrap().snapshot, Some(manifest.id));
}

#[tokio::test]
async fn every_kind_of_entry_arrives_as_a_change_and_goes_again() {
    let (primary, replica) = (Node::new(), Node::new());
    primary.write("linked", "replaced by another kind");
    fs::create_dir(primary.working().join("null")).unwrap();
    primary.begin(1, None).await;
    let first = primary.take(1).await;
    copy(&primary, &replica, &first).await;
    replica.volume.follow(&replica.working(), 1000).await.unwrap();
    for name in ["linked", "null"] {
        let path = primary.working().join(name);
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
    }
    make(&primary.working());
    for name in ["#hash", ";semicolon", "~tilde", "trailing ", "two  spaces", "a\\b", "--delete"] {
        fs::write(primary.working().join(name), name).unwrap();
    }
    let second = primary.take(1).await;
    assert_equal(&primary.working(), &primary.data(second.id));
    copy(&primary, &replica, &second).await;
    assert_equal(&primary.working(), &replica.data(second.id));
    let list = replica.data(second.id).with_file_name("changed");
    assert!(list.exists(), "it was copied by its list");
    replica.volume.follow(&replica.working(), 1000).await.unwrap();
    assert_equal(&primary.working(), &replica.working());

    for entry in fs::read_dir(primary.working()).unwrap() {
        let path = entry.unwrap().path();
        fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).unwrap();
    }
    let third = primary.take(1).await;
    assert_eq!(third.files, 1);
    copy(&primary, &replica, &third).await;
    replica.volume.follow(&replica.working(), 1000).await.unwrap();
    assert_equal(&primary.working(), &replica.working());
    assert_equal(&primary.data(second.id), &replica.data(second.id));
}
