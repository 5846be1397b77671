//! The tar format, as far as `docker save` and `docker load` use it.
//!
//! This does not use the iterator of the `tar` crate, which reads an extended header of any length into memory. Nothing
//! is unpacked to disk: a path is only a key.

use std::io::{self, Read, Write};

use tar::{EntryType, Header, PaxExtensions};

/// Size of a block in bytes: a header takes one, and contents are padded to a multiple of it.
const BLOCK: u64 = 512;
/// The longest extended header, in bytes.
const MAX_EXTENDED: u64 = 64 * 1024;
/// How many bytes are copied at a time.
const COPY: usize = 256 * 1024;

/// The type of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A symbolic or hard link to the entry with this path.
    Link(String),
    /// Any other type, which is skipped.
    Other,
}

/// The header of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path, unchanged.
    pub path: String,
    /// Its type.
    pub kind: Kind,
    /// Length of the content in bytes.
    pub size: u64,
}

/// Reads the entries of a tar in order.
pub struct Entries<R> {
    input: R,
    /// Bytes of the current entry that were not read yet, and of the padding after it.
    left: u64,
    padding: u64,
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed archive: {what}"))
}

impl<R: Read> Entries<R> {
    /// Returns a reader of the entries of `input`.
    pub fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0 }
    }

    /// Returns the next entry, skipping what was not read of the current one; `None` at the end.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let (mut path, mut link, mut size) = (None, None, None);
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let header_size = header.entry_size()?;
            match header.entry_type() {
                EntryType::GNULongName => path = Some(self.text(header_size)?),
                EntryType::GNULongLink => link = Some(self.text(header_size)?),
                EntryType::XHeader => {
                    let bytes = self.extended(header_size)?;
                    for extension in PaxExtensions::new(&bytes) {
                        let extension = extension?;
                        let value = || utf8(extension.value_bytes());
                        match extension.key_bytes() {
                            b"path" => path = Some(value()?),
                            b"linkpath" => link = Some(value()?),
                            b"size" => {
                                let number = value()?.parse();
                                size =
                                    Some(number.map_err(|_| malformed("a size is not a number"))?);
                            }
                            _ => {}
                        }
                    }
                }
                EntryType::XGlobalHeader => self.begin_content(header_size)?,
                kind => {
                    let size = size.unwrap_or(header_size);
                    self.begin_content(size)?;
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
                            // The target of a hard link is relative to the root of the archive.
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
        self.input.read_exact(block).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => malformed("unexpected end"),
            // Of the source: an engine that refuses to export.
            _ => error,
        })?;
        if block.iter().all(|&byte| byte == 0) {
            // The sender may still be writing the padding at the end.
            io::copy(&mut self.input, &mut io::sink())?;
            return Ok(None);
        }
        // The checksum is taken over the header with spaces in place of the checksum.
        let sum = |range: &[u8]| range.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        let bytes = header.as_bytes();
        let expected = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
        if header.cksum()? != expected {
            return Err(malformed("wrong header checksum"));
        }
        Ok(Some(header))
    }

    fn begin_content(&mut self, size: u64) -> io::Result<()> {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK;
        Ok(())
    }

    fn extended(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENDED {
            return Err(malformed("an extended header is too long"));
        }
        self.begin_content(size)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn text(&mut self, size: u64) -> io::Result<String> {
        let bytes = self.extended(size)?;
        utf8(bytes.strip_suffix(&[0]).unwrap_or(&bytes))
    }
}

/// Reads the content of the current entry.
impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(malformed("unexpected end within an entry"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

fn utf8(bytes: &[u8]) -> io::Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed("a path is not UTF-8"))
}

/// Normalizes a path: without `.`, empty parts and `..`, which stops at the root.
pub fn normalize(path: &str) -> String {
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

/// Writes the header of a file; the content and [`pad`] must follow.
pub fn write_header(output: &mut impl Write, path: &str, size: u64) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_path(path)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    output.write_all(header.as_bytes())
}

/// Writes the padding after a file of this size.
pub fn pad(output: &mut impl Write, size: u64) -> io::Result<()> {
    let padding = usize::try_from(size.wrapping_neg() % BLOCK).unwrap_or(0);
    output.write_all(&[0; BLOCK as usize][..padding])
}

/// Writes a file with its header and padding.
pub fn write_file(output: &mut impl Write, path: &str, content: &[u8]) -> io::Result<()> {
    write_header(output, path, content.len() as u64)?;
    output.write_all(content)?;
    pad(output, content.len() as u64)
}

/// Writes the end of the archive.
pub fn write_end(output: &mut impl Write) -> io::Result<()> {
    output.write_all(&[0; 2 * BLOCK as usize])?;
    output.flush()
}

/// Passes everything that `from` yields to `to` in large pieces, and returns the number of bytes.
pub fn copy(from: &mut impl Read, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails as an engine does that refuses to export.
    struct Refused;

    impl Read for Refused {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("no space left on device"))
        }
    }

    #[test]
    fn an_error_of_the_source_is_not_an_error_of_the_archive() {
        let error = |input: &mut dyn Read| {
            let mut entries = Entries::new(input);
            entries.next_entry().expect_err("no archive").to_string()
        };
        assert_eq!(error(&mut Refused), "no space left on device");
        assert_eq!(error(&mut [0; 100].as_slice().chain(Refused)), "no space left on device");
        assert_eq!(error(&mut [0; 100].as_slice()), "malformed archive: unexpected end");
    }
}
