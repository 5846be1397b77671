//! Checks and reads a backup. Nothing in the file is believed before its checksum was compared, and nothing after it beyond what
//! a reader can bear: a person may have been given the file.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use age::DecryptError;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use vc_protocol::VolumeKey;
use vc_protocol::backup::{ClusterContent, MAX_CLUSTER_CONTENT};

use crate::error::BackupError;
use crate::format::{
    ARCHIVE, BackupSummary, CHECKSUM, CLUSTER, FAILED, FORMAT, Header, MAGIC, MANIFEST, MAX_LINE,
    MAX_MANIFEST, MAX_SNAPSHOT, Manifest, PART, SNAPSHOT, VOLUMES, VolumeFailure, VolumeSnapshot,
};
use crate::passphrase::Passphrase;

/// The most work to try a passphrase, 2 to this power of scrypt: 1 GiB of memory.
const MAX_WORK: u8 = 20;
/// Bytes that are read at once.
const BUFFER: usize = 256 * 1024;

/// A backup on the disk.
#[derive(Debug, Clone)]
pub struct BackupFile {
    path: PathBuf,
    /// How messages name it.
    shown: PathBuf,
    header: Header,
    /// Where the encrypted part is.
    begin: u64,
    end: u64,
}

/// What was read of a backup.
#[derive(Debug)]
pub struct Contents {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The cluster document and the secrets.
    pub cluster: ClusterContent,
}

/// Receives what a backup has, in this order. What it reports as an error ends the reading.
pub trait Sink {
    /// Receives everything but the data of volumes.
    ///
    /// # Errors
    /// It cannot be used.
    fn begin(&mut self, contents: &Contents) -> io::Result<()>;

    /// Receives the data of a volume, an archive as `vc volume backup` writes it. All of it is to be read. An error of the archive
    /// says that its end is missing: none of the volume counts then, and others follow.
    ///
    /// # Errors
    /// It cannot be used, or the archive has failed.
    fn volume(&mut self, key: &VolumeKey, archive: &mut dyn Read) -> io::Result<()>;
}

/// Reads everything and keeps nothing.
struct Discard;

impl Sink for Discard {
    fn begin(&mut self, _: &Contents) -> io::Result<()> {
        Ok(())
    }

    fn volume(&mut self, _: &VolumeKey, archive: &mut dyn Read) -> io::Result<()> {
        io::copy(archive, &mut io::sink()).map(drop)
    }
}

