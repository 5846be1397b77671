//! The tar format, as far as `docker save` and `docker load` use it.
//!
//! Entries are read here and not by the `tar` crate's iterator, which takes an extended header into memory however long
//! it says it is. Nothing is ever unpacked: a path is only a key.

use std::io::{self, Read, Write};

use tar::{EntryType, Header, PaxExtensions};

/// Size of a block: headers are one, contents are filled up to the next.
const BLOCK: u64 = 512;
/// The longest extended header, in bytes.
const MAX_EXTENDED: u64 = 64 * 1024;
/// Bytes copied at a time.
const COPY: usize = 256 * 1024;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file.
    File,
    /// Another name of the entry at this path, symbolic or hard.
    Link(String),
    /// Anything else: it is of no interest.
    Other,
}

/// What stands before an entry's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its path as it is written.
    pub(super) path: String,
    /// What it is.
    pub(super) kind: Kind,
    /// Length of its content.
    pub(super) size: u64,
}

/// Reads a tar once, from beginning to end.
pub(super) struct Entries<R> {
    input: R,
    /// Of the entry that was given last: not yet read, and what fills up its last block.
    left: u64,
    padding: u64,
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed archive: {what}"))
}

impl<R: Read> Entries<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0 }
    }

    /// The next entry; what was not read of the last one is skipped. `None`: the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let (mut path, mut link, mut size) = (None, None, None);
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let told = header.entry_size()?;
            match header.entry_type() {
                EntryType::GNULongName => path = Some(self.text(told)?),
                EntryType::GNULongLink => link = Some(self.text(told)?),
                EntryType::XHeader => {
                    let bytes = self.extended(told)?;
                    for extension in PaxExtensions::new(&bytes) {
                        let extension = extension?;
                        let value = || utf8(extension.value_bytes());
                        match extension.key_bytes() {
                            b"path" => path = Some(value()?),
                            b"linkpath" => link = Some(value()?),
                            b"size" => {
                                let number = value()?.parse();
                                size = Some(number.map_err(|_| malformed("a size is no number"))?);
                            }
                            _ => {}
                        }
                    }
                }
                EntryType::XGlobalHeader => self.extent(told)?,
                kind => {
                    let size = size.unwrap_or(told);
                    self.extent(size)?;
                    let path = match path {
                        Some(path) => path,
                        None => utf8(&header.path_bytes())?,
                    };
                    let kind = match kind {
                        EntryType::Regular | EntryType::Continuous => Kind::File,
                        EntryType::Symlink | EntryType::Link => {
                            let target = match link {
                                Some(link) => link,
                                None => utf8(&header.link_name_bytes().unwrap_or_default())?,
                            };
                            // What a hard link names counts from the top.
                            let from_top = kind == EntryType::Link;
                            Kind::Link(if from_top { format!("/{target}") } else { target })
                        }
                        _ => Kind::Other,
                    };
                    return Ok(Some(Entry { path, kind, size }));
                }
            }
        }
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        io::copy(self, &mut io::sink())?;
        io::copy(&mut self.input.by_ref().take(self.padding), &mut io::sink())?;
        self.padding = 0;
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        self.input.read_exact(block).map_err(|_| malformed("it ends too early"))?;
        if block.iter().all(|&byte| byte == 0) {
            // The other side may still be writing the blocks that fill up the end.
            io::copy(&mut self.input, &mut io::sink())?;
            return Ok(None);
        }
        // The sum is over the header with its own field blank.
        let sum = |range: &[u8]| range.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        let bytes = header.as_bytes();
        let expected = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
        if header.cksum()? != expected {
            return Err(malformed("a header is damaged"));
        }
        Ok(Some(header))
    }

    fn extent(&mut self, size: u64) -> io::Result<()> {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK;
        Ok(())
    }

    fn extended(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENDED {
            return Err(malformed("a header is too long"));
        }
        self.extent(size)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn text(&mut self, size: u64) -> io::Result<String> {
        let bytes = self.extended(size)?;
        utf8(bytes.strip_suffix(&[0]).unwrap_or(&bytes))
    }
}

/// The content of the entry that was given last.
impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(malformed("it ends within an entry"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

fn utf8(bytes: &[u8]) -> io::Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed("a path is not text"))
}

/// A path without `.` and empty parts; `..` goes up, at the top nowhere.
pub(super) fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Writes a file's header; its content, and [`fill`], follow.
pub(super) fn start(output: &mut impl Write, path: &str, size: u64) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_path(path)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    output.write_all(header.as_bytes())
}

/// Fills up the last block of a file of this size.
pub(super) fn fill(output: &mut impl Write, size: u64) -> io::Result<()> {
    let padding = usize::try_from(size.wrapping_neg() % BLOCK).unwrap_or(0);
    output.write_all(&[0; BLOCK as usize][..padding])
}

/// Writes a whole file.
pub(super) fn file(output: &mut impl Write, path: &str, content: &[u8]) -> io::Result<()> {
    start(output, path, content.len() as u64)?;
    output.write_all(content)?;
    fill(output, content.len() as u64)
}

/// Writes the end.
pub(super) fn finish(output: &mut impl Write) -> io::Result<()> {
    output.write_all(&[0; 2 * BLOCK as usize])?;
    output.flush()
}

/// Copies everything, in large pieces; tells how much it was.
pub(super) fn copy(
    from: &mut impl Read,
    mut to: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let mut buffer = vec![0; COPY];
    let mut copied = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(read) => {
                to(&buffer[..read])?;
                copied += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
