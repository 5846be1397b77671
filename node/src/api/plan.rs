//! Requests that compute without changing anything: plans and Compose files.

use std::sync::Arc;

use tokio::sync::Semaphore;
use vc_compose::MAX_SERVICES;
use vc_engine::report;
use vc_protocol::control::Reply;
use vc_protocol::spec::{Deployment, SpecError};
use vc_protocol::{ApiError, ErrorCode, Name, ServiceKey};

use super::cluster::stopping;
use super::{ControlService, compose};
use crate::auth::User;

/// Instances that one request may ask for.
const MAX_INSTANCES: u64 = 20_000;

/// Why deployments are refused before they are looked at.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DeploymentError {
    /// More services or instances than are planned at once.
    #[error(
        "{services} services with {instances} instances are more than one request may name \
         ({MAX_SERVICES} services with {MAX_INSTANCES} instances)"
    )]
    TooLarge { services: usize, instances: u64 },
    /// Stored fields are kept although nothing reads them; deployed, they would be ignored.
    #[error(
        "{service} has fields that this node (vc-node {}) does not know: {fields}",
        env!("CARGO_PKG_VERSION")
    )]
    UnknownFields { service: ServiceKey, fields: String },
    /// A field breaks a rule that the types do not express.
    #[error("{service}: {source}")]
    Invalid { service: ServiceKey, source: SpecError },
}

impl From<DeploymentError> for ApiError {
    fn from(error: DeploymentError) -> Self {
        let hint = match error {
            DeploymentError::TooLarge { .. } => "split the file into several projects",
            DeploymentError::UnknownFields { .. } => "upgrade vc-node on this node",
            DeploymentError::Invalid { .. } => "correct the field",
        };
        Self::new(ErrorCode::InvalidArgument, error.to_string()).with_hint(hint)
    }
}

impl ControlService {
    /// Returns the plan with these deployments in place.
    pub(super) async fn plan(
        &self,
        user: &User,
        mut deployments: Vec<Deployment>,
    ) -> Result<Reply, ApiError> {
        check(&deployments)?;
        let _computation = user.quota.computation().await?;
        let view = self.cluster.latest().view;
        vc_engine::choose_ports(&view.cluster, &mut deployments)?;
        let limits = user.rights.limits.clone();
        let plan = move || {
            let mut plan = report::plan(&view, &deployments);
            plan.placements.retain(|row| limits.include(&row.service.project));
            plan.unplaced.retain(|row| limits.include(&row.service.project));
            plan.moves.retain(|row| limits.include(&row.service.project));
            Reply::Plan(plan)
        };
        self.planner.run(plan).await
    }

    /// Returns the deployments that the text of a Compose file describes.
    pub(super) async fn compose(
        &self,
        user: &User,
        text: String,
        project: Option<Name>,
    ) -> Result<Reply, ApiError> {
        let _computation = user.quota.computation().await?;
        let composed = self.planner.run(move || compose::read(&text, project)).await??;
        Ok(Reply::Composed(composed))
    }
}

/// Runs plans and reads Compose files on the blocking pool, one at a time, so that clients cannot occupy the pool. Cheap to
/// clone.
#[derive(Clone)]
pub(crate) struct Planner(Arc<Semaphore>);

