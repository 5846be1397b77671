//! Services that run at the times of a schedule.

use std::collections::BTreeMap;

use vc_engine::{Mutation, report};
use vc_protocol::Millis;
use vc_protocol::run::Skipped;
use vc_protocol::spec::{Deployment, Overlap, RestartCondition, Schedule, ServiceMode};

use super::{cluster, running_on, started_and_stopped};
use vc_simulation::history::{Action, Cursor};
use vc_simulation::services::{deploy, service, version};
use vc_simulation::world::World;

const MINUTE: Millis = 60_000;

/// Returns a service that runs every minute, for a time.
fn every_minute(after_ms: u64) -> Deployment {
    let mut backup = service("backup", 1);
    backup.spec.mode = ServiceMode::ReplicatedJob;
    backup.spec.schedule = Some(Schedule::new("* * * * *"));
    backup.spec.container.restart.condition = RestartCondition::None;
    let command = ["exit".to_owned(), "0".to_owned(), after_ms.to_string()];
    backup.spec.container.command = Some(command.into());
    backup
}

fn schedule(deployment: &mut Deployment) -> &mut Schedule {
    deployment.spec.schedule.as_mut().expect("a schedule")
}

/// Returns how often each time of the schedule has run since `cursor`.
fn times(world: &World, cursor: Cursor) -> BTreeMap<u32, usize> {
    let mut times = BTreeMap::new();
    for entry in world.history.since(cursor) {
        if let Action::Started(id) = &entry.action {
            *times.entry(id.slot.replica).or_default() += 1;
        }
    }
    times
}

/// Returns how the runs ended, by time, as a node sees it.
fn ends(world: &World, index: usize) -> BTreeMap<u32, Option<Option<i64>>> {
    let view = world.engine(index).view();
    let key = "shop/backup".parse().expect("a service");
    let runs = view.runs.of_service(&key);
    runs.map(|(slot, run)| (slot.replica, run.record.end.as_ref().map(|end| end.code))).collect()
}

/// Returns the times at which nothing ran, and why.
fn skipped(world: &World, index: usize) -> Vec<Skipped> {
    let view = world.engine(index).view();
    let key = "shop/backup".parse().expect("a service");
    view.runs.due(&key).filter_map(|(_, due)| due.skipped).collect()
}

#[test]
fn a_service_runs_once_at_each_time_and_every_node_knows_how_it_ended() {
    let mut world = cluster(3, "a_service_runs_once_at_each_time");
    world.command(0, deploy(every_minute(5_000)));
    let cursor = world.history.cursor();
    world.run(5 * MINUTE);
    let times = times(&world, cursor);
    assert_eq!(times.len(), 5);
    assert!(times.keys().all(|time| time % 60 == 0) && times.values().all(|&count| count == 1));
    for index in 0..3 {
        let ends = ends(&world, index);
        assert_eq!(ends.keys().collect::<Vec<_>>(), times.keys().collect::<Vec<_>>());
        assert!(ends.values().all(|end| *end == Some(Some(0))));
    }
    let problems = report::instances(&world.engine(1).view());
    assert!(problems.iter().all(|row| row.ended), "{problems:?}");
    world.command(1, Mutation::Scale { service: "backup".to_owned(), replicas: 0 });
    let cursor = world.history.cursor();
    world.run(3 * MINUTE);
    assert_eq!(started_and_stopped(&world, cursor).0, 0, "scaled to 0 it rests");
    world.command(1, Mutation::Remove("backup".to_owned()));
    world.run(MINUTE);
    let left = |index| {
        world
            .engine(index)
            .view()
            .nodes
            .values()
            .map(|it| it.due.len() + it.runs.len())
            .sum::<usize>()
    };
    assert_eq!([0, 1, 2].map(left), [0; 3], "what is removed is forgotten");
}

