//! Secrets and configs of containers: files in this host's memory, mounted read-only.
//!
//! Each container has a directory that only the node's user can enter. It is complete before the container is created
//! and before each start, since memory is empty after a boot, and is removed with the container.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::models::{Mount, MountType};
use futures::future::BoxFuture;
use tokio::task::spawn_blocking;
use vc_protocol::InstanceId;
use vc_protocol::file::FileRequest;
use vc_protocol::spec::{ContainerSpec, FileId, FileMount};

use crate::identity::Identity;

/// The default directories; the first on an in-memory file system is used.
pub(super) const DIRECTORIES: [&str; 2] = ["/run/vc", "/dev/shm/vc"];
/// The magic numbers of in-memory file systems: tmpfs and ramfs (`statfs(2)`).
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Returns the content of a secret or config that an instance mounts.
pub type OpenFile =
    dyn Fn(FileRequest) -> BoxFuture<'static, Result<Vec<u8>, OpenFileError>> + Send + Sync;

/// Why the content of a secret or config cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenFileError {
    /// It was removed from the cluster; its name.
    #[error("{0} is no longer in the cluster; deploy it again")]
    NotFound(FileId),
    /// It was sealed with another key; its name.
    #[error("{0} cannot be decrypted with the files.key of this node; deploy it again")]
    WrongKey(FileId),
    /// This node is a worker, and no server handed it over.
    #[error("no server hands over {file} ({reason}); see 'vc nodes'")]
    NoServer {
        /// Its name.
        file: FileId,
        /// Why not, for each server.
        reason: String,
    },
}

/// Why the secrets and configs of a container could not be written. No error has anything of their contents.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    /// No directory is on an in-memory file system; why not, for each.
    #[error("there is no in-memory file system for secrets and configs ({0})")]
    NoMemory(String),
    #[error(transparent)]
    Open(#[from] OpenFileError),
    #[error("cannot write secrets and configs to memory: {0}")]
    Write(io::Error),
}

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

/// Converts a mount for Docker; the source is the file with this number in the container's directory.
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

    /// Returns the directory of a container, whose parent it creates.
    fn directory(&self, container: &str) -> Result<PathBuf, FilesError> {
        let mut failures = Vec::new();
        for directory in self.directories.iter() {
            match private(directory).and_then(|()| private(&directory.join(&*self.node))) {
                Ok(()) => return Ok(directory.join(&*self.node).join(file_name(container))),
                Err(error) => failures.push(format!("{}: {error}", directory.display())),
            }
        }
        Err(FilesError::NoMemory(failures.join(", ")))
    }

    /// Writes all files of a container, unless they exist: other contents mean another container. `root` are the ids of
    /// this host that are root's in the container. Returns the directory.
    pub(super) async fn write(
        &self,
        container: &str,
        id: &InstanceId,
        spec: &ContainerSpec,
        root: (u32, u32),
    ) -> Result<PathBuf, FilesError> {
        let directory = self.directory(container)?;
        if directory.exists() {
            return Ok(directory);
        }
        let mut contents = Vec::new();
        for mount in &spec.files {
            let (instance, file, version) = (id.clone(), mount.file.clone(), mount.version.clone());
            let content = (self.open)(FileRequest { instance, file, version }).await?;
            contents.push((mount.clone(), content));
        }
        let container = container.to_owned();
        spawn_blocking(move || write_all(directory, &container, &contents, root))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(FilesError::Write)
    }

    /// Removes the files of a container.
    pub(super) fn remove(&self, container: &str) {
        for directory in self.directories.iter() {
            let directory = directory.join(&*self.node).join(file_name(container));
            if let Err(error) = remove(&directory) {
                let directory = directory.display();
                tracing::warn!(%directory, %error, "cannot remove the secrets of a removed container");
            }
        }
    }

    /// Returns the names of the containers that have files.
    pub(super) fn containers(&self) -> Vec<String> {
        let directories = self.directories.iter().map(|directory| directory.join(&*self.node));
        let entries =
            directories.filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// Writes the files of a container into a new directory, which it returns.
fn write_all(
    directory: PathBuf,
    container: &str,
    contents: &[(FileMount, Vec<u8>)],
    root: (u32, u32),
) -> io::Result<PathBuf> {
    // What a crash left incomplete is replaced or swept.
    let new = directory.with_file_name(format!("{}.new", file_name(container)));
    let written = || {
        remove(&new)?;
        private(&new)?;
        for (number, (mount, content)) in contents.iter().enumerate() {
            write_file(&new.join(number.to_string()), mount, content, root)?;
        }
        fs::rename(&new, &directory)
    };
    match written() {
        Ok(()) => Ok(directory),
        Err(error) => {
            let _ = remove(&new); // The next start removes it otherwise.
            Err(error)
        }
    }
}

/// Returns a container's name as a single path component. Digests come over the network, and must not lead elsewhere.
fn file_name(container: &str) -> String {
    container.replace('/', "_")
}

/// Creates an in-memory directory that only this user can enter.
///
/// # Errors
/// It exists and others can enter it, or it is not in memory.
fn private(directory: &Path) -> io::Result<()> {
    let parent = directory.parent().unwrap_or(directory);
    let existing = if directory.exists() { directory } else { parent };
    let kind = u64::try_from(rustix::fs::statfs(existing)?.f_type).unwrap_or(0);
    if !IN_MEMORY.contains(&kind) {
        return Err(io::Error::other("not an in-memory file system"));
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(directory)?;
    let private = found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if !found.is_dir() || !private {
        return Err(io::Error::other("others can access it; remove it"));
    }
    Ok(())
}

fn write_file(path: &Path, mount: &FileMount, content: &[u8], root: (u32, u32)) -> io::Result<()> {
    let on_host = |id: u32, root: u32| {
        let overflow = || io::Error::other(format!("the id {id} in the container is too high"));
        id.checked_add(root).ok_or_else(overflow)
    };
    let (uid, gid) = (on_host(mount.uid, root.0)?, on_host(mount.gid, root.1)?);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    chown(path, Some(uid), Some(gid))?;
    file.set_permissions(Permissions::from_mode(mount.mode & 0o7777))
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
