//! Requests about services and their instances.

use std::collections::BTreeMap;
use std::iter;
use std::time::Duration;

use tokio::time::timeout;
use vc_crdt::View;
use vc_engine::history::{history, rollback_spec};
use vc_engine::{FindError, Mutation, report};
use vc_protocol::audit::AuditAction;
use vc_protocol::control::{Change, Reply};
use vc_protocol::spec::{Deployment, FileContent, ServiceSpec};
use vc_protocol::token::UserRole;
use vc_protocol::{ApiError, ErrorCode, ServiceKey, Stored, TraceId};
use vc_runtime::images::{Moved, PathMissing, Pinned, Pinning};

use super::directories::{DirectoryError, DirectoryOptions};
use super::{ControlService, mask, plan};
use crate::auth::{User, privileges};
use crate::clock;
use crate::secrets::{SealedDeployment, seal_deployment_files};
use crate::snapshot::Snapshot;

/// How long all host paths of a deployment may take to be looked for.
const HOST_PATHS_TIMEOUT: Duration = Duration::from_secs(4);

/// What a deployment does beyond the file.
#[derive(Debug, Clone)]
pub(super) struct DeployOptions {
    /// Asks registries anew which image each reference names.
    pub(super) pull: bool,
    /// Does not check whether the services can be started.
    pub(super) force: bool,
    /// The node whose directories count, where several have them.
    pub(super) data_from: Option<String>,
}

/// Returns whether a service has instances, or has some at the times of its schedule.
fn may_run(view: &View, service: &ServiceKey) -> bool {
    view.mode(service).is_per_node() || view.cluster.replicas(service) > 0
}

/// The error of a reply of another kind than the change has.
fn internal() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the change was not answered as a change")
}

impl ControlService {
    /// Lists services.
    pub(super) fn services(&self, user: &User) -> Reply {
        let mut rows = report::services(&self.cluster.view_of(user));
        mask::services(&user.rights, &mut rows);
        Reply::Services(rows)
    }

    /// Lists instances: those of the services that `service` names, or all; with `usage` also what they use.
    pub(super) async fn instances(
        &self,
        user: &User,
        service: Option<&str>,
        usage: bool,
    ) -> Result<Reply, ApiError> {
        let view = self.cluster.view_of(user);
        let mut rows = report::instances(&view);
        let Snapshot { view: whole, vitals, .. } = self.cluster.latest();
        let now = crate::clock::now();
        report::name_waits(&view, &mut rows, now);
        report::name_downtimes(&mut rows, &report::nodes(&whole, &vitals), now);
        mask::instances(&user.rights, &mut rows);
        if let Some(service) = service {
            let keys = vc_engine::find_services(&view.cluster, service)?;
            rows.retain(|row| keys.contains(&row.service));
        }
        if usage {
            self.add_usage(&view, &mut rows).await;
        }
        Ok(Reply::Instances(rows))
    }

    /// Describes one service, with the values of its environment if the user asks for them.
    pub(super) fn inspect(
        &self,
        user: &User,
        service: &str,
        show_values: bool,
    ) -> Result<Reply, ApiError> {
        let view = self.cluster.view_of(user);
        let key = vc_engine::find_service(&view.cluster, service)?;
        let mut detail =
            report::inspect(&view, &key).ok_or_else(|| FindError::NoService(service.to_owned()))?;
        if !show_values {
            for spec in iter::once(&mut detail.spec).chain(&mut detail.previous) {
                vc_engine::mask_environment(&mut spec.container.environment);
            }
        }
        mask::instances(&user.rights, &mut detail.instances);
        mask::services(&user.rights, std::slice::from_mut(&mut detail.row));
        Ok(Reply::Service(Box::new(detail)))
    }

    /// Says what a deployment would change.
    pub(super) async fn diff(
        &self,
        user: &User,
        deployments: Vec<Deployment>,
        files: &[FileContent],
        options: &DeployOptions,
    ) -> Result<Reply, ApiError> {
        let _computation = user.quota.computation().await?;
        let (SealedDeployment { mut deployments, .. }, pinned) =
            self.complete(user, deployments, files, options).await?;
        // What is refused later is shown as it is.
        let allowed =
            privileges::check(&user.rights, &self.cluster.latest().view, &mut deployments);
        let mut said = BTreeMap::new();
        // Registries and nodes are asked only for those who may deploy.
        if allowed.is_ok() && user.rights.role >= UserRole::Deployer {
            said = self.place(&mut deployments, options).await?;
            self.check_startable(&deployments, &pinned, options).await?;
        }
        let values = user.rights.may_see_values();
        let mut rows = vc_engine::diff(&self.cluster.latest().view, &deployments, values);
        for row in &mut rows {
            row.changes.extend(said.remove(&row.service).unwrap_or_default());
        }
        Ok(Reply::Diff(rows))
    }

