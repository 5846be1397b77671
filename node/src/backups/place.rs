//! Where the backups of a schedule are: a directory of this host, or object storage.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use vc_backup::{
    BackupError, BackupFile, FileTarget, Location, PART_PREFIX, S3Target, incomplete_name,
    is_scheduled, list_stored,
};
use vc_protocol::{ApiError, ClusterId, ErrorCode, NodeId};
use vc_s3::{Address, Bucket, Credentials, abort_unfinished};

use super::Kept;

/// The file in the data directory that names an upload which is not finished.
const UPLOAD_FILE: &str = "backup-upload.json";
/// A part of a file that is older was left by another process that was killed.
const MAX_PART_AGE: Duration = Duration::from_secs(24 * 3600);

/// Where the backups of a schedule are.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A directory.
    Dir(PathBuf),
    /// Objects below an address.
    S3 {
        address: Address,
        /// The file with the credentials; `None` for where the tools of AWS have them.
        credentials: Option<PathBuf>,
        /// The file that names an upload which is not finished.
        note: PathBuf,
    },
}

/// What a backup is written to.
pub(super) enum PlaceTarget {
    File(FileTarget),
    S3(Box<S3Target>),
}

impl Place {
    /// Returns the place of a location. `data_dir` is that of this node.
    pub(super) fn new(location: Location, credentials: Option<PathBuf>, data_dir: &Path) -> Self {
        match location {
            Location::Path(dir) => Self::Dir(dir),
            Location::S3(address) => {
                Self::S3 { address, credentials, note: data_dir.join(UPLOAD_FILE) }
            }
        }
    }

    /// Lists the backups of this cluster that schedules have made, the newest first.
    pub(super) async fn list(&self, cluster: ClusterId) -> Result<Vec<Kept>, ApiError> {
        match self {
            Self::Dir(dir) => {
                let dir = dir.clone();
                let listing = spawn_blocking(move || {
                    files(&dir, cluster).map_err(|error| cannot_read(&dir, &error))
                });
                listing.await.map_err(|_| super::stopping())?
            }
            Self::S3 { address, credentials, .. } => {
                let bucket = open(address, credentials.as_deref()).await?;
                let all = list_stored(&bucket).await?;
                let own = all.into_iter().filter(|it| it.header.cluster == cluster);
                Ok(own.map(|it| Kept::new(it.name, it.header.taken, it.size)).collect())
            }
        }
    }

    /// Begins a backup, and removes what was left of one that `node` has not finished.
    pub(super) async fn begin(&self, name: &str, node: &NodeId) -> Result<PlaceTarget, ApiError> {
        match self {
            Self::Dir(dir) => {
                let (dir, path) = (dir.clone(), dir.join(name));
                let part_prefix = format!("{PART_PREFIX}{node}-");
                let beginning = spawn_blocking(move || {
                    remove_parts(&dir, &part_prefix);
                    FileTarget::new(&path, false, &part_prefix)
                });
                let file = beginning.await.map_err(|_| super::stopping())??;
                Ok(PlaceTarget::File(file))
            }
            Self::S3 { address, credentials, note } => {
                let bucket = open(address, credentials.as_deref()).await?;
                abort_unfinished(&bucket, note).await;
                Ok(PlaceTarget::S3(Box::new(S3Target::new(bucket, name, note))))
            }
        }
    }

    /// Renames a backup that lacks the data of a volume, so that its name says so. Returns its name, which is as it was where that fails.
    pub(super) async fn rename_incomplete(&self, name: String) -> String {
        let renamed = incomplete_name(&name);
        match self.rename(&name, &renamed).await {
            Ok(()) => renamed,
            Err(error) => {
                let error = error.message;
                tracing::warn!(error, name, "the name of a backup does not say that it lacks data");
                name
            }
        }
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), ApiError> {
        match self {
            Self::Dir(dir) => {
                let (from, to) = (dir.join(from), dir.join(to));
                let renamed = tokio::fs::rename(&from, to).await;
                renamed
                    .map_err(|error| failed(format!("cannot rename {}: {error}", from.display())))
            }
            Self::S3 { address, credentials, .. } => {
                let bucket = open(address, credentials.as_deref()).await?;
                Ok(bucket.rename(from, to).await.map_err(BackupError::from)?)
            }
        }
    }

