//! The place where a data directory is made before it is one.
//!
//! It is in the data directory itself, which may be a mount: what is whole moves up by renames. `membership.json` moves last, and makes
//! it a member's. While it moves, the place has another name and lists what moves: an attempt that was killed is undone by that list,
//! and nothing else in the data directory is ever removed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The directory in which it is made.
const STAGING: &str = ".restore";
/// The name of that directory from when what is in it begins to move.
const MOVING: &str = ".restore-moving";
/// The file in it that lists the names that move, as JSON.
const NAMES: &str = "moving.json";
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
    #[error(
        "another 'vc-node restore' uses {0}: wait until it has ended, or choose another --data-dir"
    )]
    Locked(PathBuf),
    #[error("cannot use the data directory {dir}: {source}")]
    Io { dir: PathBuf, source: io::Error },
}

/// A data directory that is being made. What is in it is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Staging {
    dir: PathBuf,
    path: PathBuf,
    /// The data directory, which is locked as long as this is open.
    _lock: File,
    /// Whether it stays when this is dropped: the next attempt needs its list of names.
    is_kept: bool,
}

impl Staging {
    /// Checks that [`Staging::begin`] can use the directory, and changes nothing.
    ///
    /// # Errors
    /// The directory has anything but what a killed attempt has left.
    pub(super) fn check(dir: &Path) -> Result<(), StagingError> {
        match leftovers(dir) {
            Err(StagingError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            checked => checked.map(drop),
        }
    }

    /// Makes the directory `dir` if there is none, and begins in it. Removes what an attempt has left that was killed.
    ///
    /// # Errors
    /// The directory has anything else, or another process restores to it.
    pub(super) fn begin(dir: &Path) -> Result<Self, StagingError> {
        let failed = |source| StagingError::Io { dir: dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let lock = File::open(dir).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StagingError::Locked(dir.to_owned())),
            // Some network file systems lock no directories.
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, "cannot lock {}: start no other 'vc-node restore'", dir.display());
            }
        }
        for name in leftovers(dir)? {
            remove(&dir.join(name)).map_err(failed)?;
        }
        let path = dir.join(STAGING);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), path, _lock: lock, is_kept: false })
    }

    /// Returns the directory to fill.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts everything in place.
    ///
    /// # Errors
    /// Something could not be moved. The directory is no member's then, and what was moved is removed.
    pub(super) fn publish(mut self) -> io::Result<()> {
        let mut moved = Vec::new();
        let published = self.move_all(&mut moved);
        if published.is_err() {
            // The last first: it is what makes the directory a member's.
            for path in moved.iter().rev() {
                if let Err(error) = remove(path) {
                    let path = path.display();
                    tracing::warn!(%error, "cannot remove {path}: the next 'vc-node restore' does");
                    self.is_kept = true;
                }
            }
        }
        published
    }

    /// Moves everything to its place, and appends what has moved to `moved`.
    fn move_all(&mut self, moved: &mut Vec<PathBuf>) -> io::Result<()> {
        let sync = |path: &Path| File::open(path).and_then(|it| it.sync_all());
        let names: Vec<String> = fs::read_dir(&self.path)?
            .map(|entry| {
                let name = entry?.file_name().into_string();
                name.map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))
            })
            .collect::<io::Result<_>>()?;
        vc_atomic_file::write(&self.path.join(NAMES), &serde_json::to_vec(&names)?, 0o600)?;
        let moving = self.dir.join(MOVING);
        fs::rename(&self.path, &moving)?;
        self.path = moving;
        sync(&self.dir)?;
        let mut place = |name: &str| {
            let to = self.dir.join(name);
            if to.symlink_metadata().is_ok() {
                let found = format!("{} has appeared meanwhile", to.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, found));
            }
            fs::rename(self.path.join(name), &to)?;
            moved.push(to);
            Ok(())
        };
        names.iter().filter(|name| *name != LAST).try_for_each(|name| place(name))?;
        sync(&self.dir)?;
        place(LAST)?;
        sync(&self.dir)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = remove(&self.path) {
            let path = self.path.display();
            tracing::warn!(%error, "cannot remove {path}: the next 'vc-node restore' does");
        }
    }
}

