//! Bind mounts that must stay below allowed paths of the host.
//!
//! A policy allows paths by name, and a directory below one may be a symbolic link to anywhere. So the links are resolved where
//! the container starts, and Docker gets the paths without them. A program that may write below an allowed path can still replace a
//! directory by a link between this check and Docker's mount: a policy that allows a path trusts what writes there already.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use vc_protocol::spec::{ContainerSpec, Mount};

/// Why the mounts of a container are not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfineError {
    #[error(
        "the host path {path} is {real} on this host, which is not below {roots}: the project may not use it"
    )]
    Outside { path: String, real: String, roots: String },
    #[error("cannot resolve the host path {path}: {source}")]
    Resolve { path: String, source: io::Error },
    #[error("the host path {0} has a name that is not UTF-8 on this host")]
    NotUtf8(String),
    /// The links are those of another host.
    #[error("host paths of a project need a Docker engine on this host, but it is at {0}")]
    Remote(String),
}

/// Replaces the host paths of a container's mounts by what they are without symbolic links, where they must be below some roots.
///
/// # Errors
/// A path does not exist, or is not below a root; the roots' own links are resolved too.
pub(super) fn confine(spec: &mut ContainerSpec) -> Result<(), ConfineError> {
    let roots = &spec.host_path_roots;
    if roots.is_empty() {
        return Ok(());
    }
    // One that does not exist on this host has nothing below it.
    let real: Vec<_> =
        roots.iter().filter_map(|root| Path::new(root).canonicalize().ok()).collect();
    for mount in &mut spec.mounts {
        let Mount::Bind { source, .. } = mount else { continue };
        let found = Path::new(source)
            .canonicalize()
            .map_err(|error| ConfineError::Resolve { path: source.clone(), source: error })?;
        let Some(text) = found.to_str() else { return Err(ConfineError::NotUtf8(source.clone())) };
        if !real.iter().any(|root| found.starts_with(root)) {
            let (path, real, roots) = (source.clone(), text.to_owned(), list(roots));
            return Err(ConfineError::Outside { path, real, roots });
        }
        text.clone_into(source);
    }
    Ok(())
}

fn list(roots: &BTreeSet<String>) -> String {
    roots.iter().map(String::as_str).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn confined(root: &Path, source: &Path) -> Result<String, String> {
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let mut spec = ContainerSpec {
            mounts: vec![Mount::Bind {
                source: text(source),
                target: "/x".to_owned(),
                read_only: true,
            }],
            host_path_roots: BTreeSet::from([text(root)]),
            ..ContainerSpec::default()
        };
        confine(&mut spec).map_err(|error| error.to_string())?;
        match spec.mounts.remove(0) {
            Mount::Bind { source, .. } => Ok(source),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_symbolic_link_leads_nowhere_but_below_the_roots() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().canonicalize().expect("it exists");
        let root = dir.join("data");
        fs::create_dir_all(root.join("own/deep")).expect("made");
        fs::create_dir_all(dir.join("database")).expect("made");
        symlink("/", root.join("host")).expect("linked");
        symlink("..", root.join("up")).expect("linked");
        symlink("own", root.join("inside")).expect("linked");
        symlink(&root, dir.join("alias")).expect("linked");

        assert_eq!(confined(&root, &root).as_deref(), root.to_str().ok_or(&String::new()));
        assert_eq!(
            confined(&root, &root.join("own/deep")).as_deref(),
            Ok(root.join("own/deep").to_str().expect("UTF-8"))
        );
        let inside = confined(&root, &root.join("inside/deep"));
        assert_eq!(inside.as_deref(), Ok(root.join("own/deep").to_str().expect("UTF-8")));
        // The root may be a link itself: an administrator named it.
        assert!(confined(&dir.join("alias"), &dir.join("alias/own")).is_ok());
        for outside in ["host", "host/etc", "up", "up/database", "inside/../../database"] {
            let refused = confined(&root, &root.join(outside)).expect_err(outside);
            assert!(refused.contains("the project may not use it"), "{refused}");
        }
        assert!(confined(&root, &dir.join("database")).is_err());
        assert!(
            confined(&root, &root.join("none")).expect_err("missing").contains("cannot resolve")
        );
        let free = ContainerSpec::default();
        let mut same = free.clone();
        confine(&mut same).expect("no roots");
        assert_eq!(same, free);
    }
}
