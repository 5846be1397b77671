//! Paths of the host that no container mounts, at the request of any user: the node's keys and the secrets of other containers.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vc_protocol::spec::Mount;

/// Why a path of the host is not mounted.
#[derive(Debug, thiserror::Error)]
pub enum HostPathError {
    /// The path is protected, in a protected one, or above one.
    #[error(
        "the host path {path} is refused: it leads to {protected}, which holds keys and secrets of this node; mount another directory"
    )]
    Protected {
        /// The path in the spec.
        path: String,
        /// The protected directory.
        protected: String,
    },
    /// Where it leads cannot be told.
    #[error("the host path {path} is refused: cannot follow it: {source}")]
    Unresolved {
        /// The path in the spec.
        path: String,
        /// The cause.
        source: io::Error,
    },
}

/// The directories that no container mounts.
#[derive(Debug, Clone)]
pub(super) struct ProtectedPaths(Arc<[PathBuf]>);

impl ProtectedPaths {
    pub(super) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(paths.into_iter().collect())
    }

    /// Checks the bind mounts of a container, following symbolic links and other mounts of the same directories. Another
    /// program that exchanges a component of the path between this check and the mount is not noticed.
    ///
    /// # Errors
    /// The first path that is refused.
    pub(super) fn check(&self, mounts: &[Mount]) -> Result<(), HostPathError> {
        for mount in mounts {
            let Mount::Bind { source, .. } = mount else { continue };
            let unresolved =
                |error| HostPathError::Unresolved { path: source.clone(), source: error };
            let path = resolve(Path::new(source)).map_err(unresolved)?;
            for protected in self.0.iter() {
                let resolved = resolve(protected).map_err(unresolved)?;
                if is_within(&path, &resolved) || is_within(&resolved, &path) {
                    let protected = protected.display().to_string();
                    return Err(HostPathError::Protected { path: source.clone(), protected });
                }
            }
        }
        Ok(())
    }
}

/// Returns a path without symbolic links and `..`. What does not exist of it stays as it is.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // A dangling link leads to a place that the next look may find.
            let is_link = fs::symlink_metadata(path).is_ok();
            match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) if !is_link => Ok(resolve(parent)?.join(name)),
                _ => Err(error),
            }
        }
        resolved => resolved,
    }
}

/// Returns whether a resolved path is that of a directory, or below it: by its name, or because a component is the same
/// directory, mounted at another place.
fn is_within(path: &Path, directory: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    path.starts_with(directory)
        || identity(directory).is_some_and(|directory| {
            path.ancestors().any(|component| identity(component) == Some(directory))
        })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_that_lead_to_a_protected_directory_are_refused_and_siblings_are_not() {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path().canonicalize().expect("a path");
        let at = |path: &str| root.join(path);
        for directory in ["srv/node/images", "srv/app", "elsewhere"] {
            fs::create_dir_all(at(directory)).expect("created");
        }
        fs::write(at("srv/node/node.key"), "").expect("written");
        fs::write(at("srv/app/docker.sock"), "").expect("written");
        for (target, link) in [
            ("srv/node", "elsewhere/direct"),
            ("srv", "elsewhere/above"),
            ("elsewhere/direct/node.key", "elsewhere/twice"),
            ("srv/app", "elsewhere/app"),
            ("nothing", "elsewhere/dangling"),
        ] {
            symlink(at(target), at(link)).expect("linked");
        }
        // The second does not exist yet, and its parent is a link.
        let protected = ProtectedPaths::new([at("srv/node"), at("elsewhere/app/memory")]);
        let check = |path: &str| {
            let source = if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("{}/{path}", root.display())
            };
            // Read-only mounts show as much.
            let mount = Mount::Bind { source, target: "/x".to_owned(), read_only: true };
            protected.check(&[mount])
        };
        for path in [
            "/",
            "",
            "srv",
            "srv/",
            "srv/node",
            "srv/node/",
            "srv/node/node.key",
            "srv/node/images",
            "srv/node/not-yet",
            "srv/app/../node",
            "srv/./node",
            "srv//node/images/..",
            "elsewhere/direct",
            "elsewhere/direct/images",
            "elsewhere/above",
            "elsewhere/above/node/node.key",
            "elsewhere/twice",
            "/proc/self/root",
            "srv/app",
            "srv/app/memory/1",
        ] {
            let refused = check(path);
            assert!(matches!(refused, Err(HostPathError::Protected { .. })), "{path}: {refused:?}");
        }
        for path in ["elsewhere/dangling", "elsewhere/missing/../../srv/node"] {
            let refused = check(path);
            assert!(
                matches!(refused, Err(HostPathError::Unresolved { .. })),
                "{path}: {refused:?}"
            );
        }
        for path in ["elsewhere", "srv/app/docker.sock", "srv/nodes", "srv/node2/x", "srv/app/data"]
        {
            assert!(check(path).is_ok(), "{path}: {:?}", check(path));
        }
    }
}
