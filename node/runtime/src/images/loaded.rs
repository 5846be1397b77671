//! The record of images that this node loaded into Docker, `images/loaded.json`: image ids, each with the time when a
//! service needed it last, in milliseconds since the Unix epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use vc_protocol::Millis;
use vc_protocol::image::Digest;

use super::blocking::blocking;
use super::store::Store;
use crate::clock::now;

const FILE: &str = "loaded.json";

/// The images that this node loaded into Docker, with the time of last need.
#[derive(Debug)]
pub(super) struct Loaded(Mutex<BTreeMap<Digest, Millis>>);

impl Loaded {
    /// Reads the record. An unreadable one counts as empty, which only means that its images stay in Docker.
    pub(super) fn read(store: &Store) -> Self {
        let text = store.read_text(FILE);
        let all = if text.is_empty() { Ok(BTreeMap::new()) } else { serde_json::from_str(&text) };
        Self(Mutex::new(all.unwrap_or_else(|error| {
            tracing::warn!(file = FILE, %error, "cannot read which images were loaded into Docker");
            BTreeMap::new()
        })))
    }

    /// Adds an image, and returns all of them.
    pub(super) async fn add(&self, store: &Arc<Store>, id: &Digest) -> BTreeSet<Digest> {
        let add = |all: &mut BTreeMap<Digest, Millis>| {
            all.insert(id.clone(), now());
        };
        self.change(store, add).await
    }

    /// Applies a change and writes the record; returns the ids in it.
    pub(super) async fn change(
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
        if let Err(error) = blocking(move || store.write_text(FILE, &json)).await {
            tracing::warn!(file = FILE, %error, "cannot record which images were loaded into Docker");
        }
        ids
    }
}
