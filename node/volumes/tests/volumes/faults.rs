//! Processes that are killed, operations that are dropped, disks that are full, programs that are missing.

use std::fs;
use std::future::Future;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::task::Poll;
use std::time::{Duration, Instant};

use vc_protocol::volume::Keep;
use vc_volumes::Error;

use crate::support::{Node, assert_equal, copy, transfer};

/// In the environment of a test: it is the process that is tested, in this directory.
const DRIVER: &str = "VC_VOLUMES_TEST_DRIVER";
const FILES: u32 = 40;
const ROUNDS: u64 = 12;

/// Numbers that look random, the same in each run (splitmix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Writes one generation to all files: a snapshot that has two is not whole.
fn write_generation(node: &Node, generation: u64) {
    for file in 0..FILES {
        node.write(&format!("file{file}"), format!("{generation:020}").repeat(1000));
    }
}

/// Returns the generation of a tree that has exactly one.
fn generation(tree: &Path) -> String {
    let mut found: Vec<String> = (0..FILES)
        .map(|file| fs::read_to_string(tree.join(format!("file{file}"))).unwrap()[..20].to_owned())
        .collect();
    assert_eq!(fs::read_dir(tree).unwrap().count(), FILES as usize, "{}", tree.display());
    found.dedup();
    assert_eq!(found.len(), 1, "{}: {found:?}", tree.display());
    found.remove(0)
}

/// What must hold of two nodes after anything.
async fn check(primary: &Node, replica: &Node) {
    let at_primary = primary.volume.snapshots().unwrap();
    for manifest in &at_primary {
        generation(&primary.data(manifest.id));
    }
    for manifest in replica.volume.snapshots().unwrap() {
        generation(&replica.data(manifest.id));
        if let Some(original) = at_primary.iter().find(|it| it.id == manifest.id) {
            assert_eq!(original, &manifest);
            assert_equal(&primary.data(manifest.id), &replica.data(manifest.id));
        }
    }
    // And both are usable.
    primary.snapshot(1).await.unwrap();
    let newest = primary.volume.snapshots().unwrap().pop().expect("one");
    if replica.volume.copy().unwrap().snapshot != Some(newest.id) {
        copy(primary, replica, &newest).await;
    }
    replica.volume.follow(&replica.working(), 1).await.unwrap();
    assert_equal(&primary.data(newest.id), &replica.working());
    assert!(replica.volume.conflicts().unwrap().is_empty());
}

fn node_in(dir: &Path, name: &str) -> Node {
    fs::create_dir_all(dir.join(name)).unwrap();
    Node::in_dir(dir.join(name))
}

/// Takes and copies snapshots until it is killed.
async fn drive(dir: &Path) {
    let (primary, replica) = (node_in(dir, "primary"), node_in(dir, "replica"));
    for number in 0_u64.. {
        write_generation(&primary, number);
        let manifest = primary.take(1).await;
        copy(&primary, &replica, &manifest).await;
        replica.volume.follow(&replica.working(), 1).await.unwrap();
        for node in [&primary, &replica] {
            node.volume.prune(Keep { last: 2, hourly: 0, daily: 0 }, 1).await.unwrap();
        }
        // The test waits for the first one.
        println!("round {number}");
    }
}

