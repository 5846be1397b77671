//! Which nodes have which images.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use vc_crdt::View;
use vc_protocol::control::ImageRow;
use vc_protocol::image::{Digest, MAX_IDS, Request, Response};
use vc_protocol::spec::ContainerSpec;
use vc_protocol::{Millis, NodeId, ServiceKey};

use super::blocking::blocking;
use super::node_images::Images;
use super::reference;

/// How long a list of images waits for members.
const LIST_TIMEOUT: Duration = Duration::from_secs(1);

impl Images {
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
        for key in view.cluster.services.keys() {
            let Some(spec) = view.spec(key) else { continue };
            let (name, id) = listed_as(&spec.container);
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
                    let found = timeout(LIST_TIMEOUT, docker.size(&id)).await;
                    found.ok().and_then(Result::ok).flatten()
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
