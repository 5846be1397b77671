//! Waits until services run their new version and are available.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vc_client::text::one_line;
use vc_client::{Session, expect_reply};
use vc_protocol::control::{InstanceRow, Request, RolloutState, ServiceDetail, ServiceRow};
use vc_protocol::instance::InstanceState;
use vc_protocol::spec::Deployment;
use vc_protocol::{ApiError, ErrorCode, Lamport, ServiceKey};

use super::progress::{Condition, Progress, Status, describe_state, on_node, slot};
use super::{WaitArgs, until};
use crate::app::{App, change_all};
use crate::error::Result;
use crate::render::print;

/// After this many restarts, an instance that has failed again is in a crash loop.
const CRASH_LOOP_RESTARTS: u32 = 3;

/// A service to wait for.
#[derive(Debug, Clone)]
pub(in crate::cmd) struct ServiceTarget {
    service: ServiceKey,
    /// The number of instances; `None`: as many as the cluster lists.
    replicas: Option<u32>,
    healthcheck: bool,
    /// Whether its instances are waited for until they have completed.
    is_job: bool,
}

impl From<&Deployment> for ServiceTarget {
    fn from(deployment: &Deployment) -> Self {
        Self {
            service: deployment.service.clone(),
            replicas: deployment.replicas.filter(|_| !deployment.spec.mode.is_per_node()),
            healthcheck: deployment.spec.container.has_healthcheck(),
            is_job: deployment.spec.mode.is_job(),
        }
    }
}

impl From<&ServiceDetail> for ServiceTarget {
    fn from(detail: &ServiceDetail) -> Self {
        Self {
            service: detail.row.service.clone(),
            replicas: Some(detail.row.replicas).filter(|_| !detail.row.mode.is_per_node()),
            healthcheck: detail.spec.container.has_healthcheck(),
            is_job: detail.row.mode.is_job(),
        }
    }
}

/// Sends requests that change something and prints the changes; with `--wait`, then waits for these services.
pub(in crate::cmd) async fn change(
    app: &App,
    requests: Vec<Request>,
    services: Vec<String>,
    args: WaitArgs,
) -> Result {
    if !args.wait {
        return app.change(requests).await;
    }
    app.in_session(async |session| {
        let mut changes = Vec::new();
        let result = change_all(session, &requests, &mut changes).await;
        if !app.out.is_json() {
            app.out.changes(&changes)?;
        }
        result?;
        let mut targets = BTreeMap::new();
        for service in services {
            let reply = session.ask(&Request::Inspect { service, show_values: false }).await?;
            let target = ServiceTarget::from(expect_reply!(reply, Service)?.as_ref());
            targets.insert(target.service.clone(), target);
        }
        until_running(app, session, targets.into_values().collect(), args.timeout).await
    })
    .await
}

/// Waits until all instances run and are available, and prints the count, or the instances as JSON. Fails when an update
/// fails, an instance is in a crash loop, or `limit` has passed.
pub(in crate::cmd) async fn until_running(
    app: &App,
    session: &mut Session,
    targets: Vec<ServiceTarget>,
    limit: Duration,
) -> Result {
    let services = targets.iter().map(|it| it.service.clone()).collect();
    let mut condition = Running { targets, rows: Vec::new(), revisions: None };
    let waited = until(app, session, services, &mut condition, limit).await?;
    if app.out.is_json() {
        app.out.json(&condition.rows)
    } else {
        print(&format!("{} after {:.1?}\n", waited.count, waited.took))
    }
}

/// Is met when all instances of the targets run the new version and are available.
struct Running {
    targets: Vec<ServiceTarget>,
    /// The last rows.
    rows: Vec<InstanceRow>,
    /// The newest revision of each service, as the node that accepted the change knows it: another may not know it yet.
    revisions: Option<BTreeMap<ServiceKey, Lamport>>,
}

