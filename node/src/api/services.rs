//! Requests about services and their instances.

use std::iter;

use vc_engine::{FindError, Mutation, report};
use vc_protocol::ApiError;
use vc_protocol::control::Reply;
use vc_protocol::spec::{Deployment, FileContent};

use super::{ControlService, mask, plan};
use crate::auth::{User, privileges};
use crate::secrets::{SealedDeployment, seal_deployment_files};

impl ControlService {
    /// Lists services.
    pub(super) fn services(&self, user: &User) -> Reply {
        let mut rows = report::services(&self.cluster.view_of(user));
        mask::services(&user.rights, &mut rows);
        Reply::Services(rows)
    }

    /// Lists instances: those of the services that `service` names, or all.
    pub(super) fn instances(&self, user: &User, service: Option<&str>) -> Result<Reply, ApiError> {
        let view = self.cluster.view_of(user);
        let mut rows = report::instances(&view);
        mask::instances(&user.rights, &mut rows);
        if let Some(service) = service {
            let keys = vc_engine::find_services(&view.cluster, service)?;
            rows.retain(|row| keys.contains(&row.service));
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
    ) -> Result<Reply, ApiError> {
        let _computation = user.quota.computation().await?;
        let SealedDeployment { mut deployments, .. } = self.complete(deployments, files).await?;
        // What is refused later is shown as it is.
        let _ = privileges::check(&user.rights, &self.cluster.latest().view, &mut deployments);
        let values = user.rights.may_see_values();
        Ok(Reply::Diff(vc_engine::diff(&self.cluster.latest().view, &deployments, values)))
    }

    /// Puts services in place, all or none.
    pub(super) async fn deploy(
        &self,
        user: &User,
        deployments: Vec<Deployment>,
        files: &[FileContent],
    ) -> Result<Reply, ApiError> {
        let SealedDeployment { mut deployments, files } = self.complete(deployments, files).await?;
        privileges::check(&user.rights, &self.cluster.latest().view, &mut deployments)?;
        let projects = user.rights.projects().cloned();
        self.cluster.mutate(user, Mutation::Deploy { deployments, files, projects }).await
    }

    /// Pins images and seals files, as a deployment and the diff against one both need.
    async fn complete(
        &self,
        mut deployments: Vec<Deployment>,
        files: &[FileContent],
    ) -> Result<SealedDeployment, ApiError> {
        plan::check(&deployments)?;
        let view = self.cluster.latest().view;
        self.images.pin(&view, self.cluster.membership().node, &mut deployments).await;
        let membership = self.cluster.membership();
        let (keys, held) = (membership.file_keys(), &view.cluster.files);
        Ok(seal_deployment_files(keys.as_ref(), membership.cluster, held, deployments, files)?)
    }

    /// Returns a service to its previous spec.
    pub(super) async fn rollback(&self, user: &User, service: String) -> Result<Reply, ApiError> {
        let view = self.cluster.latest().view;
        // One that is not found has no instances either; the mutation says why.
        if let Ok(key) = vc_engine::find_service(&view.cluster, &service) {
            privileges::check_rollback(&user.rights, &view, &key)?;
        }
        self.cluster.mutate(user, Mutation::Rollback { service }).await
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
