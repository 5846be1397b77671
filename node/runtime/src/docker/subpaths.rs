//! Subpaths of volumes: a container mounts one directory or file of a volume.
//!
//! Engines from Docker 26 on do that for their own volumes. For others the node opens the subpath, attaches a clone of that mount to a
//! place of its own, and the engine mounts that place: a program that replaces a part of the path by a link in the meantime leads
//! nowhere else. The container has its own mount once it is started, so that the place is released then.
//!
//! All of this happens in the mount namespace of the engine, where the paths of its volumes mean something. The places are in a file
//! system in memory that is mounted there: a runtime in yet another namespace finds nothing, instead of an empty file.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use vc_protocol::NodeId;

use super::host_paths::ProtectedPaths;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, move_mount, open_tree, unmount,
};

/// The directory with those of each node on this host, which no container mounts.
pub(super) const DIRECTORY: &str = "/run/vc-mounts";
/// Options of the file system of the places, which has nothing but empty files and directories.
const OPTIONS: &std::ffi::CStr = c"size=1m,mode=0700";

/// A subpath cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(super) enum SubpathError {
    /// There is no such path, or it leads out of the volume.
    #[error("cannot mount {subpath} of {}: {source}", directory.display())]
    Open { directory: PathBuf, subpath: String, source: io::Error },
    #[error("cannot attach {subpath} of a volume to {}, which needs root: {source}", place.display())]
    Attach { subpath: String, place: PathBuf, source: io::Error },
}

/// The places of this node.
#[derive(Debug, Clone)]
pub(super) struct Subpaths(Arc<Places>);

#[derive(Debug)]
struct Places {
    dir: PathBuf,
    /// The socket of the engine.
    socket: PathBuf,
    /// Whether what a node that was killed has left is released.
    swept: Mutex<bool>,
}

impl Subpaths {
    /// Returns those of the engine at `host`, which is used on this host alone.
    pub(super) fn new(node: NodeId, host: &str) -> Self {
        let socket = host.trim_start_matches("unix://").into();
        let dir = Path::new(DIRECTORY).join(node.short());
        Self(Arc::new(Places { dir, socket, swept: Mutex::default() }))
    }

    /// Returns whether the source of a mount is a subpath of the volume with this name in Docker.
    pub(super) fn is_of(&self, volume: &str, source: &Path) -> bool {
        source.starts_with(self.0.dir.join(volume))
    }

    /// Attaches a subpath of the volume in `directory` to a place, for the mount with a number of a container. The same mount has the same
    /// place. What it leads to is no protected path. Blocks.
    pub(super) fn attach(
        &self,
        directory: &Path,
        subpath: &str,
        volume: &str,
        (container, number): (&str, usize),
        protected: &ProtectedPaths,
    ) -> Result<Subpath, SubpathError> {
        let places = &*self.0;
        let place = places.dir.join(volume);
        let place = place.join(format!("{}.{number}", container.replace('/', "_")));
        let attach_error = |source| SubpathError::Attach {
            subpath: subpath.to_owned(),
            place: place.clone(),
            source,
        };
        let mut swept = places.swept.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = places.in_engine(|| open(directory, subpath)).map_err(attach_error)?;
        let opened = opened.and_then(|opened| {
            // What was opened, whatever the path leads to by now.
            let path = fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
            protected.check_path(&path).map_err(io::Error::other)?;
            Ok(opened)
        });
        let opened = opened.map_err(|source| SubpathError::Open {
            directory: directory.to_owned(),
            subpath: subpath.to_owned(),
            source,
        })?;
        let attached = places
            .in_engine(|| prepare(&places.dir, !*swept).and_then(|()| attach(&opened, &place)));
        attached.and_then(|attached| attached).map_err(attach_error)?;
        *swept = true;
        Ok(Subpath { places: Arc::clone(&self.0), place })
    }

    /// Releases what a node that was killed has left, unless something was attached since. Blocks.
    pub(super) fn sweep(&self) {
        let mut swept = self.0.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *swept, true) {
            // Without an engine nothing is mounted, and the next attachment tries again.
            *swept = self.0.in_engine(|| release_all(&self.0.dir)).is_ok();
        }
    }

    /// Releases everything, and removes the directory of the places. Blocks.
    pub(super) fn end(&self) {
        let ended = self.0.in_engine(|| {
            release_all(&self.0.dir);
            let _ = fs::remove_dir(&self.0.dir);
            // That of other nodes stays, as it is not empty.
            let _ = self.0.dir.parent().map(fs::remove_dir);
        });
        if let Err(error) = ended {
            tracing::debug!(%error, "no mounts of subpaths released");
        }
    }
}

