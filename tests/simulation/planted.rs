//! The simulator finds each bug of `protocol/src/planted.rs`, by a run of `planted.txt` that is a good one without it.

use vc_protocol::planted::PlantedBug;
use vc_simulation::{Settings, run, seeds};

/// The seeds, from 0 on, within which each bug is found.
const LIMIT: u64 = 200;

macro_rules! finds {
    ($($bug:ident)*) => {
        /// The names of the tests below.
        const TESTED: &[&str] = &[$(stringify!($bug),)*];
        $(#[test] fn $bug() { finds(stringify!($bug)); })*
    };
}

finds! {
    answer_before_write
    no_startup_hold
    early_heartbeat
    reuse_actor
    one_generation
    no_checkpoint
    no_refutation
    chatter
    no_replay
    repeated_generation
    late_changes_lost
    newest_schema
    newest_rules
    ports_twice
    cpu_overcommitted
    unchecked_disk
    eager_voter
    unwritten_votes
    same_epoch
    long_lease
    no_watchdog
    unready_volume
    old_snapshot
}

/// Planted bugs that no run among the first [`LIMIT`] seeds finds so far, or none that is short enough for a test.
const MISSED: [&str; 6] = [
    "forget_accusations",
    "forget_results",
    "hasty_checkpoint",
    "stale_claims",
    "same_lamport",
    "dropped_copy",
];

#[test]
fn every_planted_bug_is_found_or_said_to_be_missed() {
    let names = PlantedBug::ALL.iter().map(|bug| bug.name().replace('-', "_"));
    let known = |name: &String| TESTED.contains(&name.as_str()) != MISSED.contains(&name.as_str());
    assert_eq!(names.filter(|name| !known(name)).collect::<Vec<_>>(), [""; 0]);
}

fn finds(test: &str) {
    let bug = PlantedBug::parse(&test.replace('_', "-")).expect("a bug of this name");
    let runs = seeds::parse(include_str!("planted.txt")).expect("well-formed lines");
    let found = runs.into_iter().find(|it| it.plant == Some(bug)).expect("a run that finds it");
    assert!(found.seed < LIMIT, "{found}");
    let without = Settings { plant: None, ..found.clone() };
    let failure = run(&without).failure;
    assert!(failure.is_none(), "{}: {}", without.command(), failure.expect("one").message);
    assert!(run(&found).failure.is_some(), "not found by {}", found.command());
}
