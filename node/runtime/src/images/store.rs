//! The image store: blobs and manifests on disk, named by digest.
//!
//! ```text
//! images/blobs/<sha256>             a layer's tar, compressed unless that does not shrink it
//! images/manifests/<image id>.json  a Manifest; its blobs may be incomplete
//! images/partial/<sha256>           the beginning of a blob that is being fetched
//! images/partial/pack-<n>           a blob or file without a name yet; removed at the start
//! images/loaded.json                the images that were loaded into Docker, see `loaded`
//! ```
//! A file appears under its name when it is complete and durable.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use vc_protocol::image::{Digest, Layer, Manifest};

use super::error::StoreError;

/// How many bytes of the disk are left free for the rest of the node.
const RESERVED_SPACE: u64 = 64 * 1024 * 1024;
/// The largest manifest, in bytes.
const MAX_MANIFEST: u64 = 4 * 1024 * 1024;

/// The directory of the image store. All methods block.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Numbers temporary files.
    temporary: AtomicU64,
}

impl Store {
    /// Opens the store in a data directory, creating it where there is none.
    ///
    /// # Errors
    /// The directory cannot be created, read or cleaned.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let dir = dir.join("images");
        for sub in ["blobs", "manifests", "partial"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        for file in fs::read_dir(dir.join("partial"))? {
            let file = file?;
            if file.file_name().as_encoded_bytes().starts_with(b"pack-") {
                fs::remove_file(file.path())?;
            }
        }
        Ok(Self { dir, temporary: AtomicU64::new(0) })
    }

    pub(super) fn blob_path(&self, blob: &Digest) -> PathBuf {
        self.dir.join("blobs").join(blob.hex())
    }

    fn manifest_path(&self, id: &Digest) -> PathBuf {
        self.dir.join("manifests").join(format!("{}.json", id.hex()))
    }

    pub(super) fn partial_path(&self, blob: &Digest) -> PathBuf {
        self.dir.join("partial").join(blob.hex())
    }

    /// Opens a blob. A missing one is an error.
    pub(super) fn blob(&self, blob: &Digest) -> io::Result<File> {
        File::open(self.blob_path(blob))
    }

    /// Reports whether the store has the blob of a layer.
    pub(super) fn has_blob(&self, layer: &Layer) -> bool {
        let length = fs::metadata(self.blob_path(&layer.blob)).map(|it| it.len());
        length.is_ok_and(|length| length == layer.blob_size)
    }

