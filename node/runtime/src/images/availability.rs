//! Whether an image can be had: on a node that is up, or from a registry that a node reaches.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::time::timeout;
use vc_crdt::View;
use vc_protocol::image::{Digest, MAX_IDS, RegistryAnswer, Request, Response};
use vc_protocol::node::RuntimeKind;
use vc_protocol::spec::ContainerSpec;
use vc_protocol::{ApiError, ErrorCode, NodeId, ServiceKey};

use super::node_images::{Images, QUERY_TIMEOUT};
use super::reference::{self, ReferenceError};

/// How long a registry may take to answer one node.
pub(super) const REGISTRY_TIMEOUT: Duration = Duration::from_secs(6);
/// How long all registries may take together. A client waits for 30 s.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(15);
/// How many images are looked for at a time.
const CONCURRENT_SEARCHES: usize = 8;

/// No node that is up and no registry has the image of a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{service}: image {image} is on no node and in no registry: Docker does not have it on {searched}; {registry}"
)]
pub struct ImageMissing {
    /// The service.
    pub service: ServiceKey,
    /// The reference as the user wrote it, with the id that it is pinned to.
    pub image: String,
    /// The nodes that were asked, and those that are down.
    pub searched: String,
    /// What registries say.
    pub registry: String,
}

impl From<ImageMissing> for ApiError {
    fn from(error: ImageMissing) -> Self {
        let reference = error.image.split(' ').next().unwrap_or_default();
        let hint = format!(
            "push it with 'vc image push {reference}', correct the name, or use --force to try anyway"
        );
        Self::new(ErrorCode::FailedPrecondition, error.to_string()).with_hint(hint)
    }
}

/// What registries say of an image that they do not give.
#[derive(Debug, thiserror::Error)]
enum RegistryError {
    #[error("no registry was asked, since the image is named by its id alone")]
    NamedById,
    #[error("no registry was asked")]
    NotAsked,
    #[error("no registry answered within {} s", SEARCH_TIMEOUT.as_secs())]
    TimedOut,
    #[error("registry: {0}")]
    Refused(String),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

impl Images {
    /// Checks that the image of each of these services is on a node that is up, or in a registry that a node reaches. Services that
    /// a node can run without an image are not checked, nor are those of which an instance with this image runs.
    ///
    /// # Errors
    /// The first service whose image is nowhere.
    pub async fn check_available(
        &self,
        view: &View,
        own: NodeId,
        services: &[(&ServiceKey, &ContainerSpec)],
    ) -> Result<(), ImageMissing> {
        let runtimes = |kind| {
            let mut infos = view.up.iter().filter_map(|node| view.nodes.get(node)?.info.as_ref());
            infos.any(|info| info.runtime == kind)
        };
        if !runtimes(RuntimeKind::Docker) {
            return Ok(());
        }
        let processes = runtimes(RuntimeKind::Process);
        let has_command = |it: &ContainerSpec| {
            [&it.command, &it.entrypoint].into_iter().flatten().any(|words| !words.is_empty())
        };
        let unknown = services.iter().filter(|(service, container)| {
            !(is_running(view, service, container) || processes && has_command(container))
        });
        let unknown: Vec<_> = unknown.copied().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let ids: BTreeSet<Digest> =
            unknown.iter().filter_map(|(_, container)| pinned(container)).collect();
        let present = self.present_anywhere(ids).await;
        let absent = unknown
            .into_iter()
            .filter(|(_, container)| pinned(container).is_none_or(|id| !present.contains(&id)));
        let mut by_image: BTreeMap<(&str, Option<&str>), (&ServiceKey, &ContainerSpec)> =
            BTreeMap::new();
        for (service, container) in absent {
            by_image
                .entry((&container.image, container.image_id.as_deref()))
                .or_insert((service, container));
        }
        let searches = by_image.into_values().map(|(service, container)| async move {
            let found = timeout(SEARCH_TIMEOUT, self.search(own, container)).await;
            let missing = found.unwrap_or(Err(RegistryError::TimedOut)).err()?;
            Some((service, container, missing))
        });
        let missing: Vec<_> = stream::iter(searches.collect::<Vec<_>>())
            .buffered(CONCURRENT_SEARCHES)
            .collect()
            .await;
        match missing.into_iter().flatten().next() {
            None => Ok(()),
            Some((service, container, registry)) => Err(ImageMissing {
                service: service.clone(),
                image: describe(container),
                searched: describe_nodes(view),
                registry: registry.to_string(),
            }),
        }
    }

