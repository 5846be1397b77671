//! Subpaths of volumes: a container mounts one directory or file of a volume.
//!
//! Engines from Docker 26 on do that for their own volumes. For others the node opens the subpath, binds what it has opened to a place
//! of its own, and the engine mounts that place: a program that replaces a part of the path by a link in the meantime leads nowhere
//! else. The container has its own mount once it is started, so that the place is released then.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

/// Name of the directory with the places, in the data directory, which no container mounts.
const DIRECTORY: &str = "mounts";

/// A subpath cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(super) enum SubpathError {
    /// There is no such path, or it leads out of the volume.
    #[error("cannot mount {subpath} of {}: {source}", directory.display())]
    Open { directory: PathBuf, subpath: String, source: io::Error },
    #[error("cannot bind {subpath} of a volume to {}, which needs root: {source}", place.display())]
    Bind { subpath: String, place: PathBuf, source: io::Error },
}

/// The places of this node.
#[derive(Debug, Clone)]
pub(super) struct Subpaths(Arc<Path>);

impl Subpaths {
    /// Releases the places that a node which was killed has left in this data directory.
    pub(super) fn open(data_dir: &Path) -> Self {
        let places = Self(data_dir.join(DIRECTORY).into());
        let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        for volume in entries(&places.0) {
            for place in entries(&volume.path()) {
                release(&place.path());
            }
            let _ = fs::remove_dir(volume.path());
        }
        places
    }

    /// Returns whether the source of a mount is a subpath of the volume with this name in Docker.
    pub(super) fn is_of(&self, volume: &str, source: &Path) -> bool {
        source.starts_with(self.of(volume))
    }

    /// Binds a subpath of the volume in `directory`, for the mount with a number of a container. The same mount has the same place.
    /// Blocks.
    pub(super) fn bind(
        &self,
        directory: &Path,
        subpath: &str,
        volume: &str,
        mount: (&str, usize),
    ) -> Result<Subpath, SubpathError> {
        let opened = open(directory, subpath).map_err(|source| SubpathError::Open {
            directory: directory.to_owned(),
            subpath: subpath.to_owned(),
            source,
        })?;
        let (container, number) = mount;
        let place = self.of(volume).join(format!("{}.{number}", container.replace('/', "_")));
        // A node that was killed may have left it.
        release(&place);
        bind(&opened, &place).map_err(|source| SubpathError::Bind {
            subpath: subpath.to_owned(),
            place: place.clone(),
            source,
        })?;
        Ok(Subpath(place))
    }

    fn of(&self, volume: &str) -> PathBuf {
        self.0.join(volume)
    }
}

/// A subpath that is bound to a place until this is dropped.
#[derive(Debug)]
pub(super) struct Subpath(PathBuf);

impl Subpath {
    pub(super) fn place(&self) -> &Path {
        &self.0
    }
}

impl Drop for Subpath {
    fn drop(&mut self) {
        release(&self.0);
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

fn bind(opened: &OwnedFd, place: &Path) -> io::Result<()> {
    fs::create_dir_all(place.parent().unwrap_or(place))?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(opened)?.st_mode);
    match kind {
        FileType::Directory => fs::create_dir(place)?,
        FileType::RegularFile => drop(fs::File::create_new(place)?),
        _ => return Err(io::Error::other("it is neither a directory nor a regular file")),
    }
    let source = format!("/proc/self/fd/{}", opened.as_fd().as_raw_fd());
    if let Err(error) = mount_bind(source, place) {
        release(place);
        return Err(error.into());
    }
    Ok(())
}

/// Undoes a bind. Deletes nothing but the empty place: what is mounted there is the data of people.
fn release(place: &Path) {
    while unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
    let _ = fs::remove_dir(place).or_else(|_| {
        fs::symlink_metadata(place).and_then(|found| match found.is_file() && found.len() == 0 {
            true => fs::remove_file(place),
            false => Ok(()),
        })
    });
    let _ = place.parent().map(fs::remove_dir);
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