    /// Puts services in place, all or none.
    pub(super) async fn deploy(
        &self,
        user: &User,
        deployments: Vec<Deployment>,
        files: &[FileContent],
        options: &DeployOptions,
        trace: Option<TraceId>,
    ) -> Result<Reply, ApiError> {
        let (SealedDeployment { mut deployments, files }, pinned) =
            self.complete(user, deployments, files, options).await?;
        privileges::check(&user.rights, &self.cluster.latest().view, &mut deployments)?;
        self.place(&mut deployments, options).await?;
        self.check_startable(&deployments, &pinned, options).await?;
        tracing::info!(services = deployments.len(), "deployment requested");
        for (reference, Moved { id, size }) in pinned.moved {
            self.record_image(user, reference, id, size).await?;
        }
        let projects = user.rights.projects().cloned();
        let reply =
            self.cluster.mutate(user, Mutation::Deploy { deployments, files, projects, trace });
        let Reply::Done(mut changes) = reply.await? else { return Err(internal()) };
        for change in &mut changes {
            if let Change::Updated { service, note } | Change::Unchanged { service, note } = change
                && let Some(found) = pinned.notes.get(service)
            {
                *note = if note.is_empty() { found.clone() } else { format!("{note}; {found}") };
            }
        }
        Ok(Reply::Done(changes))
    }

    /// Finds the directories of nodes that are volumes. Returns lines about them, by service.
    async fn place(
        &self,
        deployments: &mut [Deployment],
        options: &DeployOptions,
    ) -> Result<BTreeMap<ServiceKey, Vec<String>>, DirectoryError> {
        let view = self.cluster.latest().view;
        let (data_from, force) = (options.data_from.clone(), options.force);
        self.place_directories(&view, deployments, &DirectoryOptions { data_from, force }).await
    }

    /// Pins images and seals files, as a deployment and the diff against one both need.
    async fn complete(
        &self,
        user: &User,
        mut deployments: Vec<Deployment>,
        files: &[FileContent],
        options: &DeployOptions,
    ) -> Result<(SealedDeployment, Pinned), ApiError> {
        plan::check(&deployments)?;
        let view = self.cluster.latest().view;
        vc_engine::choose_ports(&view.cluster, &mut deployments)?;
        let (own, projects) = (self.cluster.membership().node, user.rights.projects());
        let by = Pinning { view: &view, own, projects, pull: options.pull };
        let pinned = self.images.pin(by, &mut deployments).await;
        let membership = self.cluster.membership();
        let (keys, held) = (membership.file_keys(), &view.cluster.files);
        let sealed =
            seal_deployment_files(keys.as_ref(), membership.cluster, held, deployments, files)?;
        Ok((sealed, pinned))
    }

    /// Checks that what these deployments start can be started, before anything is stopped for it.
    async fn check_startable(
        &self,
        deployments: &[Deployment],
        pinned: &Pinned,
        options: &DeployOptions,
    ) -> Result<(), ApiError> {
        if options.force {
            return Ok(());
        }
        let view = self.cluster.latest().view;
        let replicas = |it: &Deployment| {
            let held = || view.cluster.replicas(&it.service);
            if it.spec.mode.is_per_node() { 1 } else { it.replicas.unwrap_or_else(held) }
        };
        let own = self.cluster.membership().node;
        let started = || deployments.iter().filter(|it| replicas(it) > 0);
        let unknown = started().filter(|it| !pinned.found.contains(&it.service));
        let unknown: Vec<_> = unknown.map(|it| (&it.service, &it.spec.container)).collect();
        self.images.check_available(&view, own, &unknown).await?;
        let paths = async {
            for Deployment { service, spec, .. } in started() {
                self.images.check_host_paths(&view, own, service, spec).await?;
            }
            Ok(())
        };
        // Nodes that do not answer say it when they prepare the instances.
        Ok(timeout(HOST_PATHS_TIMEOUT, paths).await.unwrap_or(Ok::<_, PathMissing>(()))?)
    }

    /// Checks the same for one version of a service that is deployed already.
    async fn check_version(
        &self,
        view: &View,
        service: &ServiceKey,
        spec: Option<&Stored<ServiceSpec>>,
    ) -> Result<(), ApiError> {
        let Some(spec) = spec else { return Ok(()) };
        let own = self.cluster.membership().node;
        self.images.check_available(view, own, &[(service, &spec.container)]).await?;
        Ok(self.images.check_host_paths(view, own, service, spec).await?)
    }

