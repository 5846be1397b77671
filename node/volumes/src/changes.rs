//! What differs between two trees, and how a copy that shares its files with a snapshot gets the difference.
//!
//! A copy begins as links to the files of a snapshot ([`link`]). What differs is removed from it ([`Changes::remove_from`]), and
//! rsync copies these paths alone (`--files-from`): it never writes to a file that a snapshot has.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags, open, openat2,
    statat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::error::{Context as _, Error};
use crate::listing::{Attributes, attributes, metadata_equal};
use crate::tree;

/// What differs. Paths are relative to both trees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// What is to be copied, with the directories above. The tree itself is always copied too.
    pub(crate) changed: BTreeSet<Vec<u8>>,
    /// What is to be removed with all below: it is not there any more, or of another kind.
    pub(crate) removed: BTreeSet<Vec<u8>>,
    /// The attributes of the tree itself differ.
    root: bool,
}

impl Changes {
    /// Returns whether nothing differs.
    pub(crate) fn is_empty(&self) -> bool {
        !self.root && self.changed.is_empty() && self.removed.is_empty()
    }

    /// Returns what the changed entries take on the disk of a tree, in bytes.
    pub(crate) fn allocated(&self, tree: &Path) -> u64 {
        let entries =
            self.changed.iter().filter_map(|path| fs::symlink_metadata(join(tree, path)).ok());
        entries.map(|metadata| tree::allocated(&metadata)).fold(0, u64::saturating_add)
    }

    /// Adds later changes.
    pub(crate) fn extend(&mut self, later: Self) {
        self.changed.extend(later.changed);
        self.removed.extend(later.removed);
        self.root |= later.root;
    }

    /// Moves what a tree does not have any more from the changed to the removed.
    pub(crate) fn settle(&mut self, tree: &Path) {
        let gone = |path: &Vec<u8>| fs::symlink_metadata(join(tree, path)).is_err();
        self.removed.extend(self.changed.extract_if(.., |path| gone(path)));
    }

    /// Returns the changed paths as rsync reads them with `--from0`. With `./` a name can begin with any character, and the
    /// attributes of the tree itself are copied.
    pub(crate) fn files_from(&self) -> Vec<u8> {
        encode(&self.changed)
    }

    /// Encodes both lists.
    pub(crate) fn lists(&self) -> [Vec<u8>; 2] {
        [encode(&self.changed), encode(&self.removed)]
    }

    /// Decodes what [`Changes::lists`] returned, perhaps on another node; `None` if it is malformed.
    pub(crate) fn parse(changed: &[u8], removed: &[u8]) -> Option<Self> {
        Some(Self { changed: decode(changed)?, removed: decode(removed)?, root: true })
    }

    /// Removes from a copy what is to be removed, and of what is to be copied anew all but directories, or that alone which is one
    /// file with other names. Nothing outside is reached, whatever the paths say and whatever links the copy has.
    pub(crate) fn remove_from(&self, copy: &Path, remove: Remove) -> Result<(), Error> {
        let root = open(copy, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = root.context("open", copy)?;
        let mut last: Option<(Vec<u8>, OwnedFd)> = None;
        let paths = self.removed.iter().map(|path| (path, true));
        for (path, whole) in paths.chain(self.changed.iter().map(|path| (path, false))) {
            let (parent, name) = split(path);
            if last.as_ref().is_none_or(|(known, _)| known != parent) {
                last = match open_beneath(&root, parent) {
                    Ok(fd) => Some((parent.to_vec(), fd)),
                    // It is below something that was removed, or is copied as a whole.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => None,
                    Err(error) => return Err(error).context("open", &join(copy, parent)),
                };
            }
            let Some((_, dir)) = &last else { continue };
            if !whole && remove == Remove::Linked {
                match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if stat.st_nlink > 1 => {}
                    _ => continue,
                }
            }
            match unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) if !whole => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    let entry = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
                    match fs::remove_dir_all(entry.join(OsStr::from_bytes(name))) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(error).context("remove", &join(copy, path));
                        }
                        _ => {}
                    }
                }
                Err(error) => return Err(error).context("remove", &join(copy, path)),
            }
        }
        Ok(())
    }
}

/// Which of the changed paths are removed before they are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remove {
    /// All: the copy shares its files with a snapshot.
    All,
    /// Those that are links to files with other names: rsync would change these too. Others are replaced by it in one step.
    Linked,
}