/// Starts this test as the process that is tested.
fn start_driver(test: &str, dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(DRIVER, dir).process_group(0);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits until no process works in a directory.
fn await_none_in(dir: &Path) {
    let begun = Instant::now();
    loop {
        let processes = fs::read_dir("/proc").unwrap().filter_map(|it| it.ok());
        let mut dirs = processes.filter_map(|it| fs::read_link(it.path().join("cwd")).ok());
        if !dirs.any(|it| it.starts_with(dir)) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "processes of a killed node go on");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_node_that_is_killed_at_any_moment_leaves_whole_snapshots_and_a_usable_store() {
    if let Some(dir) = std::env::var_os(DRIVER) {
        return drive(Path::new(&dir)).await;
    }
    let test =
        "faults::a_node_that_is_killed_at_any_moment_leaves_whole_snapshots_and_a_usable_store";
    let dir = tempfile::tempdir().unwrap();
    {
        let primary = node_in(dir.path(), "primary");
        write_generation(&primary, 0);
        primary.begin(1, None).await;
    }
    let mut state = 16;
    for _ in 0..ROUNDS {
        let mut driver = start_driver(test, dir.path());
        let mut lines = std::io::BufReader::new(driver.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("round") {
            line.clear();
            assert!(
                std::io::BufRead::read_line(&mut lines, &mut line).unwrap() > 0,
                "it has ended"
            );
        }
        // Any time within the next round.
        std::thread::sleep(Duration::from_millis(random(&mut state) % 1000));
        driver.kill().unwrap();
        driver.wait().unwrap();
        await_none_in(dir.path());
        write_generation(&node_in(dir.path(), "primary"), 1_000_000);
        check(&node_in(dir.path(), "primary"), &node_in(dir.path(), "replica")).await;
    }
}

/// Polls a future at most so often, then drops it.
async fn poll_times<F: Future>(future: F, times: u64) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    std::future::poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test]
async fn operations_that_are_dropped_at_any_point_leave_whole_snapshots_and_a_usable_store() {
    let (primary, replica) = (Node::new(), Node::new());
    write_generation(&primary, 0);
    primary.begin(1, None).await;
    let mut state = 7;
    let mut dropped = 0;
    for number in 1..=40 {
        write_generation(&primary, number);
        let mut next = |most: u64| random(&mut state) % most;
        dropped += u32::from(poll_times(primary.snapshot(1), next(40)).await.is_none());
        let newest = match primary.volume.snapshots().unwrap().pop() {
            Some(newest) => newest,
            None => primary.take(1).await,
        };
        if replica.volume.copy().unwrap().snapshot != Some(newest.id) {
            dropped += u32::from(
                poll_times(transfer(&primary, &replica, &newest), next(80)).await.is_none(),
            );
        }
        let working = replica.working();
        let follow = replica.volume.follow(&working, 1);
        dropped += u32::from(poll_times(follow, next(12)).await.is_none());
        if number % 5 == 0 {
            check(&primary, &replica).await;
        }
    }
    assert!(dropped > 20, "{dropped} operations were dropped");
    check(&primary, &replica).await;
}

#[tokio::test]
async fn a_killed_rsync_is_an_error_and_nothing_else() {
    let (primary, replica) = (Node::new(), Node::new());
    write_generation(&primary, 0);
    primary.write("big", vec![1; 30 << 20]);
    primary.begin(1, None).await;
    let manifest = primary.take(1).await;
    let (one, other) = tokio::io::duplex(64 * 1024);
    let mut killed = false;
    let (_, received) = tokio::join!(
        primary.volume.send(manifest.id, one),
        replica.volume.receive(&manifest, other, |bytes| {
            if bytes > 5 << 20 && !killed {
                killed = true;
                kill_in(replica.dir.path());
            }
        })
    );
    let error = received.unwrap_err();
    assert!(matches!(error, Error::Failed { .. } | Error::Stream { .. }), "{error}");
    assert!(replica.volume.snapshots().unwrap().is_empty());
    copy(&primary, &replica, &manifest).await;
}

/// Kills the rsyncs that this process has started in a directory.
fn kill_in(dir: &Path) {
    for entry in fs::read_dir("/proc").unwrap().filter_map(|it| it.ok()) {
        let path = entry.path();
        let works_there = fs::read_link(path.join("cwd")).is_ok_and(|it| it.starts_with(dir));
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if works_there && name == "rsync\n" {
            let pid = entry.file_name().to_str().unwrap().parse().unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// A filesystem in memory that is soon full.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={size}");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status();
        assert!(status.unwrap().success(), "mounting needs root");
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_no_half_snapshot() {
    let primary = Node::new();
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&dir.path().join("volumes"), "8m");
    let replica = Node::at(dir);
    primary.write("small", vec![1; 1 << 20]);
    primary.begin(1, None).await;
    let first = primary.take(1).await;
    copy(&primary, &replica, &first).await;

    primary.write("big", vec![2; 20 << 20]);
    let second = primary.take(1).await;
    let (_, received) = transfer(&primary, &replica, &second).await;
    let Err(Error::NoSpace { path, needed_bytes, .. }) = &received else { panic!("{received:?}") };
    assert!(path.starts_with(&disk.0) && *needed_bytes > 20 << 20, "{received:?}");
    assert!(received.unwrap_err().to_string().contains("make room"));
    assert_eq!(replica.volume.snapshots().unwrap(), std::slice::from_ref(&first));

    // What was written for nothing is gone: there is room for what fits.
    fs::remove_file(primary.working().join("big")).unwrap();
    primary.write("fits", vec![3; 2 << 20]);
    let third = primary.take(1).await;
    copy(&primary, &replica, &third).await;

    // A primary has no room for its snapshot.
    replica.volume.follow(&replica.working(), 1).await.unwrap();
    replica.begin(2, Some(third.id)).await;
    replica.write("more", vec![4; 9 << 20]);
    let taken = replica.snapshot(2).await;
    assert!(matches!(taken, Err(Error::NoSpace { .. })), "{taken:?}");
    fs::remove_file(replica.working().join("more")).unwrap();
    replica.write("less", "5");
    replica.take(2).await;
    drop(replica);
    drop(disk);
}

#[tokio::test]
async fn a_missing_rsync_is_named_with_its_package() {
    if std::env::var_os(DRIVER).is_some() {
        let node = Node::new();
        node.write("file", "1");
        node.begin(1, None).await;
        println!("error: {}", node.snapshot(1).await.unwrap_err());
        return;
    }
    let test = "faults::a_missing_rsync_is_named_with_its_package";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(DRIVER, "").env("PATH", "/nowhere");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = "error: volume shop/db cannot be copied: rsync is not installed: install rsync 3.2 or later on this host, \
                    'apt-get install rsync'";
    assert!(text.contains(expected), "{text}");
}