impl Places {
    /// Calls `f` in the mount namespace of the engine, or of what listens for it.
    fn in_engine<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        let engine = rustix::net::sockopt::socket_peercred(UnixStream::connect(&self.socket)?)?.pid;
        let namespace = File::open(format!("/proc/{}/ns/mnt", engine.as_raw_nonzero()))?;
        let enter = || {
            // A thread that shares its root directory cannot enter.
            unshare(CloneFlags::CLONE_FS)?;
            setns(&namespace, CloneFlags::CLONE_NEWNS)?;
            Ok(f())
        };
        let ended = std::thread::scope(|scope| scope.spawn(enter).join());
        ended.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    }
}

/// A subpath that is attached to a place until this is dropped.
#[derive(Debug)]
pub(super) struct Subpath {
    places: Arc<Places>,
    place: PathBuf,
}

impl Subpath {
    pub(super) fn place(&self) -> &Path {
        &self.place
    }
}

impl Drop for Subpath {
    fn drop(&mut self) {
        if let Err(error) = self.places.in_engine(|| release(&self.place)) {
            tracing::warn!(place = %self.place.display(), %error, "cannot release a subpath of a volume");
        }
    }
}

/// Opens a path below a directory, without leaving it by way of links.
fn open(directory: &Path, subpath: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory, flags | OFlags::DIRECTORY, Mode::empty())?;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, subpath, flags, Mode::empty(), beneath) {
        Err(rustix::io::Errno::XDEV) => Err(io::Error::other("it leads out of the volume")),
        opened => Ok(opened?),
    }
}

/// Mounts the file system of the places, if it is not. `sweep` releases what is attached to them.
fn prepare(dir: &Path, sweep: bool) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    if sweep {
        release_all(dir);
    }
    let device = |path: &Path| rustix::fs::stat(path).map(|found| found.st_dev);
    if device(dir)? == device(&dir.join(".."))? {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("vc", dir, "tmpfs", flags, OPTIONS)?;
    }
    Ok(())
}

/// Detaches the file system of the places, with all that is attached there.
fn release_all(dir: &Path) {
    while unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
}

fn attach(opened: &OwnedFd, place: &Path) -> io::Result<()> {
    release(place);
    fs::create_dir_all(place.parent().unwrap_or(place))?;
    match FileType::from_raw_mode(rustix::fs::fstat(opened)?.st_mode) {
        FileType::Directory => fs::create_dir(place)?,
        FileType::RegularFile => drop(File::create_new(place)?),
        _ => return Err(io::Error::other("it is neither a directory nor a regular file")),
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(opened, "", flags)?;
    move_mount(clone, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// Detaches what is at a place, and removes the place. Nothing below it is deleted: it is the data of people.
fn release(place: &Path) {
    while unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
    // A place to which something is still attached is busy.
    let _ = fs::remove_dir(place).or_else(|_| fs::remove_file(place));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_subpath_is_found_without_leaving_the_volume() {
        let dir = tempfile::tempdir().expect("a directory");
        let volume = dir.path().join("volume");
        fs::create_dir_all(volume.join("a/b")).expect("made");
        fs::write(volume.join("a/file"), "x").expect("written");
        fs::write(dir.path().join("outside"), "secret").expect("written");
        symlink("a/b", volume.join("inside")).expect("linked");
        symlink("../outside", volume.join("up")).expect("linked");
        symlink(dir.path().join("outside"), volume.join("absolute")).expect("linked");
        for there in ["a", "a/b", "a/file", "inside"] {
            assert!(open(&volume, there).is_ok(), "{there}");
        }
        for (outside, why) in [
            ("up", "it leads out of the volume"),
            ("absolute", "it leads out of the volume"),
            ("a/../../outside", "it leads out of the volume"),
            ("none", "No such file or directory (os error 2)"),
        ] {
            let refused = open(&volume, outside).expect_err(outside);
            assert_eq!(refused.to_string(), why, "{outside}");
        }
    }
}
