//! Secrets and configs, where containers find them: in this node's memory, and mounted from there read-only.
//!
//! Each container has a directory of its own, that only the node's user enters. It is there, whole, before the container
//! is made and before each start, for memory is empty after a boot; and it is removed with the container.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::models::{Mount, MountType};
use vc_crdt::FileKey;
use vc_protocol::Name;
use vc_protocol::spec::{ContainerSpec, FileMount};

use crate::Identity;

/// Where files are kept when nobody says otherwise: the first of these that is memory.
pub(super) const DIRECTORIES: [&str; 2] = ["/run/vc", "/dev/shm/vc"];
/// File systems that are memory: tmpfs and ramfs.
const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// What is in a secret or config. Errors: one line for people that says what to do.
pub type OpenFile = dyn Fn(&FileKey) -> Result<Vec<u8>, String> + Send + Sync;

/// The files of this node's containers.
#[derive(Clone)]
pub(super) struct Files {
    directories: Arc<[PathBuf]>,
    node: Arc<str>,
    open: Arc<OpenFile>,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Files({:?})", self.directories)
    }
}

/// As Docker takes it: the file of this number in the directory of a container.
pub(super) fn mount(directory: &Path, number: usize, mount: &FileMount) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(directory.join(number.to_string()).display().to_string()),
        target: Some(mount.target.clone()),
        read_only: Some(true),
        ..Mount::default()
    }
}

impl Files {
    pub(super) fn new(directories: Vec<PathBuf>, identity: &Identity, open: Arc<OpenFile>) -> Self {
        Self { directories: directories.into(), node: identity.node.short().into(), open }
    }

    /// The directory of a container. Errors: this node has no memory to keep files in.
    fn directory(&self, container: &str) -> Result<PathBuf, String> {
        let mut failures = Vec::new();
        for directory in self.directories.iter() {
            match private(directory).and_then(|()| private(&directory.join(&*self.node))) {
                Ok(()) => return Ok(directory.join(&*self.node).join(plain(container))),
                Err(error) => failures.push(format!("{}: {error}", directory.display())),
            }
        }
        Err(format!(
            "there is no place in memory for secrets and configs ({})",
            failures.join("; ")
        ))
    }

    /// Writes all files of a container, unless they are there: another content is another container. Returns the
    /// directory. Errors: one line for people, without anything of what is in them.
    pub(super) fn place(
        &self,
        project: &Name,
        container: &str,
        spec: &ContainerSpec,
    ) -> Result<PathBuf, String> {
        let directory = self.directory(container)?;
        if directory.exists() {
            return Ok(directory);
        }
        let contents: Vec<(&FileMount, Vec<u8>)> = spec
            .files
            .iter()
            .map(|mount| {
                let (file, version) = (mount.file.clone(), mount.version.clone());
                let key = FileKey { project: project.clone(), file, version };
                Ok((mount, (self.open)(&key)?))
            })
            .collect::<Result<_, String>>()?;
        // What a node left half written that ended meanwhile is written anew, or swept out.
        let new = directory.with_file_name(format!("{}.new", plain(container)));
        let write_all = || {
            remove(&new)?;
            private(&new)?;
            for (number, (mount, content)) in contents.iter().enumerate() {
                write(&new.join(number.to_string()), mount, content)?;
            }
            fs::rename(&new, &directory)
        };
        write_all().map_err(|error| {
            let _ = remove(&new);
            format!("cannot keep its secrets and configs in memory: {error}")
        })?;
        Ok(directory)
    }

    /// Removes what a container had.
    pub(super) fn remove(&self, container: &str) {
        for directory in self.directories.iter() {
            let directory = directory.join(&*self.node).join(plain(container));
            if let Err(error) = remove(&directory) {
                let directory = directory.display();
                tracing::warn!(%directory, %error, "cannot remove the secrets of a container that is gone");
            }
        }
    }

    /// The containers that have files.
    pub(super) fn containers(&self) -> Vec<String> {
        let homes = self.directories.iter().map(|directory| directory.join(&*self.node));
        let entries = homes.filter_map(|home| fs::read_dir(home).ok()).flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// A container's name as the name of one directory: digests come over the network, and must not lead elsewhere.
fn plain(container: &str) -> String {
    container.replace('/', "_")
}

/// Makes a directory in memory that only we enter. Errors: it is there and others may enter it, or it is no memory.
fn private(directory: &Path) -> io::Result<()> {
    let parent = directory.parent().unwrap_or(directory);
    let place = if directory.exists() { directory } else { parent };
    let kind = u64::try_from(rustix::fs::statfs(place)?.f_type).unwrap_or(0);
    if !MEMORY.contains(&kind) {
        return Err(io::Error::other("not in memory"));
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(directory)?;
    let ours = found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if !found.is_dir() || !ours {
        return Err(io::Error::other("it is not this user's alone: remove it"));
    }
    Ok(())
}

fn write(path: &Path, mount: &FileMount, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    chown(path, Some(mount.uid), Some(mount.gid))?;
    file.set_permissions(Permissions::from_mode(mount.mode & 0o7777))
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