impl Default for Planner {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Planner {
    /// Runs `work` when no other runs.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(stopping)?;
        let work = move || {
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(stopping)
    }
}

/// Checks that the deployments are few enough to plan within the time that a client waits, and have known fields with valid
/// values only.
pub(super) fn check(deployments: &[Deployment]) -> Result<(), DeploymentError> {
    if let Some(newer) = deployments.iter().find(|it| it.spec.has_unknown_fields()) {
        let fields = newer.spec.unknown_fields().join(", ");
        return Err(DeploymentError::UnknownFields { service: newer.service.clone(), fields });
    }
    for Deployment { service, spec, .. } in deployments {
        spec.validate()
            .map_err(|source| DeploymentError::Invalid { service: service.clone(), source })?;
    }
    let instances = deployments.iter().map(|it| u64::from(it.replicas.unwrap_or(1))).sum();
    let services = deployments.len();
    if services <= MAX_SERVICES && instances <= MAX_INSTANCES {
        Ok(())
    } else {
        Err(DeploymentError::TooLarge { services, instances })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use vc_compose::Context;

    use super::*;

    #[test]
    fn deployments_over_the_limits_are_rejected() {
        let (env, nothing) = (std::collections::BTreeMap::new(), || std::io::Error::other("alone"));
        let context = Context {
            project: None,
            node: None,
            directory: None,
            env: &env,
            read: &|_| Err(nothing()),
            open: &|_| Err(nothing()),
        };
        let text = "name: shop\nservices: {web: {image: 'web:1', deploy: {replicas: 1000}}}";
        let [web]: [Deployment; 1] =
            vc_compose::parse(text, &context).expect("a project").services.try_into().expect("one");
        assert_eq!(check(&vec![web.clone(); 20]), Ok(()));
        let refused = check(&vec![web.clone(); 21]).expect_err("too many").to_string();
        assert!(refused.contains("21 services with 21000 instances"), "{refused}");
        let mut json = serde_json::to_value(&web).expect("JSON");
        json["spec"]["container"]["gpus"] = 1.into();
        let newer: Deployment = serde_json::from_value(json).expect("readable");
        let refused = check(&[newer]).expect_err("unknown field").to_string();
        assert!(refused.contains("shop/web") && refused.contains("container.gpus"), "{refused}");
        let mut reserved = web.clone();
        reserved.spec.container.labels.insert("vc.service".to_owned(), "bank".to_owned());
        let refused = check(&[reserved]).expect_err("reserved label").to_string();
        assert!(refused.starts_with("shop/web: labels: 'vc.service' is reserved"), "{refused}");
        let single = Deployment { replicas: None, ..web };
        assert!(check(&vec![single; MAX_SERVICES + 1]).is_err());
    }
    /// Docker has more ways to give a container its host than a spec has fields; what is no field is refused.
    #[test]
    fn other_ways_to_the_host_are_no_fields_of_a_spec() {
        let bind = |extra: Value| {
            let mut bind = json!({"source": "/srv", "target": "/x", "read_only": true});
            bind.as_object_mut()
                .expect("an object")
                .extend(extra.as_object().cloned().unwrap_or_default());
            json!([{ "bind": bind }])
        };
        let settings = json!({
            "net": "container:x", "pid": "host", "pid_mode": "host", "ipc": "host", "ipc_mode": "host",
            "uts": "host", "userns": "host", "userns_mode": "host", "cgroupns_mode": "host", "cgroup_parent": "/",
            "volumes_from": ["x"], "binds": ["/:/host"], "links": ["x"], "masked_paths": [], "readonly_paths": [],
        });
        let mut specs: Vec<Value> = Vec::new();
        for (key, value) in settings.as_object().expect("an object") {
            specs.push(json!({"container": {"image": "web:1", "settings": {key: value}}}));
            specs.push(json!({"container": {"image": "web:1", key: value}}));
        }
        for extra in [json!({"propagation": "rshared"}), json!({"driver_opts": {"type": "none"}})] {
            specs.push(json!({"container": {"image": "web:1", "mounts": bind(extra)}}));
        }
        for spec in specs {
            let deployment = json!({"service": "shop/web", "replicas": null, "spec": spec});
            let deployment: Deployment = serde_json::from_value(deployment).expect("readable");
            let refused = check(&[deployment]);
            assert!(
                matches!(refused, Err(DeploymentError::UnknownFields { .. })),
                "{spec}: {refused:?}"
            );
        }
        // Kinds of mounts and networks that do not exist are not even read.
        let npipe =
            json!({"image": "web:1", "mounts": [{"npipe": {"source": "/", "target": "/x"}}]});
        let joined = json!({"image": "web:1", "network_mode": "container:x"});
        for container in [npipe, joined] {
            let spec = json!({"container": container});
            let deployment = json!({"service": "shop/web", "replicas": null, "spec": spec});
            assert!(serde_json::from_value::<Deployment>(deployment).is_err());
        }
    }
}
