//! From a `docker save` stream into the store, in one pass.
//!
//! The stream says only at its end what its files are, so every file that may be a layer becomes a blob without a name,
//! and those that the manifest does not name are dropped. Docker up to 24 writes `<id>/layer.tar` and `<hash>.json`, with
//! a layer that occurs twice as a link; later ones write `blobs/sha256/<hash>`. Both end with a `manifest.json` that
//! names what is what.

use std::collections::HashMap;
use std::io::Read;

use serde::Deserialize;

use super::archive::{self, Entries, Kind, normal};
use super::manifest::{Digest, MAX_CONFIG, Manifest, diff_ids};
use super::store::{PackedBlob, Store};

/// The most entries of a stream.
const MAX_ENTRIES: usize = 16 * 1024;
/// The most blobs without a name at a time.
const MAX_BLOBS: usize = 512;
/// The most bytes of configurations, and what looks like them, that are held in memory.
const MAX_HELD: usize = 32 * 1024 * 1024;
/// Links that lead on to links.
const MAX_LINKS: usize = 8;

/// Why a stream did not become an image in the store. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The stream broke, or the disk refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is not the image that was announced.
    #[error("what came is not image {id}: {why}")]
    Other {
        /// What was announced.
        id: Digest,
        /// What is wrong.
        why: String,
    },
}

/// `manifest.json`, one entry an image.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

enum Content {
    Small(Vec<u8>),
    Blob(PackedBlob),
}

/// What came by path.
#[derive(Default)]
struct Files {
    contents: HashMap<String, Content>,
    links: HashMap<String, String>,
    held: usize,
    blobs: usize,
    /// Bytes of the blobs, uncompressed.
    bytes: u64,
}

/// Takes an image out of a `docker save` stream. `tell` hears how many bytes of layers have come. Errors: nothing is kept.
pub fn pack(
    store: &Store,
    id: &Digest,
    input: impl Read,
    mut tell: impl FnMut(u64),
) -> Result<Manifest, PackError> {
    let other = |why: &str| PackError::Other { id: id.clone(), why: why.to_owned() };
    let mut entries = Entries::new(input);
    let mut files = Files::default();
    let mut count = 0;
    while let Some(entry) = entries.next()? {
        count += 1;
        if count > MAX_ENTRIES || files.blobs > MAX_BLOBS {
            return Err(other("it has too many files"));
        }
        let path = normal(&entry.path);
        match entry.kind {
            Kind::Other => {}
            Kind::Link(target) => {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                let target = if target.starts_with('/') {
                    normal(&target)
                } else {
                    normal(&format!("{directory}/{target}"))
                };
                files.links.insert(path, target);
            }
            // Configurations are small; so are some layers.
            Kind::File if entry.size <= MAX_CONFIG as u64 => {
                let mut content = Vec::new();
                entries.read_to_end(&mut content)?;
                if matches!(content.first(), Some(b'{' | b'[')) {
                    files.held += content.len();
                    if files.held > MAX_HELD {
                        return Err(other("it has too many small files"));
                    }
                    files.contents.insert(path, Content::Small(content));
                } else {
                    files.add_blob(store, path, &mut content.as_slice(), &mut tell)?;
                }
            }
            Kind::File => files.add_blob(store, path, &mut entries, &mut tell)?,
        }
    }
    let manifest = files.image(store, id)?;
    manifest.check().map_err(|why| other(&why))?;
    store.keep(&manifest)?;
    Ok(manifest)
}

impl Files {
    fn add_blob(
        &mut self,
        store: &Store,
        path: String,
        content: &mut impl Read,
        tell: &mut impl FnMut(u64),
    ) -> std::io::Result<()> {
        self.blobs += 1;
        let mut blob = store.new_blob()?;
        archive::copy(content, |part| {
            self.bytes += part.len() as u64;
            tell(self.bytes);
            blob.put(part)
        })?;
        self.contents.insert(path, Content::Blob(blob.end()?));
        Ok(())
    }

    fn get(&self, path: &str) -> Option<&Content> {
        let mut path = normal(path);
        for _ in 0..MAX_LINKS {
            if let Some(content) = self.contents.get(&path) {
                return Some(content);
            }
            path = self.links.get(&path)?.clone();
        }
        None
    }

    fn text(&self, path: &str) -> Option<&str> {
        match self.get(path)? {
            Content::Small(bytes) => std::str::from_utf8(bytes).ok(),
            Content::Blob(_) => None,
        }
    }

    /// Gives names to the blobs of the image.
    fn image(&self, store: &Store, id: &Digest) -> Result<Manifest, PackError> {
        let other = |why: String| PackError::Other { id: id.clone(), why };
        let saved =
            self.text("manifest.json").ok_or_else(|| other("it says not what it is".into()))?;
        let saved: Vec<Saved> = serde_json::from_str(saved)
            .map_err(|error| other(format!("its manifest does not read ({error})")))?;
        let found = saved.iter().find_map(|saved| {
            let config = self.text(&saved.config)?;
            (Digest::of(config.as_bytes()) == *id).then_some((saved, config))
        });
        let (saved, config) = found.ok_or_else(|| {
            other(
                "no configuration in it has that hash. Docker's containerd image store names images otherwise: switch it off \
                 (\"features\": {\"containerd-snapshotter\": false} in daemon.json)"
                    .into(),
            )
        })?;
        let wanted = diff_ids(config).map_err(other)?;
        if wanted.len() != saved.layers.len() {
            return Err(other("its layers are not those of its configuration".into()));
        }
        let mut layers = Vec::new();
        for (diff_id, path) in wanted.iter().zip(&saved.layers) {
            let made;
            let blob = match self.get(path) {
                Some(Content::Blob(blob)) => blob,
                Some(Content::Small(bytes)) => {
                    let mut blob = store.new_blob()?;
                    blob.put(bytes)?;
                    made = blob.end()?;
                    &made
                }
                None => return Err(other(format!("layer {path} is missing"))),
            };
            if blob.layer.diff_id != *diff_id {
                return Err(other(format!("layer {path} is not {diff_id}")));
            }
            // The same layer may occur twice, or be here from another image.
            if !store.holds(&blob.layer) {
                blob.keep(store)?;
            }
            layers.push(blob.layer.clone());
        }
        Ok(Manifest { id: id.clone(), config: config.to_owned(), layers })
    }
}
