//! What is below a directory that is uploaded.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use vc_protocol::{ApiError, ErrorCode};

/// A directory cannot be uploaded.
#[derive(Debug, thiserror::Error)]
pub(in crate::cmd) enum UploadError {
    #[error("'{pattern}' in x-vc.ignore is not a pattern: {source}")]
    Pattern { pattern: String, source: ignore::Error },
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        Self::new(ErrorCode::InvalidArgument, error.to_string())
    }
}

/// A file, directory or link below the directory.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Relative to it; empty for a file that is sent alone.
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
}

/// Returns what is below a directory, without what the patterns name; `None` if it does not exist. Directories come before what they
/// have. Sockets, pipes and devices are left out.
pub(super) fn list(root: &Path, patterns: &[String]) -> Result<Option<Vec<Entry>>, UploadError> {
    let ignored = matcher(root, patterns)?;
    let read = |path: &Path, source| UploadError::Read { path: path.to_owned(), source };
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let path = root.join(&directory);
        let entries = match std::fs::read_dir(&path) {
            Err(error)
                if directory.as_os_str().is_empty() && error.kind() == io::ErrorKind::NotFound =>
            {
                return Ok(None);
            }
            entries => entries.map_err(|error| read(&path, error))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(|error| read(&path, error))?.file_name());
        }
        names.sort();
        for name in names {
            let path = directory.join(name);
            let metadata = match std::fs::symlink_metadata(root.join(&path)) {
                // It is gone since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata.map_err(|error| read(&root.join(&path), error))?,
            };
            let kind = metadata.file_type();
            if ignored.matched(&path, kind.is_dir()).is_ignore() {
                continue;
            }
            if kind.is_dir() {
                directories.push(path.clone());
            }
            if kind.is_dir() || kind.is_file() || kind.is_symlink() {
                found.push(Entry { path, metadata });
            }
        }
    }
    Ok(Some(found))
}

fn matcher(root: &Path, patterns: &[String]) -> Result<Gitignore, UploadError> {
    let mut builder = GitignoreBuilder::new(root);
    for pattern in patterns {
        let added = builder.add_line(None, pattern);
        added.map_err(|source| UploadError::Pattern { pattern: pattern.clone(), source })?;
    }
    let all = patterns.join(", ");
    builder.build().map_err(|source| UploadError::Pattern { pattern: all, source })
}
