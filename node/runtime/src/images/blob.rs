//! Blobs on their way into the store: made of a layer's tar, or fetched from members.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use vc_image_archive::tar as archive;
use vc_protocol::image::{Digest, Encoding, Layer};

use super::store::{Store, Temporary};

/// A blob is compressed unless compression shrinks its first `SAMPLE` bytes by less than a tenth.
const SAMPLE: usize = 4 * 1024 * 1024;
/// zstd's fastest regular level, which is faster than most disks and networks.
const LEVEL: i32 = 1;

/// Makes a blob of a layer's tar, hashing and compressing it while it is written. It is removed unless it is stored.
pub(super) struct NewBlob {
    temporary: Temporary,
    diff_id: Sha256,
    size: u64,
    sink: Sink,
}

enum Sink {
    /// Less than [`SAMPLE`] bytes were written, which are held in memory.
    Undecided(File, Vec<u8>),
    Raw(File),
    Zstd(Box<zstd::stream::write::Encoder<'static, Hashing>>),
}

/// A file with the hash and length of what was written to it.
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
        sink.write(sample)?;
        Ok(sink)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
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
    /// Creates a temporary file in the store.
    pub(super) fn create(store: &Store) -> io::Result<Self> {
        let (temporary, file) = store.temporary()?;
        let sink = Sink::Undecided(file, Vec::new());
        Ok(Self { temporary, diff_id: Sha256::new(), size: 0, sink })
    }

    /// Appends bytes of the tar.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.diff_id.update(bytes);
        self.size += bytes.len() as u64;
        self.sink.write(bytes)?;
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

    /// Ends the blob, and returns it with its layer.
    pub(super) fn finish(mut self) -> io::Result<PackedBlob> {
        self.decide()?;
        let (diff_id, size) = (digest(self.diff_id), self.size);
        let (file, layer) = match self.sink {
            Sink::Zstd(encoder) => {
                let Hashing { file, hash, length } = encoder.finish()?;
                let blob = digest(hash);
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

/// A complete blob that is not stored yet. Dropping it removes it.
#[derive(Debug)]
pub(super) struct PackedBlob {
    temporary: Temporary,
    file: File,
    /// The layer that it holds.
    pub(super) layer: Layer,
}

impl PackedBlob {
    /// Stores the blob, durably.
    pub(super) fn store(&self, store: &Store) -> io::Result<()> {
        store.store_blob(self.temporary.path(), &self.file, &self.layer.blob)
    }
}

/// The beginning of a blob that is being fetched.
pub(super) struct PartialBlob {
    path: PathBuf,
    file: File,
    hash: Sha256,
    /// How many bytes are there.
    pub(super) length: u64,
}

impl PartialBlob {
    /// Opens and hashes what an earlier fetch left of the blob of a layer. A file longer than the blob is emptied.
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

    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Reports whether the blob is complete and matches its digest. A complete one that does not match is removed.
    pub(super) fn verify(&self, layer: &Layer) -> bool {
        let matches = self.length == layer.blob_size && digest(self.hash.clone()) == layer.blob;
        if !matches && self.length >= layer.blob_size {
            self.remove();
        }
        matches
    }

    /// Stores the blob, durably.
    pub(super) fn store(self, store: &Store, layer: &Layer) -> io::Result<()> {
        store.store_blob(&self.path, &self.file, &layer.blob)
    }

    /// Removes the file.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove an incomplete blob");
        }
    }
}

fn digest(hash: Sha256) -> Digest {
    Digest::from_sha256(hash.finalize().into())
}
