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

#[tokio::test]
async fn a_snapshot_that_reached_no_node_that_went_on_is_put_aside() {
    let (one, two) = (Node::new(), Node::new());
    one.write("file", "1");
    one.begin(1, None).await;
    let first = one.take(1).await;
    copy(&one, &two, &first).await;
    one.write("file", "only in a snapshot of one");
    let lost = one.take(1).await;
    two.begin(2, Some(first.id)).await;
    two.write("other", "2");
    let second = two.take(2).await;
    assert_eq!((lost.id.to_string(), second.id.to_string()), ("1-2".into(), "2-2".into()));
    assert_eq!(second.history, [first.id]);
    copy(&two, &one, &second).await;
    let conflict = one.volume.follow(&one.working(), 1).await.unwrap().expect("put aside");
    assert_eq!(conflict.manifest.digest, lost.digest);
    assert_equal(&one.working(), &two.working());

    // What was built on is no conflict.
    let three = Node::new();
    copy(&one, &three, &second).await;
    three.volume.follow(&three.working(), 1).await.unwrap();
    two.write("other", "3");
    let third = two.take(2).await;
    copy(&two, &three, &third).await;
    assert_eq!(three.volume.follow(&three.working(), 1).await.unwrap(), None);
    three.begin(3, Some(second.id)).await;
    assert_eq!(three.read("other"), "3", "the newest that is here");
    three.write("other", "4");
    let fourth = three.take(3).await;
    assert_eq!(fourth.history, [first.id, third.id]);
    copy(&three, &one, &fourth).await;
    assert_eq!(one.volume.follow(&one.working(), 1).await.unwrap(), None);
    assert_equal(&three.working(), &one.working());
}

#[tokio::test]
async fn following_separates_files_that_are_links_in_the_working_directory_alone() {
    let (one, two) = (Node::new(), Node::new());
    one.write("a", "content");
    fs::hard_link(one.working().join("a"), one.working().join("b")).unwrap();
    fs::create_dir(one.working().join("becomes a file")).unwrap();
    one.write("becomes a file/x", "");
    one.begin(1, None).await;
    copy(&one, &two, &one.take(1).await).await;
    two.volume.follow(&two.working(), 1).await.unwrap();
    assert_equal(&one.working(), &two.working());

    fs::remove_file(one.working().join("b")).unwrap();
    one.write("b", "content");
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(one.working().join("b"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_dir_all(one.working().join("becomes a file")).unwrap();
    one.write("becomes a file", "now");
    copy(&one, &two, &one.take(1).await).await;
    two.volume.follow(&two.working(), 1).await.unwrap();
    assert_equal(&one.working(), &two.working());
}