/// Opens a directory beneath another one; no component of the path may be a symbolic link.
fn open_beneath(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn join(tree: &Path, path: &[u8]) -> PathBuf {
    tree.join(OsStr::from_bytes(path))
}

fn encode(paths: &BTreeSet<Vec<u8>>) -> Vec<u8> {
    // One entry at least: an empty list would copy nothing, not the attributes of the tree either.
    let mut bytes = if paths.is_empty() { b"./.\0".to_vec() } else { Vec::new() };
    for path in paths {
        bytes.extend_from_slice(b"./");
        bytes.extend_from_slice(path);
        bytes.push(0);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<BTreeSet<Vec<u8>>> {
    let valid = |path: &[u8]| {
        path.split(|&byte| byte == b'/').all(|name| !matches!(name, b"" | b"." | b".."))
    };
    let paths = bytes.split(|&byte| byte == 0).filter(|it| !it.is_empty() && *it != b"./.");
    paths
        .map(|path| path.strip_prefix(b"./").filter(|path| valid(path)).map(<[u8]>::to_vec))
        .collect()
}

/// Returns what has to be copied from `source` to `copy`, and removed from it, to make them equal in everything that a snapshot
/// keeps. Regular files with the same size and time are taken for equal. The source may change meanwhile. Blocks.
pub(crate) fn diff(source: &Path, copy: &Path) -> Result<Changes, Error> {
    Ok(Differ::new(source, copy).run()?.changes)
}

/// As [`diff`], and returns for [`diff_again`] how the source was.
pub(crate) fn diff_first(source: &Path, copy: &Path) -> Result<(Changes, Seen), Error> {
    let mut differ = Differ::new(source, copy);
    differ.record = Some(Seen::default());
    let differ = differ.run()?;
    let mut seen = differ.record.unwrap_or_default();
    seen.changed.clone_from(&differ.changes.changed);
    Ok((differ.changes, seen))
}

/// As [`diff`], after the changes that [`diff_first`] found were copied. Files that were modified in one of the seconds of `recent`
/// differ: they may have been written again within one tick of the filesystem's clock after they were copied. What is as it was then
/// is not compared again.
pub(crate) fn diff_again(
    source: &Path,
    copy: &Path,
    recent: RangeInclusive<i64>,
    seen: Option<&Seen>,
) -> Result<Changes, Error> {
    let mut differ = Differ::new(source, copy);
    (differ.recent, differ.seen) = (Some(recent), seen);
    Ok(differ.run()?.changes)
}

/// How the entries of a tree were when it was compared.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    hasher: RandomState,
    /// Inode and time of the last change of each entry, by the hash of its path.
    entries: HashMap<u64, (u64, i64, i64)>,
    /// What differed.
    changed: BTreeSet<Vec<u8>>,
}

impl Seen {
    fn stamp(metadata: &Metadata) -> (u64, i64, i64) {
        (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
    }

    fn note(&mut self, path: &[u8], metadata: &Metadata) {
        self.entries.insert(self.hasher.hash_one(path), Self::stamp(metadata));
    }

    /// Returns whether an entry was equal in both trees, and has not been changed since.
    fn is_equal(&self, path: &[u8], metadata: &Metadata) -> bool {
        self.entries.get(&self.hasher.hash_one(path)) == Some(&Self::stamp(metadata))
            && !self.changed.contains(path)
    }
}

struct Differ<'a> {
    source: &'a Path,
    copy: &'a Path,
    recent: Option<RangeInclusive<i64>>,
    seen: Option<&'a Seen>,
    record: Option<Seen>,
    changes: Changes,
    /// The names of each file of the source that has several links.
    groups: HashMap<(u64, u64), Group>,
    /// The file of the source that each file of the copy is taken for.
    copied: HashMap<u64, (u64, u64)>,
}

/// A file with several links.
#[derive(Default)]
struct Group {
    paths: Vec<Vec<u8>>,
    /// The file of the copy that its names are.
    copy: Option<u64>,
    /// All names are to be copied anew.
    changed: bool,
}

impl<'a> Differ<'a> {
    fn new(source: &'a Path, copy: &'a Path) -> Self {
        Self {
            source,
            copy,
            recent: None,
            seen: None,
            record: None,
            changes: Changes::default(),
            groups: HashMap::new(),
            copied: HashMap::new(),
        }
    }

    fn run(mut self) -> Result<Self, Error> {
        let (source, copy) = (self.source, self.copy);
        let ours = fs::symlink_metadata(source).context("read", source)?;
        let theirs = fs::symlink_metadata(copy).context("read", copy)?;
        self.changes.root =
            !metadata_equal(source, &ours, copy, &theirs).context("read", source)?;
        self.directory(&mut Vec::new())?;
        self.complete();
        Ok(self)
    }

    fn directory(&mut self, path: &mut Vec<u8>) -> Result<(), Error> {
        let ours = sorted_names(&join(self.source, path))?;
        let mut theirs = sorted_names(&join(self.copy, path))?.into_iter().peekable();
        for name in ours {
            while let Some(gone) = theirs.next_if(|it| it.as_bytes() < name.as_bytes()) {
                self.removed(path, &gone);
            }
            let both = theirs.next_if_eq(&name).is_some();
            self.within(path, &name, |this, path| this.entry(path, both))?;
        }
        for gone in theirs {
            self.removed(path, &gone);
        }
        Ok(())
    }

    /// Calls `f` with the path of an entry.
    fn within<T>(
        &mut self,
        path: &mut Vec<u8>,
        name: &OsStr,
        f: impl FnOnce(&mut Self, &mut Vec<u8>) -> T,
    ) -> T {
        let length = path.len();
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        let result = f(self, path);
        path.truncate(length);
        result
    }

    fn removed(&mut self, path: &mut Vec<u8>, name: &OsStr) {
        self.within(path, name, |this, path| this.changes.removed.insert(path.clone()));
    }

    /// Compares an entry of the source with that of the copy, if `both` have it.
    fn entry(&mut self, path: &mut Vec<u8>, both: bool) -> Result<(), Error> {
        let (full, other) = (join(self.source, path), join(self.copy, path));
        let ours = match fs::symlink_metadata(&full) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if both {
                    self.changes.removed.insert(path.clone());
                }
                return Ok(());
            }
            Err(error) => return Err(error).context("read", &full),
        };
        if let Some(record) = &mut self.record {
            record.note(path, &ours);
        }
        let mut changed_since = false;
        if let Some(seen) = self.seen.filter(|_| both) {
            let equal = seen.is_equal(path, &ours);
            // What was changed again within the same tick is compared.
            if equal && !self.is_recent(ours.ctime()) {
                return self.unchanged(path, &full, &ours);
            }
            changed_since = !equal && !seen.changed.contains(path);
        }
        let theirs = match both {
            true => Some(fs::symlink_metadata(&other).context("read", &other)?),
            false => None,
        };
        let same_kind = |it: &Metadata| it.file_type() == ours.file_type();
        if theirs.as_ref().is_some_and(|it| !same_kind(it)) {
            self.changes.removed.insert(path.clone());
        }
        let theirs = theirs.filter(same_kind);
        let equal = match &theirs {
            Some(theirs) => match metadata_equal(&full, &ours, &other, theirs) {
                Ok(equal) => {
                    let recent = ours.is_file() && self.is_recent(ours.mtime());
                    equal && !recent && !changed_since
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(error).context("read", &full),
            },
            None => false,
        };
        if !equal {
            self.changes.changed.insert(path.clone());
        }
        if ours.is_dir() {
            return self.below(path, &full);
        }
        self.links(path, &ours, theirs.as_ref().filter(|_| equal), equal);
        Ok(())
    }

    fn is_recent(&self, seconds: i64) -> bool {
        self.recent.as_ref().is_some_and(|it| it.contains(&seconds))
    }

    /// Goes on below an entry that is known to be equal.
    fn unchanged(&mut self, path: &mut Vec<u8>, full: &Path, ours: &Metadata) -> Result<(), Error> {
        if ours.is_dir() {
            return self.below(path, full);
        }
        // Another name of the file may have been changed.
        if ours.nlink() > 1 {
            let group = self.groups.entry((ours.dev(), ours.ino())).or_default();
            group.paths.push(path.to_vec());
        }
        Ok(())
    }

    /// Compares what is in a directory, unless it vanishes.
    fn below(&mut self, path: &mut Vec<u8>, full: &Path) -> Result<(), Error> {
        match self.directory(path) {
            Err(Error::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && !full.exists() =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// Notes the links of an entry that is no directory.
    fn links(&mut self, path: &[u8], ours: &Metadata, theirs: Option<&Metadata>, equal: bool) {
        let file = (ours.dev(), ours.ino());
        let copy = theirs.map(Metadata::ino);
        // Another file of the source has this one in the copy.
        let taken = copy.is_some_and(|copy| *self.copied.entry(copy).or_insert(file) != file);
        if ours.nlink() > 1 {
            let group = self.groups.entry(file).or_default();
            let known = *group.copy.get_or_insert(copy.unwrap_or(0));
            group.changed |= taken || !equal || known != copy.unwrap_or(0);
            group.paths.push(path.to_vec());
        } else if taken {
            self.changes.changed.insert(path.to_vec());
        }
    }

    /// Adds the other names of files with several links, and the directories above.
    fn complete(&mut self) {
        let changed = &mut self.changes.changed;
        changed
            .extend(self.groups.drain().filter(|(_, it)| it.changed).flat_map(|(_, it)| it.paths));
        let mut above = BTreeSet::new();
        for path in changed.iter().chain(&self.changes.removed) {
            let mut parent = split(path).0;
            while !parent.is_empty() && above.insert(parent.to_vec()) {
                parent = split(parent).0;
            }
        }
        changed.extend(above);
    }
}

fn sorted_names(dir: &Path) -> Result<Vec<OsString>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        // Not a directory in the copy.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error).context("list", dir),
    };
    let names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    let mut names = names.context("list", dir)?;
    names.sort_unstable_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
    Ok(names)
}

/// Makes a tree of links to the files of a snapshot, with directories of its own that have the same attributes. Blocks.
pub(crate) fn link(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir(to).context("create", to)?;
    for entry in fs::read_dir(from).context("list", from)? {
        let entry = entry.context("list", from)?;
        let (one, other) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().context("read", &one)?.is_dir() {
            link(&one, &other)?;
        } else {
            match fs::hard_link(&one, &other) {
                // It has as many links as the filesystem allows: it is copied as if it had changed.
                Err(error) if error.kind() == io::ErrorKind::TooManyLinks => {}
                result => result.context("link", &one)?,
            }
        }
    }
    copy_attributes(from, to).context("set the attributes of", to)
}

/// Gives a directory the attributes of another one.
fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    let made = fs::symlink_metadata(to)?;
    if (made.uid(), made.gid()) != (metadata.uid(), metadata.gid()) {
        std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    let Attributes(wanted) = attributes(from)?;
    let Attributes(inherited) = attributes(to)?;
    for (name, _) in inherited.iter().filter(|it| !wanted.iter().any(|(name, _)| *name == it.0)) {
        rustix::fs::lremovexattr(to, name.as_slice())?;
    }
    for (name, value) in &wanted {
        rustix::fs::lsetxattr(to, name.as_slice(), value, XattrFlags::empty())?;
    }
    fs::set_permissions(to, metadata.permissions())?;
    let time = Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn texts(paths: &BTreeSet<Vec<u8>>) -> Vec<String> {
        paths.iter().map(|it| String::from_utf8_lossy(it).into_owned()).collect()
    }

    /// A tree and links to its files.
    fn trees() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
        fs::create_dir_all(source.join("a/b/c")).unwrap();
        for name in ["a/one", "a/b/two", "a/b/c/three", "four"] {
            fs::write(source.join(name), name).unwrap();
        }
        fs::hard_link(source.join("four"), source.join("a/b/four too")).unwrap();
        fs::set_permissions(source.join("a/b"), fs::Permissions::from_mode(0o1710)).unwrap();
        link(&source, &copy).unwrap();
        (dir, source, copy)
    }

    #[test]
    fn a_tree_of_links_does_not_differ() {
        let (_dir, source, copy) = trees();
        assert_eq!(diff(&source, &copy).unwrap(), Changes::default());
        let inode = |tree: &Path| fs::metadata(tree.join("four")).unwrap().ino();
        assert_eq!(inode(&source), inode(&copy));
    }

    #[test]
    fn what_differs_is_listed_with_the_directories_above_and_all_links() {
        let (_dir, source, copy) = trees();
        fs::remove_dir_all(source.join("a/b/c")).unwrap();
        fs::create_dir_all(source.join("new/dir")).unwrap();
        fs::write(source.join("new/dir/file"), "").unwrap();
        fs::remove_file(source.join("a/one")).unwrap();
        fs::create_dir(source.join("a/one")).unwrap();
        // A file of its own that looks the same.
        let metadata = fs::metadata(source.join("four")).unwrap();
        fs::remove_file(copy.join("four")).unwrap();
        fs::write(copy.join("four"), "four").unwrap();
        let times = fs::FileTimes::new().set_modified(metadata.modified().unwrap());
        fs::File::options().write(true).open(copy.join("four")).unwrap().set_times(times).unwrap();
        let changes = diff(&source, &copy).unwrap();
        let changed =
            ["a", "a/b", "a/b/four too", "a/one", "four", "new", "new/dir", "new/dir/file"];
        assert_eq!(texts(&changes.changed), changed);
        assert_eq!(texts(&changes.removed), ["a/b/c", "a/one"]);
        let [one, other] = changes.lists();
        assert_eq!(Changes::parse(&one, &other), Some(Changes { root: true, ..changes.clone() }));
        changes.remove_from(&copy, Remove::All).unwrap();
        assert!(copy.join("a/b/two").exists() && !copy.join("a/one").exists());
        assert!(!copy.join("a/b/c").exists() && !copy.join("four").exists());
    }

    #[test]
    fn files_of_recent_seconds_differ() {
        let (_dir, source, copy) = trees();
        let time = fs::metadata(source.join("a/one")).unwrap().mtime();
        let changes = diff_again(&source, &copy, time..=time + 10, None).unwrap();
        let all = ["a", "a/b", "a/b/c", "a/b/c/three", "a/b/four too", "a/b/two", "a/one", "four"];
        assert_eq!(texts(&changes.changed), all);
        assert!(diff_again(&source, &copy, time + 10..=time + 20, None).unwrap().is_empty());
    }

    #[test]
    fn what_has_changed_since_the_first_walk_differs_and_what_was_copied_meanwhile_does_not() {
        let (_dir, source, copy) = trees();
        fs::remove_file(source.join("a/one")).unwrap();
        fs::write(source.join("a/one"), "changed").unwrap();
        let (first, seen) = diff_first(&source, &copy).unwrap();
        assert_eq!(texts(&first.changed), ["a", "a/one"]);
        fs::remove_file(copy.join("a/one")).unwrap();
        fs::write(copy.join("a/one"), "changed").unwrap();
        let of = |name: &str| fs::metadata(source.join(name)).unwrap().modified().unwrap();
        let set = |name: &str| {
            let times = fs::FileTimes::new().set_modified(of(name));
            fs::File::open(copy.join(name)).unwrap().set_times(times).unwrap();
        };
        set("a/one");
        set("a");
        let none = 0..=0;
        assert!(diff_again(&source, &copy, none.clone(), Some(&seen)).unwrap().is_empty());

        // The copy has the same file, and one with the same metadata: neither is looked at.
        fs::set_permissions(source.join("four"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(source.join("a/b/two"), "TWO").unwrap();
        fs::remove_file(source.join("a/b/c/three")).unwrap();
        fs::write(source.join("new"), "").unwrap();
        let again = diff_again(&source, &copy, none, Some(&seen)).unwrap();
        let changed = ["a", "a/b", "a/b/c", "a/b/four too", "a/b/two", "four", "new"];
        assert_eq!(texts(&again.changed), changed);
        assert_eq!(texts(&again.removed), ["a/b/c/three"]);
    }

    #[test]
    fn lists_of_another_node_reach_nothing_outside() {
        let (dir, _source, copy) = trees();
        let outside = dir.path().join("outside");
        fs::create_dir_all(outside.join("dir")).unwrap();
        fs::write(outside.join("file"), "").unwrap();
        symlink(&outside, copy.join("link")).unwrap();
        symlink("../outside", copy.join("a/link")).unwrap();
        let bad: [&[u8]; 6] =
            [b"./../x\0", b"/x\0", b"x\0", b"./a//x\0", b"./a/../../x\0", b"./a/./x\0"];
        for bad in bad {
            assert_eq!(Changes::parse(bad, b""), None, "{bad:?}");
            assert_eq!(Changes::parse(b"", bad), None, "{bad:?}");
        }
        let paths = b"./link/file\0./link/dir\0./a/link/file\0./nowhere/x\0";
        Changes::parse(paths, paths).unwrap().remove_from(&copy, Remove::All).unwrap();
        assert!(outside.join("file").exists() && outside.join("dir").exists());
        assert!(copy.join("link").is_symlink());
    }
}
