//! The watchdog with real processes: nodes that hang or are killed, watchdogs that are, and instances of the process runtime.

#![allow(clippy::expect_used, reason = "a test states what must not fail")]
#![allow(clippy::print_stdout, reason = "the roles report on stdout")]

mod instances;
#[path = "../leftovers/mod.rs"]
mod leftovers;
mod roles;

use std::time::Duration;

use rustix::process::Signal;

use self::roles::{DataDir, Instance, Node, pidfd, watchdogs};

/// Longer than anything takes on a busy host.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A deadline that is far enough for all that a test does before it.
const SOON: u64 = 3_000;
/// A deadline after the end of any test: nextest ends one that takes eight minutes.
const LATE: u64 = 600_000;

const DB: &str = "shop/db.1@ab";
const WEB: &str = "shop/web.1@ab";

fn dir() -> DataDir {
    DataDir::new()
}

#[test]
fn a_watchdog_ends_with_its_test() {
    let (dir, test, db) = (dir(), Instance::start(), Instance::start());
    let mut node = Node::of_test(test.pid(), dir.path(), "1");
    node.deadlines(&[(DB, LATE)]);
    node.holds(DB, &db);
    let watchdog = pidfd(watchdogs(dir.path())[0]);
    node.kill_group();
    drop(test);
    watchdog.ended();
    assert!(db.runs());
}

#[test]
fn a_watchdog_ends_with_its_data_directory_even_if_it_hangs() {
    let (dir, db) = (dir(), Instance::start());
    let mut node = Node::start(dir.path(), "1");
    node.deadlines(&[(DB, LATE)]);
    node.holds(DB, &db);
    let watchdog = pidfd(watchdogs(dir.path())[0]);
    node.kill_group();
    watchdog.signal(Signal::STOP);
    drop(dir);
    watchdog.ended();
    assert!(db.runs());
}

#[test]
fn an_instance_ends_at_its_deadline_while_its_node_is_stopped() {
    let (dir, mut db) = (dir(), Instance::start());
    let mut node = Node::start(dir.path(), "1");
    node.renews(DB, SOON);
    node.holds(DB, &db);
    node.signal(Signal::STOP);
    assert_eq!(db.ended(), Signal::KILL);
    assert_eq!(node.state(), 'T', "the node has not run meanwhile");
    node.signal(Signal::CONT);
    // The node that continues has its watchdog as before.
    let mut web = Instance::start();
    node.deadlines(&[(WEB, SOON)]);
    node.holds(WEB, &web);
    assert_eq!(web.ended(), Signal::KILL);
}

#[test]
fn an_instance_ends_at_its_deadline_after_its_node_was_killed_with_its_group() {
    let (dir, mut db) = (dir(), Instance::start());
    let mut node = Node::start(dir.path(), "1");
    node.renews(DB, SOON);
    node.holds(DB, &db);
    let watchdog = pidfd(watchdogs(dir.path())[0]);
    node.kill_group();
    assert_eq!(db.ended(), Signal::KILL);
    // It has nothing left to do.
    watchdog.ended();
}

#[test]
fn a_watchdog_without_anything_to_watch_ends_with_its_node() {
    let (dir, db) = (dir(), Instance::start());
    let mut node = Node::start(dir.path(), "1");
    node.deadlines(&[(DB, LATE)]);
    node.holds(DB, &db);
    node.deadlines(&[]);
    node.holds(WEB, &db);
    let watchdog = pidfd(watchdogs(dir.path())[0]);
    node.kill_group();
    watchdog.ended();
    assert!(db.runs());
}

#[test]
fn of_two_instances_only_the_one_that_is_not_renewed_ends() {
    let (dir, db, mut web) = (dir(), Instance::start(), Instance::start());
    let mut node = Node::start(dir.path(), "1");
    node.deadlines(&[(DB, SOON), (WEB, LATE)]);
    node.holds(DB, &db);
    node.holds(WEB, &web);
    node.deadlines(&[(DB, LATE), (WEB, 0)]);
    assert_eq!(web.ended(), Signal::KILL);
    // The first deadline of the other one has passed before this one's.
    let mut last = Instance::start();
    node.deadlines(&[(DB, LATE), ("shop/last.1@ab", SOON)]);
    node.holds("shop/last.1@ab", &last);
    assert_eq!(last.ended(), Signal::KILL);
    assert!(db.runs());
}