    /// Deletes a backup.
    pub(super) async fn delete(&self, name: &str) -> Result<(), ApiError> {
        match self {
            Self::Dir(dir) => {
                let path = dir.join(name);
                let deleted = tokio::fs::remove_file(&path).await;
                deleted
                    .map_err(|error| failed(format!("cannot delete {}: {error}", path.display())))
            }
            Self::S3 { address, credentials, .. } => {
                let bucket = open(address, credentials.as_deref()).await?;
                Ok(bucket.delete(name).await.map_err(BackupError::from)?)
            }
        }
    }
}

/// Opens a bucket with the present credentials: they may have been replaced since the last time.
async fn open(address: &Address, credentials: Option<&Path>) -> Result<Bucket, ApiError> {
    let file = credentials.map(Path::to_owned);
    let found = spawn_blocking(move || Credentials::find(file.as_deref())).await;
    let found = found.map_err(|_| super::stopping())?;
    let found = found.map_err(|error| failed(error.to_string()))?;
    Ok(Bucket::open(address, &found).map_err(BackupError::from)?)
}

fn failed(message: String) -> ApiError {
    ApiError::new(ErrorCode::Internal, message)
}

fn cannot_read(path: &Path, error: &io::Error) -> ApiError {
    failed(format!("cannot read {}: {error}", path.display()))
}

/// Lists the backups of a cluster in a directory that schedules have made, the newest first.
fn files(dir: &Path, cluster: ClusterId) -> io::Result<Vec<Kept>> {
    let mut all = Vec::new();
    for name in names(dir)? {
        let path = dir.join(&name);
        // What cannot be read is not counted, and not deleted.
        let Ok(file) = BackupFile::open(&path) else { continue };
        if file.header().cluster == cluster {
            let (taken, size) = (file.header().taken, std::fs::metadata(&path)?.len());
            all.push(Kept::new(name, taken, size));
        }
    }
    all.sort_by(|a, b| b.taken.cmp(&a.taken).then_with(|| a.name.cmp(&b.name)));
    Ok(all)
}

/// Lists the files in a directory that schedules have made, by their names.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let names = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    let names: Vec<Option<String>> = names.collect::<io::Result<_>>()?;
    Ok(names.into_iter().flatten().filter(|it| is_scheduled(it)).collect())
}

/// Removes what processes have left that were killed while they wrote: this node's, whose names begin with `own`, and old ones of
/// others. This node makes one backup at a time, so each of its own is a leftover.
fn remove_parts(dir: &Path, own: &str) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_old = || entry.metadata().ok().and_then(age).is_some_and(|age| age > MAX_PART_AGE);
        if name.starts_with(own) || (name.starts_with(PART_PREFIX) && is_old()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn age(metadata: Metadata) -> Option<Duration> {
    SystemTime::now().duration_since(metadata.modified().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use vc_backup::scheduled_name;

    use super::*;

    #[test]
    fn files_with_other_names_are_not_those_of_a_schedule() {
        let dir = tempfile::tempdir().expect("a directory");
        let scheduled = scheduled_name(1_767_225_600_000);
        let others = ["cluster.vcb", "vc-before-upgrade.vcb", "vc-+7.vcb", "vc-incomplete.vcb"];
        for name in others.into_iter().chain([scheduled.as_str()]) {
            std::fs::write(dir.path().join(name), "").expect("written");
        }
        assert_eq!(names(dir.path()).expect("listed"), [scheduled]);
    }

    #[test]
    fn parts_of_this_node_are_removed_and_young_ones_of_others_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = format!("{PART_PREFIX}n1-");
        let all = [format!("{own}abc"), format!("{PART_PREFIX}n2-abc"), "vc-7.vcb".to_owned()];
        for name in &all {
            std::fs::write(dir.path().join(name), "").expect("written");
        }
        let old = dir.path().join(format!("{PART_PREFIX}old"));
        let file = std::fs::File::create(&old).expect("made");
        let age = MAX_PART_AGE + Duration::from_secs(60);
        file.set_modified(SystemTime::now() - age).expect("set");
        remove_parts(dir.path(), &own);
        let exists = all.each_ref().map(|name| dir.path().join(name).exists());
        assert_eq!(exists, [false, true, true]);
        assert!(!old.exists());
    }
}
