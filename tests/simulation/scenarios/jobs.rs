//! Jobs: instances that run to completion.

use vc_engine::{Mutation, report};
use vc_protocol::control::{RolloutState, ServiceRow};
use vc_protocol::instance::InstanceState;
use vc_protocol::spec::{Dependency, Deployment, RestartCondition, ServiceMode};

use super::{cluster, running_on, started_and_stopped};
use vc_simulation::services::{deploy, service};
use vc_simulation::world::World;

/// Returns a job whose containers exit with a code after a time.
fn job(total: u32, code: i64, after_ms: u64) -> Deployment {
    let mut job = service("import", total);
    job.spec.mode = ServiceMode::ReplicatedJob;
    let command = ["exit".to_owned(), code.to_string(), after_ms.to_string()];
    job.spec.container.command = Some(command.into());
    job
}

fn row(world: &World, index: usize) -> ServiceRow {
    let rows = report::services(&world.engine(index).view());
    rows.into_iter().find(|row| row.service.service.as_str() == "import").expect("the job")
}

/// Returns how many containers run in all.
fn running(world: &World) -> usize {
    world.running().into_iter().map(|index| running_on(world, index)).sum()
}

#[test]
fn a_job_runs_each_slot_once_with_a_bound_on_how_many_run_at_a_time() {
    let mut world = cluster(3, "a_job_runs_each_slot_once");
    let cursor = world.history.cursor();
    let mut wanted = job(7, 0, 4_000);
    wanted.spec.max_concurrent = 2;
    world.command(0, deploy(wanted));
    let mut most = 0;
    for _ in 0..600 {
        world.run(100);
        most = most.max(running(&world));
    }
    assert_eq!(most, 2);
    assert_eq!(started_and_stopped(&world, cursor), (7, 0));
    for index in 0..3 {
        let row = row(&world, index);
        assert_eq!((row.succeeded, row.failed, row.running), (7, 0, 0));
        assert_eq!(row.rollout.state, RolloutState::Complete);
    }
    let rows = report::instances(&world.engine(0).view());
    assert!(rows.iter().all(|it| it.ended && it.current && it.state == InstanceState::Completed));
    assert_eq!(rows.len(), 7, "their containers are kept for their logs");
}

#[test]
fn what_has_completed_is_not_run_again_when_its_node_dies_or_leaves() {
    let mut world = cluster(3, "what_has_completed_is_not_run_again");
    world.command(0, deploy(job(6, 0, 2_000)));
    world.run(60_000);
    assert_eq!(row(&world, 0).succeeded, 6);
    let cursor = world.history.cursor();
    world.kill_host(2);
    world.run(world.rescheduling_bound());
    world.command(0, Mutation::Leave { node: "m2".to_owned(), force: true });
    world.run(60_000);
    assert_eq!(started_and_stopped(&world, cursor), (0, 0));
    assert_eq!(row(&world, 1).succeeded, 6, "the documents of a former member say so");
}

#[test]
fn what_a_dead_node_had_not_completed_runs_on_another() {
    let mut world = cluster(3, "had_not_completed_runs_on_another");
    world.command(0, deploy(job(6, 0, 60_000)));
    world.run(20_000);
    assert_eq!(running(&world), 6);
    let lost = running_on(&world, 2);
    let cursor = world.history.cursor();
    world.kill_host(2);
    world.run(100_000);
    assert_eq!(started_and_stopped(&world, cursor).0, lost);
    assert_eq!(row(&world, 0).succeeded, 6);
    world.boot(2);
    world.run(60_000);
    assert_eq!(started_and_stopped(&world, cursor).0, lost, "nothing runs on its return");
}

#[test]
fn a_failing_run_is_retried_by_its_policy_and_then_fails_the_job() {
    let mut world = cluster(3, "a_failing_run_is_retried");
    let cursor = world.history.cursor();
    let mut failing = job(1, 3, 40_000);
    failing.spec.container.restart.condition = RestartCondition::OnFailure;
    failing.spec.container.restart.max_attempts = Some(2);
    failing.spec.container.restart.delay_ms = Some(1_000);
    world.command(0, deploy(failing.clone()));
    world.run(300_000);
    assert_eq!(started_and_stopped(&world, cursor).0, 3, "the first time, and two more");
    let row = row(&world, 1);
    assert_eq!((row.succeeded, row.failed, row.rollout.state), (0, 1, RolloutState::Paused));
    assert!(row.rollout.reason.contains("exited with code 3"), "{}", row.rollout.reason);
    let rows = report::instances(&world.engine(2).view());
    assert!(rows.iter().all(|it| it.terminal && it.state == InstanceState::Failed));
}

#[test]
fn each_deployment_of_a_job_runs_it_anew() {
    let mut world = cluster(3, "each_deployment_of_a_job");
    let cursor = world.history.cursor();
    for times in 1..=3 {
        world.command(times % 3, deploy(job(2, 0, 2_000)));
        world.run(40_000);
        assert_eq!(started_and_stopped(&world, cursor).0, times * 2);
        assert_eq!(row(&world, 0).succeeded, 2);
        assert_eq!(report::instances(&world.engine(0).view()).len(), 2, "of the last one only");
    }
    world.command(0, Mutation::Remove("import".to_owned()));
    world.run(40_000);
    assert!(report::instances(&world.engine(0).view()).is_empty());
    let runs = world.engine(0).view().nodes.values().map(|it| it.runs.len()).sum::<usize>();
    assert_eq!(runs, 0, "what is removed is forgotten");
}

#[test]
fn a_global_job_runs_once_on_each_node_also_on_those_that_join_later() {
    let mut world = cluster(3, "a_global_job_runs_once_on_each_node");
    let cursor = world.history.cursor();
    let mut wanted = job(1, 0, 2_000);
    wanted.spec.mode = ServiceMode::GlobalJob;
    world.command(0, deploy(wanted));
    world.run(60_000);
    assert_eq!(started_and_stopped(&world, cursor).0, 3);
    let now = row(&world, 0);
    assert_eq!((now.replicas, now.succeeded), (3, 3));
    assert_eq!(now.rollout.state, RolloutState::Complete);
    world.join(vc_simulation::services::resources(4000, 4096));
    world.run(60_000);
    assert_eq!(started_and_stopped(&world, cursor).0, 4);
    assert_eq!(row(&world, 0).succeeded, 4);
}

#[test]
fn a_service_waits_until_all_runs_of_the_job_that_it_depends_on_have_completed() {
    let mut world = cluster(3, "all_runs_of_the_job_that_it_depends_on");
    let mut web = service("web", 2);
    let import = "import".parse().expect("a name");
    web.spec.depends_on.insert(import, Dependency::ServiceCompletedSuccessfully);
    let mut slow = job(3, 0, 10_000);
    slow.spec.max_concurrent = 1;
    let deployments = vec![slow, web];
    let both =
        Mutation::Deploy { deployments, files: Default::default(), projects: None, trace: None };
    world.command(0, both);
    world.run(25_000);
    let web = |world: &World| {
        let rows = report::services(&world.engine(0).view());
        rows.into_iter().find(|row| row.service.service.as_str() == "web").expect("web").running
    };
    assert_eq!(web(&world), 0);
    world.run(60_000);
    assert_eq!((row(&world, 0).succeeded, web(&world)), (3, 2));
}
