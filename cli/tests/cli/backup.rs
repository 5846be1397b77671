//! `vc backup` of a cluster in which something dies meanwhile.

use std::collections::BTreeMap;

use vc_protocol::backup::ClusterContent;
use vc_protocol::control::{Reply, Request, SnapshotKind, SnapshotRow, VolumeRow};
use vc_protocol::exec::ExecFrame;
use vc_protocol::{ApiError, ErrorCode};

use crate::Home;
use crate::node::{Node, OURS, Plan, member, node_id, now};

/// A node with the volumes `shop/a`, `shop/b` and `shop/c`. What holds `shop/b` dies when a part of it was sent.
fn loses_one_volume() -> Plan {
    let content = ClusterContent {
        cluster: OURS.id(),
        node: "attic".to_owned(),
        taken: now(),
        version: "0.1.0".to_owned(),
        entries: BTreeMap::new(),
        files: BTreeMap::new(),
    };
    let content = serde_json::to_vec(&content).expect("JSON");
    let taken = now();
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(move |request| match request {
        Request::Backup | Request::ExportVolume { .. } => vec![Reply::Ready],
        Request::Volumes => vec![Reply::Volumes(["shop/a", "shop/b", "shop/c"].map(row).to_vec())],
        Request::Snapshots { volume, node } => vec![Reply::Snapshots(vec![SnapshotRow {
            volume: volume.clone(),
            kind: SnapshotKind::Snapshot,
            snapshot: "1-1".to_owned(),
            node: *node,
            node_name: "attic".to_owned(),
            time: taken,
            files: 1,
            bytes: 3,
            expires: 0,
        }])],
        other => panic!("{other:?}"),
    });
    plan.download = Box::new(move |request| match request {
        Request::Backup => vec![ExecFrame::Stdout(content.clone()), ExecFrame::Exit(0)],
        Request::ExportVolume { volume, .. } if volume.to_string() == "shop/b" => {
            let error = ApiError::new(ErrorCode::Unavailable, "node desk is down");
            vec![ExecFrame::Stdout(b"half".to_vec()), ExecFrame::Failed(error)]
        }
        _ => vec![ExecFrame::Stdout(b"abc".to_vec()), ExecFrame::Exit(0)],
    });
    plan
}

fn row(volume: &str) -> VolumeRow {
    serde_json::from_value(serde_json::json!({
        "volume": volume, "node": node_id(1), "node_name": "attic", "up": true, "services": [], "since": 1,
    }))
    .expect("a row")
}

#[test]
fn a_volume_that_fails_midway_is_left_out_and_named_and_the_others_are_in_the_file() {
    let (home, node) = (Home::new(), Node::start(loses_one_volume()));
    home.vc(&["login", &OURS.token(&[&node.address])]).ok();
    let passphrase = home.write("passphrase", "correct horse");
    let with = ["--passphrase-file", passphrase.as_str(), "--output", "json"];
    let out = home.vc(&[&["backup", "cluster.vcb", "--volumes"], &with[..]].concat());
    assert_eq!(out.code, Some(1), "{}", out.stderr);
    let missing = "the data of volume shop/b is not in it: node desk is down";
    assert!(out.stderr.contains(missing), "{}", out.stderr);
    assert!(out.stderr.contains("cluster.vcb lacks the data of shop/b"), "{}", out.stderr);

    let verified = home.vc(&[&["backup", "verify", "cluster.vcb"], &with[..]].concat());
    assert_eq!(verified.code, Some(0), "what is in the file is whole");
    assert!(verified.stderr.contains(missing), "{}", verified.stderr);
    let summary: serde_json::Value = serde_json::from_str(&verified.stdout).expect("JSON");
    let volumes = summary["volumes"].as_array().expect("volumes").iter();
    let included = volumes.map(|it| (it["included"] == true, it["failed"] == true));
    assert_eq!(included.collect::<Vec<_>>(), [(true, false), (false, true), (true, false)]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out.stdout).expect("JSON"), summary);
}