    /// Returns those of `ids` that this node or another member has.
    async fn present_anywhere(&self, ids: BTreeSet<Digest>) -> BTreeSet<Digest> {
        let ids: Vec<Digest> = ids.into_iter().take(MAX_IDS).collect();
        if ids.is_empty() {
            return BTreeSet::new();
        }
        let request = Request::Has(ids.clone());
        let (local, remote) = tokio::join!(
            timeout(QUERY_TIMEOUT, self.present(ids)),
            self.query_members(&request, QUERY_TIMEOUT)
        );
        let mut present: BTreeSet<Digest> = local.unwrap_or_default().into_keys().collect();
        for (_, response) in remote {
            if let Response::Has(held) = response {
                present.extend(held.into_keys());
            }
        }
        present
    }

    /// Looks for an image by its reference, where its id is not known, and then in registries.
    ///
    /// # Errors
    /// It is not found; what registries say.
    async fn search(&self, own: NodeId, container: &ContainerSpec) -> Result<(), RegistryError> {
        let name = reference::canonical(&container.image)?;
        if name.parse::<Digest>().is_ok() {
            return Err(RegistryError::NamedById);
        }
        if pinned(container).is_none() && !self.found_on_nodes(own, &name).await.is_empty() {
            return Ok(());
        }
        let mut reason = None;
        let mut judge = |answer| match answer {
            RegistryAnswer::Found | RegistryAnswer::Unknown => true,
            RegistryAnswer::Missing(said) => {
                reason.get_or_insert(said);
                false
            }
        };
        if let Some(docker) = &self.0.docker
            && judge(docker.in_registry(&name).await)
        {
            return Ok(());
        }
        // Another node may reach a registry, or a mirror, that this one does not.
        let limit = REGISTRY_TIMEOUT + QUERY_TIMEOUT;
        for (_, response) in self.query_members(&Request::InRegistry(name), limit).await {
            if let Response::InRegistry(answer) = response
                && judge(answer)
            {
                return Ok(());
            }
        }
        Err(reason.map_or(RegistryError::NotAsked, RegistryError::Refused))
    }

    /// Asks the registry that a canonical reference names, through this node's Docker engine.
    pub(super) async fn in_registry(&self, name: &str) -> RegistryAnswer {
        match &self.0.docker {
            Some(docker) if reference::canonical(name).is_ok_and(|canonical| canonical == name) => {
                docker.in_registry(name).await
            }
            _ => RegistryAnswer::Missing("the node has no Docker engine".to_owned()),
        }
    }
}

fn pinned(container: &ContainerSpec) -> Option<Digest> {
    container.image_id.as_ref()?.parse().ok()
}

/// Returns whether an instance of the service runs with this very image on a node that is up.
fn is_running(view: &View, service: &ServiceKey, container: &ContainerSpec) -> bool {
    let Some(record) = view.cluster.services.get(service) else { return false };
    let versions = [Some(&record.spec), record.previous.as_ref()].into_iter().flatten();
    let same_image = versions.filter(|spec| {
        (&spec.container.image, &spec.container.image_id) == (&container.image, &container.image_id)
    });
    let digests: BTreeSet<String> = same_image.map(|spec| spec.container_digest()).collect();
    let mut claims =
        view.up.iter().filter_map(|node| view.nodes.get(node)).flat_map(|state| &state.claims);
    claims.any(|(id, claim)| {
        id.slot.service == *service && claim.state.is_running() && digests.contains(&id.digest)
    })
}

fn describe(container: &ContainerSpec) -> String {
    match pinned(container) {
        Some(id) if id.as_str() != container.image => {
            format!("{} ({})", container.image, id.short())
        }
        _ => container.image.clone(),
    }
}

/// Lists the nodes that were asked, and those that are down.
fn describe_nodes(view: &View) -> String {
    let names = |up: bool| {
        let nodes = view.nodes.keys().filter(|node| view.up.contains(node) == up);
        let mut names: Vec<String> = nodes.map(|&node| view.name(node)).collect();
        names.sort();
        names
    };
    let (up, down) = (names(true).join(", "), names(false));
    match down.as_slice() {
        [] => up,
        [one] => format!("{up} ({one} is down)"),
        down => format!("{up} ({} are down)", down.join(", ")),
    }
}