#[test]
fn clocks_that_are_set_run_nothing_twice_and_one_wrong_clock_runs_nothing_early() {
    let mut world = cluster(3, "clocks_that_are_set_run_nothing_twice");
    world.command(0, deploy(every_minute(2_000)));
    let cursor = world.history.cursor();
    world.run(2 * MINUTE);
    for index in 0..3 {
        world.nodes[index].clocks.step_wall(-90_000);
    }
    world.run(4 * MINUTE);
    let times_then = times(&world, cursor);
    assert!(times_then.values().all(|&count| count == 1), "{times_then:?}");
    let before = times_then.len();
    world.nodes[1].clocks.step_wall(3_600_000);
    world.run(3 * MINUTE);
    let times_now = times(&world, cursor);
    assert_eq!(times_now.len(), before + 3, "the other two nodes have the time");
    assert!(times_now.values().all(|&count| count == 1));
    for index in 0..3 {
        world.nodes[index].clocks.step_wall(600_000);
    }
    world.run(3 * MINUTE);
    let times_then = times(&world, cursor);
    assert!(times_then.values().all(|&count| count == 1), "{times_then:?}");
    assert!(
        times_then.len() <= before + 3 + 4,
        "of ten minutes that were left out, one runs at most"
    );
}

#[test]
fn a_clock_that_steps_begins_nothing_although_its_node_has_not_compared_it_yet() {
    let mut world = cluster(3, "a_clock_that_steps_begins_nothing");
    world.command(0, deploy(every_minute(2_000)));
    let cursor = world.history.cursor();
    world.run(2 * MINUTE);
    for round in 0..12_u8 {
        let index = usize::from(round % 3);
        world.nodes[index].clocks.step_wall(3_600_000);
        // Before a heartbeat of another node, so that its schedules are looked through.
        world.command(index, deploy(service("web", u32::from(round % 2) + 1)));
        world.run(1_000 + 137 * Millis::from(round));
        world.nodes[index].clocks.step_wall(-3_600_000);
        world.run(MINUTE);
    }
    let mut times = times(&world, cursor);
    times.retain(|&time, _| time > 2); // the replicas of the other service
    assert!(times.values().all(|&count| count == 1), "{times:?}");
    let (first, last) = (times.keys().min().expect("one"), times.keys().max().expect("one"));
    assert!(last - first < 3600, "none is of the wrong clock: {times:?}");
    assert!(times.len() >= 12, "and none is left out for it: {times:?}");
}

#[test]
fn nothing_runs_twice_for_one_time_through_a_partition() {
    let mut world = cluster(3, "nothing_runs_twice_for_one_time");
    world.command(0, deploy(every_minute(20_000)));
    let cursor = world.history.cursor();
    for round in 0..9_u64 {
        world.run(MINUTE + 1_300 * round);
        let alone = usize::try_from(round % 3).expect("an index");
        let rest: Vec<usize> = (0..3).filter(|it| *it != alone).collect();
        world.partition(&[&[alone], &rest]);
        world.run(25_000 + 3_100 * round);
        world.heal();
    }
    world.run(3 * MINUTE);
    let times = times(&world, cursor);
    assert!(times.values().all(|&count| count == 1), "{times:?}");
    assert!(times.len() > 10, "the side with most voters goes on: {times:?}");
    assert_eq!(running_on(&world, 0) + running_on(&world, 1) + running_on(&world, 2), 0);
}

#[test]
fn a_run_whose_node_dies_is_lost_and_the_next_one_begins() {
    let mut world = cluster(3, "a_run_whose_node_dies_is_lost");
    world.command(0, deploy(every_minute(40_000)));
    let cursor = world.history.cursor();
    world.run_until(2 * MINUTE, "a run is under way", |world| {
        let runs = (0..3).any(|index| running_on(world, index) > 0);
        runs.then_some(()).ok_or_else(|| vc_simulation::check::Violation("none runs".to_owned()))
    });
    let victim = (0..3).find(|&index| running_on(&world, index) > 0).expect("a node");
    world.kill_host(victim);
    world.run(3 * MINUTE);
    let other = (victim + 1) % 3;
    let times = times(&world, cursor);
    assert!(times.values().all(|&count| count == 1), "{times:?}");
    assert!(times.len() >= 3, "{times:?}");
    world.boot(victim);
    world.run(2 * MINUTE);
    let first = *times.keys().next().expect("a time");
    let end = ends(&world, other)[&first];
    assert!(end.is_some_and(|code| code != Some(0)), "it is known to be lost: {end:?}");
    let times = self::times(&world, cursor);
    assert!(times.values().all(|&count| count == 1), "{times:?}");
}

