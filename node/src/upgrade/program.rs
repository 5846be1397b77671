//! The program that runs: where it is, what it is, and whose.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use vc_protocol::control::ProgramId;
use vc_protocol::image::Digest;

use super::UpgradeError;

/// The program of this process, whatever its path leads to by now.
pub(super) const RUNNING: &str = "/proc/self/exe";
/// What the kernel adds to the path of a program that was replaced.
const DELETED: &[u8] = b" (deleted)";
/// Bytes that are hashed at once.
const CHUNK: usize = 256 * 1024;
/// The files of the Debian package.
const PACKAGE: (&str, &str) = ("vc-node", "/var/lib/dpkg/info/vc-node.list");

/// Tells a file at a path from another one there later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl FileVersion {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let it = fs::metadata(path)?;
        let modified = (it.mtime(), it.mtime_nsec());
        Ok(Self { device: it.dev(), inode: it.ino(), size: it.size(), modified })
    }
}

/// Returns the path from which this program was started.
pub(super) fn path() -> io::Result<PathBuf> {
    let path = fs::read_link(RUNNING)?.into_os_string().into_vec();
    let kept = path.strip_suffix(DELETED).unwrap_or(&path);
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(kept)))
}

/// Returns what a file is.
pub(super) async fn identify(path: PathBuf) -> Result<ProgramId, UpgradeError> {
    let read = path.clone();
    let identified = tokio::task::spawn_blocking(move || identify_blocking(&read));
    let identified = identified.await.map_err(|_| UpgradeError::Stopping)?;
    identified.map_err(|source| UpgradeError::Read { path, source })
}

/// Returns what a file is. Blocks.
pub(super) fn identify_blocking(path: &Path) -> io::Result<ProgramId> {
    let (mut file, mut hash, mut size) = (File::open(path)?, Sha256::new(), 0);
    let mut bytes = vec![0; CHUNK];
    loop {
        let count = file.read(&mut bytes)?;
        if count == 0 {
            return Ok(ProgramId {
                digest: Digest::from_sha256(hash.finalize().into()).to_string(),
                size,
            });
        }
        hash.update(&bytes[..count]);
        size += count as u64;
    }
}

/// Returns the Debian package that has put this file there.
pub(super) fn package(path: &Path) -> Option<&'static str> {
    let (name, list) = PACKAGE;
    let files = fs::read(list).ok()?;
    files
        .split(|&byte| byte == b'\n')
        .any(|line| line == path.as_os_str().as_bytes())
        .then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_identified_by_its_content() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("program");
        fs::write(&path, "abc").expect("written");
        let id = identify(path).await.expect("read");
        assert_eq!(id.size, 3);
        assert_eq!(
            id.digest,
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(identify(dir.path().join("other")).await.is_err());
        assert!(path_is_absolute());
    }

    fn path_is_absolute() -> bool {
        super::path().expect("known").is_absolute()
    }
}