impl Condition for Running {
    fn evaluate(&mut self, services: Vec<ServiceRow>, rows: Vec<InstanceRow>) -> Progress {
        let tally = Tally::of(&self.targets, &services, &rows);
        let current = rows.iter().filter(|row| row.current);
        // After a rollback these are the instances of before, and the error says all.
        let current = current.filter(|row| !is_rolled_back(&services, row));
        let line = |row| describe_version(&services, row) + &on_node(row);
        let states = current.map(|row| (slot(row), line(row))).collect();
        let seen = || services.iter().map(|row| (row.service.clone(), row.revision));
        let known = self.revisions.get_or_insert_with(|| seen().collect());
        let behind = services.len() < known.len()
            || seen().any(|(key, at)| known.get(&key).is_some_and(|&it| at < it));
        let status = match check_failed(&services, &rows) {
            _ if behind => Status::Wait,
            Err(error) => Status::Failed(error.into()),
            Ok(()) if tally.missing.is_empty() => Status::Done,
            Ok(()) => Status::Wait,
        };
        self.rows = rows;
        Progress { count: tally.count(), missing: tally.missing, states, status }
    }
}

/// Why a deployment failed.
#[derive(Debug, thiserror::Error)]
enum DeployError {
    #[error("{service} was rolled back to {to}: {reason}")]
    RolledBack { service: ServiceKey, to: String, reason: String },
    #[error("the job {service} has failed: {reason}")]
    JobFailed { service: ServiceKey, reason: String },
    #[error("the update of {service} is paused: {reason}")]
    Paused { service: ServiceKey, reason: String },
    /// It will not run without another change.
    #[error("{state}")]
    Ended { service: ServiceKey, state: String },
    #[error("{state} and was restarted {restarts} times")]
    CrashLoop { service: ServiceKey, state: String, restarts: u32 },
}

impl From<DeployError> for ApiError {
    fn from(error: DeployError) -> Self {
        let hint = match &error {
            DeployError::RolledBack { service, .. } => format!("see 'vc history {service}'"),
            DeployError::Paused { service, .. } => format!(
                "see 'vc ps {service}'; 'vc rollback {service}' returns to the version before"
            ),
            DeployError::JobFailed { service, .. } => {
                format!("see 'vc logs {service}'; deploying it again runs it again")
            }
            DeployError::Ended { service, .. } => {
                format!("see 'vc ps {service}', and deploy it again when it is mended")
            }
            DeployError::CrashLoop { service, .. } => format!("see 'vc logs {service}'"),
        };
        Self::new(ErrorCode::Aborted, error.to_string()).with_hint(hint)
    }
}

/// Fails when a service will not become available without another change.
fn check_failed(
    services: &[ServiceRow],
    rows: &[InstanceRow],
) -> std::result::Result<(), DeployError> {
    for row in services {
        let (service, reason) = (row.service.clone(), one_line(&row.rollout.reason));
        match row.rollout.state {
            RolloutState::RolledBack => {
                let to = match row.version {
                    0 => "the previous version".to_owned(),
                    version => format!("version {version} ({})", one_line(&row.image)),
                };
                return Err(DeployError::RolledBack { service, to, reason });
            }
            RolloutState::Paused if row.mode.is_job() => {
                return Err(DeployError::JobFailed { service, reason });
            }
            RolloutState::Paused => {
                return Err(DeployError::Paused { service, reason });
            }
            RolloutState::Complete | RolloutState::Updating => {}
        }
    }
    if let Some(row) = rows.iter().find(|row| row.current && row.terminal && !row.ended) {
        return Err(DeployError::Ended { service: row.service.clone(), state: describe(row) });
    }
    let crash_loop = rows.iter().find(|row| {
        row.current && row.state == InstanceState::Failed && row.restarts >= CRASH_LOOP_RESTARTS
    });
    match crash_loop {
        Some(row) => Err(DeployError::CrashLoop {
            service: row.service.clone(),
            state: describe(row),
            restarts: row.restarts,
        }),
        None => Ok(()),
    }
}

/// Counts the instances of the targets.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Replicas that run, of whatever version.
    running: usize,
    /// Replicas whose instance of the new version is available.
    updated: usize,
    total: usize,
    /// Whether instances of the version before are there.
    has_old: bool,
    /// What is missing, one entry per instance.
    missing: Vec<String>,
}

impl Tally {
    fn of(targets: &[ServiceTarget], services: &[ServiceRow], rows: &[InstanceRow]) -> Self {
        let mut tally = Self::default();
        for it in targets {
            tally.add(it, services, rows.iter().filter(|row| row.service == it.service));
        }
        tally
    }

