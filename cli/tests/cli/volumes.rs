//! Archives of volumes, and new volumes.

use std::io::{Cursor, Read as _};

use vc_protocol::VolumeKey;
use vc_protocol::control::{Change, Reply, Request, SnapshotKind, SnapshotRow};
use vc_protocol::exec::ExecFrame;
use vc_protocol::volume::SnapshotId;
use vc_protocol::{ApiError, ErrorCode};

use crate::Home;
use crate::commands::volume_row;
use crate::node::{Node, OURS, done, member, node_id, now};

const HOUR: u64 = 3_600_000;

fn volume(name: &str) -> VolumeKey {
    format!("shop/{name}").parse().expect("a volume")
}

fn in_home(home: &Home, name: &str) -> String {
    home.path().join(name).display().to_string()
}

fn snapshot(number: u64) -> SnapshotId {
    SnapshotId { epoch: 1, number }
}

/// A home that is logged in to a cluster with the volume `shop/data`: `attic` has the snapshots 1-8 and 1-9, of three hours and one
/// hour ago, `desk` has 1-9 and 1-10, which is new. It sends these frames of an archive.
fn with_snapshots(archive: Vec<ExecFrame>) -> (Home, Node) {
    let mut row = volume_row();
    row.up = true;
    let kept = |node, name: &str, number, age| SnapshotRow {
        volume: volume("data"),
        kind: SnapshotKind::Snapshot,
        snapshot: snapshot(number).to_string(),
        node: node_id(node),
        node_name: name.to_owned(),
        time: now() - age,
        files: 3,
        bytes: 5 << 20,
        expires: 0,
    };
    let mut plan = member(OURS, 10, vec![]);
    plan.download = Box::new(move |_| archive.clone());
    plan.answer = Box::new(move |request| match request {
        Request::Volumes => vec![Reply::Volumes(vec![row.clone()])],
        Request::Snapshots { node, .. } if *node == node_id(1) => {
            vec![Reply::Snapshots(vec![kept(1, "attic", 8, 3 * HOUR), kept(1, "attic", 9, HOUR)])]
        }
        Request::Snapshots { .. } => {
            vec![Reply::Snapshots(vec![kept(2, "desk", 9, HOUR), kept(2, "desk", 10, 1000)])]
        }
        Request::ExportVolume { .. } => vec![Reply::Ready],
        Request::ImportVolume { .. } => {
            vec![Reply::Ready, Reply::KeepAlive, done(created()).remove(0)]
        }
        _ => done(created()),
    });
    let (home, node) = (Home::new(), Node::start(plan));
    home.vc(&["login", &home.write("token", &OURS.token(&[&node.address]))]).ok();
    (home, node)
}

fn created() -> Change {
    Change::VolumeCreated {
        volume: volume("copy"),
        from: "an archive".to_owned(),
        node_name: "desk".to_owned(),
        snapshot: "0-1".to_owned(),
        bytes: 5 << 20,
    }
}

fn whole() -> Vec<ExecFrame> {
    let part = |bytes: &[u8]| ExecFrame::Stdout(bytes.to_vec());
    vec![part(b"arc"), part(b""), part(b"hive"), ExecFrame::Exit(0)]
}

fn exported(node: &Node) -> Request {
    let requests = node.requests().into_iter();
    let mut exports = requests.filter(|it| matches!(it, Request::ExportVolume { .. }));
    exports.next_back().expect("an export")
}

#[test]
fn a_backup_is_the_newest_snapshot_of_any_node_and_the_file_is_there_when_it_is_whole() {
    let (home, node) = with_snapshots(whole());
    let file = in_home(&home, "data.tar.zst");
    let shown = home.vc(&["volume", "backup", "data", &file]).ok();
    assert_eq!(std::fs::read(&file).expect("a file"), b"archive");
    assert!(shown.contains("1-10") && shown.contains("desk"), "{shown}");
    let export = |number, on| Request::ExportVolume {
        volume: volume("data"),
        snapshot: snapshot(number),
        node: node_id(on),
        path: None,
    };
    assert_eq!(exported(&node), export(10, 2));

    // What is there is not replaced by mistake, and nothing is asked for.
    std::fs::write(&file, "precious").expect("written");
    let before = node.requests().len();
    let refused = home.vc(&["volume", "backup", "data", &file]).error();
    assert!(refused.contains("exists") && refused.contains("--force"), "{refused}");
    assert_eq!(
        (node.requests().len(), std::fs::read(&file).expect("a file")),
        (before, b"precious".to_vec())
    );
    home.vc(&["volume", "backup", "data", &file, "--force", "--at", "2h"]).ok();
    assert_eq!(std::fs::read(&file).expect("a file"), b"archive");
    assert_eq!(exported(&node), export(8, 1));
    let out = home.vc(&["volume", "backup", "data", "-", "--at", "1-9"]);
    assert_eq!(out.stdout, "archive");
    assert!(out.stderr.starts_with("snapshot 1-9 of shop/data, taken "), "{}", out.stderr);
    assert_eq!(exported(&node), export(9, 1));
    let none = home.vc(&["volume", "backup", "data", "-", "--at", "2d"]).error();
    assert!(none.contains("no snapshot that is that old; the oldest, 1-8,"), "{none}");
}

