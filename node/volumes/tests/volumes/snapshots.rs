//! Snapshots of a working directory.

use std::fs::{self, File, FileTimes};
use std::future::Future;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant, SystemTime};

use vc_volumes::{Error, Outcome, Pause, PauseError};

use crate::support::{Node, assert_equal, seen};

/// When everything stands still, as a [`Recorder`] says.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Notes what is called, and writes a file during the pass before.
#[derive(Default)]
struct Recorder {
    calls: Mutex<Vec<&'static str>>,
    /// Written when it pauses: what a process wrote until then.
    write: Option<(PathBuf, &'static str)>,
    fail: bool,
    /// For how long it says that everything stood still.
    still: Duration,
}

impl Pause for Recorder {
    fn pause(&self) -> Pin<Box<dyn Future<Output = Result<Instant, PauseError>> + Send + '_>> {
        self.calls.lock().unwrap().push("pause");
        if let Some((path, content)) = &self.write {
            let modified = fs::metadata(path).unwrap().modified().unwrap();
            fs::write(path, content).unwrap();
            // Within the same tick.
            File::open(path).unwrap().set_times(FileTimes::new().set_modified(modified)).unwrap();
        }
        let fail = self.fail;
        Box::pin(async move {
            if fail { Err(PauseError("the hook failed".into())) } else { Ok(*ORIGIN) }
        })
    }
    fn resume(&self) -> Pin<Box<dyn Future<Output = Instant> + Send + '_>> {
        self.calls.lock().unwrap().push("resume");
        Box::pin(async { *ORIGIN + self.still })
    }
}