    /// Reads the manifest of an image; `None` when there is none. An unreadable one counts as missing, and is logged.
    pub(super) fn manifest(&self, id: &Digest) -> Option<Manifest> {
        let path = self.manifest_path(id);
        let read = || -> io::Result<Manifest> {
            let mut text = String::new();
            File::open(&path)?.take(MAX_MANIFEST).read_to_string(&mut text)?;
            let manifest: Manifest = serde_json::from_str(&text)?;
            manifest.check().map_err(io::Error::other)?;
            if manifest.id != *id {
                return Err(io::Error::other("it is the manifest of another image"));
            }
            Ok(manifest)
        };
        match read() {
            Ok(manifest) => Some(manifest),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read the manifest of an image");
                None
            }
        }
    }

    /// Reads the manifest of an image whose blobs are all in the store.
    pub(super) fn complete(&self, id: &Digest) -> Option<Manifest> {
        self.manifest(id)
            .filter(|manifest| manifest.layers.iter().all(|layer| self.has_blob(layer)))
    }

    /// Returns the ids of all manifests.
    pub(super) fn images(&self) -> io::Result<BTreeSet<Digest>> {
        let mut ids = BTreeSet::new();
        for file in fs::read_dir(self.dir.join("manifests"))? {
            let name = file?.file_name();
            let hex = name.to_str().and_then(|name| name.strip_suffix(".json"));
            ids.extend(hex.and_then(|hex| format!("sha256:{hex}").parse().ok()));
        }
        Ok(ids)
    }

    /// Writes a manifest.
    pub(super) fn store_manifest(&self, manifest: &Manifest) -> io::Result<()> {
        let json = serde_json::to_vec(manifest)?;
        vc_atomic_file::write(&self.manifest_path(&manifest.id), &json, 0o600)
    }

    /// Removes the manifest of an image, if there is one.
    pub(super) fn remove_manifest(&self, id: &Digest) -> io::Result<()> {
        ignore_missing(fs::remove_file(self.manifest_path(id)))
    }

    /// Removes a blob, if there is one.
    pub(super) fn remove_blob(&self, blob: &Digest) -> io::Result<()> {
        ignore_missing(fs::remove_file(self.blob_path(blob)))
    }

    /// Reads a text file of the store; empty where there is none, or where it cannot be read, which is logged.
    pub(super) fn read_text(&self, name: &str) -> String {
        match fs::read_to_string(self.dir.join(name)) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(file = name, %error, "cannot read a file of the image store");
                }
                String::new()
            }
        }
    }

    /// Replaces a text file of the store.
    pub(super) fn write_text(&self, name: &str, text: &str) -> io::Result<()> {
        vc_atomic_file::write(&self.dir.join(name), text.as_bytes(), 0o600)
    }

    pub(super) fn temporary(&self) -> io::Result<(Temporary, File)> {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join("partial").join(format!("pack-{number}"));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        Ok((Temporary(path), file))
    }

    /// Moves a complete file into the store as a blob, durably.
    pub(super) fn store_blob(&self, from: &Path, file: &File, blob: &Digest) -> io::Result<()> {
        vc_atomic_file::publish(file, from, &self.blob_path(blob))
    }

    /// Checks that an image of `bytes` bytes fits on the disk.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] when it does not.
    pub(super) fn check_space(&self, bytes: u64) -> Result<(), StoreError> {
        let Ok(disk) = rustix::fs::statvfs(&self.dir) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if bytes.saturating_add(RESERVED_SPACE) > free {
            return Err(StoreError::NoSpace {
                dir: self.dir.clone(),
                needed_mb: bytes.div_ceil(1_000_000),
                free_mb: free.saturating_sub(RESERVED_SPACE) / 1_000_000,
            });
        }
        Ok(())
    }

    /// Removes blobs older than `ttl` that no manifest lists, and incomplete blobs without new bytes for `partial_ttl`.
    /// Returns the number of bytes freed.
    pub(super) fn remove_unreferenced(
        &self,
        ttl: Duration,
        partial_ttl: Duration,
    ) -> io::Result<u64> {
        let manifests = self.images()?.into_iter().filter_map(|id| self.manifest(&id));
        let referenced: BTreeSet<String> = manifests
            .flat_map(|manifest| manifest.layers)
            .map(|layer| layer.blob.hex().to_owned())
            .collect();
        let mut freed = 0;
        for (dir, even_referenced, ttl) in [("blobs", false, ttl), ("partial", true, partial_ttl)] {
            for file in fs::read_dir(self.dir.join(dir))? {
                let file = file?;
                let metadata = file.metadata()?;
                let modified = metadata.modified().ok();
                let age = modified.and_then(|at| SystemTime::now().duration_since(at).ok());
                let is_referenced =
                    file.file_name().to_str().is_some_and(|name| referenced.contains(name));
                // A manifest is written after its blobs, so young ones may be about to be referenced.
                if age.is_some_and(|age| age >= ttl) && (even_referenced || !is_referenced) {
                    ignore_missing(fs::remove_file(file.path()))?;
                    freed += metadata.len();
                }
            }
        }
        Ok(freed)
    }

    /// Returns how many bytes the blobs take, and how many of these no image in `kept` has.
    pub(super) fn usage(&self, kept: &BTreeSet<Digest>) -> io::Result<(u64, u64)> {
        let manifests = kept.iter().filter_map(|id| self.manifest(id));
        let needed: BTreeSet<String> = manifests
            .flat_map(|manifest| manifest.layers)
            .map(|layer| layer.blob.hex().to_owned())
            .collect();
        let (mut bytes, mut unneeded) = (0, 0);
        for dir in ["blobs", "partial"] {
            for file in fs::read_dir(self.dir.join(dir))? {
                let file = file?;
                let length = file.metadata()?.len();
                bytes += length;
                if !file.file_name().to_str().is_some_and(|name| needed.contains(name)) {
                    unneeded += length;
                }
            }
        }
        Ok((bytes, unneeded))
    }

    /// Returns how long ago the manifest of an image was written.
    pub(super) fn age(&self, id: &Digest) -> Option<Duration> {
        let modified = fs::metadata(self.manifest_path(id)).ok()?.modified().ok()?;
        SystemTime::now().duration_since(modified).ok()
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A temporary file, removed when dropped unless it was renamed.
#[derive(Debug)]
pub(super) struct Temporary(PathBuf);

impl Temporary {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is missing when it was renamed; what cannot be removed is removed at the next start.
        let _ = fs::remove_file(&self.0);
    }
}
