//! Paths of the host that no container mounts, at the request of any user: the node's keys and the secrets of other containers. A
//! container that mounts a directory above one, read-only, finds it empty.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vc_protocol::spec::Mount;

/// Why a path of the host is not mounted.
#[derive(Debug, thiserror::Error)]
pub enum HostPathError {
    /// The path is protected, in a protected one, or above one and mounted writable.
    #[error(
        "the host path {path} is refused: it leads to {protected}, which holds keys and secrets of this node; mount another directory, or one above read-only"
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
    /// Refuses a path that is protected, in a protected one, or above one. Blocks.
    ///
    /// # Errors
    /// It is refused.
    pub(super) fn check_path(&self, path: &Path) -> Result<(), HostPathError> {
        let (source, target) = (path.display().to_string(), String::new());
        self.check(&[Mount::Bind { source, target, read_only: false }]).map(drop)
    }

    pub(super) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(paths.into_iter().collect())
    }

    /// Checks the bind mounts of a container, following symbolic links and other mounts of the same directories. Returns the paths in the
    /// container at which protected directories would be, and which are to be hidden; makes those directories that do not exist yet, since
    /// they would appear there later. What is hidden lies in no other mount of the container, whose content could lead elsewhere. Another
    /// program that exchanges a component of the path between this check and the mount is not noticed.
    ///
    /// # Errors
    /// The first path that is refused.
    pub(super) fn check(&self, mounts: &[Mount]) -> Result<Vec<String>, HostPathError> {
        let mut hidden = Vec::new();
        for mount in mounts {
            let Mount::Bind { source, target, read_only } = mount else { continue };
            let unresolved =
                |error| HostPathError::Unresolved { path: source.clone(), source: error };
            let path = resolve(Path::new(source)).map_err(unresolved)?;
            for protected in self.0.iter() {
                let resolved = resolve(protected).map_err(unresolved)?;
                let lies_in = |other: &Mount| {
                    other.target() != target && Path::new(target).starts_with(other.target())
                };
                let may_hide = *read_only && !mounts.iter().any(lies_in);
                let below = resolved.strip_prefix(&path).ok().filter(|_| may_hide);
                if let Some(below) = below.filter(|_| !is_within(&path, &resolved)) {
                    if !resolved.exists() {
                        let mut private = DirBuilder::new();
                        private.recursive(true).mode(0o700);
                        private.create(&resolved).map_err(unresolved)?;
                    }
                    let at = Path::new(target).join(below).display().to_string();
                    if !hidden.contains(&at) {
                        hidden.push(at);
                    }
                } else if is_within(&path, &resolved) || is_within(&resolved, &path) {
                    let protected = protected.display().to_string();
                    return Err(HostPathError::Protected { path: source.clone(), protected });
                }
            }
        }
        Ok(hidden)
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
            let mount = |read_only| {
                let source = source.clone();
                Mount::Bind { source, target: "/x".to_owned(), read_only }
            };
            [false, true].map(|read_only| protected.check(&[mount(read_only)]))
        };
        let above = ["/", "", "srv", "srv/", "elsewhere/above", "/proc/self/root", "srv/app"];
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
            let [writable, read_only] = check(path);
            let is_refused = |it: &Result<_, _>| matches!(it, Err(HostPathError::Protected { .. }));
            assert!(is_refused(&writable), "{path}: {writable:?}");
            assert_eq!(is_refused(&read_only), !above.contains(&path), "{path}: {read_only:?}");
        }
        for path in ["elsewhere/dangling", "elsewhere/missing/../../srv/node"] {
            for refused in check(path) {
                let unresolved = matches!(refused, Err(HostPathError::Unresolved { .. }));
                assert!(unresolved, "{path}: {refused:?}");
            }
        }
        for path in ["elsewhere", "srv/app/docker.sock", "srv/nodes", "srv/node2/x", "srv/app/data"]
        {
            let nothing = |it: &Result<Vec<String>, _>| it.as_ref().is_ok_and(Vec::is_empty);
            assert!(check(path).iter().all(nothing), "{path}: {:?}", check(path));
        }
    }

    #[test]
    fn protected_directories_are_hidden_below_a_read_only_mount() {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path().canonicalize().expect("a path");
        fs::create_dir_all(root.join("var/lib/vc")).expect("created");
        fs::create_dir_all(root.join("run")).expect("created");
        symlink(&root, root.join("alias")).expect("linked");
        let protected = ProtectedPaths::new([root.join("var/lib/vc"), root.join("run/vc")]);
        let hidden = |source: &str, target: &str| {
            let source = root.join(source).display().to_string();
            let mount = Mount::Bind { source, target: target.to_owned(), read_only: true };
            protected.check(&[mount]).expect("allowed")
        };
        assert_eq!(hidden("var", "/host"), ["/host/lib/vc"]);
        assert_eq!(hidden("alias", "/rootfs"), ["/rootfs/var/lib/vc", "/rootfs/run/vc"]);
        let made = fs::metadata(root.join("run/vc")).expect("it would appear in the container");
        assert_eq!(made.mode() & 0o777, 0o700);

        // In another mount the target may be a link, so that what hides them lands elsewhere.
        let bind = |source: &str, target: &str| Mount::Bind {
            source: root.join(source).display().to_string(),
            target: target.to_owned(),
            read_only: true,
        };
        let volume = Mount::volume("v".parse().expect("a name"), "/v", false);
        let inside = [volume.clone(), bind("var", "/v/host")];
        assert!(protected.check(&inside).is_err());
        assert!(protected.check(&[volume, bind("var", "/w/host")]).is_ok());
        // A subpath is not hidden from.
        for (path, is_allowed) in [("var", false), ("var/lib/vc", false), ("run", false)] {
            assert_eq!(protected.check_path(&root.join(path)).is_ok(), is_allowed, "{path}");
        }
        fs::create_dir(root.join("srv")).expect("created");
        assert!(protected.check_path(&root.join("srv")).is_ok());
    }

    #[test]
    fn a_subpath_is_checked_where_it_leads_to() {
        use super::super::mounts::{Part, checked};
        use super::super::volume_place::VolumePlace;
        use vc_protocol::spec::ContainerSpec;

        let source = "/srv".to_owned();
        let spec = ContainerSpec {
            mounts: vec![Mount::Bind { source, target: "/x".to_owned(), read_only: true }],
            ..ContainerSpec::default()
        };
        let part = Part {
            number: 0,
            volume: "shop/v".parse().expect("a volume"),
            place: VolumePlace::Directory("/srv".into()),
            subpath: "vc".to_owned(),
        };
        let expected =
            Mount::Bind { source: "/srv/vc".to_owned(), target: "/x".to_owned(), read_only: false };
        assert_eq!(checked(&spec, &[part]), [expected]);
    }
}