#[test]
fn a_run_goes_on_when_the_process_of_its_node_is_killed() {
    let mut world = cluster(3, "a_run_goes_on_when_the_process");
    world.command(0, deploy(every_minute(30_000)));
    let cursor = world.history.cursor();
    for _ in 0..6 {
        world.run(MINUTE - 7_000);
        for index in 0..3 {
            world.kill_process(index);
            world.boot(index);
        }
    }
    world.run(2 * MINUTE);
    let times = times(&world, cursor);
    assert!(times.values().all(|&count| count == 1), "{times:?}");
    assert!(times.len() >= 5, "{times:?}");
    assert!(ends(&world, 0).values().all(Option::is_some));
}

#[test]
fn with_at_most_once_off_a_run_whose_node_dies_begins_anew_elsewhere() {
    let mut world = cluster(3, "with_at_most_once_off");
    let mut backup = every_minute(100_000);
    schedule(&mut backup).at_most_once = false;
    world.command(0, deploy(backup));
    let cursor = world.history.cursor();
    world.run(MINUTE + 30_000);
    let victim = (0..3).find(|&index| running_on(&world, index) > 0).expect("a node");
    world.kill_host(victim);
    world.run(2 * MINUTE);
    let times = times(&world, cursor);
    assert_eq!(times.values().next(), Some(&2), "{times:?}");
    let end = ends(&world, (victim + 1) % 3).into_values().next();
    assert_eq!(end, Some(Some(Some(0))));
}

#[test]
fn overlapping_runs_are_skipped_replaced_or_run_beside_each_other() {
    let run = |overlap: Overlap, name: &str| {
        let mut world = cluster(3, name);
        let mut backup = every_minute(150_000);
        schedule(&mut backup).overlap = overlap;
        world.command(0, deploy(backup));
        let cursor = world.history.cursor();
        let mut most = 0;
        for _ in 0..600 {
            world.run(1_000);
            most = most.max((0..3).map(|index| running_on(&world, index)).sum::<usize>());
        }
        let times = times(&world, cursor);
        assert!(times.values().all(|&count| count == 1), "{times:?}");
        let ended = ends(&world, 0).values().filter(|end| **end == Some(Some(0))).count();
        (most, times.len(), ended, skipped(&world, 0).len())
    };
    let (most, began, ended, skipped) = run(Overlap::Forbid, "overlap_forbid");
    assert!(most == 1 && began <= 4 && ended >= 3 && skipped > 3, "{began} {ended} {skipped}");
    let (most, began, ended, skipped) = run(Overlap::Replace, "overlap_replace");
    assert!(most == 1 && began >= 9 && ended == 0 && skipped == 0, "{began} {ended} {skipped}");
    let (most, began, ended, skipped) = run(Overlap::Allow, "overlap_allow");
    assert!(
        most == 3 && began >= 9 && ended >= 6 && skipped == 0,
        "{most} {began} {ended} {skipped}"
    );
}

