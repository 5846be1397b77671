//! Replaces what volumes have by what was uploaded, while their services are stopped.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use vc_client::{Session, SessionError, expect_reply};
use vc_protocol::control::{Change, Request, ServiceRow};
use vc_protocol::spec::{Deployment, ServiceMode};
use vc_protocol::{ApiError, ErrorCode, ServiceKey};

use super::{Pending, directory_id};
use crate::app::App;
use crate::error::{Result, Stop, SystemError};
use crate::render::note;

/// How long services that were stopped are tried to be started again, while no node answers.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_millis(500);

/// The services that were stopped, with their numbers of replicas.
#[derive(Debug, Default)]
pub(in crate::cmd) struct Replacement {
    stopped: Vec<(ServiceKey, u32)>,
}

impl Replacement {
    /// Stops the services of the volumes that are replaced, and replaces them; then `deploy` is sent, and the services start again,
    /// whatever has failed. Returns what has changed.
    pub(in crate::cmd) async fn perform(
        mut self,
        app: &App,
        session: &mut Session,
        pending: &[Pending<'_>],
        deploy: &Request,
    ) -> Result<Vec<Change>> {
        let performed = tokio::select! {
            performed = self.replace(app, session, pending, deploy) => performed,
            result = tokio::signal::ctrl_c() => match result {
                Ok(()) => Err(Stop::Interrupted.into()),
                Err(error) => Err(SystemError::doing("wait for signals")(error).into()),
            }
        };
        if performed.is_err() && !self.stopped.is_empty() {
            // It may be broken, or have a reply to come that is none to what is sent next. Where that fails, it is tried again.
            let _ = app.renew(session).await;
        }
        let deployed: &[Deployment] = match (&performed, deploy) {
            (Ok(_), Request::Deploy { deployments, .. }) => deployments,
            _ => &[],
        };
        let started = self.start(app, session, deployed).await;
        let changes = performed?;
        started?;
        Ok(changes)
    }

    async fn replace(
        &mut self,
        app: &App,
        session: &mut Session,
        pending: &[Pending<'_>],
        deploy: &Request,
    ) -> Result<Vec<Change>> {
        let replaced = pending.iter().filter_map(|it| Some((it, it.replaces.as_ref()?)));
        let replaced: Vec<_> = replaced.collect();
        let using: Vec<&ServiceKey> =
            replaced.iter().flat_map(|(_, replaces)| &replaces.services).collect();
        if !using.is_empty() {
            let rows = expect_reply!(session.ask(&Request::Services).await?, Services)?;
            for (service, replicas) in running(rows, &using)? {
                note(&format!(
                    "stopping {service}; if this is interrupted, start it with 'vc scale {service}={replicas}'"
                ));
                let request = scale(&service, 0);
                // If no answer comes, it may be stopped.
                self.stopped.push((service, replicas));
                let stopped = session.change(&request).await;
                if let Err(SessionError::Refused(error)) = &stopped
                    && error.code != ErrorCode::Aborted
                {
                    self.stopped.pop();
                }
                stopped?;
            }
        }
        let mut changes = Vec::new();
        for (pending, _) in replaced {
            let volume = pending.upload.volume.clone();
            let directory = directory_id(pending.upload.path.as_ref())?;
            let request = Request::ReplaceVolume { volume, directory };
            changes.extend(app.await_change(session, &request, "replacing the volume").await?);
        }
        changes.extend(session.change(deploy).await?);
        Ok(changes)
    }

    /// Starts the services again whose number of replicas the deployment has not set.
    async fn start(&self, app: &App, session: &mut Session, deployed: &[Deployment]) -> Result {
        let (mut failed, deadline) = (Ok(()), Instant::now() + START_TIMEOUT);
        for (service, replicas) in &self.stopped {
            let is_set = |it: &Deployment| it.service == *service && it.replicas.is_some();
            if deployed.iter().any(is_set) {
                continue;
            }
            let request = scale(service, *replicas);
            if let Err(error) = change_until(app, session, &request, deadline).await {
                note(&format!(
                    "{service} is stopped: start it with 'vc scale {service}={replicas}'"
                ));
                failed = Err(error);
            }
        }
        failed
    }
}

/// Sends a request, until a deadline again in a new session where there was no answer.
async fn change_until(
    app: &App,
    session: &mut Session,
    request: &Request,
    deadline: Instant,
) -> Result {
    loop {
        let error = match session.change(request).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if !may_pass(&error) || Instant::now() >= deadline {
            return Err(error.into());
        }
        sleep(START_INTERVAL).await;
        while let Err(error) = app.renew(session).await {
            if Instant::now() >= deadline {
                return Err(error);
            }
            sleep(START_INTERVAL).await;
        }
    }
}

/// Returns whether a request that failed may succeed in another session.
fn may_pass(error: &SessionError) -> bool {
    match error {
        SessionError::Refused(error) => error.code == ErrorCode::Unavailable,
        SessionError::Lost(_) | SessionError::TimedOut => true,
        SessionError::Unexpected | SessionError::TooLarge => false,
    }
}

/// Returns which of the services that use volumes have replicas, and how many. Errors: one of them cannot be stopped and started again.
fn running(
    rows: Vec<ServiceRow>,
    using: &[&ServiceKey],
) -> std::result::Result<Vec<(ServiceKey, u32)>, ApiError> {
    let rows = rows.into_iter().filter(|it| it.replicas > 0 && using.contains(&&it.service));
    let running = rows.map(|row| {
        let (service, mode) = (row.service, row.mode);
        let hint = match mode {
            ServiceMode::Replicated => return Ok((service, row.replicas)),
            // Its runs would begin again.
            ServiceMode::ReplicatedJob => format!(
                "wait until it has no run, or scale it to 0 with 'vc scale {service}=0', and deploy again"
            ),
            ServiceMode::Global | ServiceMode::GlobalJob => {
                format!("remove it with 'vc rm {service}', and deploy again")
            }
        };
        let message = format!(
            "{service}, which uses a volume that is to be replaced, is not stopped for that: its mode is {}",
            mode.as_str()
        );
        Err(ApiError::new(ErrorCode::FailedPrecondition, message).with_hint(hint))
    });
    running.collect()
}

fn scale(service: &ServiceKey, replicas: u32) -> Request {
    // Its image ran until now.
    Request::Scale { service: service.to_string(), replicas, force: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(service: &str, mode: ServiceMode, replicas: u32) -> ServiceRow {
        let row = serde_json::json!({
            "service": service,
            "project": "shop",
            "image": "web:1",
            "mode": mode,
            "replicas": replicas,
            "running": replicas,
            "healthy": replicas,
            "on_partition": "available",
            "updated": 0,
            "revision": 0,
        });
        serde_json::from_value(row).expect("a row")
    }

    #[test]
    fn only_replicated_services_are_stopped_and_others_that_run_are_refused() {
        let [web, job, other] =
            ["shop/web", "shop/job", "shop/other"].map(|it| it.parse().expect("a service"));
        let using = [&web, &job];
        let all = |mode, replicas| {
            vec![
                row("shop/other", ServiceMode::Global, 3),
                row("shop/web", ServiceMode::Replicated, 2),
                row("shop/job", mode, replicas),
            ]
        };
        let modes = ServiceMode::ALL.into_iter().filter(|it| *it != ServiceMode::Replicated);
        for mode in modes {
            let refused = running(all(mode, 1), &using).expect_err("it runs");
            assert!(refused.message.contains(mode.as_str()), "{refused:?}");
            let found = running(all(mode, 0), &using).expect("it has no runs");
            assert_eq!(found, [(web.clone(), 2)]);
        }
        assert!(running(all(ServiceMode::Replicated, 1), &[&other]).is_err());
    }

    #[test]
    fn only_requests_without_an_answer_are_sent_again() {
        let refused = |code| SessionError::Refused(ApiError::new(code, "refused"));
        let lost = SessionError::Lost("closed".to_owned());
        let again = [lost, SessionError::TimedOut, refused(ErrorCode::Unavailable)];
        assert!(again.iter().all(may_pass));
        let last = [refused(ErrorCode::NotFound), SessionError::Unexpected, SessionError::TooLarge];
        assert!(!last.iter().any(may_pass));
    }
}
