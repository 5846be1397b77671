//! Which image a reference means, and who has which.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::time::timeout;
use vc_crdt::View;
use vc_protocol::control::ImageRow;
use vc_protocol::node::RuntimeKind;
use vc_protocol::spec::{ContainerSpec, Deployment};
use vc_protocol::{Millis, NodeId, ServiceKey};

use super::fetch::blocking;
use super::manifest::Digest;
use super::wire::{Answer, MAX_IDS, Request};
use super::{Images, QUESTION, reference};

/// How long a list waits for members.
const LIST: Duration = Duration::from_secs(1);
/// References that are resolved at a time.
const AT_A_TIME: usize = 8;

impl Images {
    /// Pins deployments to image ids, so that every replica runs the same bytes: what was pushed counts before what this
    /// node's Docker has, and that before what other members have. What nobody has now is as it was pinned before, if it
    /// was; else it stays open.
    pub async fn pin(&self, view: &View, own: NodeId, deployments: &mut [Deployment]) {
        let docker = |node: &&NodeId| view.up.contains(node);
        let infos = view.nodes.iter().filter(|(node, _)| docker(node));
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
            // Nodes of several kinds run several images of one name: only a push says which is meant.
            let alike = platforms.len() == 1 || container.platform.is_some();
            self.resolve(view, own, container, held, alike)
        });
        let pinned: Vec<Option<String>> =
            stream::iter(pinned.collect::<Vec<_>>()).buffered(AT_A_TIME).collect().await;
        for (deployment, id) in deployments.iter_mut().zip(pinned) {
            deployment.spec.container.image_id = id;
        }
    }

    async fn resolve(
        &self,
        view: &View,
        own: NodeId,
        container: &ContainerSpec,
        held: Option<&ContainerSpec>,
        alike: bool,
    ) -> Option<String> {
        if let Some(id) = &container.image_id {
            return Some(id.clone());
        }
        let name = reference::canonical(&container.image).ok()?;
        if name.parse::<Digest>().is_ok() {
            return Some(name);
        }
        if let Some(record) = view.cluster.images.get(&name) {
            return Some(record.id.clone());
        }
        if !alike {
            return None;
        }
        let local = timeout(QUESTION, self.local_id(&name)).await.ok().flatten();
        if let Some(id) = local {
            return Some(id.to_string());
        }
        let held = held.filter(|held| reference::canonical(&held.image).as_ref() == Ok(&name));
        let held = held.and_then(|held| held.image_id.clone());
        let mut found = self.resolve_by_members(&name).await;
        found.remove(&own);
        let confirmed =
            held.as_ref().filter(|held| found.values().any(|id| id.as_str() == &held[..]));
        match (confirmed, found.into_values().next()) {
            (Some(held), _) => Some(held.clone()),
            (None, Some(id)) => Some(id.to_string()),
            (None, None) => held,
        }
    }

    /// The images that were pushed or are in use, and who has them.
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
            let (name, id) = used(&record.spec.container);
            let row =
                rows.entry((name.clone(), id.clone())).or_insert_with(|| row(&name, &id, 0, 0));
            row.services.push(ServiceKey::clone(key));
        }
        let ids: BTreeSet<Digest> = rows.keys().filter_map(|(_, id)| id.parse().ok()).collect();
        let ids: Vec<Digest> = ids.into_iter().take(MAX_IDS).collect();
        let request = Request::Have(ids.clone());
        let (here, elsewhere) =
            tokio::join!(timeout(LIST, self.here(ids.clone())), self.ask_all(&request, LIST));
        let mut holders: Vec<(String, BTreeSet<String>)> = Vec::new();
        let texts = |held: BTreeMap<Digest, bool>| held.into_keys().map(String::from).collect();
        holders.push((view.name(own), texts(here.unwrap_or_default())));
        for ((_, name), answer) in elsewhere {
            if let Answer::Have(held) = answer {
                holders.push((name, texts(held)));
            }
        }
        holders.sort();
        let sizes = self.sizes(ids).await;
        for ((_, id), row) in &mut rows {
            let having = holders.iter().filter(|(_, held)| held.contains(id));
            row.nodes = having.map(|(name, _)| name.clone()).collect();
            if row.size == 0 {
                row.size = sizes.get(id).copied().unwrap_or(0);
            }
        }
        rows.into_values().collect()
    }

    /// Sizes of the images that are here.
    async fn sizes(&self, ids: Vec<Digest>) -> BTreeMap<String, u64> {
        let store = Arc::clone(&self.0.store);
        let known = blocking(move || {
            let known = ids.iter().map(|id| (id.clone(), store.manifest(id).map(|it| it.size())));
            Ok(known.collect::<Vec<_>>())
        });
        let mut sizes = BTreeMap::new();
        for (id, size) in known.await.unwrap_or_default() {
            let size = match (size, &self.0.engine) {
                (Some(size), _) => Some(size),
                (None, Some(engine)) => {
                    let found = timeout(LIST, engine.find(id.as_str())).await;
                    found.ok().and_then(Result::ok).flatten().map(|(_, size)| size)
                }
                (None, None) => None,
            };
            sizes.extend(size.map(|size| (String::from(id), size)));
        }
        sizes
    }
}

/// What a container runs, as it is listed: reference and id.
fn used(container: &ContainerSpec) -> (String, String) {
    let name = reference::canonical(&container.image).unwrap_or_else(|_| container.image.clone());
    (name, container.image_id.clone().unwrap_or_default())
}