impl BackupFile {
    /// Opens a backup and reads its header. Blocks, as all of this.
    ///
    /// # Errors
    /// The file cannot be read, is none, or is of a newer version.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        Self::open_as(path, path)
    }

    /// Opens a backup that messages name `shown`: it is a copy of what the user has named.
    ///
    /// # Errors
    /// As [`BackupFile::open`].
    pub fn open_as(path: &Path, shown: &Path) -> Result<Self, BackupError> {
        let failed = |source| BackupError::Read { path: shown.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(BackupError::NotABackup(shown.to_owned()));
        }
        let (header, begin) = read_header(&mut BufReader::new(file), shown)?;
        let end = metadata.len().checked_sub(CHECKSUM as u64).filter(|end| *end > begin);
        let end = end.ok_or_else(|| BackupError::Damaged(shown.to_owned()))?;
        Ok(Self { path: path.to_owned(), shown: shown.to_owned(), header, begin, end })
    }

    /// Returns what can be read without the passphrase. It is not authenticated until [`BackupFile::read`] has compared it.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Compares the checksum.
    ///
    /// # Errors
    /// The file cannot be read, or is not as it was written.
    pub fn check(&self) -> Result<(), BackupError> {
        let failed = |source| BackupError::Read { path: self.shown.clone(), source };
        let mut file = File::open(&self.path).map_err(failed)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; BUFFER];
        let mut left = self.end;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            match file.read(&mut buffer[..most]) {
                Ok(0) => return Err(BackupError::Damaged(self.shown.clone())),
                Ok(length) => {
                    hash.update(&buffer[..length]);
                    left -= length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let mut stored = [0; CHECKSUM];
        let mut rest = [0; 1];
        let is_whole = file.read_exact(&mut stored).and_then(|()| file.read(&mut rest));
        match is_whole {
            Ok(0) if stored[..] == hash.finalize()[..] => Ok(()),
            _ => Err(BackupError::Damaged(self.shown.clone())),
        }
    }

    /// Decrypts everything and keeps nothing. The checksum is compared first.
    ///
    /// # Errors
    /// As [`BackupFile::check`] and [`BackupFile::read`].
    pub fn verify(&self, passphrase: &Passphrase) -> Result<BackupSummary, BackupError> {
        self.check()?;
        let contents = self.read(passphrase, &mut Discard)?;
        let size = self.end + CHECKSUM as u64;
        let name = self.shown.display().to_string();
        Ok(BackupSummary::new(name, size, &contents.manifest, &contents.cluster))
    }

    /// Decrypts the file into `sink`. Each byte is authenticated before that gets it, and only the return says that it was all.
    ///
    /// # Errors
    /// The passphrase is another one, the content is not what this version writes, or the sink has failed.
    pub fn read(
        &self,
        passphrase: &Passphrase,
        sink: &mut dyn Sink,
    ) -> Result<Contents, BackupError> {
        let failed = |source| BackupError::Read { path: self.shown.clone(), source };
        let mut file = File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(self.begin)).map_err(failed)?;
        let encrypted = BufReader::with_capacity(BUFFER, file).take(self.end - self.begin);
        let mut identity = age::scrypt::Identity::new(passphrase.0.clone());
        identity.set_max_work_factor(MAX_WORK);
        let identities = std::iter::once(&identity as &dyn age::Identity);
        let decrypted = age::Decryptor::new_buffered(encrypted)
            .and_then(|decryptor| decryptor.decrypt(identities))
            .map_err(|error| self.undecryptable(error))?;
        let mut archive = tar::Archive::new(decrypted);
        let mut entries = archive.entries().map_err(failed)?;
        let manifest: Manifest = self.entry(&mut entries, MANIFEST, MAX_MANIFEST)?;
        if manifest.header != self.header {
            return Err(self.malformed("its header does not match what is encrypted"));
        }
        let cluster: ClusterContent =
            self.entry(&mut entries, CLUSTER, MAX_CLUSTER_CONTENT as u64)?;
        if Header::of(&cluster) != self.header {
            return Err(self.malformed("its header does not match the cluster document"));
        }
        let mut contents = Contents { manifest, cluster };
        sink.begin(&contents).map_err(BackupError::Sink)?;
        let mut parts = Parts { entries: &mut entries, current: None, next: None, failed: None };
        for volume in contents.manifest.volumes.iter_mut().filter(|it| it.included) {
            let name = format!("{VOLUMES}/{}/{}", volume.volume.project, volume.volume.volume);
            let failed = format!("{name}{FAILED}");
            let unreadable = |error: io::Error| self.malformed(&error.to_string());
            if parts.peek().map_err(unreadable)? == Some(failed.as_str()) {
                volume.fail(parts.failure(&failed).map_err(unreadable)?);
                continue;
            }
            let snapshot = parts.snapshot(&format!("{name}{SNAPSHOT}"));
            let VolumeSnapshot { snapshot, taken, bytes } = snapshot.map_err(unreadable)?;
            let name = format!("{name}{ARCHIVE}/");
            let mut archive =
                Volume { parts: &mut parts, name, failed: &failed, number: 0, is_cut: false };
            let received = sink.volume(&volume.volume, &mut archive);
            let (begun, rest) = (archive.number > 0, archive.read(&mut [0]));
            if archive.is_cut {
                volume.fail(parts.failure(&failed).map_err(unreadable)?);
                continue;
            }
            (volume.snapshot, volume.snapshot_taken, volume.bytes) = (Some(snapshot), taken, bytes);
            // What is wrong with the file explains what the sink says.
            if let Some(reason) = parts.failed.take() {
                return Err(self.malformed(&reason));
            }
            received.map_err(BackupError::Sink)?;
            if !begun || !matches!(rest, Ok(0)) {
                return Err(self.malformed(&format!("it lacks data of volume {}", volume.volume)));
            }
        }
        match parts.peek() {
            Ok(None) => Ok(contents),
            Ok(Some(name)) => {
                Err(self.malformed(&format!("it has {name}, which it does not name")))
            }
            Err(error) => Err(self.malformed(&error.to_string())),
        }
    }

    /// Reads an entry of JSON.
    fn entry<T: DeserializeOwned, R: Read>(
        &self,
        entries: &mut tar::Entries<'_, R>,
        name: &str,
        limit: u64,
    ) -> Result<T, BackupError> {
        let entry = entries.next().ok_or_else(|| self.malformed(&format!("it lacks {name}")))?;
        let entry = entry.map_err(|error| self.malformed(&error.to_string()))?;
        if entry.path_bytes() != name.as_bytes() || entry.size() > limit {
            return Err(self.malformed(&format!("{name} is missing, or larger than {limit} bytes")));
        }
        let mut bytes = Vec::new();
        // What it says of its size is not believed.
        let read = entry.take(limit).read_to_end(&mut bytes);
        read.map_err(|error| self.malformed(&error.to_string()))?;
        let parsed = serde_json::from_slice(&bytes);
        // Without what serde quotes: it may be a secret.
        parsed.map_err(|error| {
            self.malformed(&format!(
                "{name} is not what this version reads, at line {} column {}",
                error.line(),
                error.column()
            ))
        })
    }

    fn malformed(&self, reason: &str) -> BackupError {
        BackupError::Malformed { path: self.shown.clone(), reason: reason.to_owned() }
    }

    fn undecryptable(&self, error: DecryptError) -> BackupError {
        let path = self.shown.clone();
        match error {
            DecryptError::ExcessiveWork { .. } => BackupError::TooMuchWork(path),
            DecryptError::DecryptionFailed
            | DecryptError::KeyDecryptionFailed
            | DecryptError::InvalidMac => BackupError::Passphrase(path),
            DecryptError::Io(source) => BackupError::Read { path, source },
            error => self.malformed(&error.to_string()),
        }
    }
}

