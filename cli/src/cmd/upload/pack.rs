//! Packs files as the archive that nodes unpack into volumes: see [`UploadTarget`](vc_protocol::control::UploadTarget).

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use futures::stream;
use indicatif::ProgressBar;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::bytes::Bytes;
use vc_client::{SendStreamError, Session};
use vc_protocol::ApiError;
use vc_protocol::control::Reply;

use super::tree::{Entry, UploadError};
use crate::error::{Error, Result, SystemError};

/// Bytes that are read and sent at once.
const CHUNK: usize = 128 * 1024;
/// The most chunks between the files and the network.
const CHUNKS: usize = 8;
/// zstd's own default.
const LEVEL: i32 = 3;

/// How an archive is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// With everything of a file, compressed, and with an end.
    Whole,
    /// As a node of an older version reads it.
    Plain,
}

/// What is packed.
pub(super) struct Packing {
    pub(super) root: PathBuf,
    pub(super) entries: Vec<Entry>,
    /// How much of a file the node has, by its path.
    pub(super) offsets: HashMap<PathBuf, u64>,
    pub(super) format: Format,
}

/// Sends files as an archive, in frames of bytes; the node is ready for them. Returns its reply, and the files that changed while they
/// were read.
pub(super) async fn send(
    session: &mut Session,
    packing: Packing,
    bar: ProgressBar,
) -> Result<(Reply, Vec<PathBuf>)> {
    let (chunks, waiting) = mpsc::channel(CHUNKS);
    let counted = bar.clone();
    let packing = spawn_blocking(move || match pack(packing, chunks.clone(), &counted) {
        Ok(changed) => changed,
        Err(error) => {
            // The node keeps what has arrived of an archive that does not end.
            let _ = chunks.blocking_send(Err(error));
            Vec::new()
        }
    });
    let mut pieces = Box::pin(stream::unfold(waiting, async |mut waiting| {
        let piece = waiting.recv().await?;
        Some((piece, waiting))
    }));
    let reply = session.send_stream(&mut pieces, |_| {}).await;
    bar.finish_and_clear();
    drop(pieces);
    let changed =
        packing.await.map_err(|error| SystemError::doing("finish the upload")(error.into()))?;
    let reply = reply.map_err(|error| match error {
        SendStreamError::Source(error) => Error::from(ApiError::from(error)),
        SendStreamError::Session(error) => Error::from(error),
    })?;
    Ok((reply, changed))
}

/// Writes the entries as an archive. Returns the files that changed meanwhile.
fn pack(
    packing: Packing,
    chunks: mpsc::Sender<std::result::Result<Bytes, UploadError>>,
    bar: &ProgressBar,
) -> std::result::Result<Vec<PathBuf>, UploadError> {
    let root = packing.root.clone();
    let read = |source| UploadError::Read { path: root.clone(), source };
    let to = io::BufWriter::with_capacity(CHUNK, Chunks(chunks));
    if packing.format == Format::Plain {
        let mut packer = Packer::new(packing, tar::Builder::new(to), bar);
        packer.entries()?;
        packer.archive.into_inner().and_then(|mut to| to.flush()).map_err(read)?;
        return Ok(packer.changed);
    }
    let to = zstd::stream::write::Encoder::new(to, LEVEL).map_err(read)?;
    let mut packer = Packer::new(packing, tar::Builder::new(to), bar);
    packer.root()?;
    packer.entries()?;
    let end = |archive: &mut tar::Builder<_>| {
        archive.append_pax_extensions([("VC.end", &b"1"[..])])?;
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        archive.append_data(&mut header, ".", io::empty())
    };
    end(&mut packer.archive).map_err(read)?;
    let written = packer.archive.into_inner().and_then(|to| to.finish());
    written.and_then(|mut to| to.flush()).map_err(read)?;
    Ok(packer.changed)
}

struct Packer<'a, W: Write> {
    packing: Packing,
    archive: tar::Builder<W>,
    bar: &'a ProgressBar,
    /// The first name of each file that has several.
    names: HashMap<(u64, u64), PathBuf>,
    changed: Vec<PathBuf>,
}