    fn add<'a>(
        &mut self,
        ServiceTarget { service, replicas, healthcheck, is_job }: &ServiceTarget,
        services: &[ServiceRow],
        rows: impl Iterator<Item = &'a InstanceRow>,
    ) {
        let good = |state| match state {
            InstanceState::Healthy | InstanceState::Completed => true,
            InstanceState::Running => !healthcheck && !is_job,
            _ => false,
        };
        let of_service = services.iter().find(|row| row.service == *service);
        let is_over = of_service.is_some_and(|row| row.rollout.state == RolloutState::Complete);
        // Runs of a schedule, and of a job that has completed.
        let is_done = *is_job && is_over;
        let mut current = 0;
        let mut running = BTreeSet::new();
        for row in rows {
            let surplus = !is_job && replicas.is_some_and(|replicas| row.replica > replicas);
            if !surplus && (row.state.is_running() || row.state == InstanceState::Completed) {
                running.insert(row.replica);
            }
            if !row.current || surplus {
                self.has_old |= !row.current;
                self.missing
                    .push(format!("{service}.{} still runs the previous version", row.replica));
                continue;
            }
            current += 1;
            if is_done || good(row.state) && row.available {
                self.updated += 1;
            } else {
                self.missing.push(describe(row));
            }
        }
        self.running += running.len();
        let updating = |row: &ServiceRow| {
            row.service == *service && row.rollout.state == RolloutState::Updating
        };
        if services.iter().any(updating) && self.missing.is_empty() {
            let done = if *is_job { "has not completed" } else { "is being updated" };
            self.missing.push(format!("{service} {done}"));
        }
        let own = services.iter().filter(|row| row.service == *service);
        self.missing.extend(own.flat_map(|row| &row.unpublished).map(|port| {
            format!("{service} is not published on any node: port {}", one_line(port))
        }));
        let total = replicas.map_or(current, |replicas| replicas as usize).max(current);
        self.total += total;
        // Slots whose turn has not come, and runs on nodes that are down, have no rows.
        if total > current && !is_job {
            self.missing.push(format!("{service}: {} not placed yet", total - current));
        }
    }

    fn count(&self) -> String {
        let Self { running, updated, total, has_old, .. } = self;
        let rest = match (running == updated, has_old) {
            (true, _) => String::new(),
            (false, true) => format!(", {updated} updated"),
            (false, false) => format!(", {updated} available"),
        };
        format!("{running}/{total} running{rest}")
    }
}

/// Returns whether the update of an instance's service was rolled back.
fn is_rolled_back(services: &[ServiceRow], row: &InstanceRow) -> bool {
    let mut rows = services.iter().filter(|it| it.service == row.service);
    rows.any(|it| it.rollout.state == RolloutState::RolledBack)
}

/// Describes an instance of a service that has had several versions with its version: `shop/web.2 of version 3 is running`.
fn describe_version(services: &[ServiceRow], row: &InstanceRow) -> String {
    let version = services.iter().find(|it| it.service == row.service).map_or(0, |it| it.version);
    match version {
        0 | 1 => describe(row),
        version => format!("{} of version {version} is {}", slot(row), describe_state(row)),
    }
}

/// Describes an instance: `shop/web.2 is failed (exited with code 1)`.
fn describe(row: &InstanceRow) -> String {
    format!("{} is {}", slot(row), describe_state(row))
}

#[cfg(test)]
mod tests {
    use vc_protocol::spec::{ContainerSpec, Healthcheck, ServiceSpec};

    use super::*;

    fn deployment(service: &str, replicas: Option<u32>, test: Option<&str>) -> Deployment {
        let healthcheck = test.map(|kind| Healthcheck {
            test: vec![kind.to_owned()],
            interval_ms: None,
            timeout_ms: None,
            retries: None,
            start_period_ms: None,
            start_interval_ms: None,
        });
        Deployment {
            service: service.parse().expect("a service"),
            replicas,
            spec: ServiceSpec {
                container: ContainerSpec { healthcheck, ..ContainerSpec::default() },
                ..ServiceSpec::default()
            }
            .into(),
        }
    }

    fn row(service: &str, replica: u32, state: InstanceState, current: bool) -> InstanceRow {
        super::super::row(service, replica, None, state, current)
    }