/// Reads what is in the clear at the begin of a backup. Returns it with its length.
///
/// # Errors
/// It cannot be read, is no backup, or is of a newer version.
pub(crate) fn read_header(
    reader: &mut impl io::BufRead,
    path: &Path,
) -> Result<(Header, u64), BackupError> {
    let failed = |source| BackupError::Read { path: path.to_owned(), source };
    let none = || BackupError::NotABackup(path.to_owned());
    let first = line(reader).map_err(failed)?.ok_or_else(none)?;
    let format = first.strip_prefix(MAGIC).and_then(|it| it.parse::<u32>().ok());
    match format.ok_or_else(none)? {
        0 => return Err(none()),
        found if found > FORMAT => {
            return Err(BackupError::Newer { path: path.to_owned(), found });
        }
        _ => {}
    }
    let damaged = || BackupError::Damaged(path.to_owned());
    let second = line(reader).map_err(failed)?.ok_or_else(damaged)?;
    let header = serde_json::from_str(&second).map_err(|_| damaged())?;
    Ok((header, (first.len() + second.len() + 2) as u64))
}

/// Reads a line of at most [`MAX_LINE`] bytes, without its end; `None` if there is none.
fn line(reader: &mut impl io::BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    reader.take(MAX_LINE as u64).read_until(b'\n', &mut bytes)?;
    Ok(match bytes.pop() {
        Some(b'\n') => String::from_utf8(bytes).ok(),
        _ => None,
    })
}

/// The entries after the first two: parts of volumes.
struct Parts<'e, 'a, R: Read> {
    entries: &'e mut tar::Entries<'a, R>,
    current: Option<tar::Entry<'a, R>>,
    /// The next one, with its name.
    next: Option<(String, tar::Entry<'a, R>)>,
    /// Why the file could not be read.
    failed: Option<String>,
}

impl<R: Read> Parts<'_, '_, R> {
    /// Returns the name of the next part; `None` at the end.
    fn peek(&mut self) -> io::Result<Option<&str>> {
        if self.next.is_none()
            && let Some(entry) = self.entries.next()
        {
            let entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let is_part = entry.header().entry_type().is_file() && entry.size() <= PART as u64;
            if !is_part {
                let message = format!("{name} is not a part of a volume");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            self.next = Some((name, entry));
        }
        Ok(self.next.as_ref().map(|(name, _)| name.as_str()))
    }

    /// Reads what is before the parts of a volume.
    fn snapshot(&mut self, name: &str) -> io::Result<VolumeSnapshot> {
        self.json(name)
    }

    /// Reads why a volume has no data.
    fn failure(&mut self, name: &str) -> io::Result<String> {
        self.json::<VolumeFailure>(name).map(|it| it.problem)
    }

    fn json<T: DeserializeOwned>(&mut self, name: &str) -> io::Result<T> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("{name} is missing"));
        if self.peek()? != Some(name) {
            return Err(bad());
        }
        let (_, entry) = self.next.take().ok_or_else(bad)?;
        serde_json::from_reader(entry.take(MAX_SNAPSHOT)).map_err(io::Error::from)
    }
}

/// The data of one volume.
struct Volume<'p, 'e, 'a, R: Read> {
    parts: &'p mut Parts<'e, 'a, R>,
    /// How the names of its parts begin.
    name: String,
    /// The name of what follows its parts if it has no end.
    failed: &'p str,
    number: u32,
    /// Whether it has no end.
    is_cut: bool,
}

impl<R: Read> Volume<'_, '_, '_, R> {
    fn next_bytes(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(part) = &mut self.parts.current {
                match part.read(buffer)? {
                    0 => self.parts.current = None,
                    length => return Ok(length),
                }
            }
            let expected = format!("{}{:08}", self.name, self.number);
            let next = self.parts.peek()?;
            if next == Some(self.failed) {
                self.is_cut = true;
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "its end is not in the backup",
                ));
            }
            if next != Some(expected.as_str()) {
                return Ok(0);
            }
            self.parts.current = self.parts.next.take().map(|(_, entry)| entry);
            self.number += 1;
        }
    }
}

impl<R: Read> Read for Volume<'_, '_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next_bytes(buffer).inspect_err(|error| {
            if !self.is_cut {
                self.parts.failed = Some(error.to_string());
            }
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
