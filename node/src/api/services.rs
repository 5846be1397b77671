//! Requests about services and their instances.

use vc_engine::{FindError, Mutation, report};
use vc_protocol::ApiError;
use vc_protocol::control::Reply;
use vc_protocol::spec::{Deployment, FileContent};

use super::{ControlService, plan, roles};
use crate::auth::User;
use crate::identity::Membership;
use crate::secrets::{SealedDeployment, seal_deployment_files};

impl ControlService {
    /// Lists services.
    pub(super) fn services(&self) -> Reply {
        Reply::Services(report::services(&self.cluster.latest().view))
    }

    /// Lists instances: those of the services that `service` names, or all.
    pub(super) fn instances(&self, service: Option<&str>) -> Result<Reply, ApiError> {
        let view = self.cluster.latest().view;
        let mut rows = report::instances(&view);
        if let Some(service) = service {
            let keys = vc_engine::find_services(&view.cluster, service)?;
            rows.retain(|row| keys.contains(&row.service));
        }
        Ok(Reply::Instances(rows))
    }

    /// Describes one service.
    pub(super) fn inspect(&self, service: &str) -> Result<Reply, ApiError> {
        let view = self.cluster.latest().view;
        let key = vc_engine::find_service(&view.cluster, service)?;
        let detail =
            report::inspect(&view, &key).ok_or_else(|| FindError::NoService(service.to_owned()))?;
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
        let SealedDeployment { deployments, .. } = self.complete(deployments, files).await?;
        Ok(Reply::Diff(vc_engine::diff(&self.cluster.latest().view, &deployments)))
    }

    /// Puts services in place, all or none.
    pub(super) async fn deploy(
        &self,
        user: &User,
        deployments: Vec<Deployment>,
        files: &[FileContent],
    ) -> Result<Reply, ApiError> {
        let SealedDeployment { deployments, files } = self.complete(deployments, files).await?;
        roles::check_privileges(user, &self.cluster.latest().view, &deployments)?;
        self.cluster.mutate(user, Mutation::Deploy { deployments, files }).await
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
        let Membership { seal, cluster, .. } = self.cluster.membership();
        Ok(seal_deployment_files(seal.as_ref(), *cluster, deployments, files)?)
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
