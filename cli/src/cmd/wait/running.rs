//! Waiting until services run as they are wanted now, and have proven themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::anyhow;
use vc_protocol::control::{InstanceRow, Request, RolloutState, ServiceDetail, ServiceRow};
use vc_protocol::instance::InstanceState;
use vc_protocol::spec::Deployment;
use vc_protocol::{Millis, ServiceKey};

use super::{Goal, Standing, Verdict, WaitArgs, condition, place, slot, until};
use crate::app::{App, change_all};
use crate::render::print;
use vc_client::text::one_line;
use vc_client::{Session, expect_reply};

/// An instance that was started again so often and failed again will not get better by itself.
const HOPELESS: u32 = 3;

/// A service, and what it takes for it to run.
#[derive(Debug, Clone)]
pub(in crate::cmd) struct Wanted {
    service: ServiceKey,
    /// So many instances; `None`: as many as the cluster lists.
    replicas: Option<u32>,
    /// Whether it has a healthcheck.
    checked: bool,
}

impl From<&Deployment> for Wanted {
    fn from(deployment: &Deployment) -> Self {
        Self {
            service: deployment.service.clone(),
            replicas: deployment.replicas,
            checked: deployment.spec.container.has_healthcheck(),
        }
    }
}

impl From<&ServiceDetail> for Wanted {
    fn from(detail: &ServiceDetail) -> Self {
        Self {
            service: detail.row.service.clone(),
            replicas: Some(detail.row.replicas),
            checked: detail.spec.container.has_healthcheck(),
        }
    }
}

/// Makes changes, one after another, and says what they changed; waits for these services if it is told to.
pub(in crate::cmd) async fn change(
    app: &App,
    requests: Vec<Request>,
    services: Vec<String>,
    args: WaitArgs,
) -> anyhow::Result<()> {
    if !args.wait {
        return app.change(requests).await;
    }
    app.in_session(async |session| {
        let mut lines = Vec::new();
        let result = change_all(session, &requests, &mut lines).await;
        if !app.out.is_json() {
            app.out.lines(&lines)?;
        }
        result?;
        let mut wanted = BTreeMap::new();
        for service in services {
            let reply = session.ask(&Request::Inspect { service }).await?;
            let it = Wanted::from(expect_reply!(reply, Service)?.as_ref());
            wanted.insert(it.service.clone(), it);
        }
        until_running(app, session, wanted.into_values().collect(), args.timeout).await
    })
    .await
}

/// Returns when all instances that are wanted run and have proven themselves, and says so. Errors: an update failed; an
/// instance fails again and again; some do not run within `limit`; Ctrl-C.
pub(in crate::cmd) async fn until_running(
    app: &App,
    session: &mut Session,
    wanted: Vec<Wanted>,
    limit: Duration,
) -> anyhow::Result<()> {
    let services = wanted.iter().map(|it| it.service.clone()).collect();
    let mut goal = Running { wanted, rows: Vec::new(), revisions: None };
    let waited = until(app, session, services, &mut goal, limit).await?;
    if app.out.is_json() {
        app.out.json(&goal.rows)
    } else {
        print(&format!("{} after {:.1?}\n", waited.count, waited.took))
    }
}

struct Running {
    wanted: Vec<Wanted>,
    /// As they were seen last.
    rows: Vec<InstanceRow>,
    /// Which revision of each service is wanted, as the node knows it that took it: another may not have heard yet.
    revisions: Option<BTreeMap<ServiceKey, Millis>>,
}

impl Goal for Running {
    fn look(&mut self, services: Vec<ServiceRow>, rows: Vec<InstanceRow>) -> Standing {
        let progress = Progress::of(&self.wanted, &services, &rows);
        let said = rows.iter().filter(|row| row.current);
        let said = said.map(|row| (slot(row), describe(row, false) + &place(row))).collect();
        let seen = || services.iter().map(|row| (row.service.clone(), row.updated));
        let known = self.revisions.get_or_insert_with(|| seen().collect());
        let behind = services.len() < known.len()
            || seen().any(|(key, at)| known.get(&key).is_some_and(|&it| at < it));
        let verdict = match give_up(&services, &rows) {
            _ if behind => Verdict::Wait,
            Err(why) => Verdict::Failed(why),
            Ok(()) if progress.missing.is_empty() => Verdict::Done,
            Ok(()) => Verdict::Wait,
        };
        self.rows = rows;
        Standing { count: progress.count(), missing: progress.missing, said, verdict }
    }
}

