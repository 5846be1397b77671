//! The files of the user: their paths by the XDG base directory specification, bounded reads and atomic writes.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Returns the path of `vc/NAME` in the configuration directory; `None` without a home directory.
pub(crate) fn config(name: &str) -> Option<PathBuf> {
    base("XDG_CONFIG_HOME", ".config").map(|base| base.join("vc").join(name))
}

/// Returns the path of `vc/NAME` in the state directory; `None` without a home directory.
pub(crate) fn state(name: &str) -> Option<PathBuf> {
    base("XDG_STATE_HOME", ".local/state").map(|base| base.join("vc").join(name))
}

/// The specification says to ignore a relative path.
fn base(variable: &str, fallback: &str) -> Option<PathBuf> {
    let set =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    set(variable).or_else(|| set("HOME").map(|home| home.join(fallback)))
}

/// Reads a text file: at most `limit` + 1 bytes, so that the caller notices that it is larger.
pub(crate) fn read(path: &Path, limit: usize) -> io::Result<String> {
    read_from(File::open(path)?, limit)
}

/// Reads a file: at most `limit` + 1 bytes, so that the caller notices that it is larger.
pub(crate) fn read_bytes(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// Reads text from any source, as [`read`] does.
pub(crate) fn read_from(source: impl io::Read, limit: usize) -> io::Result<String> {
    let mut text = String::new();
    source.take(limit as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// Writes a file atomically, readable by the user only.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    vc_atomic_file::write(path, text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_private_file_is_replaced_atomically_and_stays_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("vc/deep/token");
        for text in ["first, and longer", "second"] {
            write_private(&path, text).expect("written");
            assert_eq!(read(&path, 100).expect("read"), text);
            let mode =
                |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
            assert_eq!(mode(&path), 0o600);
            assert_eq!(mode(path.parent().expect("parent")), 0o700);
        }
        let left = std::fs::read_dir(path.parent().expect("parent")).expect("listed").count();
        assert_eq!(left, 1, "no temporary file remains");
    }

    #[test]
    fn reading_stops_past_the_limit() {
        assert_eq!(read_from(io::repeat(b'a'), 10).expect("read").len(), 11);
    }
}