#[test]
fn an_archive_that_breaks_off_is_an_error_and_leaves_no_file() {
    let full = ApiError::new(ErrorCode::Internal, "tar of volume shop/data failed");
    for (last, message) in
        [(None, "lost the connection"), (Some(ExecFrame::Failed(full)), "tar of volume")]
    {
        let mut frames = vec![ExecFrame::Stdout(b"archi".to_vec())];
        frames.extend(last);
        let (home, _node) = with_snapshots(frames);
        let file = in_home(&home, "data.tar.zst");
        let failed = home.vc(&["volume", "backup", "data", &file]).error();
        assert!(failed.contains(message), "{failed}");
        let directory = std::path::Path::new(&file).parent().expect("a directory");
        let names = std::fs::read_dir(directory).expect("listed");
        let names: Vec<_> = names.map(|it| it.expect("an entry").file_name()).collect();
        assert!(!names.iter().any(|it| it.to_string_lossy().contains("data.tar")), "{names:?}");
        assert!(!names.iter().any(|it| it.to_string_lossy().starts_with(".tmp")), "{names:?}");
    }
}

#[test]
fn an_archive_is_imported_up_to_its_end() {
    let (home, node) = with_snapshots(vec![]);
    let content: Vec<u8> = (0..300_000_u32).map(|it| it.to_le_bytes()[0]).collect();
    let file = in_home(&home, "data.tar");
    std::fs::write(&file, &content).expect("written");
    let shown = home.vc(&["volume", "import", &file, "shop/copy", "--node", "desk"]).ok();
    assert_eq!(shown, "volume shop/copy created on desk from an archive\n");
    let request = Request::ImportVolume { volume: volume("copy"), node: Some("desk".to_owned()) };
    assert_eq!(node.requests(), [request]);
    assert!(node.seen(|seen| seen.is_whole && seen.imported == content));
    // A file that is not there asks for nothing.
    let failed = home.vc(&["volume", "import", "nowhere.tar", "shop/copy"]).error();
    assert!(failed.contains("cannot read nowhere.tar"), "{failed}");
    assert_eq!(node.requests().len(), 1);
}

#[test]
fn volumes_are_restored_by_time_cloned_and_adopted() {
    let (home, node) = with_snapshots(vec![]);
    let restored = home.vc(&["volume", "restore", "data", "--at", "2h"]);
    assert!(
        restored.stderr.starts_with("snapshot 1-8 of shop/data, taken "),
        "{}",
        restored.stderr
    );
    assert_eq!(
        home.vc(&["volume", "restore", "data", "--at", "30m", "--as", "before"]).code,
        Some(0)
    );
    assert_eq!(home.vc(&["volume", "clone", "data", "staging/data"]).code, Some(0));
    home.vc(&["volume", "adopt", "/srv/photos", "shop/photos", "--node", "nas"]).ok();
    let clone = |number, on, to: &str| Request::CloneVolume {
        volume: volume("data"),
        snapshot: snapshot(number),
        node: node_id(on),
        to: to.parse().expect("a volume"),
    };
    let expected = [
        Request::RestoreVolume { volume: volume("data"), snapshot: snapshot(8), conflict: false },
        clone(9, 1, "shop/before"),
        clone(10, 2, "staging/data"),
        Request::AdoptVolume {
            volume: volume("photos"),
            node: "nas".to_owned(),
            source: "/srv/photos".to_owned(),
        },
    ];
    let mut requests = node.requests();
    requests.retain(|it| !matches!(it, Request::Volumes | Request::Snapshots { .. }));
    assert_eq!(requests, expected);
    let refused = home.vc(&["volume", "restore", "data", "--at", "yesterday"]);
    assert!(refused.stderr.contains("2026-11-28T10:00:00Z"), "{}", refused.stderr);
}

#[test]
fn files_are_copied_out_of_a_snapshot() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o640);
    builder.append_data(&mut header, "conf", Cursor::new(b"x=1")).expect("appended");
    let archive = builder.into_inner().expect("finished");
    let (home, node) = with_snapshots(vec![ExecFrame::Stdout(archive), ExecFrame::Exit(0)]);
    let to = in_home(&home, "copied");
    let copied = home.vc(&["volume", "cp", "data:/etc/conf", &to]);
    assert_eq!(copied.code, Some(0), "{}", copied.stderr);
    let mut text = String::new();
    std::fs::File::open(&to).expect("a file").read_to_string(&mut text).expect("text");
    assert_eq!(text, "x=1");
    let Request::ExportVolume { path, snapshot: taken, .. } = exported(&node) else {
        panic!("an export")
    };
    assert_eq!((path.as_deref(), taken), (Some("/etc/conf"), snapshot(10)));
}

#[test]
fn a_removal_says_what_happens_to_copies_on_nodes_that_are_down() {
    let row = volume_row();
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(move |request| match request {
        Request::Volumes => vec![Reply::Volumes(vec![row.clone()])],
        _ => done(Change::VolumeRemoved { volume: volume("data") }),
    });
    let (home, node) = (Home::new(), Node::start(plan));
    home.vc(&["login", &home.write("token", &OURS.token(&[&node.address]))]).ok();
    let removed = home.vc(&["volume", "rm", "shop/data"]);
    assert!(
        removed.stderr.contains("the data of shop/data on attic is removed when that returns"),
        "{}",
        removed.stderr
    );
}
