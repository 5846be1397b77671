//! Backups in object storage.

use std::io;
use std::path::Path;

use tempfile::NamedTempFile;
use vc_protocol::Millis;
use vc_s3::{Address, Bucket, Cause, Credentials};

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
/// is left out, and so is what cannot be read while others can.
///
/// # Errors
/// The server refuses, or cannot be reached.
pub async fn list_stored(bucket: &Bucket) -> Result<Vec<Stored>, BackupError> {
    let (mut all, mut unreadable) = (Vec::new(), None);
    for object in bucket.list(SCHEDULED_PREFIX).await? {
        if !is_scheduled(&object.name) {
            continue;
        }
        let bytes = match bucket.first_bytes(&object.name, 2 * MAX_LINE as u64).await {
            Ok(bytes) => bytes,
            // Another node with the same address may have deleted it meanwhile.
            Err(error) if error.cause == Cause::NotFound => continue,
            // Such as one that a rule of the bucket has moved to an archive.
            Err(error) if matches!(error.cause, Cause::Denied(_) | Cause::Other(_)) => {
                unreadable = Some(error);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if let Ok((header, _)) = read_header(&mut bytes.as_slice(), Path::new(&object.name)) {
            all.push(Stored { name: object.name, header, size: object.size });
        }
    }
    // If none can be read, that is no property of one.
    if let Some(error) = unreadable.filter(|_| all.is_empty()) {
        return Err(error.into());
    }
    all.sort_by(|a, b| b.header.taken.cmp(&a.header.taken).then_with(|| a.name.cmp(&b.name)));
    Ok(all)
}

/// A backup that was found in object storage.
#[derive(Debug)]
pub struct Found {
    bucket: Bucket,
    name: String,
    /// The address of a newer one that lacks the data of volumes.
    pub newer_incomplete: Option<Address>,
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
        let bucket = Bucket::open(&above, credentials)?;
        return Ok(Found { bucket, name: name.to_owned(), newer_incomplete: None });
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
    let newer = all.first().filter(|it| it.name != newest.name);
    let newer_incomplete = newer.map(|it| address.join(&it.name));
    Ok(Found { bucket, name: newest.name.clone(), newer_incomplete })
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

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use vc_s3_test_server::{Fault, S3Server};

    use super::*;
    use crate::read::tests::backup_of;

    fn credentials() -> Credentials {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), S3Server::credentials_file()).expect("written");
        Credentials::find(Some(file.path())).expect("credentials")
    }

    async fn found(address: &Address) -> Result<(String, Option<String>), BackupError> {
        let found = find_stored(address, &credentials(), 100).await?;
        Ok((found.name, found.newer_incomplete.map(|it| it.to_string())))
    }

    #[tokio::test]
    async fn the_newest_complete_backup_is_found_beside_what_is_incomplete_or_cannot_be_read() {
        let server = S3Server::start();
        let address: Address = server.location("vc").parse().expect("an address");
        server.put("vc/vc-3-incomplete.vcb", backup_of(3));
        let lacking = address.join("vc-3-incomplete.vcb").to_string();
        assert_eq!(
            found(&address).await.expect("found"),
            ("vc-3-incomplete.vcb".to_owned(), None),
            "the only one"
        );

        server.put("vc/vc-2.vcb", backup_of(2));
        server.put("vc/vc-200.vcb", backup_of(200));
        server.put("vc/vc-4.vcb", backup_of(4));
        server.fail("GET vc/vc-4.vcb", Fault::Refuse(403, "InvalidObjectState"), 1);
        assert_eq!(
            found(&address).await.expect("found"),
            ("vc-2.vcb".to_owned(), Some(lacking)),
            "one is archived, one from the future"
        );

        server.fail("GET", Fault::Refuse(403, "AccessDenied"), 100);
        assert!(found(&address).await.is_err(), "none can be read");
    }
}