/// Errors: what is deployed has failed, and waiting makes nothing better.
fn give_up(services: &[ServiceRow], rows: &[InstanceRow]) -> anyhow::Result<()> {
    for row in services {
        let (service, reason) = (&row.service, one_line(&row.rollout.reason));
        match row.rollout.state {
            RolloutState::RolledBack => {
                return Err(anyhow!("{service} was rolled back to the version before: {reason}"));
            }
            RolloutState::Paused => {
                return Err(anyhow!(
                    "the update of {service} is paused: {reason}; see 'vc ps {service}', and \
                     'vc rollback {service}' goes back"
                ));
            }
            RolloutState::Complete | RolloutState::Updating => {}
        }
    }
    let hopeless = rows
        .iter()
        .find(|row| row.current && row.state == InstanceState::Failed && row.restarts >= HOPELESS);
    match hopeless {
        Some(row) => Err(anyhow!(
            "{} and was started again {} times; see 'vc logs {}'",
            describe(row, false),
            row.restarts,
            row.service
        )),
        None => Ok(()),
    }
}

/// How far the services are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    running: usize,
    wanted: usize,
    /// What keeps it from being done, one entry an instance.
    missing: Vec<String>,
}

impl Progress {
    fn of(wanted: &[Wanted], services: &[ServiceRow], rows: &[InstanceRow]) -> Self {
        let mut progress = Self::default();
        for it in wanted {
            progress.count_in(it, services, rows.iter().filter(|row| row.service == it.service));
        }
        progress
    }

    fn count_in<'a>(
        &mut self,
        Wanted { service, replicas, checked }: &Wanted,
        services: &[ServiceRow],
        rows: impl Iterator<Item = &'a InstanceRow>,
    ) {
        let good = |state| match state {
            InstanceState::Healthy | InstanceState::Completed => true,
            InstanceState::Running => !checked,
            _ => false,
        };
        let mut current = 0;
        for row in rows {
            let surplus = replicas.is_some_and(|replicas| row.replica > replicas);
            if !row.current || surplus {
                self.missing.push(format!("{service}.{} still runs as before", row.replica));
                continue;
            }
            current += 1;
            if good(row.state) && row.available {
                self.running += 1;
            } else {
                self.missing.push(describe(row, *checked));
            }
        }
        let updating = |row: &ServiceRow| {
            row.service == *service && row.rollout.state == RolloutState::Updating
        };
        if services.iter().any(updating) && self.missing.is_empty() {
            self.missing.push(format!("{service} is being updated"));
        }
        let wanted = replicas.map_or(current, |replicas| replicas as usize).max(current);
        self.wanted += wanted;
        if wanted > current {
            self.missing.push(format!("{service}: {} not placed yet", wanted - current));
        }
    }

    fn count(&self) -> String {
        format!("{}/{} running", self.running, self.wanted)
    }
}

/// `shop/web.2 is failed (exited with code 1)`.
fn describe(row: &InstanceRow, checked: bool) -> String {
    format!("{}.{} is {}", row.service, row.replica, condition(row, checked))
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
        });
        Deployment {
            service: service.parse().expect("a service"),
            replicas,
            spec: ServiceSpec {
                container: ContainerSpec { healthcheck, ..ContainerSpec::default() },
                ..ServiceSpec::default()
            },
        }
    }

    fn row(service: &str, replica: u32, state: InstanceState, current: bool) -> InstanceRow {
        super::super::row(service, replica, None, state, current)
    }

    #[test]
    fn done_means_that_everything_new_runs_and_nothing_old() {
        use InstanceState::{Healthy, Running, Unhealthy};
        let web = "shop/web";
        let done = |deployment: Deployment, rows: &[InstanceRow]| {
            Progress::of(&[Wanted::from(&deployment)], &[], rows).missing.is_empty()
        };
        let two = || deployment(web, Some(2), None);
        assert!(done(two(), &[row(web, 1, Running, true), row(web, 2, Healthy, true)]));
        assert!(!done(two(), &[row(web, 1, Running, true)]), "one is missing");
        assert!(!done(two(), &[row(web, 1, Running, true), row(web, 2, Unhealthy, true)]));
        let old =
            [row(web, 1, Running, true), row(web, 2, Running, true), row(web, 1, Running, false)];
        assert!(!done(two(), &old), "an old one remains");
        let surplus =
            [row(web, 1, Running, true), row(web, 2, Running, true), row(web, 3, Running, true)];
        assert!(!done(two(), &surplus), "one too many remains");
        assert!(done(deployment(web, None, None), &surplus), "as many as before");
        assert!(done(deployment(web, Some(0), None), &[]));
        assert!(
            !done(deployment(web, Some(1), Some("CMD")), &[row(web, 1, Running, true)]),
            "not judged yet"
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
    fn what_is_missing_is_named_with_its_reason() {
        let mut failed = row("shop/web", 1, InstanceState::Failed, true);
        failed.reason = "exited with code 1\nretried in 4s".to_owned();
        let wanted = Wanted::from(&deployment("shop/web", Some(3), None));
        let progress = Progress::of(&[wanted], &[], &[failed]);
        assert_eq!(progress.count(), "0/3 running");
        let expected = [
            "shop/web.1 is failed (exited with code 1 retried in 4s)",
            "shop/web: 2 not placed yet",
        ];
        assert_eq!(progress.missing, expected);
    }
}
