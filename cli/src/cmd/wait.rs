//! `vc deploy --wait`: watches until every instance runs what was deployed and has proven itself.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, timeout, timeout_at};
use vc_protocol::control::{InstanceRow, Reply, Request, RolloutState, ServiceRow};
use vc_protocol::instance::InstanceState;
use vc_protocol::spec::Deployment;
use vc_protocol::{Millis, ServiceKey};

use crate::app::{App, Stop};
use crate::client::{Session, SessionError};
use crate::render::{list, one_line, print, short_duration};

/// A member that says nothing for so long may be gone: ask again, whoever is there.
const SILENCE: Duration = Duration::from_secs(10);
/// At most so many instances are named in an error.
const MAX_NAMED: usize = 8;
/// An instance that was started again so often and failed again will not get better by itself.
const HOPELESS: u32 = 3;

/// Returns when all instances of `deployments` run and have proven themselves. Errors: an update failed; an instance
/// fails again and again; some do not run within `limit`; Ctrl-C.
pub(super) async fn until_running(
    app: &App,
    session: Session,
    deployments: &[Deployment],
    limit: Duration,
) -> anyhow::Result<()> {
    let mut display = Display::new(app);
    let started = Instant::now();
    let mut watch = Watch {
        app,
        session: Some(session),
        deployments,
        progress: Progress::default(),
        rows: Vec::new(),
        revisions: None,
    };
    let outcome = tokio::select! {
        outcome = timeout_at(started + limit, watch.run(&mut display)) => outcome,
        result = tokio::signal::ctrl_c() => {
            result?;
            display.clear();
            return Err(Stop::Interrupted.into());
        }
    };
    display.clear();
    let Watch { session, progress, rows, .. } = watch;
    if let Some(session) = session {
        session.close().await;
    }
    match outcome {
        Ok(result) => result?,
        Err(_) => bail!(
            "{} after {}: {}",
            progress.count(),
            brief(limit),
            list(progress.missing, MAX_NAMED)
        ),
    }
    if app.out.is_json() {
        app.out.json(&rows)
    } else {
        print(&format!("{} after {:.1?}\n", progress.count(), started.elapsed()))
    }
}

fn brief(limit: Duration) -> String {
    short_duration(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
}

/// The wait, with what is known so far.
struct Watch<'a> {
    app: &'a App,
    /// `None` while it is being replaced.
    session: Option<Session>,
    deployments: &'a [Deployment],
    progress: Progress,
    rows: Vec<InstanceRow>,
    /// Which revision of each service was deployed, as the node knows it that took it: another may not have heard yet.
    revisions: Option<BTreeMap<ServiceKey, Millis>>,
}

impl Watch<'_> {
    async fn run(&mut self, display: &mut Display) -> anyhow::Result<()> {
        let request = Request::Watch {
            services: self.deployments.iter().map(|it| it.service.clone()).collect(),
        };
        loop {
            let session = match &mut self.session {
                Some(session) => session,
                // The deployment is safe: only our view of it was lost with the node.
                none => none.insert(self.app.connect().await?),
            };
            let turn = follow(session, &request, |services, rows| {
                self.progress = Progress::of(self.deployments, &services, &rows);
                self.rows = rows;
                display.show(&self.progress, &self.rows)?;
                let seen = || services.iter().map(|row| (row.service.clone(), row.updated));
                let known = self.revisions.get_or_insert_with(|| seen().collect());
                let behind = seen().any(|(key, at)| known.get(&key).is_some_and(|&it| at < it));
                if behind || services.len() < known.len() {
                    return Ok(false);
                }
                give_up(&services, &self.rows)?;
                Ok(self.progress.is_done())
            });
            match turn.await {
                Ok(()) => return Ok(()),
                Err(error) => match error.downcast_ref::<SessionError>() {
                    Some(SessionError::Lost(_) | SessionError::Silent) => self.session = None,
                    _ => return Err(error),
                },
            }
        }
    }
}

/// Follows the services on one member until `take` says that it is enough.
async fn follow(
    session: &mut Session,
    request: &Request,
    mut take: impl FnMut(Vec<ServiceRow>, Vec<InstanceRow>) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    session.send(request).await?;
    loop {
        match timeout(SILENCE, session.next()).await.unwrap_or(Err(SessionError::Silent))? {
            Reply::Watched { services, instances } => {
                if take(services, instances)? {
                    return Ok(());
                }
            }
            // The member is being stopped.
            Reply::End => return Err(SessionError::Lost("closed by the node".to_owned()).into()),
            _ => return Err(SessionError::Unexpected.into()),
        }
    }
}

