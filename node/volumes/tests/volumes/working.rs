//! Working directories: beginning, following, conflicts.

use std::fs;

use vc_volumes::Error;

use crate::support::{Node, assert_equal, copy};

#[tokio::test]
async fn a_replica_that_becomes_the_primary_goes_on_from_the_newest_snapshot() {
    let (one, two) = (Node::new(), Node::new());
    one.write("file", "1");
    one.begin(1, None).await;
    let first = one.take(1).await;
    copy(&one, &two, &first).await;
    two.volume.follow(&two.working(), 1000).await.unwrap();
    let begun = two.begin(2, Some(first.id)).await;
    assert!(begun.kept && begun.conflict.is_none());
    two.write("file", "2");
    let second = two.take(2).await;
    assert_eq!(second.id.to_string(), "2-2");

    // The node before had written after its last snapshot.
    one.write("file", "lost");
    one.write("only here", "x");
    copy(&two, &one, &second).await;
    let conflict = one.volume.follow(&one.working(), 5000).await.unwrap().expect("put aside");
    assert_equal(&one.working(), &two.working());
    assert_eq!(conflict.manifest.parent, Some(first.id));
    assert_eq!((conflict.manifest.id.epoch, conflict.manifest.taken), (1, 5000));
    assert_eq!(one.volume.conflicts().unwrap(), [conflict]);
    assert_eq!(one.volume.copy().unwrap().conflicts, 1);
    // Nothing is put aside twice.
    assert_eq!(one.volume.follow(&one.working(), 5000).await.unwrap(), None);
    assert!(matches!(one.snapshot(1).await, Err(Error::Fenced { fence: 2, .. })));
}

#[tokio::test]
async fn a_directory_that_was_written_last_is_kept() {
    let node = Node::new();
    node.write("file", "1");
    assert!(node.begin(1, None).await.kept);
    let first = node.take(1).await;
    node.write("file", "2");
    let begun = node.begin(3, Some(first.id)).await;
    assert!(begun.kept);
    assert_eq!(node.read("file"), "2");
    assert_eq!(node.volume.follow(&node.working(), 1).await.unwrap(), None);
    assert_eq!(node.read("file"), "2");
}

#[tokio::test]
async fn what_nothing_is_known_of_is_put_aside_too() {
    let (one, two) = (Node::new(), Node::new());
    one.write("file", "1");
    one.begin(1, None).await;
    let first = one.take(1).await;
    two.write("old", "of an earlier deployment");
    copy(&one, &two, &first).await;
    let conflict = two.volume.follow(&two.working(), 1).await.unwrap().expect("put aside");
    assert_eq!(conflict.manifest.id.epoch, 0);
    assert_equal(&one.working(), &two.working());
    let aside = two.volume_dir().join("conflicts").join(conflict.manifest.id.to_string());
    assert_eq!(fs::read_to_string(aside.join("data/old")).unwrap(), "of an earlier deployment");
}

#[tokio::test]
async fn lower_epochs_are_refused_after_a_restart_too() {
    let node = Node::new();
    node.begin(5, None).await;
    node.write("file", "1");
    node.volume.raise_fence(7).await.unwrap();
    node.volume.raise_fence(6).await.unwrap();
    let node = node.restart();
    let fenced = |error| matches!(error, Error::Fenced { fence: 7, .. });
    assert!(fenced(node.snapshot(5).await.unwrap_err()));
    assert!(fenced(node.volume.close(&node.working(), 5, 1).await.unwrap_err()));
    assert!(fenced(node.volume.begin(&node.working(), 6, None, 1).await.unwrap_err()));
    node.begin(7, None).await;
    node.take(7).await;
}
