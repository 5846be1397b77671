//! The data directory and the number of its format.
//!
//! `DIR/format` holds [`FORMAT`] as text and is checked before anything else is opened, so that a directory that another
//! version wrote is neither misread nor changed.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Number of the format that this version reads and writes. It grows when the files of a data directory change such that
/// older versions must not open it.
pub(crate) const FORMAT: u32 = 1;
/// The file that holds the number.
pub(crate) const FORMAT_FILE: &str = "format";
/// Files of the version before data directories had a number.
const UNNUMBERED: [&str; 3] = ["node.key", "membership.json", "state.redb"];

/// Why a data directory cannot be used. It was left as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// It was written before data directories had a format number.
    #[error(
        "the data directory {0} is from an older, incompatible version of vc-node and was left untouched: start with \
         another --data-dir, or use the version that wrote it"
    )]
    TooOld(PathBuf),
    /// A newer version wrote it.
    #[error(
        "the data directory {dir} has format {found}, this vc-node supports up to {FORMAT}; it was left untouched: \
         upgrade vc-node, or choose another --data-dir"
    )]
    TooNew {
        /// The directory.
        dir: PathBuf,
        /// Its format number.
        found: u32,
    },
    /// The format file does not hold a number.
    #[error(
        "{0} is damaged: it must hold the number of the data directory's format; restore it from a backup"
    )]
    Damaged(PathBuf),
    /// The directory or the format file cannot be read, made or written.
    #[error("cannot use the data directory {dir}: {source}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Makes the data directory if there is none, readable by its owner only, and checks its format.
pub(crate) fn open(dir: &Path) -> Result<(), DataDirError> {
    let failed = |source| DataDirError::Io { dir: dir.to_owned(), source };
    let path = dir.join(FORMAT_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let found = text.trim().parse().map_err(|_| DataDirError::Damaged(path))?;
            return match found {
                FORMAT => Ok(()),
                0 => Err(DataDirError::TooOld(dir.to_owned())),
                found => Err(DataDirError::TooNew { dir: dir.to_owned(), found }),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    if UNNUMBERED.iter().any(|name| dir.join(name).exists()) {
        return Err(DataDirError::TooOld(dir.to_owned()));
    }
    fs::create_dir_all(dir)
        .and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o700)))
        .and_then(|()| vc_atomic_file::write(&path, format!("{FORMAT}\n").as_bytes(), 0o600))
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The names and contents of a directory.
    fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(dir).expect("listed").map(|entry| entry.expect("entry").path());
        entries.map(|path| (path.clone(), fs::read(path).expect("read"))).collect()
    }

    #[test]
    fn a_new_directory_gets_the_format_number_and_opens_again() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("deep/vc");
        open(&dir).expect("made");
        assert_eq!(fs::read_to_string(dir.join(FORMAT_FILE)).expect("read"), "1\n");
        assert_eq!(fs::metadata(&dir).expect("there").permissions().mode() & 0o777, 0o700);
        open(&dir).expect("opened again");
    }

    #[test]
    fn a_directory_of_an_older_or_newer_version_is_refused_and_left_untouched() {
        for name in UNNUMBERED {
            let dir = tempfile::tempdir().expect("a directory");
            fs::write(dir.path().join(name), "anything").expect("written");
            let before = contents(dir.path());
            let error = open(dir.path()).expect_err("refused");
            assert!(matches!(&error, DataDirError::TooOld(_)), "{error}");
            assert!(error.to_string().contains("--data-dir"), "{error}");
            assert_eq!(contents(dir.path()), before);
        }
        for (text, expected) in [("2", "upgrade vc-node"), ("one", "damaged"), ("0", "older")] {
            let dir = tempfile::tempdir().expect("a directory");
            fs::write(dir.path().join(FORMAT_FILE), text).expect("written");
            let before = contents(dir.path());
            let error = open(dir.path()).expect_err("refused").to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert_eq!(contents(dir.path()), before);
        }
    }
}
