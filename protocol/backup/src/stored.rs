//! Backups in object storage.

use std::io;
use std::path::Path;

use tempfile::NamedTempFile;
use vc_protocol::Millis;
use vc_s3::{Address, Bucket, Credentials};

use crate::error::BackupError;
use crate::format::{Header, MAX_LINE};
use crate::read::{BackupFile, read_header};
use crate::scheduled::{SCHEDULED_PREFIX, is_backup, is_incomplete, is_scheduled};
use crate::target::PART_PREFIX;

/// A backup in object storage that was made on a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name below the address.
    pub name: String,
    /// What can be read without the passphrase.
    pub header: Header,
    /// Its size in bytes.
    pub size: u64,
}

/// Lists the backups directly below an address that were made on a schedule, the newest first. What is no backup, or of a newer format,
/// is left out.
///
/// # Errors
/// The server refuses, or cannot be reached.
pub async fn list_stored(bucket: &Bucket) -> Result<Vec<Stored>, BackupError> {
    let mut all = Vec::new();
    for object in bucket.list(SCHEDULED_PREFIX).await? {
        if !is_scheduled(&object.name) {
            continue;
        }
        // Another node with the same address may have deleted it meanwhile.
        let bytes = match bucket.first_bytes(&object.name, 2 * MAX_LINE as u64).await {
            Err(error) if error.cause == vc_s3::Cause::NotFound => continue,
            bytes => bytes?,
        };
        if let Ok((header, _)) = read_header(&mut bytes.as_slice(), Path::new(&object.name)) {
            all.push(Stored { name: object.name, header, size: object.size });
        }
    }
    all.sort_by(|a, b| b.header.taken.cmp(&a.header.taken).then_with(|| a.name.cmp(&b.name)));
    Ok(all)
}

/// A backup that was found in object storage.
#[derive(Debug)]
pub struct Found {
    bucket: Bucket,
    name: String,
}

/// Finds a backup: the object that the address names, or the newest one below it if it does not end with `.vcb`: one that
/// lacks data only where there is no other. `now` is the present time: one that is dated later is not the newest.
///
/// # Errors
/// There is none, there are those of several clusters, or the server refuses or cannot be reached.
pub async fn find_stored(
    address: &Address,
    credentials: &Credentials,
    now: Millis,
) -> Result<Found, BackupError> {
    let (above, name) = address.split();
    if is_backup(name) {
        return Ok(Found { bucket: Bucket::open(&above, credentials)?, name: name.to_owned() });
    }
    let bucket = Bucket::open(address, credentials)?;
    let mut all = list_stored(&bucket).await?;
    let is_past = |it: &Stored| it.header.taken <= now;
    if all.iter().any(is_past) {
        all.retain(is_past);
    }
    let complete = all.iter().find(|it| !is_incomplete(&it.name));
    let newest =
        complete.or(all.first()).ok_or_else(|| BackupError::NoneStored(address.to_string()))?;
    if let Some(other) = all.iter().find(|it| it.header.cluster != newest.header.cluster) {
        let [newest, other] = [newest, other].map(|it| address.join(&it.name).to_string());
        return Err(BackupError::SeveralClusters { newest, other });
    }
    Ok(Found { bucket, name: newest.name.clone() })
}

impl Found {
    /// Returns its address.
    pub fn address(&self) -> Address {
        self.bucket.address().join(&self.name)
    }

    /// Copies it to a file in `dir`, which is removed with the returned value.
    ///
    /// # Errors
    /// There is no room, it is no backup, or the server refuses or cannot be reached.
    pub async fn download(&self, dir: &Path) -> Result<Download, BackupError> {
        let shown = self.address().to_string();
        let failed = |source: io::Error| BackupError::Write { path: dir.to_owned(), source };
        let file = tempfile::Builder::new().prefix(PART_PREFIX).tempfile_in(dir);
        let mut file = file.map_err(failed)?;
        self.bucket.download(&self.name, &mut file).await?;
        let backup = BackupFile::open_as(file.path(), Path::new(&shown))?;
        Ok(Download { backup, _file: file })
    }
}

/// A backup that was copied from object storage.
#[derive(Debug)]
pub struct Download {
    /// The backup. Messages name its address.
    pub backup: BackupFile,
    _file: NamedTempFile,
}