#[test]
fn the_next_process_of_a_node_renews_what_the_one_before_started() {
    let (dir, mut db, mut web) = (dir(), Instance::start(), Instance::start());
    let mut node = Node::start(dir.path(), "1");
    node.deadlines(&[(DB, SOON), (WEB, SOON)]);
    node.holds(DB, &db);
    node.holds(WEB, &web);
    let watchdog = watchdogs(dir.path());
    node.kill_group();
    let mut node = Node::start(dir.path(), "1");
    node.deadlines(&[(DB, LATE)]);
    node.holds(DB, &db);
    assert_eq!(watchdogs(dir.path()), watchdog, "the same process");
    // What it does not name keeps its deadline.
    assert_eq!(web.ended(), Signal::KILL);
    assert!(db.runs());
    node.deadlines(&[(DB, 0)]);
    assert_eq!(db.ended(), Signal::KILL);
}

#[test]
fn a_watchdog_that_is_killed_is_replaced_and_told_everything() {
    let (dir, mut db) = (dir(), Instance::start());
    let mut node = Node::start(dir.path(), "1");
    node.deadlines(&[(DB, SOON)]);
    node.holds(DB, &db);
    let first = watchdogs(dir.path())[0];
    pidfd(first).signal(Signal::KILL);
    node.reports("problem it has ended");
    node.reports("no problem");
    let second = watchdogs(dir.path());
    assert!(second.len() == 1 && second != [first], "{second:?}");
    node.kill_group();
    assert_eq!(db.ended(), Signal::KILL);
}

#[test]
fn a_watchdog_that_hangs_is_replaced_and_told_everything() {
    let (dir, mut db) = (dir(), Instance::start());
    let mut node = Node::start(dir.path(), "1");
    node.renews(DB, 2 * SOON);
    node.holds(DB, &db);
    let first = pidfd(watchdogs(dir.path())[0]);
    first.signal(Signal::STOP);
    first.ended();
    node.reports("problem it does not answer");
    node.reports("no problem");
    node.kill_group();
    assert_eq!(db.ended(), Signal::KILL);
}

#[test]
fn a_watchdog_that_hangs_since_before_its_node_started_is_replaced() {
    let (dir, mut db) = (dir(), Instance::start());
    let mut node = Node::start(dir.path(), "1");
    node.deadlines(&[(DB, LATE)]);
    node.holds(DB, &db);
    let first = pidfd(watchdogs(dir.path())[0]);
    first.signal(Signal::STOP);
    node.kill_group();
    let mut node = Node::start(dir.path(), "1");
    first.ended();
    node.deadlines(&[(DB, SOON)]);
    node.holds(DB, &db);
    assert_eq!(db.ended(), Signal::KILL);
}

#[test]
fn a_process_that_has_the_id_of_one_before_is_not_killed() {
    let (dir, other, mut web) = (dir(), Instance::start(), Instance::start());
    let mut node = Node::start(dir.path(), "1");
    node.deadlines(&[(DB, SOON), (WEB, SOON)]);
    node.holds_process(DB, other.pid(), other.start_time() - 1);
    node.holds(WEB, &web);
    assert_eq!(web.ended(), Signal::KILL);
    // Both were due in the same search, or this one's before.
    let mut last = Instance::start();
    node.deadlines(&[(DB, 0), ("shop/last.1@ab", SOON)]);
    node.holds("shop/last.1@ab", &last);
    assert_eq!(last.ended(), Signal::KILL);
    assert!(other.runs());
}

#[test]
fn a_target_whose_deadline_has_passed_is_not_confirmed() {
    let (dir, mut db) = (dir(), Instance::start());
    let mut node = Node::start(dir.path(), "1");
    node.deadlines(&[(DB, 0)]);
    node.target(DB, db.pid(), db.start_time());
    node.reports("not held its lease ended before it was started");
    assert_eq!(db.ended(), Signal::KILL);
}

#[test]
fn a_node_of_another_version_replaces_the_watchdog_and_hands_its_state_over() {
    let (dir, mut db) = (dir(), Instance::start());
    let mut node = Node::start(dir.path(), "1");
    node.deadlines(&[(DB, 2 * SOON)]);
    node.holds(DB, &db);
    let first = watchdogs(dir.path())[0];
    let ended = pidfd(first);
    node.kill_group();
    let mut node = Node::start(dir.path(), "2");
    ended.ended();
    let second = watchdogs(dir.path());
    assert!(second.len() == 1 && second != [first], "{second:?}");
    node.kill_group();
    assert_eq!(db.ended(), Signal::KILL);
}

#[test]
fn a_node_says_why_there_is_no_watchdog() {
    let (dir, db) = (dir(), Instance::start());
    let mut node = Node::start(dir.path(), roles::NO_WATCHDOG);
    node.deadlines(&[(DB, LATE)]);
    node.target(DB, db.pid(), db.start_time());
    node.reports("problem it ended at its start; its error is in the log of vc-node");
    node.reports("not held the watchdog does not run: it ended at its start; its error is in the log of vc-node");
}
