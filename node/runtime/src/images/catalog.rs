//! Which image a reference names, and which nodes have which images.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::time::timeout;
use vc_crdt::{ImageRecord, View};
use vc_protocol::control::ImageRow;
use vc_protocol::image::{Digest, MAX_IDS, Request, Response};
use vc_protocol::node::RuntimeKind;
use vc_protocol::spec::{ContainerSpec, Deployment};
use vc_protocol::{Millis, NodeId, ServiceKey};

use super::blocking::blocking;
use super::node_images::{Images, QUERY_TIMEOUT};
use super::reference;

/// How long a list of images waits for members.
const LIST_TIMEOUT: Duration = Duration::from_secs(1);
/// How many references are resolved at a time.
const CONCURRENT_RESOLVES: usize = 8;

impl Images {
    /// Pins deployments to image ids, so that all replicas run the same bytes. A pushed image takes precedence over
    /// what this node's Docker engine has, and that over other members. What no node has keeps its previous pin, if
    /// any.
    pub async fn pin(&self, view: &View, own: NodeId, deployments: &mut [Deployment]) {
        let infos = view.nodes.iter().filter(|(node, _)| view.up.contains(node));
        let infos = infos.filter_map(|(_, state)| state.info.as_ref());
        let platforms: BTreeSet<(&str, &str)> = infos
            .filter(|info| info.runtime == RuntimeKind::Docker)
            .map(|info| (&info.os[..], &info.arch[..]))
            .collect();
        if platforms.is_empty() {
            return;
        }
        let pinned = deployments.iter().map(|deployment| {
            let container = &deployment.spec.container;
            let held = view.cluster.services.get(&deployment.service);
            let held = held.map(|record| &record.spec.container);
            // Nodes of different platforms run different images of one name, so only a push identifies one.
            let unambiguous = platforms.len() == 1 || container.platform.is_some();
            self.resolve(view, own, (&deployment.service, container), held, unambiguous)
        });
        let pinned: Vec<Option<String>> =
            stream::iter(pinned.collect::<Vec<_>>()).buffered(CONCURRENT_RESOLVES).collect().await;
        for (deployment, id) in deployments.iter_mut().zip(pinned) {
            deployment.spec.container.image_id = id;
        }
    }

    async fn resolve(
        &self,
        view: &View,
        own: NodeId,
        (service, container): (&ServiceKey, &ContainerSpec),
        held: Option<&ContainerSpec>,
        unambiguous: bool,
    ) -> Option<String> {
        if let Some(id) = &container.image_id {
            return Some(id.clone());
        }
        let name = reference::canonical(&container.image).ok()?;
        if name.parse::<Digest>().is_ok() {
            return Some(name);
        }
        let of_project = |record: &&ImageRecord| {
            record.projects.as_ref().is_none_or(|projects| projects.contains(&service.project))
        };
        if let Some(record) = view.cluster.images.get(&name).filter(of_project) {
            return Some(record.id.clone());
        }
        if !unambiguous {
            return None;
        }
        let local = timeout(QUERY_TIMEOUT, self.local_id(&name)).await.ok().flatten();
        if let Some(id) = local {
            return Some(id.to_string());
        }
        let held =
            held.filter(|held| reference::canonical(&held.image).is_ok_and(|held| held == name));
        let held = held.and_then(|held| held.image_id.clone());
        let mut found = self.resolve_on_members(&name).await;
        found.remove(&own);
        let confirmed =
            held.as_ref().filter(|held| found.values().any(|id| id.as_str() == &held[..]));
        match (confirmed, found.into_values().next()) {
            (Some(held), _) => Some(held.clone()),
            (None, Some(id)) => Some(id.to_string()),
            (None, None) => held,
        }
    }

    /// Lists the images that were pushed or are in use, with the nodes that have them.
    pub async fn rows(&self, view: &View, own: NodeId) -> Vec<ImageRow> {
        let mut rows: BTreeMap<(String, String), ImageRow> = BTreeMap::new();
        let row = |reference: &str, id: &str, size: u64, pushed: Millis| ImageRow {
            reference: reference.to_owned(),
            id: id.to_owned(),
            size,
            nodes: Vec::new(),
            services: Vec::new(),
            pushed,
        };
        for (reference, record) in &view.cluster.images {
            let key = (reference.clone(), record.id.clone());
            rows.insert(key, row(reference, &record.id, record.size, record.pushed));
        }
        for (key, record) in &view.cluster.services {
            let (name, id) = listed_as(&record.spec.container);
            let row =
                rows.entry((name.clone(), id.clone())).or_insert_with(|| row(&name, &id, 0, 0));
            row.services.push(ServiceKey::clone(key));
        }
        let ids: BTreeSet<Digest> = rows.keys().filter_map(|(_, id)| id.parse().ok()).collect();
        let ids: Vec<Digest> = ids.into_iter().take(MAX_IDS).collect();
        let request = Request::Has(ids.clone());
        let (local, remote) = tokio::join!(
            timeout(LIST_TIMEOUT, self.present(ids.clone())),
            self.query_members(&request, LIST_TIMEOUT)
        );
        let mut holders: Vec<(String, BTreeSet<String>)> = Vec::new();
        let texts = |held: BTreeMap<Digest, bool>| held.into_keys().map(String::from).collect();
        holders.push((view.name(own), texts(local.unwrap_or_default())));
        for ((_, name), response) in remote {
            if let Response::Has(held) = response {
                holders.push((name, texts(held)));
            }
        }
        holders.sort();
        let sizes = self.local_sizes(ids).await;
        for ((_, id), row) in &mut rows {
            let having = holders.iter().filter(|(_, held)| held.contains(id));
            row.nodes = having.map(|(name, _)| name.clone()).collect();
            if row.size == 0 {
                row.size = sizes.get(id).copied().unwrap_or(0);
            }
        }
        rows.into_values().collect()
    }

    /// Returns the sizes in bytes of those images that are on this node.
    async fn local_sizes(&self, ids: Vec<Digest>) -> BTreeMap<String, u64> {
        let store = Arc::clone(&self.0.store);
        let known = blocking(move || {
            let known = ids.iter().map(|id| (id.clone(), store.manifest(id).map(|it| it.size())));
            Ok(known.collect::<Vec<_>>())
        });
        let mut sizes = BTreeMap::new();
        for (id, size) in known.await.unwrap_or_default() {
            let size = match (size, &self.0.docker) {
                (Some(size), _) => Some(size),
                (None, Some(docker)) => {
                    let found = timeout(LIST_TIMEOUT, docker.find(id.as_str())).await;
                    found.ok().and_then(Result::ok).flatten().map(|(_, size)| size)
                }
                (None, None) => None,
            };
            sizes.extend(size.map(|size| (String::from(id), size)));
        }
        sizes
    }
}

/// Returns the reference and the id under which a container's image is listed.
fn listed_as(container: &ContainerSpec) -> (String, String) {
    let name = reference::canonical(&container.image).unwrap_or_else(|_| container.image.clone());
    (name, container.image_id.clone().unwrap_or_default())
}