#[test]
fn of_times_that_passed_while_the_cluster_was_down_the_newest_runs_if_it_may_be_late() {
    for (catch_up_ms, late) in [(0, 0), (60 * MINUTE, 1)] {
        let mut world = cluster(3, "times_that_passed_while_the_cluster_was_down");
        let mut backup = every_minute(2_000);
        *schedule(&mut backup) = Schedule { catch_up_ms, ..Schedule::new("*/10 * * * *") };
        world.command(0, deploy(backup));
        world.run(MINUTE);
        for index in 0..3 {
            world.kill_host(index);
        }
        world.run(33 * MINUTE);
        let cursor = world.history.cursor();
        for index in 0..3 {
            world.boot(index);
        }
        world.run(MINUTE + 30_000);
        assert_eq!(times(&world, cursor).len(), late, "{catch_up_ms}");
        let view = world.engine(0).view();
        let key = "shop/backup".parse().expect("a service");
        let (_, due) = view.runs.due(&key).next_back().expect("a time");
        assert_eq!((due.missed, due.skipped.is_some()), (2, late == 0));
        world.run(10 * MINUTE);
        assert_eq!(times(&world, cursor).len(), late + 1, "and it goes on");
    }
}

#[test]
fn a_run_that_takes_too_long_is_stopped_and_a_new_deployment_does_not_disturb_one() {
    let mut world = cluster(3, "a_run_that_takes_too_long");
    let mut backup = every_minute(45_000);
    schedule(&mut backup).timeout_ms = 30_000;
    world.command(0, deploy(backup));
    world.run(3 * MINUTE);
    let failed = ends(&world, 0).values().filter(|end| **end == Some(None)).count();
    assert!(failed >= 2, "{:?}", ends(&world, 0));
    let cursor = world.history.cursor();
    world.command(0, deploy(every_minute(45_000)));
    world.run_until(2 * MINUTE, "a run is under way", |world| {
        let runs = (0..3).any(|index| running_on(world, index) > 0);
        runs.then_some(()).ok_or_else(|| vc_simulation::check::Violation("none runs".to_owned()))
    });
    world.command(1, deploy(version(every_minute(45_000), 2)));
    world.run(2 * MINUTE);
    let times = times(&world, cursor);
    assert!(times.values().all(|&count| count == 1), "{times:?}");
    let first = *times.keys().next().expect("a time");
    assert_eq!(ends(&world, 2)[&first], Some(Some(0)), "it has ended by itself");
}

#[test]
fn a_schedule_goes_on_after_the_only_clock_was_wrong_by_a_year() {
    let mut world = cluster(1, "the_only_clock_was_wrong_by_a_year");
    world.command(0, deploy(every_minute(2_000)));
    world.run(2 * MINUTE);
    let year = 365 * 24 * 3_600_000;
    world.nodes[0].clocks.step_wall(year);
    // Longer than it remembers.
    world.run(13 * MINUTE);
    world.nodes[0].clocks.step_wall(-year);
    let cursor = world.history.cursor();
    world.run(15 * MINUTE);
    let times = times(&world, cursor);
    assert!(times.len() >= 14 && times.values().all(|&count| count == 1), "{times:?}");
}

/// Returns a service whose runs are begun by hand.
fn by_hand(code: i64, after_ms: u64) -> Deployment {
    let mut backup = every_minute(after_ms);
    *schedule(&mut backup) = Schedule::new("0 0 1 1 *");
    let command = ["exit".to_owned(), code.to_string(), after_ms.to_string()];
    backup.spec.container.command = Some(command.into());
    backup
}

fn run_job() -> Mutation {
    Mutation::RunJob { service: "backup".to_owned() }
}

fn scale(replicas: u32) -> Mutation {
    Mutation::Scale { service: "backup".to_owned(), replicas }
}

/// Returns the reasons of the runs that are remembered, the newest first.
fn reasons(world: &World, index: usize) -> Vec<String> {
    let key = "shop/backup".parse().expect("a service");
    let rows = report::runs(&world.engine(index).view(), &key);
    rows.into_iter().map(|row| row.reason).collect()
}

#[test]
fn a_run_that_becomes_wanted_again_while_it_is_removed_is_not_started_again() {
    let mut world = cluster(3, "wanted_again_while_it_is_removed");
    world.runtime_faults.stop = (5_000, 5_000);
    world.command(0, deploy(by_hand(0, 40_000)));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.command(0, run_job());
    world.run(10_000);
    world.command(1, scale(0));
    world.run(2_000);
    world.command(1, scale(1));
    world.run(MINUTE);
    assert_eq!(started_and_stopped(&world, cursor), (1, 1));
    assert_eq!(reasons(&world, 2), ["its container was removed before it ended"]);
    world.command(2, run_job());
    world.run(MINUTE);
    assert_eq!(started_and_stopped(&world, cursor), (2, 1), "the next one runs");
}