    #[test]
    fn done_when_all_new_instances_run_and_no_old_one_does() {
        use InstanceState::{Healthy, Running, Unhealthy};
        let web = "shop/web";
        let done = |deployment: Deployment, rows: &[InstanceRow]| {
            Tally::of(&[ServiceTarget::from(&deployment)], &[], rows).missing.is_empty()
        };
        let two = || deployment(web, Some(2), None);
        assert!(done(two(), &[row(web, 1, Running, true), row(web, 2, Healthy, true)]));
        assert!(!done(two(), &[row(web, 1, Running, true)]), "one is missing");
        assert!(!done(two(), &[row(web, 1, Running, true), row(web, 2, Unhealthy, true)]));
        let old =
            [row(web, 1, Running, true), row(web, 2, Running, true), row(web, 1, Running, false)];
        assert!(!done(two(), &old), "an old instance remains");
        let surplus =
            [row(web, 1, Running, true), row(web, 2, Running, true), row(web, 3, Running, true)];
        assert!(!done(two(), &surplus), "a surplus instance remains");
        assert!(done(deployment(web, None, None), &surplus), "as many as before");
        assert!(done(deployment(web, Some(0), None), &[]));
        assert!(
            !done(deployment(web, Some(1), Some("CMD")), &[row(web, 1, Running, true)]),
            "not healthy yet"
        );
        assert!(done(deployment(web, Some(1), Some("CMD")), &[row(web, 1, Healthy, true)]));
        assert!(done(deployment(web, Some(1), Some("NONE")), &[row(web, 1, Running, true)]));
        assert!(done(
            two(),
            &[
                row(web, 1, Running, true),
                row(web, 2, Running, true),
                row("x/y", 1, Unhealthy, true)
            ]
        ));
    }

    #[test]
    fn a_port_that_no_node_publishes_is_missing() {
        let target = ServiceTarget::from(&deployment("shop/dns", Some(1), None));
        let mut service: ServiceRow = serde_json::from_value(serde_json::json!({
            "service": "shop/dns", "project": "shop", "image": "dns:1", "replicas": 1, "running": 1, "healthy": 1,
            "on_partition": "available", "updated": 1, "revision": 1, "ports": ["53:53/udp"], "rollout": {"state": "complete", "done": 1, "reason": ""},
        }))
        .expect("a row");
        let rows = [row("shop/dns", 1, InstanceState::Running, true)];
        let missing = |service: &ServiceRow| {
            Tally::of(std::slice::from_ref(&target), std::slice::from_ref(service), &rows).missing
        };
        assert_eq!(missing(&service), [] as [&str; 0]);
        service.unpublished = vec!["53/udp: already in use by named (pid 7)".to_owned()];
        let expected =
            ["shop/dns is not published on any node: port 53/udp: already in use by named (pid 7)"];
        assert_eq!(missing(&service), expected);
    }

    #[test]
    fn an_instance_that_will_not_run_fails_the_wait_with_its_reason() {
        let mut failed = row("shop/web", 1, InstanceState::Failed, true);
        failed.reason = "image web:2 is on no node and in no registry".to_owned();
        assert!(check_failed(&[], std::slice::from_ref(&failed)).is_ok(), "it is tried again");
        failed.terminal = true;
        let error = check_failed(&[], std::slice::from_ref(&failed)).expect_err("it has ended");
        let expected = "shop/web.1 is failed (image web:2 is on no node and in no registry)";
        assert_eq!(error.to_string(), expected);
        failed.current = false;
        assert!(check_failed(&[], &[failed]).is_ok(), "its successor may run");
    }

    #[test]
    fn missing_instances_are_named_with_their_reason() {
        let mut failed = row("shop/web", 1, InstanceState::Failed, true);
        failed.reason = "exited with code 1\nretried in 4s".to_owned();
        let target = ServiceTarget::from(&deployment("shop/web", Some(3), None));
        let tally = Tally::of(&[target], &[], &[failed]);
        assert_eq!(tally.count(), "0/3 running");
        let expected = [
            "shop/web.1 is failed (exited with code 1 retried in 4s)",
            "shop/web: 2 not placed yet",
        ];
        assert_eq!(tally.missing, expected);
    }
}
