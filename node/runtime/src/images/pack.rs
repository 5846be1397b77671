//! Packs a `docker save` archive into the store, in one pass.
//!
//! The archive says only at its end which files are what, so every file that may be a layer is stored as an unnamed
//! blob first, and those that the manifest does not list are dropped. Docker up to version 24 writes `<id>/layer.tar`
//! and `<hash>.json`, with links for repeated layers; later versions write `blobs/sha256/<hash>`. Both end with a
//! `manifest.json`. With the containerd image store, layers are as they were pulled or built, mostly compressed, and the
//! images of an index for other platforms are only in its OCI manifests.

use std::collections::HashMap;
use std::io::Read;

use serde::Deserialize;
use vc_image_archive::decompress;
use vc_image_archive::oci::{self, ImageManifest};
use vc_image_archive::tar::{self as archive, Entries, Kind, normalize};
use vc_protocol::image::{Digest, MAX_CONFIG, Manifest, diff_ids};

use super::blob::{NewBlob, PackedBlob};
use super::error::PackError;
use super::store::Store;

/// The most entries in an archive.
const MAX_ENTRIES: usize = 16 * 1024;
/// The most unnamed blobs at a time.
const MAX_BLOBS: usize = 512;
/// The most bytes of configurations, and of small files that may be one, held in memory.
const MAX_HELD: usize = 32 * 1024 * 1024;
/// The longest chain of links.
const MAX_LINKS: usize = 8;

/// An entry of `manifest.json`; there is one per image.
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

/// The files of the archive, by path.
#[derive(Default)]
struct Files {
    contents: HashMap<String, Content>,
    links: HashMap<String, String>,
    held: usize,
    blobs: usize,
    /// Total length of the blobs, uncompressed.
    bytes: u64,
}

/// Packs an image from a `docker save` archive. `progress` is called with the number of bytes of layers read so far.
///
/// # Errors
/// The archive is malformed or holds another image, or the disk fails; nothing is kept.
pub fn pack(
    store: &Store,
    id: &Digest,
    input: impl Read,
    mut progress: impl FnMut(u64),
) -> Result<Manifest, PackError> {
    let mismatch = |reason: &str| PackError::Mismatch { id: id.clone(), reason: reason.to_owned() };
    let mut entries = Entries::new(input);
    let mut files = Files::default();
    let mut count = 0;
    while let Some(entry) = entries.next_entry()? {
        count += 1;
        if count > MAX_ENTRIES || files.blobs > MAX_BLOBS {
            return Err(mismatch("it has too many files"));
        }
        let path = normalize(&entry.path);
        match entry.kind {
            Kind::Other => {}
            Kind::Link(target) => {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                let target = if target.starts_with('/') {
                    normalize(&target)
                } else {
                    normalize(&format!("{directory}/{target}"))
                };
                files.links.insert(path, target);
            }
            // A small file may be a configuration or a layer.
            Kind::File if entry.size <= MAX_CONFIG as u64 => {
                let mut content = Vec::new();
                entries.read_to_end(&mut content)?;
                if matches!(content.first(), Some(b'{' | b'[')) {
                    files.held += content.len();
                    if files.held > MAX_HELD {
                        return Err(mismatch("it has too many small files"));
                    }
                    files.contents.insert(path, Content::Small(content));
                } else {
                    files.add_blob(store, path, &mut content.as_slice(), &mut progress)?;
                }
            }
            Kind::File => files.add_blob(store, path, &mut entries, &mut progress)?,
        }
    }
    let manifest = files.image(store, id)?;
    manifest.check().map_err(|error| mismatch(&error.to_string()))?;
    store.store_manifest(&manifest)?;
    Ok(manifest)
}

impl Files {
    fn add_blob(
        &mut self,
        store: &Store,
        path: String,
        content: &mut impl Read,
        progress: &mut impl FnMut(u64),
    ) -> std::io::Result<()> {
        self.blobs += 1;
        let mut blob = NewBlob::create(store)?;
        archive::copy(&mut decompress(content)?, |part| {
            self.bytes += part.len() as u64;
            progress(self.bytes);
            blob.write(part)
        })?;
        self.contents.insert(path, Content::Blob(blob.finish()?));
        Ok(())
    }

    fn get(&self, path: &str) -> Option<&Content> {
        let mut path = normalize(path);
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

    /// Returns the paths of the layers of an image, and its configuration, from the OCI manifests.
    fn oci_image(&self, id: &Digest) -> Option<(Vec<String>, &str)> {
        let manifests = self.contents.values().filter_map(|content| match content {
            Content::Small(bytes) => ImageManifest::parse(bytes),
            Content::Blob(_) => None,
        });
        let found = manifests.into_iter().find(|manifest| manifest.config.digest == *id)?;
        let config = self.text(&oci::blob_path(id))?;
        let layers = found.layers.iter().map(|layer| oci::blob_path(&layer.digest)).collect();
        (Digest::of(config.as_bytes()) == *id).then_some((layers, config))
    }

    /// Names the blobs of the image, and returns its manifest.
    fn image(&self, store: &Store, id: &Digest) -> Result<Manifest, PackError> {
        let mismatch = |reason: String| PackError::Mismatch { id: id.clone(), reason };
        let saved =
            self.text("manifest.json").ok_or_else(|| mismatch("it has no manifest.json".into()))?;
        let saved: Vec<Saved> = serde_json::from_str(saved)
            .map_err(|error| mismatch(format!("its manifest.json cannot be parsed ({error})")))?;
        let listed = saved.into_iter().find_map(|saved| {
            let config = self.text(&saved.config)?;
            (Digest::of(config.as_bytes()) == *id).then_some((saved.layers, config))
        });
        let (paths, config) = listed
            .or_else(|| self.oci_image(id))
            .ok_or_else(|| mismatch("no configuration has this digest".into()))?;
        let expected = diff_ids(config).map_err(|error| mismatch(error.to_string()))?;
        if expected.len() != paths.len() {
            return Err(mismatch("its layers do not match its configuration".into()));
        }
        let mut layers = Vec::new();
        for (diff_id, path) in expected.iter().zip(&paths) {
            let made;
            let blob = match self.get(path) {
                Some(Content::Blob(blob)) => blob,
                Some(Content::Small(bytes)) => {
                    let mut blob = NewBlob::create(store)?;
                    blob.write(bytes)?;
                    made = blob.finish()?;
                    &made
                }
                None => return Err(mismatch(format!("layer {path} is missing"))),
            };
            if blob.layer.diff_id != *diff_id {
                return Err(mismatch(format!("layer {path} does not match its digest {diff_id}")));
            }
            // The same layer may occur twice, or be here from another image.
            if !store.has_blob(&blob.layer) {
                blob.store(store)?;
            }
            layers.push(blob.layer.clone());
        }
        Ok(Manifest { id: id.clone(), config: config.to_owned(), layers })
    }
}
