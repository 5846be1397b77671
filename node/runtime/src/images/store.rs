//! What a node keeps of images: blobs and manifests, named by their content.
//!
//! ```text
//! images/blobs/<sha256>            a layer's tar, compressed unless it does not shrink
//! images/manifests/<image id>.json what an image is made of; its blobs may still be on their way
//! images/partial/<sha256>          the beginning of a blob that is on its way
//! images/partial/pack-…            a blob whose name is not known yet; void after a restart
//! images/loaded.json               what was loaded into Docker here, see `prune`
//! ```
//! A file appears under its name when it is whole and durable.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::archive;
use super::manifest::{Digest, Encoding, Layer, Manifest};

/// Kept free on the disk, for what else a node has to write.
const RESERVE: u64 = 64 * 1024 * 1024;
/// The largest manifest, in bytes.
const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// A blob is compressed unless its first so many bytes do not shrink by a tenth.
const SAMPLE: usize = 4 * 1024 * 1024;
/// zstd's fastest ordinary level: it outruns most disks and networks.
const LEVEL: i32 = 1;

/// The images' directory. Blocking.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    temporary: AtomicU64,
}

impl Store {
    /// The store in this directory, made where there is none. Errors: the disk refuses.
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

    /// A blob. Errors: it is not here.
    pub(super) fn blob(&self, blob: &Digest) -> io::Result<File> {
        File::open(self.blob_path(blob))
    }

    /// Whether the blob of a layer is here.
    pub(super) fn holds(&self, layer: &Layer) -> bool {
        let length = fs::metadata(self.blob_path(&layer.blob)).map(|it| it.len());
        length.is_ok_and(|length| length == layer.blob_size)
    }

    /// An image's manifest; `None`: it is not known, or does not hold.
    pub(super) fn manifest(&self, id: &Digest) -> Option<Manifest> {
        let mut text = String::new();
        let file = File::open(self.manifest_path(id)).ok()?;
        file.take(MAX_MANIFEST).read_to_string(&mut text).ok()?;
        let manifest: Manifest = serde_json::from_str(&text).ok()?;
        (manifest.id == *id && manifest.check().is_ok()).then_some(manifest)
    }

    /// The manifest of an image whose blobs are all here.
    pub(super) fn complete(&self, id: &Digest) -> Option<Manifest> {
        self.manifest(id).filter(|manifest| manifest.layers.iter().all(|layer| self.holds(layer)))
    }

    /// The images that there is a manifest of.
    pub(super) fn images(&self) -> io::Result<BTreeSet<Digest>> {
        let mut ids = BTreeSet::new();
        for file in fs::read_dir(self.dir.join("manifests"))? {
            let name = file?.file_name();
            let hex = name.to_str().and_then(|name| name.strip_suffix(".json"));
            ids.extend(hex.and_then(|hex| format!("sha256:{hex}").parse().ok()));
        }
        Ok(ids)
    }

    /// Writes down what an image is made of.
    pub(super) fn keep(&self, manifest: &Manifest) -> io::Result<()> {
        let json = serde_json::to_vec(manifest)?;
        Self::replace(&self.manifest_path(&manifest.id), &json)
    }

    /// Forgets what an image is made of.
    pub(super) fn forget(&self, id: &Digest) -> io::Result<()> {
        absent_is_fine(fs::remove_file(self.manifest_path(id)))
    }

    /// Removes a blob that turned out wrong, or that is needed no more.
    pub(super) fn discard(&self, blob: &Digest) -> io::Result<()> {
        absent_is_fine(fs::remove_file(self.blob_path(blob)))
    }

    /// A file's text beside the blobs; empty where there is none.
    pub(super) fn note(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    /// Writes such a text.
    pub(super) fn write_note(&self, name: &str, text: &str) -> io::Result<()> {
        Self::replace(&self.dir.join(name), text.as_bytes())
    }

    fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
        vc_atomic_file::write(path, content, 0o600)
    }

    fn temporary(&self) -> io::Result<(Temporary, File)> {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join("partial").join(format!("pack-{number}"));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        Ok((Temporary(path), file))
    }

    /// Gives a whole file its name as a blob.
    pub(super) fn adopt(&self, from: &Path, file: &File, blob: &Digest) -> io::Result<()> {
        vc_atomic_file::publish(file, from, &self.blob_path(blob))
    }

    /// Whether so many bytes fit. Errors: for people, how many do.
    pub(super) fn room_for(&self, bytes: u64) -> Result<(), String> {
        let Ok(disk) = rustix::fs::statvfs(&self.dir) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if bytes.saturating_add(RESERVE) > free {
            return Err(format!(
                "the disk is full: {} MB are needed, {} MB are free in {}",
                bytes.div_ceil(1_000_000),
                free.saturating_sub(RESERVE) / 1_000_000,
                self.dir.display()
            ));
        }
        Ok(())
    }

    /// A writer of a new blob.
    pub(super) fn new_blob(&self) -> io::Result<NewBlob> {
        let (temporary, file) = self.temporary()?;
        Ok(NewBlob {
            temporary,
            diff_id: Sha256::new(),
            size: 0,
            sink: Sink::Undecided(file, Vec::new()),
        })
    }

