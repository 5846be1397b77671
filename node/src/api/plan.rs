//! What would be if: for users, which may take long.

use std::sync::Arc;

use vc_compose::MAX_SERVICES;
use vc_crdt::View;
use vc_engine::report;
use vc_protocol::Name;
use vc_protocol::control::Reply;
use vc_protocol::spec::Deployment;

use super::{Session, compose, stopping};

/// Instances that one request may name.
const MAX_INSTANCES: u64 = 20_000;

impl Session {
    /// The plan with these deployments.
    pub(super) async fn plan(
        &self,
        view: Arc<View>,
        deployments: Vec<Deployment>,
    ) -> Result<Reply, String> {
        check(&deployments)?;
        self.aside(move || Reply::Plan(report::plan(&view, &deployments))).await
    }

    /// What a Compose file asks for.
    pub(super) async fn compose(
        &self,
        text: String,
        project: Option<Name>,
    ) -> Result<Reply, String> {
        self.aside(move || compose::read(&text, project)).await?.map(Reply::Composed)
    }

    /// Does what may take long. The node goes on meanwhile, and there is one such thing at a time.
    async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let turn = Arc::clone(&self.planning).acquire_owned().await.map_err(stopping)?;
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(stopping)
    }
}

/// Errors: more than can be planned in a time that anybody waits.
pub(super) fn check(deployments: &[Deployment]) -> Result<(), String> {
    let instances: u64 = deployments.iter().map(|it| u64::from(it.replicas.unwrap_or(1))).sum();
    if deployments.len() <= MAX_SERVICES && instances <= MAX_INSTANCES {
        return Ok(());
    }
    Err(format!(
        "{} services with {instances} instances are more than one request may name: {MAX_SERVICES} with {MAX_INSTANCES}",
        deployments.len()
    ))
}

#[cfg(test)]
mod tests {
    use vc_compose::Context;

    use super::*;

    #[test]
    fn nobody_has_millions_of_instances_planned() {
        let (env, nothing) = (std::collections::BTreeMap::new(), || std::io::Error::other("alone"));
        let context = Context {
            project: None,
            directory: None,
            env: &env,
            read: &|_| Err(nothing()),
            open: &|_| Err(nothing()),
        };
        let text = "name: shop\nservices: {web: {image: 'web:1', deploy: {replicas: 1000}}}";
        let [web]: [Deployment; 1] =
            vc_compose::parse(text, &context).expect("a project").services.try_into().expect("one");
        assert_eq!(check(&vec![web.clone(); 20]), Ok(()));
        let refused = check(&vec![web.clone(); 21]).expect_err("too many");
        assert!(refused.contains("21 services with 21000 instances"), "{refused}");
        let single = Deployment { replicas: None, ..web };
        assert!(check(&vec![single; MAX_SERVICES + 1]).is_err());
    }
}
