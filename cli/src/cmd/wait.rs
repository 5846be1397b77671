//! `vc deploy --wait`: watches until every instance runs what was deployed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, timeout, timeout_at};
use vc_protocol::control::{InstanceRow, Reply, Request};
use vc_protocol::instance::InstanceState;
use vc_protocol::spec::Deployment;

use crate::app::{App, Stop};
use crate::client::{Session, SessionError};
use crate::render::{list, one_line, print, short_duration};

/// A member that says nothing for so long may be gone: ask again, whoever is there.
const SILENCE: Duration = Duration::from_secs(10);
/// At most so many instances are named in an error.
const MAX_NAMED: usize = 8;

/// Returns when all instances of `deployments` run. Errors: some do not within `limit`; Ctrl-C.
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
            match follow(
                session,
                &request,
                self.deployments,
                &mut self.progress,
                &mut self.rows,
                display,
            )
            .await
            {
                Ok(()) => return Ok(()),
                Err(error) => match error.downcast_ref::<SessionError>() {
                    Some(SessionError::Lost(_) | SessionError::Silent) => self.session = None,
                    _ => return Err(error),
                },
            }
        }
    }
}

/// Follows the instances on one member until they run.
async fn follow(
    session: &mut Session,
    request: &Request,
    deployments: &[Deployment],
    progress: &mut Progress,
    known: &mut Vec<InstanceRow>,
    display: &mut Display,
) -> anyhow::Result<()> {
    session.send(request).await?;
    loop {
        match timeout(SILENCE, session.next()).await.unwrap_or(Err(SessionError::Silent))? {
            Reply::Watched { instances: rows, .. } => {
                *progress = Progress::of(deployments, &rows);
                *known = rows;
                display.show(progress, known)?;
                if progress.is_done() {
                    return Ok(());
                }
            }
            // The member is being stopped.
            Reply::End => return Err(SessionError::Lost("closed by the node".to_owned()).into()),
            _ => return Err(SessionError::Unexpected.into()),
        }
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
    fn of(deployments: &[Deployment], rows: &[InstanceRow]) -> Self {
        let mut progress = Self::default();
        for deployment in deployments {
            let check = deployment.spec.container.healthcheck.as_ref();
            let checked =
                check.is_some_and(|check| check.test.first().is_some_and(|kind| kind != "NONE"));
            let good = |state| match state {
                InstanceState::Healthy => true,
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
                if good(row.state) {
                    progress.running += 1;
                } else {
                    progress.missing.push(describe(row, checked));
                }
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
            settled: false,
            digest: String::new(),
        }
    }

    #[test]
    fn done_means_that_everything_new_runs_and_nothing_old() {
        use InstanceState::{Healthy, Running, Unhealthy};
        let web = "shop/web";
        let done = |deployment: Deployment, rows: &[InstanceRow]| {
            Progress::of(&[deployment], rows).is_done()
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
        let progress = Progress::of(&[deployment("shop/web", Some(3), None)], &[failed]);
        assert_eq!(progress.count(), "0/3 running");
        let expected = [
            "shop/web.1 is failed (exited with code 1 retried in 4s)",
            "shop/web: 2 not placed yet",
        ];
        assert_eq!(progress.missing, expected);
    }
}