    /// Removes every blob older than `grace` that no image here has, and what has been on its way for longer than `idle`;
    /// tells how many bytes that were.
    pub(super) fn sweep(&self, grace: Duration, idle: Duration) -> io::Result<u64> {
        let manifests = self.images()?.into_iter().filter_map(|id| self.manifest(&id));
        let kept: BTreeSet<String> = manifests
            .flat_map(|manifest| manifest.layers)
            .map(|layer| layer.blob.hex().to_owned())
            .collect();
        let mut freed = 0;
        for (dir, all, most) in [("blobs", false, grace), ("partial", true, idle)] {
            for file in fs::read_dir(self.dir.join(dir))? {
                let file = file?;
                let meta = file.metadata()?;
                let age =
                    meta.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
                let named = file.file_name().to_str().is_some_and(|name| kept.contains(name));
                // A blob is named only after it is here: young ones may be about to be.
                if age.is_some_and(|age| age >= most) && (all || !named) {
                    absent_is_fine(fs::remove_file(file.path()))?;
                    freed += meta.len();
                }
            }
        }
        Ok(freed)
    }

    /// How long ago an image's manifest was written.
    pub(super) fn age(&self, id: &Digest) -> Option<Duration> {
        let modified = fs::metadata(self.manifest_path(id)).ok()?.modified().ok()?;
        SystemTime::now().duration_since(modified).ok()
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A file that is gone again unless it was given a name.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Where it has got its name, there is nothing; else the next start removes what cannot be removed now.
        let _ = fs::remove_file(&self.0);
    }
}

/// Takes a layer's tar, and makes a blob of it: hashes and compresses as it comes.
pub(super) struct NewBlob {
    temporary: Temporary,
    diff_id: Sha256,
    size: u64,
    sink: Sink,
}

enum Sink {
    /// Too little was seen to tell whether it shrinks.
    Undecided(File, Vec<u8>),
    Raw(File),
    Zstd(Box<zstd::stream::write::Encoder<'static, Hashing>>),
}

/// A file, and the hash and length of what was written to it.
struct Hashing {
    file: File,
    hash: Sha256,
    length: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn decide(file: File, sample: &[u8]) -> io::Result<Self> {
        let shrinks = zstd::bulk::compress(sample, LEVEL)?.len() < sample.len() / 10 * 9;
        let mut sink = if shrinks {
            let target = Hashing { file, hash: Sha256::new(), length: 0 };
            Self::Zstd(Box::new(zstd::stream::write::Encoder::new(target, LEVEL)?))
        } else {
            Self::Raw(file)
        };
        sink.put(sample)?;
        Ok(sink)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Undecided(_, sample) => {
                sample.extend_from_slice(bytes);
                Ok(())
            }
            Self::Raw(file) => file.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }
}

impl NewBlob {
    /// Takes the next bytes.
    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.diff_id.update(bytes);
        self.size += bytes.len() as u64;
        self.sink.put(bytes)?;
        if matches!(&self.sink, Sink::Undecided(_, sample) if sample.len() >= SAMPLE) {
            self.decide()?;
        }
        Ok(())
    }

    fn decide(&mut self) -> io::Result<()> {
        if let Sink::Undecided(file, sample) = &mut self.sink {
            let (file, sample) = (file.try_clone()?, std::mem::take(sample));
            self.sink = Sink::decide(file, &sample)?;
        }
        Ok(())
    }

    /// Ends the blob: a layer, not yet kept.
    pub(super) fn end(mut self) -> io::Result<PackedBlob> {
        self.decide()?;
        let (diff_id, size) = (Digest::from_hash(self.diff_id), self.size);
        let (file, layer) = match self.sink {
            Sink::Zstd(encoder) => {
                let Hashing { file, hash, length } = encoder.finish()?;
                let blob = Digest::from_hash(hash);
                (file, Layer { diff_id, size, blob, blob_size: length, encoding: Encoding::Zstd })
            }
            Sink::Raw(file) | Sink::Undecided(file, _) => {
                let blob = diff_id.clone();
                (file, Layer { diff_id, size, blob, blob_size: size, encoding: Encoding::Raw })
            }
        };
        Ok(PackedBlob { temporary: self.temporary, file, layer })
    }
}

/// A whole blob that has no name yet; dropped, it is gone.
#[derive(Debug)]
pub(super) struct PackedBlob {
    temporary: Temporary,
    file: File,
    /// What it holds.
    pub(super) layer: Layer,
}

impl PackedBlob {
    /// Keeps it.
    pub(super) fn keep(&self, store: &Store) -> io::Result<()> {
        store.adopt(&self.temporary.0, &self.file, &self.layer.blob)
    }
}

/// The beginning of a blob that is on its way.
pub(super) struct Partial {
    path: PathBuf,
    file: File,
    hash: Sha256,
    /// How much of it is here.
    pub(super) length: u64,
}

impl Partial {
    /// What is here of the blob of a layer, hashed; nothing of it, where that would be too much.
    pub(super) fn open(store: &Store, layer: &Layer) -> io::Result<Self> {
        let path = store.partial_path(&layer.blob);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        if file.metadata()?.len() > layer.blob_size {
            file.set_len(0)?;
        }
        let mut hash = Sha256::new();
        let length = archive::copy(&mut file, |bytes| {
            hash.update(bytes);
            Ok(())
        })?;
        file.seek(io::SeekFrom::Start(length))?;
        Ok(Self { path, file, hash, length })
    }

    /// Takes the next bytes.
    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Whether it is whole and right. One that is whole and wrong is removed.
    pub(super) fn is_right(&self, layer: &Layer) -> bool {
        let right =
            self.length == layer.blob_size && Digest::from_hash(self.hash.clone()) == layer.blob;
        if !right && self.length >= layer.blob_size {
            let _ = fs::remove_file(&self.path);
        }
        right
    }

    /// Keeps it.
    pub(super) fn keep(self, store: &Store, layer: &Layer) -> io::Result<()> {
        store.adopt(&self.path, &self.file, &layer.blob)
    }

    /// Gives its room back.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}