/// Errors: what is deployed has failed, and waiting makes nothing better.
fn give_up(services: &[ServiceRow], rows: &[InstanceRow]) -> anyhow::Result<()> {
    for row in services {
        let reason = one_line(&row.rollout.reason);
        match row.rollout.state {
            RolloutState::RolledBack => {
                bail!("{} was rolled back to the version before: {reason}", row.service)
            }
            RolloutState::Paused => {
                bail!(
                    "the update of {} is paused: {reason}; see 'vc ps {}', and 'vc rollback {}' goes back",
                    row.service,
                    row.service,
                    row.service
                )
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

/// How far a deployment is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    running: usize,
    wanted: usize,
    /// What keeps it from being done, one entry an instance.
    missing: Vec<String>,
}

impl Progress {
    fn of(deployments: &[Deployment], services: &[ServiceRow], rows: &[InstanceRow]) -> Self {
        let mut progress = Self::default();
        let updating = |row: &&ServiceRow| row.rollout.state == RolloutState::Updating;
        for deployment in deployments {
            let check = deployment.spec.container.healthcheck.as_ref();
            let checked =
                check.is_some_and(|check| check.test.first().is_some_and(|kind| kind != "NONE"));
            let good = |state| match state {
                InstanceState::Healthy | InstanceState::Completed => true,
                InstanceState::Running => !checked,
                _ => false,
            };
            let mut current = 0;
            for row in rows.iter().filter(|row| row.service == deployment.service) {
                let surplus = deployment.replicas.is_some_and(|wanted| row.replica > wanted);
                if !row.current || surplus {
                    progress
                        .missing
                        .push(format!("{}.{} still runs as before", row.service, row.replica));
                    continue;
                }
                current += 1;
                if good(row.state) && row.settled {
                    progress.running += 1;
                } else {
                    progress.missing.push(describe(row, checked));
                }
            }
            let key = &deployment.service;
            if services.iter().filter(updating).any(|row| row.service == *key)
                && progress.missing.is_empty()
            {
                progress.missing.push(format!("{key} is being updated"));
            }
            // Without a number in the file, what the cluster lists is what is wanted.
            let wanted = deployment.replicas.map_or(current, |wanted| wanted as usize).max(current);
            progress.wanted += wanted;
            if wanted > current {
                progress.missing.push(format!(
                    "{}: {} not placed yet",
                    deployment.service,
                    wanted - current
                ));
            }
        }
        progress
    }

    fn is_done(&self) -> bool {
        self.missing.is_empty()
    }

    fn count(&self) -> String {
        format!("{}/{} running", self.running, self.wanted)
    }
}

/// `shop/web.2 is failed: exited with code 1`.
fn describe(row: &InstanceRow, checked: bool) -> String {
    let state = match row.state {
        InstanceState::Running if checked => "running, not healthy yet",
        InstanceState::Running if !row.settled => "running, to be proven",
        state => state.as_str(),
    };
    let reason = one_line(&row.reason);
    let text = format!("{}.{} is {state}", row.service, row.replica);
    if reason.is_empty() { text } else { format!("{text} ({reason})") }
}

/// Shows progress: a line that changes on a terminal, a line a change otherwise, nothing to programs.
struct Display {
    bar: Option<ProgressBar>,
    quiet: bool,
    /// What was said last of each instance.
    said: BTreeMap<(String, u32), String>,
}

impl Display {
    fn new(app: &App) -> Self {
        let bar = app.out.is_live().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, quiet: app.out.is_json(), said: BTreeMap::new() }
    }

    fn show(&mut self, progress: &Progress, rows: &[InstanceRow]) -> anyhow::Result<()> {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}  {}", progress.count(), progress.missing.join(", ")));
            return Ok(());
        }
        if self.quiet {
            return Ok(());
        }
        let mut now = BTreeMap::new();
        for row in rows.iter().filter(|row| row.current) {
            let on = row
                .node_name
                .as_deref()
                .map(|name| format!(" on {}", one_line(name)))
                .unwrap_or_default();
            let text = describe(row, false) + &on;
            let key = (row.service.to_string(), row.replica);
            if self.said.get(&key) != Some(&text) {
                print(&format!("{text}\n"))?;
            }
            now.insert(key, text);
        }
        self.said = now;
        Ok(())
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
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
        InstanceRow {
            service: service.parse().expect("a service"),
            replica,
            node: None,
            node_name: None,
            state,
            reason: String::new(),
            address: String::new(),
            restarts: 0,
            since: 0,
            current,
            settled: true,
            digest: String::new(),
        }
    }

    #[test]
    fn done_means_that_everything_new_runs_and_nothing_old() {
        use InstanceState::{Healthy, Running, Unhealthy};
        let web = "shop/web";
        let done = |deployment: Deployment, rows: &[InstanceRow]| {
            Progress::of(&[deployment], &[], rows).is_done()
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
        let progress = Progress::of(&[deployment("shop/web", Some(3), None)], &[], &[failed]);
        assert_eq!(progress.count(), "0/3 running");
        let expected = [
            "shop/web.1 is failed (exited with code 1 retried in 4s)",
            "shop/web: 2 not placed yet",
        ];
        assert_eq!(progress.missing, expected);
    }
}