    /// Sets the number of replicas of a service.
    pub(super) async fn scale(
        &self,
        user: &User,
        service: String,
        replicas: u32,
        force: bool,
    ) -> Result<Reply, ApiError> {
        let view = self.cluster.latest().view;
        // One that is not found has no image either; the mutation says why.
        if let Ok(key) = vc_engine::find_service(&view.cluster, &service)
            && !force
            && replicas > view.replicas(&key)
        {
            self.check_version(&view, &key, view.spec(&key)).await?;
        }
        self.cluster.mutate(user, Mutation::Scale { service, replicas }).await
    }

    /// Replaces the instances of a service by new ones of the same spec.
    pub(super) async fn restart(
        &self,
        user: &User,
        service: String,
        force: bool,
    ) -> Result<Reply, ApiError> {
        let view = self.cluster.latest().view;
        if let Ok(key) = vc_engine::find_service(&view.cluster, &service)
            && !force
            && may_run(&view, &key)
        {
            self.check_version(&view, &key, view.spec(&key)).await?;
        }
        self.cluster.mutate(user, Mutation::Restart { service }).await
    }

    /// Returns a service to an earlier version; `None` for the newest that did not fail.
    pub(super) async fn rollback(
        &self,
        user: &User,
        service: String,
        version: Option<u32>,
        force: bool,
    ) -> Result<Reply, ApiError> {
        let view = self.cluster.latest().view;
        // One that is not found has no instances either; the mutation says why.
        if let Ok(key) = vc_engine::find_service(&view.cluster, &service) {
            privileges::check_rollback(&user.rights, &view, &key, version)?;
            if !force && may_run(&view, &key) {
                let target = rollback_spec(&view, &key, version);
                self.check_version(&view, &key, target.as_ref()).await?;
            }
        }
        let projects = user.rights.projects().cloned();
        self.cluster.mutate(user, Mutation::Rollback { service, version, projects }).await
    }

    /// Lists the versions of a service.
    pub(super) fn history(&self, user: &User, service: &str) -> Result<Reply, ApiError> {
        let view = self.cluster.view_of(user);
        let key = vc_engine::find_service(&view.cluster, service)?;
        let mut rows = history(&view, &key, user.rights.may_see_values());
        mask::versions(&user.rights, &mut rows);
        Ok(Reply::History(rows))
    }

    /// Lists the jobs.
    pub(super) fn jobs(&self, user: &User) -> Reply {
        let mut rows = report::jobs(&self.cluster.view_of(user), clock::now());
        mask::runs(&user.rights, rows.iter_mut().filter_map(|row| row.last.as_mut()));
        Reply::Jobs(rows)
    }

    /// Lists the runs of a job.
    pub(super) fn runs(&self, user: &User, service: &str) -> Result<Reply, ApiError> {
        let view = self.cluster.view_of(user);
        let key = vc_engine::find_service(&view.cluster, service)?;
        let mut rows = report::runs(&view, &key);
        mask::runs(&user.rights, rows.iter_mut());
        Ok(Reply::Runs(rows))
    }

    /// Begins a run of a job.
    pub(super) async fn run_job(&self, user: &User, service: String) -> Result<Reply, ApiError> {
        let reply = self.cluster.mutate(user, Mutation::RunJob { service }).await?;
        self.record_runs(user, &reply);
        Ok(reply)
    }

    /// Stops a run of a job.
    pub(super) async fn stop_run(
        &self,
        user: &User,
        service: String,
        run: Option<u32>,
    ) -> Result<Reply, ApiError> {
        let reply = self.cluster.mutate(user, Mutation::StopRun { service, run }).await?;
        self.record_runs(user, &reply);
        Ok(reply)
    }

    /// Records runs that a person began or stopped: they are no changes of the cluster document, which are recorded by themselves.
    fn record_runs(&self, user: &User, reply: &Reply) {
        let Reply::Done(changes) = reply else { return };
        for change in changes {
            if let Change::RunBegun { slot } | Change::RunStopped { slot } = change {
                let (service, text) = (slot.service.clone(), change.to_string());
                self.audit.record(AuditAction::JobRun, user, Some(service), text);
            }
        }
    }

    /// Evens out the load of nodes, or with `apply` unset lists what would move.
    pub(super) async fn rebalance(&self, user: &User, apply: bool) -> Result<Reply, ApiError> {
        if apply {
            self.cluster.mutate(user, Mutation::Rebalance).await
        } else {
            let _computation = user.quota.computation().await?;
            Ok(Reply::Moves(report::rebalance(&self.cluster.latest().view)))
        }
    }
}