/// Lists what killed attempts have left in the directory: what has moved, and then the directories of these attempts.
///
/// # Errors
/// The directory belongs to a member, has anything else, or cannot be read.
fn leftovers(dir: &Path) -> Result<Vec<OsString>, StagingError> {
    let failed = |source| StagingError::Io { dir: dir.to_owned(), source };
    if dir.join(LAST).exists() {
        return Err(StagingError::Member(dir.to_owned()));
    }
    // Without a list nothing has moved.
    let list = fs::read(dir.join(MOVING).join(NAMES)).unwrap_or_default();
    let moved: BTreeSet<String> = serde_json::from_slice(&list).unwrap_or_default();
    let (mut left, mut attempts) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name == STAGING || name == MOVING {
            attempts.push(name);
        } else if name.to_str().is_some_and(|it| moved.contains(it)) {
            left.push(name);
        } else if name != IGNORED {
            let found = name.to_string_lossy().into_owned();
            return Err(StagingError::NotEmpty { dir: dir.to_owned(), found });
        }
    }
    left.extend(attempts);
    Ok(left)
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

    /// Fills a directory as an attempt that is killed while it moves: `moved` has moved.
    fn kill_while_moving(dir: &Path, moved: &[&str]) {
        let mut staging = Staging::begin(dir).expect("begun");
        fill(&staging);
        let names = serde_json::to_vec(&["format", "state.redb", LAST, "volumes"]).expect("JSON");
        fs::write(staging.path().join(NAMES), names).expect("written");
        fs::rename(staging.path(), dir.join(MOVING)).expect("renamed");
        staging.is_kept = true;
        for name in moved {
            fs::rename(dir.join(MOVING).join(name), dir.join(name)).expect("moved");
        }
    }

    #[test]
    fn an_attempt_that_was_killed_while_it_moved_is_undone() {
        let root = tempfile::tempdir().expect("a directory");
        kill_while_moving(root.path(), &["volumes", "format"]);
        Staging::check(root.path()).expect("can be used");
        assert_eq!(names(root.path()), [MOVING, "format", "volumes"], "a check changes nothing");
        let again = Staging::begin(root.path()).expect("begun anew");
        assert_eq!(names(root.path()), [STAGING]);
        assert_eq!(names(again.path()), [""; 0]);
    }

    #[test]
    fn what_another_process_has_made_is_left_beside_what_killed_attempts_left() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path();
        fs::create_dir(dir.join(IGNORED)).expect("made");
        drop(Staging::begin(dir).expect("an empty file system"));

        fs::create_dir(dir.join(STAGING)).expect("made");
        fs::write(dir.join("cluster.vcb"), "precious").expect("written");
        let error = Staging::begin(dir).expect_err("refused");
        assert!(error.to_string().contains("it has cluster.vcb"), "{error}");
        assert_eq!(names(dir), [STAGING, "cluster.vcb", IGNORED]);

        fs::rename(dir.join("cluster.vcb"), dir.with_extension("vcb")).expect("moved away");
        kill_while_moving(dir, &["volumes"]);
        fs::rename(dir.with_extension("vcb"), dir.join("cluster.vcb")).expect("moved back");
        let error = Staging::begin(dir).expect_err("refused");
        assert!(error.to_string().contains("it has cluster.vcb"), "{error}");
        assert_eq!(names(dir), [MOVING, "cluster.vcb", IGNORED, "volumes"]);
    }

    #[test]
    fn two_attempts_do_not_use_one_directory() {
        let root = tempfile::tempdir().expect("a directory");
        let first = Staging::begin(root.path()).expect("begun");
        fill(&first);
        assert!(matches!(Staging::begin(root.path()), Err(StagingError::Locked(_))));
        first.publish().expect("published");
        assert!(matches!(Staging::begin(root.path()), Err(StagingError::Member(_))));
    }

    #[test]
    fn a_failed_publication_leaves_nothing_but_what_was_there() {
        for appeared in ["state.redb", LAST] {
            let root = tempfile::tempdir().expect("a directory");
            let staging = Staging::begin(root.path()).expect("begun");
            fill(&staging);
            fs::write(root.path().join(appeared), "of another process").expect("written");
            let error = staging.publish().expect_err("not published");
            assert!(error.to_string().contains("has appeared meanwhile"), "{error}");
            assert_eq!(names(root.path()), [appeared]);
            let content = fs::read_to_string(root.path().join(appeared)).expect("read");
            assert_eq!(content, "of another process");
        }
    }
}
