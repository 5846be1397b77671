//! The record of what this node's engine calls images where it does not name them by their configuration,
//! `images/engine-ids.json`: the engine's ids, each with the image.
//!
//! The containerd image store names an image by the digest of its manifest or index, in which layers are compressed as
//! they were built or pulled. Both digests never change, so what is recorded stays true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use vc_protocol::image::Digest;

use super::blocking::blocking;
use super::store::Store;

const FILE: &str = "engine-ids.json";

/// An image in the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// The image: the digest of its configuration.
    image: Digest,
    /// This node loaded it, so that the engine has its layers uncompressed.
    #[serde(default)]
    loaded: bool,
}

/// The images of the engine whose ids are known.
#[derive(Debug)]
pub(super) struct EngineIds {
    store: Arc<Store>,
    known: Mutex<BTreeMap<Digest, Known>>,
}

impl EngineIds {
    /// Reads the record. An unreadable one counts as empty: images are identified again when they are needed.
    pub(super) fn read(store: Arc<Store>) -> Self {
        let text = store.read_text(FILE);
        let known = if text.is_empty() { Ok(BTreeMap::new()) } else { serde_json::from_str(&text) };
        let known = known.unwrap_or_else(|error| {
            tracing::warn!(file = FILE, %error, "cannot read what Docker calls its images");
            BTreeMap::new()
        });
        Self { store, known: Mutex::new(known) }
    }

    fn with<T>(&self, read: impl FnOnce(&mut BTreeMap<Digest, Known>) -> T) -> T {
        read(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the image that the engine calls `id`; `None` when that is not known.
    pub(super) fn image(&self, id: &Digest) -> Option<Digest> {
        self.with(|known| known.get(id).map(|it| it.image.clone()))
    }

    /// Returns what the engine calls an image, those that this node loaded first. It may have been removed since.
    pub(super) fn of_image(&self, image: &Digest) -> Vec<Digest> {
        let of_image = |known: &mut BTreeMap<Digest, Known>| {
            let mut found: Vec<(bool, Digest)> = known
                .iter()
                .filter(|(_, it)| it.image == *image)
                .map(|(id, it)| (!it.loaded, id.clone()))
                .collect();
            found.sort();
            found
        };
        self.with(of_image).into_iter().map(|(_, id)| id).collect()
    }

    /// Returns the engine's ids of images that this node loaded.
    pub(super) fn loaded(&self) -> BTreeSet<Digest> {
        self.with(|known| {
            known.iter().filter(|(_, it)| it.loaded).map(|(id, _)| id.clone()).collect()
        })
    }

    /// Records what the engine calls an image.
    pub(super) async fn insert(&self, id: Digest, image: Digest, loaded: bool) {
        self.with(|known| known.insert(id, Known { image, loaded }));
        self.write().await;
    }

    /// Forgets images that the engine no longer has.
    pub(super) async fn retain(&self, existing: &BTreeSet<Digest>) {
        let removed = self.with(|known| {
            let before = known.len();
            known.retain(|id, _| existing.contains(id));
            known.len() < before
        });
        if removed {
            self.write().await;
        }
    }

    async fn write(&self) {
        let store = Arc::clone(&self.store);
        let json = self.with(|known| serde_json::to_string(known).unwrap_or_default());
        if let Err(error) = blocking(move || store.write_text(FILE, &json)).await {
            tracing::warn!(file = FILE, %error, "cannot record what Docker calls its images");
        }
    }
}