impl<'a, W: Write> Packer<'a, W> {
    fn new(packing: Packing, archive: tar::Builder<W>, bar: &'a ProgressBar) -> Self {
        Self { packing, archive, bar, names: HashMap::new(), changed: Vec::new() }
    }

    /// Appends the directory itself.
    fn root(&mut self) -> std::result::Result<(), UploadError> {
        let root = self.packing.root.clone();
        let appended = std::fs::metadata(&root).and_then(|metadata| match metadata.is_dir() {
            true => self.append(&root, &Entry { path: PathBuf::new(), metadata }),
            false => Ok(()),
        });
        appended.map_err(|source| UploadError::Read { path: root, source })
    }

    fn entries(&mut self) -> std::result::Result<(), UploadError> {
        for entry in std::mem::take(&mut self.packing.entries) {
            let whole = match entry.path.as_os_str().is_empty() {
                true => self.packing.root.clone(),
                false => self.packing.root.join(&entry.path),
            };
            match self.append(&whole, &entry) {
                // It is gone since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.changed.push(entry.path);
                }
                appended => {
                    appended.map_err(|source| UploadError::Read { path: whole, source })?;
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, whole: &Path, Entry { path, metadata }: &Entry) -> io::Result<()> {
        let named = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let mut header = tar::Header::new_gnu();
        header.set_metadata(metadata);
        header.set_size(0);
        // What cannot be opened is no part of the archive.
        let mut file = if metadata.is_file() { Some(File::open(whole)?) } else { None };
        let link = if metadata.is_symlink() { Some(std::fs::read_link(whole)?) } else { None };
        if self.packing.format == Format::Whole {
            if metadata.is_file() && metadata.nlink() > 1 {
                let key = (metadata.dev(), metadata.ino());
                if let Some(first) = self.names.get(&key) {
                    header.set_entry_type(tar::EntryType::Link);
                    return self.archive.append_link(&mut header, named, first);
                }
                self.names.insert(key, named.to_owned());
            }
            // GNU's header has no time before 1970.
            header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
            let mut extensions = vec![("mtime".to_owned(), modified(metadata).into_bytes())];
            if !metadata.is_symlink() {
                extensions.extend(attributes(whole)?);
            }
            if let Some(offset) = self.packing.offsets.get(path) {
                extensions.push(("VC.offset".to_owned(), offset.to_string().into_bytes()));
            }
            let extensions = extensions.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
            self.archive.append_pax_extensions(extensions)?;
        }
        if let Some(link) = link {
            return self.archive.append_link(&mut header, named, link);
        }
        let Some(file) = &mut file else {
            return self.archive.append_data(&mut header, named, io::empty());
        };
        let offset = self.packing.offsets.get(path).copied().unwrap_or(0);
        file.seek(SeekFrom::Start(offset))?;
        self.bar.inc(offset);
        // A file may grow or shrink meanwhile: the archive has as many bytes of it as the header says.
        let size = metadata.len().saturating_sub(offset);
        header.set_size(size);
        let content = self.bar.wrap_read(&mut *file).chain(io::repeat(0)).take(size);
        self.archive.append_data(&mut header, named, content)?;
        let now = file.metadata()?;
        let stamp = |it: &Metadata| (it.len(), it.ctime(), it.ctime_nsec());
        if stamp(&now) != stamp(metadata) {
            self.changed.push(path.clone());
        }
        Ok(())
    }
}

/// Returns the time of modification in seconds, with a fraction.
fn modified(metadata: &Metadata) -> String {
    let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
    if seconds < 0 && nanos > 0 {
        return format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos);
    }
    format!("{seconds}.{nanos:09}")
}

/// Returns the extended attributes of a file that mean something on another computer: those of users, ACLs and capabilities.
#[cfg(target_os = "linux")]
fn attributes(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    use rustix::io::Errno;

    let names = match sized(|buffer| rustix::fs::llistxattr(path, buffer)) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0) {
        const KEPT: [&[u8]; 3] = [b"user.", b"system.posix_acl_", b"security.capability"];
        if !KEPT.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        match sized(|buffer| rustix::fs::lgetxattr(path, name, buffer)) {
            Ok(value) => found.push((format!("VC.xattr.{}", hex(name)), hex(&value).into_bytes())),
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

#[cfg(not(target_os = "linux"))]
fn attributes(_: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    Ok(Vec::new())
}

/// Calls `read` with a buffer that is large enough.
#[cfg(target_os = "linux")]
fn sized(
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> std::result::Result<Vec<u8>, rustix::io::Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            // An attribute has at most 64 KiB, their names together as well.
            Err(rustix::io::Errno::RANGE) if buffer.len() < 1 << 20 => {
                buffer.resize(buffer.len() * 4, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Sends what is written in chunks.
struct Chunks(mpsc::Sender<std::result::Result<Bytes, UploadError>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::super::tree::list;
    use super::*;

    fn packed(
        root: &Path,
        entries: Vec<Entry>,
        format: Format,
        offsets: &[(&str, u64)],
    ) -> Vec<u8> {
        let offsets = offsets.iter().map(|(path, offset)| (PathBuf::from(path), *offset)).collect();
        let packing = Packing { root: root.to_owned(), entries, offsets, format };
        let (chunks, mut waiting) = mpsc::channel(1000);
        let changed = pack(packing, chunks, &ProgressBar::hidden()).expect("packed");
        assert!(changed.is_empty(), "{changed:?}");
        let mut archive = Vec::new();
        while let Ok(piece) = waiting.try_recv() {
            archive.extend_from_slice(&piece.expect("packed"));
        }
        archive
    }

    #[test]
    fn a_directory_is_packed_without_what_is_ignored() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        for path in ["src/deep", "node_modules/x"] {
            std::fs::create_dir_all(root.join(path)).expect("made");
        }
        for path in ["src/main.rs", "src/deep/a.log", "keep.log", "node_modules/x/y"] {
            std::fs::write(root.join(path), path).expect("written");
        }
        let mode = std::fs::Permissions::from_mode(0o751);
        std::fs::set_permissions(root.join("src/main.rs"), mode).expect("set");
        symlink("/etc/passwd", root.join("link")).expect("linked");
        let _socket = std::os::unix::net::UnixListener::bind(root.join("sock")).expect("bound");

        let patterns = ["node_modules", "*.log", "!keep.log"].map(str::to_owned);
        let entries = list(root, &patterns).expect("listed").expect("it exists");
        let archive = packed(root, entries.clone(), Format::Plain, &[]);
        let mut found = Vec::new();
        for entry in tar::Archive::new(&archive[..]).entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let mut content = String::new();
            entry.read_to_string(&mut content).expect("text");
            let path = entry.path().expect("a path").display().to_string();
            found.push((path, entry.header().mode().expect("a mode") & 0o777, content));
        }
        let names: Vec<&str> = found.iter().map(|(path, ..)| path.as_str()).collect();
        assert_eq!(names, ["keep.log", "link", "src", "src/deep", "src/main.rs"]);
        assert_eq!((found[4].1, found[4].2.as_str()), (0o751, "src/main.rs"));
        assert!(list(&root.join("none"), &[]).expect("nothing").is_none());
        assert!(list(root, &["[z-a]".to_owned()]).is_err());

        // With the directory itself and an end; of a file only what the node does not have.
        let archive = packed(root, entries, Format::Whole, &[("src/main.rs", 4)]);
        let archive = zstd::decode_all(&archive[..]).expect("compressed");
        let mut found = Vec::new();
        for entry in tar::Archive::new(&archive[..]).entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let mut content = String::new();
            entry.read_to_string(&mut content).expect("text");
            let keys = entry.pax_extensions().expect("read").into_iter().flatten();
            let keys = keys.filter_map(|it| it.expect("one").key().ok().map(str::to_owned));
            let keys: Vec<String> = keys.filter(|key| key.starts_with("VC.")).collect();
            found.push((entry.path().expect("a path").display().to_string(), content, keys));
        }
        let last = found.pop().expect("an end");
        assert_eq!((last.0.as_str(), last.2), (".", vec!["VC.end".to_owned()]));
        assert_eq!(found[0].0, ".");
        let (path, content, keys) = found.pop().expect("an entry");
        assert_eq!((path.as_str(), content.as_str()), ("src/main.rs", "main.rs"));
        assert_eq!(keys, ["VC.offset"]);
    }
}
