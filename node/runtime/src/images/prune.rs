//! Pruning: what the store and Docker keep, and for how long.
//!
//! At the start and then once an hour:
//! - Blobs stay while a service uses their image or used it before its last update, while one of its three newest replaced
//!   versions whose update was complete does, for seven days after a push, and for an hour in any case, since a push or a
//!   deployment may be about to refer to them.
//! - Incomplete blobs are removed after a day without new bytes.
//! - Images that this node loaded into Docker are removed from it when no service has needed them for seven days and no
//!   container uses them. Other images in Docker stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use vc_crdt::View;
use vc_engine::history::kept_images;
use vc_protocol::image::Digest;
use vc_protocol::spec::ServiceSpec;
use vc_protocol::{Millis, Stored};

use super::blocking::blocking;
use super::node_images::Images;
use super::reference;
use crate::clock::now;

/// The time between two runs.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How long blobs stay that no document refers to.
const UNREFERENCED_TTL: Duration = Duration::from_secs(3600);
/// How long an incomplete blob stays without new bytes.
const PARTIAL_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long a pushed image stays that no service uses, and one in Docker that no service needs.
const UNUSED_TTL: Millis = 7 * 24 * 3_600_000;

/// Returns the images that services use, used before their last update, or need for a rollback.
fn in_use(view: &View) -> BTreeSet<Digest> {
    let id = |spec: &Stored<ServiceSpec>| {
        let pinned = spec.container.image_id.clone().or_else(|| {
            let name = reference::canonical(&spec.container.image).ok()?;
            Some(view.cluster.images.get(&name)?.id.clone())
        });
        pinned?.parse::<Digest>().ok()
    };
    kept_images(&view.cluster).filter_map(id).collect()
}

/// Returns the images whose blobs stay.
fn retained(view: &View, now: Millis) -> BTreeSet<Digest> {
    let recent = view.cluster.images.values().filter(|record| record.pushed + UNUSED_TTL > now);
    let mut ids = in_use(view);
    ids.extend(recent.filter_map(|record| record.id.parse().ok()));
    ids
}

impl Images {
    /// Prunes once an hour, forever.
    pub(super) async fn prune(&self, views: watch::Receiver<Arc<View>>) {
        let mut timer = tokio::time::interval(INTERVAL);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            let view = Arc::clone(&views.borrow());
            // A node that has just joined does not know the services yet.
            if view.cluster.services.is_empty() && view.cluster.images.is_empty() {
                continue;
            }
            self.prune_blobs(retained(&view, now()), UNREFERENCED_TTL, PARTIAL_TTL).await;
            self.prune_docker(&in_use(&view)).await;
        }
    }

    /// Removes manifests and blobs that no image in `retained` has and that are older than `ttl`, and incomplete blobs
    /// without new bytes for `partial_ttl`.
    pub(super) async fn prune_blobs(
        &self,
        retained: BTreeSet<Digest>,
        ttl: Duration,
        partial_ttl: Duration,
    ) {
        let store = Arc::clone(&self.0.store);
        let pruned = blocking(move || {
            for id in store.images()? {
                if !retained.contains(&id) && store.age(&id).is_some_and(|age| age >= ttl) {
                    store.remove_manifest(&id)?;
                }
            }
            store.remove_unreferenced(ttl, partial_ttl)
        });
        match pruned.await {
            Ok(0) => {}
            Ok(bytes) => tracing::info!(bytes, "unused images removed from the store"),
            Err(error) => tracing::warn!(%error, "cannot prune the image store"),
        }
    }

    /// Returns how many bytes the store takes, and how many of these are of no image that a service needs, or a version that it can return
    /// to.
    pub async fn store_usage(&self, view: &View) -> std::io::Result<(u64, u64)> {
        let (store, kept) = (Arc::clone(&self.0.store), in_use(view));
        blocking(move || store.usage(&kept)).await
    }

    /// Removes from Docker what this node has loaded into it and no container uses.
    pub async fn remove_loaded(&self) {
        let Some(docker) = &self.0.docker else { return };
        let mut all = Vec::new();
        let take = |loaded: &mut BTreeMap<Digest, Millis>| {
            all = std::mem::take(loaded).into_keys().collect();
        };
        self.0.loaded.change(&self.0.store, take).await;
        for id in all {
            if let Err(error) = docker.remove(&id).await {
                tracing::debug!(image = id.short(), %error, "cannot remove an image from Docker");
            }
        }
    }

    async fn prune_docker(&self, in_use: &BTreeSet<Digest>) {
        let Some(docker) = &self.0.docker else { return };
        let now = now();
        let mut due = Vec::new();
        let refresh = |all: &mut BTreeMap<Digest, Millis>| {
            for (id, needed) in all.iter_mut() {
                if in_use.contains(id) {
                    *needed = now;
                } else if *needed + UNUSED_TTL < now {
                    due.push(id.clone());
                }
            }
        };
        self.0.loaded.change(&self.0.store, refresh).await;
        let mut removed = Vec::new();
        for id in due {
            match docker.remove(&id).await {
                Ok(()) => {
                    tracing::info!(image = id.short(), "unused image removed from Docker");
                    removed.push(id);
                }
                Err(error) => {
                    tracing::debug!(image = id.short(), %error, "cannot remove an image from Docker");
                }
            }
        }
        if !removed.is_empty() {
            let drop_removed =
                |all: &mut BTreeMap<Digest, Millis>| all.retain(|id, _| !removed.contains(id));
            self.0.loaded.change(&self.0.store, drop_removed).await;
        }
        docker.forget_removed().await;
    }
}