#[test]
fn a_run_whose_runtime_was_away_for_long_is_not_started_again() {
    let mut world = cluster(3, "whose_runtime_was_away_for_long");
    world.command(0, deploy(by_hand(0, 400_000)));
    world.converge(20_000);
    for away in [12_000, 120_000] {
        let cursor = world.history.cursor();
        world.command(0, run_job());
        world.run(10_000);
        let index = (0..3).find(|&index| running_on(&world, index) > 0).expect("a node");
        world.nodes[index].runtime.keeps_exited = false;
        world.set_runtime_available(index, false, true);
        world.run(away);
        world.set_runtime_available(index, true, false);
        world.run(2 * MINUTE);
        assert_eq!(started_and_stopped(&world, cursor).0, 1, "{away}");
        assert!(ends(&world, 0).values().all(Option::is_some), "{away}");
    }
}

#[test]
fn a_run_that_fails_after_its_process_was_killed_is_tried_again_by_its_policy() {
    let mut world = cluster(3, "fails_after_its_process_was_killed");
    let mut backup = by_hand(1, 30_000);
    backup.spec.container.restart.condition = RestartCondition::OnFailure;
    backup.spec.container.restart.max_attempts = Some(1);
    world.command(0, deploy(backup));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.command(0, run_job());
    world.run(10_000);
    let index = (0..3).find(|&index| running_on(&world, index) > 0).expect("a node");
    world.kill_process(index);
    world.boot(index);
    world.run(2 * MINUTE);
    assert_eq!(started_and_stopped(&world, cursor), (2, 0));
    assert_eq!(ends(&world, 0).into_values().collect::<Vec<_>>(), [Some(Some(1))]);
}

#[test]
fn a_run_by_hand_after_clocks_that_were_far_ahead_has_the_present_time() {
    let mut world = cluster(3, "clocks_that_were_far_ahead");
    world.command(0, deploy(by_hand(0, 2_000)));
    world.converge(20_000);
    let cursor = world.history.cursor();
    let month = 30 * 86_400;
    for step in [0, month, -month] {
        for index in 0..3 {
            world.nodes[index].clocks.step_wall(step * 1000);
        }
        world.run(MINUTE);
        world.command(0, run_job());
        world.run(MINUTE);
    }
    let times = times(&world, cursor);
    let since =
        |time: &u32| i64::from(*time) - times.keys().map(|it| i64::from(*it)).min().unwrap_or(0);
    let since: Vec<i64> = times.keys().map(since).collect();
    assert!(since.len() == 3 && since[1] < 1_000 && since[2] >= month, "{since:?}");
}

#[test]
fn a_run_by_hand_is_remembered_as_long_as_any_document_has_its_time() {
    let mut world = cluster(3, "remembered_as_long_as_any_document");
    let mut backup = every_minute(2_000);
    schedule(&mut backup).keep = 2;
    world.command(0, deploy(backup));
    world.converge(20_000);
    let cursor = world.history.cursor();
    world.run_until(MINUTE, "a run has ended", |world| {
        let ended = ends(world, 0).values().any(Option::is_some);
        ended.then_some(()).ok_or_else(|| vc_simulation::check::Violation("none".to_owned()))
    });
    for index in 0..3 {
        world.run(5_000);
        world.command(index, run_job());
        world.run(8_000);
    }
    world.run(6 * MINUTE);
    let times = times(&world, cursor);
    assert!(times.len() >= 8 && times.values().all(|&count| count == 1), "{times:?}");
    assert_eq!(skipped(&world, 0), [], "what has run was not missed");
    let left = |index: usize| {
        let view = world.engine(0).view();
        let state = view.nodes.values().nth(index).expect("a node").clone();
        state.due.len().max(state.runs.len())
    };
    assert!((0..3).all(|index| left(index) <= 3), "{:?}", [0, 1, 2].map(left));
}

