//! Replaces what volumes have by what was uploaded, while their services are stopped.

use vc_client::{Session, expect_reply};
use vc_protocol::ServiceKey;
use vc_protocol::control::{Change, Request};
use vc_protocol::spec::Deployment;

use super::{Pending, directory_id};
use crate::app::App;
use crate::error::{Result, Stop, SystemError};
use crate::render::note;

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
            result = tokio::signal::ctrl_c() => {
                result.map_err(SystemError::doing("wait for signals"))?;
                // Its reply is still to come on this session.
                app.renew(session).await?;
                Err(Stop::Interrupted.into())
            }
        };
        let deployed: &[Deployment] = match (&performed, deploy) {
            (Ok(_), Request::Deploy { deployments, .. }) => deployments,
            _ => &[],
        };
        let started = self.start(session, deployed).await;
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
            for row in rows.into_iter().filter(|it| it.replicas > 0 && using.contains(&&it.service))
            {
                let (service, replicas) = (row.service, row.replicas);
                note(&format!(
                    "stopping {service}; if this is interrupted, start it with 'vc scale {service}={replicas}'"
                ));
                let request = scale(&service, 0);
                self.stopped.push((service, replicas));
                session.change(&request).await?;
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
    async fn start(&self, session: &mut Session, deployed: &[Deployment]) -> Result {
        let mut failed = Ok(());
        for (service, replicas) in &self.stopped {
            let is_set = |it: &Deployment| it.service == *service && it.replicas.is_some();
            if deployed.iter().any(is_set) {
                continue;
            }
            if let Err(error) = session.change(&scale(service, *replicas)).await {
                note(&format!(
                    "{service} is stopped: start it with 'vc scale {service}={replicas}'"
                ));
                failed = Err(error.into());
            }
        }
        failed
    }
}

fn scale(service: &ServiceKey, replicas: u32) -> Request {
    // Its image ran until now.
    Request::Scale { service: service.to_string(), replicas, force: true }
}