#[tokio::test]
async fn instances_are_paused_only_where_something_has_changed() {
    let node = Node::new();
    node.write("file", "1");
    node.begin(1, None).await;
    let still = Duration::from_millis(7);
    let recorder = Arc::new(Recorder { still, ..Recorder::default() });
    let pause: Arc<dyn Pause> = Arc::clone(&recorder) as _;
    let working = node.working();
    let snapshot = || node.volume.snapshot(&working, 1, 1000, &pause);
    let first = snapshot().await.unwrap();
    let Outcome::Taken { manifest, paused } = &first else { panic!("{first:?}") };
    assert_eq!(*paused, still, "hooks, and looking for the instances, are no pause");
    assert_eq!((manifest.id.to_string().as_str(), manifest.parent), ("1-1", None));
    assert_eq!((manifest.files, manifest.bytes), (2, 1));
    let second = snapshot().await.unwrap();
    assert_eq!(second, Outcome::Unchanged(manifest.clone()));
    assert_eq!(*recorder.calls.lock().unwrap(), ["pause", "resume"]);
    node.write("file", "2");
    let third = snapshot().await.unwrap();
    assert_eq!(third.manifest().id.to_string(), "1-2");
    assert_eq!(third.manifest().parent, Some(manifest.id));
    assert_eq!(recorder.calls.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn instances_go_on_when_the_snapshot_fails() {
    let node = Node::new();
    node.write("file", "1");
    node.begin(1, None).await;
    let recorder = Arc::new(Recorder { fail: true, ..Recorder::default() });
    let pause: Arc<dyn Pause> = Arc::clone(&recorder) as _;
    let error = node.volume.snapshot(&node.working(), 1, 1000, &pause).await.unwrap_err();
    assert_eq!(error.to_string(), "no snapshot of volume shop/db: the hook failed");
    assert_eq!(*recorder.calls.lock().unwrap(), ["pause", "resume"]);
    assert!(node.volume.snapshots().unwrap().is_empty());
    assert!(!node.volume_dir().join("staging").exists());
}

#[tokio::test]
async fn a_snapshot_does_not_change_with_the_working_directory() {
    let node = Node::new();
    for name in ["chmod", "chown", "touch", "append", "same inode", "attribute", "remove"] {
        node.write(name, "content");
    }
    fs::create_dir(node.working().join("dir")).unwrap();
    let hour_ago = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(3600));
    File::open(node.working().join("same inode")).unwrap().set_times(hour_ago).unwrap();
    node.begin(1, None).await;
    let first = node.take(1).await;
    let before = seen(&node.data(first.id));
    let at = |name: &str| node.working().join(name);
    fs::set_permissions(at("chmod"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(at("dir"), fs::Permissions::from_mode(0o700)).unwrap();
    chown(at("chown"), Some(1), Some(2)).unwrap();
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    File::open(at("touch")).unwrap().set_times(times).unwrap();
    node.write("append", "content and more");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(at("attribute"), "user.a", b"1", flags).unwrap();
    fs::remove_file(at("remove")).unwrap();
    let second = node.take(1).await;
    assert_equal(&node.working(), &node.data(second.id));
    assert!(seen(&node.data(first.id)) == before, "the first snapshot has changed");
    let inode = |manifest: &vc_volumes::Manifest| {
        fs::metadata(node.data(manifest.id).join("same inode")).unwrap().ino()
    };
    assert_eq!(inode(&first), inode(&second), "what is equal is shared");
}

#[tokio::test]
async fn a_file_that_changes_twice_within_a_tick_is_taken_as_it_was_at_the_pause() {
    let node = Node::new();
    node.write("file", "first");
    node.begin(1, None).await;
    let write = Some((node.working().join("file"), "later"));
    let pause: Arc<dyn Pause> = Arc::new(Recorder { write, ..Recorder::default() });
    let outcome = node.volume.snapshot(&node.working(), 1, 1000, &pause).await.unwrap();
    let taken = fs::read_to_string(node.data(outcome.manifest().id).join("file")).unwrap();
    assert_eq!(taken, "later");
}

#[tokio::test]
async fn files_that_are_no_links_any_more_are_separate_in_the_next_snapshot() {
    let (node, replica) = (Node::new(), Node::new());
    node.write("one", "content");
    fs::hard_link(node.working().join("one"), node.working().join("other")).unwrap();
    let old = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
    File::open(node.working().join("one")).unwrap().set_times(old).unwrap();
    node.begin(1, None).await;
    let first = node.take(1).await;
    crate::support::copy(&node, &replica, &first).await;
    // As `cp -p` and `mv` do.
    node.write("new", "content");
    File::open(node.working().join("new")).unwrap().set_times(old).unwrap();
    fs::rename(node.working().join("new"), node.working().join("other")).unwrap();
    node.write("third", "3");
    let second = node.take(1).await;
    assert_equal(&node.working(), &node.data(second.id));
    // The replica takes links where there are none, sees that, and copies.
    let (_, received) = crate::support::transfer(&node, &replica, &second).await;
    assert!(matches!(received, Err(Error::Digest { .. })), "{received:?}");
    crate::support::copy(&node, &replica, &second).await;
    assert_equal(&node.working(), &replica.data(second.id));
}

/// Never gets through with pausing.
#[derive(Default)]
struct Stuck {
    pausing: tokio::sync::Notify,
    resumed: tokio::sync::Notify,
}

impl Pause for Stuck {
    fn pause(&self) -> Pin<Box<dyn Future<Output = Result<Instant, PauseError>> + Send + '_>> {
        self.pausing.notify_one();
        Box::pin(std::future::pending())
    }
    fn resume(&self) -> Pin<Box<dyn Future<Output = Instant> + Send + '_>> {
        self.resumed.notify_one();
        Box::pin(async { Instant::now() })
    }
}

#[tokio::test]
async fn instances_go_on_when_a_snapshot_is_dropped_in_its_pause() {
    let node = Node::new();
    node.write("file", "1");
    node.begin(1, None).await;
    let stuck = Arc::new(Stuck::default());
    let pause: Arc<dyn Pause> = Arc::clone(&stuck) as _;
    let working = node.working();
    tokio::select! {
        outcome = node.volume.snapshot(&working, 1, 1000, &pause) => panic!("{outcome:?}"),
        () = stuck.pausing.notified() => {}
    }
    stuck.resumed.notified().await;
    node.take(1).await;
}
