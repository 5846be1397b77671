//! The place where a data directory is made before it is one.
//!
//! It is in the data directory itself, which may be a mount: what is whole moves up by renames. `membership.json` moves last, and makes
//! it a member's.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The directory in which it is made.
const STAGING: &str = ".restore";
/// What makes the data directory a member's.
const LAST: &str = "membership.json";
/// What may be in an empty file system.
const IGNORED: &str = "lost+found";

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StagingError {
    #[error(
        "{0} belongs to a cluster already: choose another --data-dir, or move it away if that cluster is lost"
    )]
    Member(PathBuf),
    #[error("{dir} is not empty (it has {found}): choose another --data-dir, or move that away")]
    NotEmpty { dir: PathBuf, found: String },
    #[error("cannot use the data directory {dir}: {source}")]
    Io { dir: PathBuf, source: io::Error },
}

/// A data directory that is being made. What is in it is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Staging {
    dir: PathBuf,
    path: PathBuf,
}

impl Staging {
    /// Makes the directory `dir` if there is none, and begins in it. Removes what an attempt has left that was killed.
    ///
    /// # Errors
    /// The directory has anything else.
    pub(super) fn begin(dir: &Path) -> Result<Self, StagingError> {
        let failed = |source| StagingError::Io { dir: dir.to_owned(), source };
        if dir.join(LAST).exists() {
            return Err(StagingError::Member(dir.to_owned()));
        }
        let path = dir.join(STAGING);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let was_killed = path.exists();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if name == IGNORED || name == STAGING {
                continue;
            }
            // An attempt that was killed while it moved: what it moved is not in its place any more.
            if !was_killed {
                let found = name.to_string_lossy().into_owned();
                return Err(StagingError::NotEmpty { dir: dir.to_owned(), found });
            }
            remove(&dir.join(name)).map_err(failed)?;
        }
        remove(&path).map_err(failed)?;
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), path })
    }

    /// Returns the directory to fill.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts everything in place.
    ///
    /// # Errors
    /// Something could not be moved. The directory is no member's then, and another attempt begins anew.
    pub(super) fn publish(self) -> io::Result<()> {
        let sync = |path: &Path| File::open(path).and_then(|it| it.sync_all());
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
        let names: Vec<_> = names.collect::<io::Result<_>>()?;
        for name in names.iter().filter(|name| *name != LAST) {
            fs::rename(self.path.join(name), self.dir.join(name))?;
        }
        sync(&self.dir)?;
        fs::rename(self.path.join(LAST), self.dir.join(LAST))?;
        sync(&self.dir)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            let path = self.path.display();
            tracing::warn!(%error, "cannot remove {path}: the next 'vc-node restore' does");
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("listed").map(|it| it.expect("an entry"));
        let mut names: Vec<_> =
            entries.map(|it| it.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn fill(staging: &Staging) {
        for name in ["format", "state.redb", LAST] {
            fs::write(staging.path().join(name), name).expect("written");
        }
        fs::create_dir(staging.path().join("volumes")).expect("made");
    }

    #[test]
    fn a_directory_has_everything_or_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("deep/vc");
        let staging = Staging::begin(&dir).expect("begun");
        fill(&staging);
        drop(staging);
        assert_eq!(names(&dir), [""; 0], "what failed leaves nothing");

        let staging = Staging::begin(&dir).expect("begun again");
        fill(&staging);
        staging.publish().expect("published");
        assert_eq!(names(&dir), ["format", LAST, "state.redb", "volumes"]);
        assert!(matches!(Staging::begin(&dir), Err(StagingError::Member(_))));
    }

    #[test]
    fn what_was_killed_is_begun_anew_and_what_another_has_made_is_left() {
        let root = tempfile::tempdir().expect("a directory");
        let staging = Staging::begin(root.path()).expect("begun");
        fill(&staging);
        // While it moved.
        fs::rename(staging.path().join("volumes"), root.path().join("volumes")).expect("moved");
        std::mem::forget(staging);
        let again = Staging::begin(root.path()).expect("begun anew");
        assert_eq!(names(root.path()), [STAGING]);
        assert_eq!(names(again.path()), [""; 0]);
        drop(again);

        fs::create_dir(root.path().join(IGNORED)).expect("made");
        drop(Staging::begin(root.path()).expect("an empty file system"));
        fs::write(root.path().join("node.key"), "precious").expect("written");
        let error = Staging::begin(root.path()).expect_err("refused");
        assert!(error.to_string().contains("it has node.key"), "{error}");
        assert_eq!(names(root.path()), [IGNORED, "node.key"]);
    }
}