#[test]
fn the_eleventh_run_beside_others_is_skipped_and_stops_none() {
    let mut world = cluster(3, "the_eleventh_run_beside_others");
    let mut backup = every_minute(11 * MINUTE + 30_000);
    schedule(&mut backup).overlap = Overlap::Allow;
    world.command(0, deploy(backup));
    let cursor = world.history.cursor();
    let mut most = 0;
    for _ in 0..150 {
        world.run(6_000);
        most = most.max((0..3).map(|index| running_on(&world, index)).sum::<usize>());
    }
    assert_eq!((most, started_and_stopped(&world, cursor).1), (10, 0));
    let times = times(&world, cursor);
    assert!(times.len() > 10 && times.values().all(|&count| count == 1), "{times:?}");
    let skipped = skipped(&world, 0);
    assert!(!skipped.is_empty() && skipped.iter().all(|it| *it == Skipped::Overlap), "{skipped:?}");
    let why = "10 runs were under way, the most at a time";
    assert!(reasons(&world, 0).iter().any(|reason| reason == why), "{:?}", reasons(&world, 0));
}

#[test]
fn times_that_pass_while_a_schedule_is_scaled_to_0_are_not_missed() {
    let mut world = cluster(3, "scaled_to_0_are_not_missed");
    let mut backup = every_minute(40_000);
    schedule(&mut backup).overlap = Overlap::Replace;
    world.command(0, deploy(backup));
    world.run_until(2 * MINUTE, "a run is under way", |world| {
        let runs = (0..3).any(|index| running_on(world, index) > 0);
        runs.then_some(()).ok_or_else(|| vc_simulation::check::Violation("none runs".to_owned()))
    });
    world.command(0, scale(0));
    world.run(10 * MINUTE + 30_000);
    assert_eq!(reasons(&world, 1)[0], "stopped as its service was scaled to 0");
    let cursor = world.history.cursor();
    world.command(2, scale(1));
    world.run(3 * MINUTE);
    assert!((2..=3).contains(&times(&world, cursor).len()), "{:?}", times(&world, cursor));
    let view = world.engine(0).view();
    let key = "shop/backup".parse().expect("a service");
    assert!(view.runs.due(&key).all(|(_, due)| due.missed == 0 && due.skipped.is_none()));
}

#[test]
fn a_run_can_be_begun_and_stopped_by_hand() {
    let mut world = cluster(3, "a_run_can_be_begun_and_stopped_by_hand");
    let mut backup = every_minute(20_000);
    *schedule(&mut backup) = Schedule::new("0 0 1 1 *");
    world.command(0, deploy(backup));
    world.converge(20_000);
    let cursor = world.history.cursor();
    let service = || "backup".to_owned();
    world.command(1, Mutation::RunJob { service: service() });
    world.run(5_000);
    let why = world.refused_command(2, Mutation::RunJob { service: service() });
    assert!(why.contains("overlap: forbid"), "{why}");
    world.run(30_000);
    world.command(2, Mutation::RunJob { service: service() });
    world.run(5_000);
    world.command(0, Mutation::StopRun { service: service(), run: None });
    world.run(20_000);
    assert_eq!(started_and_stopped(&world, cursor), (2, 1));
    let key = "shop/backup".parse().expect("a service");
    let rows = report::runs(&world.engine(1).view(), &key);
    let told: Vec<_> = rows.iter().map(|row| (row.exit_code, row.by.as_str())).collect();
    assert_eq!(told, [(None, "ada"), (Some(0), "ada")]);
    assert_eq!(rows[0].reason, "stopped by a person");
    let why = world.refused_command(2, Mutation::StopRun { service: service(), run: None });
    assert!(why.contains("no such run"), "{why}");
}
