//! Copies between nodes.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vc_protocol::volume::{Keep, SnapshotId};
use vc_volumes::Error;

use crate::support::{Node, assert_equal, copy, transfer};

#[tokio::test]
async fn replicas_receive_what_has_changed_and_refuse_what_is_older() {
    let (primary, replica) = (Node::new(), Node::new());
    primary.write("big", vec![7; 3 << 20]);
    primary.begin(1, None).await;
    let first = primary.take(1).await;
    copy(&primary, &replica, &first).await;
    primary.write("small", "1");
    let second = primary.take(1).await;
    let mut arrived = 0;
    let (one, other) = tokio::io::duplex(64 * 1024);
    let (sent, received) = tokio::join!(
        primary.volume.send(second.id, one),
        replica.volume.receive(&second, other, |bytes| arrived = bytes)
    );
    received.unwrap();
    sent.unwrap();
    assert!((1..1 << 20).contains(&arrived), "{arrived} bytes for one small file");
    assert_equal(&primary.working(), &replica.data(second.id));
    assert_eq!(replica.volume.snapshots().unwrap(), [first.clone(), second.clone()]);

    for old in [&first, &second] {
        let (_, received) = transfer(&primary, &replica, old).await;
        assert!(matches!(received, Err(Error::NotNewer { .. })), "{received:?}");
    }
    replica.volume.raise_fence(2).await.unwrap();
    let replica = replica.restart();
    primary.write("small", "2");
    let third = primary.take(1).await;
    let (_, received) = transfer(&primary, &replica, &third).await;
    assert!(matches!(received, Err(Error::Fenced { fence: 2, epoch: 1, .. })), "{received:?}");
}

#[tokio::test]
async fn a_snapshot_that_is_not_there_is_refused_with_its_reason() {
    let (primary, replica) = (Node::new(), Node::new());
    primary.write("file", "1");
    primary.begin(1, None).await;
    let mut manifest = primary.take(1).await;
    manifest.id = SnapshotId { epoch: 1, number: 9 };
    let (sent, received) = transfer(&primary, &replica, &manifest).await;
    assert!(matches!(sent, Err(Error::Missing { .. })), "{sent:?}");
    let text = received.unwrap_err().to_string();
    assert!(text.contains("snapshot 1-9") && text.contains("was pruned"), "{text}");
}

#[tokio::test]
async fn a_snapshot_is_not_pruned_while_it_is_sent() {
    let primary = Node::new();
    primary.write("file", "1");
    primary.begin(1, None).await;
    let first = primary.take(1).await;
    for content in ["2", "3"] {
        primary.write("file", content);
        primary.take(1).await;
    }
    let keep = Keep { last: 1, hourly: 0, daily: 0 };
    let (one, mut other) = tokio::io::duplex(64);
    let volume = primary.volume.clone();
    let sending = tokio::spawn(async move { volume.send(first.id, one).await });
    other.write_all(b"\x01").await.unwrap();
    other.write_all(&[0; 16]).await.unwrap();
    assert_eq!(other.read_u8().await.unwrap(), 0, "it sends everything");
    let gone = primary.volume.prune(keep, 1000).await.unwrap();
    assert_eq!(gone.iter().map(|id| id.number).collect::<Vec<_>>(), [2]);
    drop(other);
    sending.await.unwrap().unwrap_err();
    assert_eq!(primary.volume.prune(keep, 1000).await.unwrap(), [first.id]);
    assert_eq!(primary.volume.snapshots().unwrap().len(), 1);
}

#[tokio::test]
async fn a_transfer_that_broke_off_goes_on_where_it_was() {
    let (primary, replica) = (Node::new(), Node::new());
    for file in 0..30 {
        primary.write(&format!("file{file}"), vec![file; 1 << 20]);
    }
    primary.begin(1, None).await;
    let manifest = primary.take(1).await;
    let (one, other) = tokio::io::duplex(64 * 1024);
    let enough = tokio::sync::Notify::new();
    tokio::select! {
        _ = async {
            tokio::join!(
                primary.volume.send(manifest.id, one),
                replica.volume.receive(&manifest, other, |bytes| {
                    if bytes > 20 << 20 {
                        enough.notify_one();
                    }
                })
            )
        } => panic!("it is not through"),
        () = enough.notified() => {}
    }
    assert!(replica.volume.snapshots().unwrap().is_empty());
    let replica = replica.restart();
    let mut arrived = 0;
    let (one, other) = tokio::io::duplex(64 * 1024);
    let (sent, received) = tokio::join!(
        primary.volume.send(manifest.id, one),
        replica.volume.receive(&manifest, other, |bytes| arrived = bytes)
    );
    received.unwrap();
    sent.unwrap();
    assert!(arrived < 15 << 20, "{arrived} bytes arrived again");
    assert_equal(&primary.working(), &replica.data(manifest.id));
}

#[tokio::test]
async fn a_replica_that_missed_snapshots_gets_all_changes_since_its_own() {
    let (primary, replica) = (Node::new(), Node::new());
    for file in 0..20 {
        primary.write(&format!("file{file}"), vec![file; 100_000]);
    }
    primary.begin(1, None).await;
    copy(&primary, &replica, &primary.take(1).await).await;
    for round in 0..3_u8 {
        primary.write("changed", [round; 10]);
        primary.write(&format!("new{round}"), "1");
        if round == 1 {
            std::fs::remove_file(primary.working().join("new0")).unwrap();
        }
        primary.take(1).await;
    }
    let newest = primary.volume.snapshots().unwrap().pop().unwrap();
    copy(&primary, &replica, &newest).await;
    assert_equal(&primary.working(), &replica.data(newest.id));
    let lists = ["changed", "removed"].map(|name| replica.data(newest.id).with_file_name(name));
    let [changed, removed] = lists.map(|list| std::fs::read_to_string(list).unwrap());
    assert!(changed.contains("./new1\0") && changed.contains("./changed\0"), "{changed}");
    assert!(!changed.contains("new0") && removed.contains("./new0\0"), "{changed} {removed}");
}

#[tokio::test]
async fn streams_that_send_when_they_are_flushed_are_flushed() {
    let (primary, replica) = (Node::new(), Node::new());
    primary.write("file", vec![1; 100_000]);
    primary.begin(1, None).await;
    let manifest = primary.take(1).await;
    let (one, other) = tokio::io::duplex(64 * 1024);
    let buffered = |stream| tokio::io::BufStream::with_capacity(1 << 20, 1 << 20, stream);
    let (sent, received) = tokio::join!(
        primary.volume.send(manifest.id, buffered(one)),
        replica.volume.receive(&manifest, buffered(other), |_| {})
    );
    received.unwrap();
    sent.unwrap();
}
