//! Stores, working directories and comparisons.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use vc_protocol::volume::SnapshotId;
use vc_volumes::{Error, Manifest, NoPause, Outcome, Pause, Store, Volume};

/// A directory that may belong to a node alone.
pub enum Directory {
    Own(TempDir),
    Shared(PathBuf),
}

impl Directory {
    pub fn path(&self) -> &Path {
        match self {
            Self::Own(dir) => dir.path(),
            Self::Shared(path) => path,
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Self::Own(dir) = self {
            // Links for the next snapshot may just be made.
            let again = |error: std::io::Error| error.kind() == ErrorKind::DirectoryNotEmpty;
            while fs::remove_dir_all(dir.path()).is_err_and(again) {}
        }
    }
}

/// A node: a store and a working directory of the volume `shop/db`.
pub struct Node {
    pub dir: Directory,
    pub store: Store,
    pub volume: Volume,
}

pub fn helper() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_vc-volumes-helper"))
}

impl Node {
    pub fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    pub fn at(dir: TempDir) -> Self {
        Self::start(Directory::Own(dir))
    }

    pub fn in_dir(dir: PathBuf) -> Self {
        Self::start(Directory::Shared(dir))
    }

    fn start(dir: Directory) -> Self {
        fs::create_dir_all(dir.path().join("working")).unwrap();
        let store = Store::open_with(&dir.path().join("volumes"), helper()).unwrap();
        let volume = store.volume(&"shop/db".parse().unwrap());
        Self { dir, store, volume }
    }

    pub fn restart(self) -> Self {
        Self::start(self.dir)
    }

    pub fn working(&self) -> PathBuf {
        self.dir.path().join("working")
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.working().join(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.working().join(name))
            .unwrap_or_else(|error| error.kind().to_string())
    }

    /// The content of a snapshot.
    pub fn data(&self, id: SnapshotId) -> PathBuf {
        self.volume_dir().join("snapshots").join(id.to_string()).join("data")
    }

    pub fn volume_dir(&self) -> PathBuf {
        self.dir.path().join("volumes/shop/db")
    }

    pub async fn begin(&self, epoch: u64, newest: Option<SnapshotId>) -> vc_volumes::Begun {
        self.volume.begin(&self.working(), epoch, newest, 1000).await.unwrap()
    }

    /// Takes a snapshot, which must be a new one.
    pub async fn take(&self, epoch: u64) -> Manifest {
        match self.snapshot(epoch).await.unwrap() {
            Outcome::Taken { manifest, .. } => manifest,
            Outcome::Unchanged(manifest) => panic!("unchanged since {}", manifest.id),
        }
    }

    pub async fn snapshot(&self, epoch: u64) -> Result<Outcome, Error> {
        self.volume.snapshot(&self.working(), epoch, 1000, &no_pause()).await
    }
}

pub fn no_pause() -> Arc<dyn Pause> {
    Arc::new(NoPause)
}

/// Copies a snapshot from one node to another one. Both results.
pub async fn transfer(
    from: &Node,
    to: &Node,
    manifest: &Manifest,
) -> (Result<(), Error>, Result<(), Error>) {
    let (one, other) = tokio::io::duplex(64 * 1024);
    tokio::join!(from.volume.send(manifest.id, one), to.volume.receive(manifest, other, |_| {}))
}

pub async fn copy(from: &Node, to: &Node, manifest: &Manifest) {
    let (sent, received) = transfer(from, to, manifest).await;
    received.unwrap();
    sent.unwrap();
}

/// What can be seen of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    mode: u32,
    owner: (u32, u32),
    time: (i64, i64),
    device: u64,
    content: Vec<u8>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The paths of the same file.
    links: Vec<Vec<u8>>,
    /// Not of directories, and bounded: filesystems round.
    sparse: bool,
}

/// Reads everything of a tree, by path.
pub fn seen(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let (mut found, mut inodes) = (BTreeMap::new(), BTreeMap::<u64, Vec<Vec<u8>>>::new());
    walk(root, root, &mut found, &mut inodes);
    for links in inodes.values().filter(|it| it.len() > 1) {
        for path in links {
            found.get_mut(path).unwrap().links = links.clone();
        }
    }
    found
}

fn walk(
    root: &Path,
    path: &Path,
    found: &mut BTreeMap<Vec<u8>, Seen>,
    inodes: &mut BTreeMap<u64, Vec<Vec<u8>>>,
) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
    let kind = metadata.file_type();
    let content = if kind.is_symlink() {
        fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()
    } else if kind.is_file() {
        fs::read(path).unwrap()
    } else {
        Vec::new()
    };
    let mut names = vec![0; 64 * 1024];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    names.truncate(length);
    let attributes = names.split(|it| *it == 0).filter(|it| !it.is_empty()).map(|name| {
        let mut value = vec![0; 64 * 1024];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        (name.to_vec(), value)
    });
    let entry = Seen {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        time: (metadata.mtime(), metadata.mtime_nsec()),
        device: metadata.rdev(),
        content,
        attributes: attributes.collect(),
        links: Vec::new(),
        sparse: kind.is_file() && metadata.size() > 1 << 20 && metadata.blocks() < 100,
    };
    found.insert(name.clone(), entry);
    if kind.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            walk(root, &entry.unwrap().path(), found, inodes);
        }
    } else {
        inodes.entry(metadata.ino()).or_default().push(name);
    }
}

/// Fails with the first differences of two trees.
pub fn assert_equal(one: &Path, other: &Path) {
    let (one, other) = (seen(one), seen(other));
    let names = |map: &BTreeMap<Vec<u8>, Seen>| {
        map.keys().map(|it| String::from_utf8_lossy(it).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&one), names(&other));
    for (name, entry) in &one {
        assert!(
            entry == &other[name],
            "{}: {entry:?}\n{:?}",
            String::from_utf8_lossy(name),
            other[name]
        );
    }
}

/// Everything below a directory but the staged snapshots, which may be anything: paths and times.
pub fn confined_tree(root: &Path) -> Vec<(PathBuf, i64, i64, u64)> {
    fn list(dir: &Path, found: &mut Vec<(PathBuf, i64, i64, u64)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if path.ends_with("volumes") {
                continue;
            }
            found.push((path.clone(), metadata.mtime(), metadata.mtime_nsec(), metadata.size()));
            if metadata.is_dir() {
                list(&path, found);
            }
        }
    }
    let mut found = Vec::new();
    list(root, &mut found);
    found.sort();
    found
}
