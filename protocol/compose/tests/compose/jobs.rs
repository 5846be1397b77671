//! Modes of services, and schedules.

use vc_protocol::spec::{Overlap, RestartCondition, Schedule, ServiceMode};

use crate::{all_refused, service};

#[test]
fn modes_are_read() {
    for mode in ServiceMode::ALL {
        let read = service(&format!("deploy: {{mode: {}}}", mode.as_str())).unwrap();
        assert_eq!(read.spec.mode, mode);
    }
    let job = service("deploy: {mode: replicated-job, replicas: 20}\nx-vc: {max_concurrent: 4}");
    let job = job.unwrap();
    assert_eq!((job.replicas, job.spec.max_concurrent), (Some(20), 4));
    let global = service("deploy: {mode: global, replicas: 3}").unwrap();
    assert_eq!(global.replicas, None, "it has no effect");
}

#[test]
fn a_schedule_makes_a_job_that_is_not_retried() {
    let read = service("x-vc: {schedule: '0 3 * * *'}").unwrap();
    assert_eq!(read.spec.schedule, Some(Schedule::new("0 3 * * *")));
    assert_eq!(read.spec.mode, ServiceMode::ReplicatedJob);
    assert_eq!(read.spec.container.restart.condition, RestartCondition::None);
    let all = "x-vc: {schedule: '@hourly', time_zone: Europe/Vienna, overlap: replace, catch_up: 2h, timeout: 10m, keep: 3, at_most_once: false}\nrestart: on-failure:2";
    let read = service(all).unwrap();
    let expected = Schedule {
        expression: "@hourly".to_owned(),
        time_zone: "Europe/Vienna".to_owned(),
        overlap: Overlap::Replace,
        catch_up_ms: 7_200_000,
        timeout_ms: 600_000,
        keep: 3,
        at_most_once: false,
    };
    assert_eq!(read.spec.schedule, Some(expected));
    assert_eq!(read.spec.container.restart.max_attempts, Some(2));
}

#[test]
fn what_jobs_cannot_be_is_refused() {
    let path = "services.s";
    all_refused(&[
        (
            "x-vc: {overlap: allow}",
            &format!("{path}.x-vc.overlap is for a service with x-vc.schedule"),
        ),
        (
            "x-vc: {schedule: '* * * * *', overlap: never}",
            &format!("{path}.x-vc.overlap: 'never' is not known: write forbid, allow or replace"),
        ),
        (
            "x-vc: {schedule: '* * * * *', keep: 0}",
            &format!("{path}.x-vc.keep is not between 1 and 100"),
        ),
        (
            "x-vc: {schedule: '* * * * *', time_zone: Mars/Base}",
            &format!(
                "{path}.x-vc.schedule: 'Mars/Base' is not a time zone: write a name such as Europe/Vienna"
            ),
        ),
        (
            "x-vc: {schedule: '* * * * *'}\ndeploy: {mode: global}",
            &format!(
                "{path} has x-vc.schedule and runs on each node: leave deploy.mode out, a run is one instance"
            ),
        ),
        (
            "x-vc: {schedule: '* * * * *'}\ndeploy: {replicas: 2}",
            &format!(
                "{path} has x-vc.schedule and several replicas: leave them out, a run is one instance"
            ),
        ),
        (
            "x-vc: {max_concurrent: 2}",
            &format!("{path}: max_concurrent is for services with mode: replicated-job"),
        ),
    ]);
}
