//! The networks of projects on this machine's engine.

use std::collections::HashMap;

use bollard::errors::Error;
use bollard::models::NetworkCreateRequest;
use vc_engine::routes::DEFAULT_NETWORK;
use vc_protocol::Name;
use vc_protocol::spec::ContainerSpec;

use super::{Engine, container, reason};

impl Engine {
    /// Docker's names of the networks that an instance is in, the first being its primary one; those that are missing
    /// are made.
    pub(super) async fn networks_of(
        &self,
        project: &Name,
        spec: &ContainerSpec,
    ) -> Result<Vec<String>, Error> {
        let default = DEFAULT_NETWORK.parse::<Name>().ok().filter(|_| spec.networks.is_empty());
        let mut names = Vec::new();
        for network in spec.networks.keys().chain(default.as_ref()) {
            let name = format!("vc-{project}.{network}-{}", self.identity.node.short());
            let labels = HashMap::from([
                (container::CLUSTER.to_owned(), self.identity.cluster.to_string()),
                (container::NODE.to_owned(), self.identity.node.to_string()),
                (container::PROJECT.to_owned(), project.to_string()),
            ]);
            let request = NetworkCreateRequest {
                name: name.clone(),
                labels: Some(labels),
                ..NetworkCreateRequest::default()
            };
            match self.client()?.create_network(request).await {
                Err(error) if reason::status(&error) != Some(409) => return Err(error),
                _ => names.push(name),
            }
        }
        Ok(names)
    }
}
