//! Atomic, durable file replacement: write a temporary file, fsync it, rename it, fsync the directory.
//!
//! After a crash or a power cut the file has either its old or its new content.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Replaces the file at `path` with `content`, with permissions `mode` less the umask. Returns once both the content and
/// the directory entry are on the disk.
///
/// # Errors
/// The file could not be written; it still has its old content, unless only the fsync of the directory failed.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_path(path)?;
    // A killed process with the same id may have left one.
    let _ = fs::remove_file(&temporary);
    let written =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).and_then(
            |mut file| {
                file.write_all(content)?;
                publish(&file, &temporary, path)
            },
        );
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Moves the completely written `file` at `from` to `to` on the same filesystem, replacing what is there. Returns once
/// both the content and the directory entry are on the disk.
///
/// # Errors
/// The file could not be synced or renamed.
pub fn publish(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(from, to)?;
    File::open(directory(to))?.sync_all()
}

/// Returns a name beside `path` that no other write uses, in this process or another.
fn temporary_path(path: &Path) -> io::Result<PathBuf> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    temporary.push(format!(".{}-{number}.tmp", std::process::id()));
    Ok(directory(path).join(temporary))
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(dir: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(dir).expect("listed");
        entries.map(|entry| entry.expect("an entry").file_name()).collect()
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_no_temporary_file_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        for content in [&b"first, and longer"[..], b"second"] {
            write(&path, content, 0o600).expect("written");
            assert_eq!(fs::read(&path).expect("read"), content);
            let mode = fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(names(dir.path()), ["key"]);
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_state_and_no_temporary_file() {
        let dir = tempfile::tempdir().expect("a directory");
        // A directory that is not empty cannot be replaced by a file.
        let path = dir.path().join("taken");
        fs::create_dir_all(path.join("full")).expect("made");
        write(&path, b"text", 0o600).expect_err("refused");
        assert_eq!(names(dir.path()), ["taken"]);
        assert!(path.join("full").is_dir());
    }

    #[test]
    fn a_relative_name_is_written_to_the_current_directory() {
        assert_eq!(directory(Path::new("key")), Path::new("."));
        assert!(temporary_path(Path::new("key")).expect("a name").starts_with("."));
        assert!(temporary_path(Path::new("/")).is_err());
    }
}
