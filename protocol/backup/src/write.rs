//! Writes a backup.

use std::io::{self, Write};

use age::stream::StreamWriter;
use sha2::{Digest as _, Sha256};
use vc_protocol::VolumeKey;
use vc_protocol::backup::ClusterContent;

use crate::error::BackupError;
use crate::format::{
    ARCHIVE, CLUSTER, FAILED, FORMAT, MAGIC, MANIFEST, MAX_PROBLEM, Manifest, PART, SNAPSHOT,
    VOLUMES, VolumeFailure, VolumeSnapshot,
};
use crate::passphrase::Passphrase;

/// Work to try a passphrase, 2 to this power of scrypt: 128 MiB of memory, and about half a second.
const WORK: u8 = 17;

/// Writes a backup to `W`. What it has written without [`Writer::finish`] is no backup. Blocks.
pub struct Writer<W: Write> {
    archive: tar::Builder<StreamWriter<Hashed<W>>>,
    /// When it was taken, in seconds: the time of the entries.
    time: u64,
    part: Vec<u8>,
}

/// Passes bytes on and hashes them.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.hash.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write> Writer<W> {
    /// Begins a backup. The volumes that `manifest` includes have to follow, each with its data or as one that failed.
    ///
    /// # Errors
    /// [`BackupError::Encrypt`], or [`BackupError::Sink`] if it cannot be written.
    pub fn begin(
        out: W,
        passphrase: &Passphrase,
        manifest: &Manifest,
        content: &ClusterContent,
    ) -> Result<Self, BackupError> {
        let mut recipient = age::scrypt::Recipient::new(passphrase.0.clone());
        recipient.set_work_factor(WORK);
        let recipients = std::iter::once(&recipient as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients)
            .map_err(|error| BackupError::Encrypt(error.to_string()))?;
        let mut hashed = Hashed { inner: out, hash: Sha256::new() };
        let header = json(&manifest.header)?;
        writeln!(hashed, "{MAGIC}{FORMAT}").map_err(BackupError::Sink)?;
        hashed
            .write_all(&header)
            .and_then(|()| hashed.write_all(b"\n"))
            .map_err(BackupError::Sink)?;
        let encrypted = encryptor.wrap_output(hashed).map_err(BackupError::Sink)?;
        let archive = tar::Builder::new(encrypted);
        let mut this = Self { archive, time: manifest.header.taken / 1000, part: Vec::new() };
        this.append(MANIFEST, &json(manifest)?)?;
        this.append(CLUSTER, &json(content)?)?;
        Ok(this)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), BackupError> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o600);
        header.set_mtime(self.time);
        header.set_size(bytes.len() as u64);
        self.archive.append_data(&mut header, name, bytes).map_err(BackupError::Sink)
    }

    /// Begins the data of a volume: an archive as `vc volume backup` writes it.
    ///
    /// # Errors
    /// [`BackupError::Sink`] if it cannot be written.
    pub fn volume(
        &mut self,
        key: &VolumeKey,
        snapshot: &VolumeSnapshot,
    ) -> Result<VolumeWriter<'_, W>, BackupError> {
        let name = format!("{VOLUMES}/{}/{}", key.project, key.volume);
        self.append(&format!("{name}{SNAPSHOT}"), &json(snapshot)?)?;
        Ok(VolumeWriter { writer: self, name: format!("{name}{ARCHIVE}"), number: 0 })
    }

    /// Says that the data of a volume could not be read to its end: none of it counts. Takes the place of [`Writer::volume`], or of
    /// `VolumeWriter::finish`.
    ///
    /// # Errors
    /// [`BackupError::Sink`] if it cannot be written.
    pub fn failed(&mut self, key: &VolumeKey, problem: &str) -> Result<(), BackupError> {
        self.part.clear();
        let problem = problem.chars().take(MAX_PROBLEM).collect();
        let name = format!("{VOLUMES}/{}/{}{FAILED}", key.project, key.volume);
        self.append(&name, &json(&VolumeFailure { problem })?)
    }

    /// Writes the end. Returns what it wrote to.
    ///
    /// # Errors
    /// [`BackupError::Sink`] if it cannot be written.
    pub fn finish(self) -> Result<W, BackupError> {
        let end = || {
            let Hashed { mut inner, hash } = self.archive.into_inner()?.finish()?;
            inner.write_all(&hash.finalize())?;
            inner.flush()?;
            Ok(inner)
        };
        end().map_err(BackupError::Sink)
    }
}

/// Writes the data of a volume, in parts.
pub struct VolumeWriter<'a, W: Write> {
    writer: &'a mut Writer<W>,
    name: String,
    number: u32,
}

impl<W: Write> VolumeWriter<'_, W> {
    /// Appends bytes.
    ///
    /// # Errors
    /// [`BackupError::Sink`] if they cannot be written.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<(), BackupError> {
        while !bytes.is_empty() {
            let room = PART - self.writer.part.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.writer.part.extend_from_slice(now);
            bytes = later;
            if self.writer.part.len() == PART {
                self.write_part()?;
            }
        }
        Ok(())
    }

    /// Ends the volume.
    ///
    /// # Errors
    /// [`BackupError::Sink`] if the rest cannot be written.
    pub fn finish(mut self) -> Result<(), BackupError> {
        match self.writer.part.is_empty() {
            true => Ok(()),
            false => self.write_part(),
        }
    }

    fn write_part(&mut self) -> Result<(), BackupError> {
        let part = std::mem::take(&mut self.writer.part);
        // In the order of the shell, which sorts names.
        let name = format!("{}/{:08}", self.name, self.number);
        self.number += 1;
        self.writer.append(&name, &part)?;
        self.writer.part = part;
        self.writer.part.clear();
        Ok(())
    }
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, BackupError> {
    serde_json::to_vec(value).map_err(|error| BackupError::Sink(error.into()))
}
