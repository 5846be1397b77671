//! What is kept, and for how long.
//!
//! Once an hour, and at the start:
//! - Blobs stay while a service uses their image, or used it before its last update, and for seven days after it was
//!   pushed; for an hour in any case, since a push or a deployment may be about to name it.
//! - The beginnings of blobs go after a day without a byte.
//! - An image that this node loaded into its Docker goes when no service has needed it for seven days, and no container
//!   uses it. What others put into Docker stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use vc_crdt::View;
use vc_protocol::Millis;

use super::fetch::blocking;
use super::manifest::Digest;
use super::store::Store;
use super::{Images, reference};
use crate::clock::now;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(3600);
/// How long what nobody names stays.
const GRACE: Duration = Duration::from_secs(3600);
/// How long a beginning stays.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// How long a push is kept that no service uses, and an image in Docker that none needs.
const KEEP: Millis = 7 * 24 * 3_600_000;
/// The file that says what was loaded.
const LOADED: &str = "loaded.json";

/// The images that were loaded into Docker here, and when a service needed them last.
#[derive(Debug)]
pub(super) struct Loaded(Mutex<BTreeMap<Digest, Millis>>);

impl Loaded {
    pub(super) fn read(store: &Store) -> Self {
        Self(Mutex::new(serde_json::from_str(&store.note(LOADED)).unwrap_or_default()))
    }

    /// Notes that an image was loaded; gives all that were.
    pub(super) async fn note(&self, store: &Arc<Store>, id: &Digest) -> BTreeSet<Digest> {
        let add = |all: &mut BTreeMap<Digest, Millis>| {
            all.insert(id.clone(), now());
        };
        self.change(store, add).await
    }

    async fn change(
        &self,
        store: &Arc<Store>,
        change: impl FnOnce(&mut BTreeMap<Digest, Millis>),
    ) -> BTreeSet<Digest> {
        let (json, ids) = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut all);
            (serde_json::to_string(&*all).unwrap_or_default(), all.keys().cloned().collect())
        };
        let store = Arc::clone(store);
        // Lost, it would only mean that an image stays in Docker.
        if let Err(error) = blocking(move || store.write_note(LOADED, &json)).await {
            tracing::warn!(%error, "cannot note which images were loaded");
        }
        ids
    }
}

/// The images that services use, or used before their last update.
pub(super) fn in_use(view: &View) -> BTreeSet<Digest> {
    let mut ids = BTreeSet::new();
    for record in view.cluster.services.values() {
        for spec in [Some(&record.spec), record.previous.as_ref()].into_iter().flatten() {
            let pinned = spec.container.image_id.clone().or_else(|| {
                let name = reference::canonical(&spec.container.image).ok()?;
                Some(view.cluster.images.get(&name)?.id.clone())
            });
            ids.extend(pinned.and_then(|id| id.parse::<Digest>().ok()));
        }
    }
    ids
}

/// The images whose blobs stay.
pub(super) fn kept(view: &View, now: Millis) -> BTreeSet<Digest> {
    let recent = view.cluster.images.values().filter(|record| record.pushed + KEEP > now);
    let mut ids = in_use(view);
    ids.extend(recent.filter_map(|record| record.id.parse().ok()));
    ids
}

impl Images {
    /// Prunes now and then, for ever.
    pub(super) async fn prune(&self, views: watch::Receiver<Arc<View>>) {
        let mut pace = tokio::time::interval(EVERY);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            let view = Arc::clone(&views.borrow());
            // A node that has just joined knows of no service yet: what it holds is young, or it would know.
            if view.cluster.services.is_empty() && view.cluster.images.is_empty() {
                continue;
            }
            self.prune_blobs(kept(&view, now()), GRACE, IDLE).await;
            self.prune_docker(&in_use(&view)).await;
        }
    }

    /// Removes blobs that no image of `kept` has; what is younger than `grace` stays.
    pub(super) async fn prune_blobs(
        &self,
        kept: BTreeSet<Digest>,
        grace: Duration,
        idle: Duration,
    ) {
        let store = Arc::clone(&self.0.store);
        let pruned = blocking(move || {
            for id in store.images()? {
                if !kept.contains(&id) && store.age(&id).is_some_and(|age| age >= grace) {
                    store.forget(&id)?;
                }
            }
            store.sweep(grace, idle)
        });
        match pruned.await {
            Ok(0) => {}
            Ok(bytes) => tracing::info!(bytes, "images that nobody needs were pruned"),
            Err(error) => tracing::warn!(%error, "cannot prune images"),
        }
    }

    async fn prune_docker(&self, in_use: &BTreeSet<Digest>) {
        let Some(engine) = &self.0.engine else { return };
        let now = now();
        let mut due = Vec::new();
        let refresh = |all: &mut BTreeMap<Digest, Millis>| {
            for (id, needed) in all.iter_mut() {
                if in_use.contains(id) {
                    *needed = now;
                } else if *needed + KEEP < now {
                    due.push(id.clone());
                }
            }
        };
        self.0.loaded.change(&self.0.store, refresh).await;
        let mut gone = Vec::new();
        for id in due {
            match engine.remove(&id).await {
                Ok(()) => {
                    tracing::info!(
                        image = id.short(),
                        "an image that nobody needs was removed from Docker"
                    );
                    gone.push(id);
                }
                Err(why) => tracing::debug!(image = id.short(), why, "an image stays in Docker"),
            }
        }
        if !gone.is_empty() {
            let drop_gone =
                |all: &mut BTreeMap<Digest, Millis>| all.retain(|id, _| !gone.contains(id));
            self.0.loaded.change(&self.0.store, drop_gone).await;
        }
    }
}
