//! The file with the program: a binary, or a Debian package that has one.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use memchr::memmem;
use sha2::{Digest as _, Sha256};
use vc_protocol::control::{MAX_PROGRAM, PROGRAM_MARKER, ProgramId};
use vc_protocol::image::Digest;
use vc_protocol::{ApiError, ErrorCode};

/// Where Debian packages have it.
const IN_PACKAGE: &str = "usr/bin/vc-node";
/// The beginning of a Debian package (`deb(5)`).
const PACKAGE: &[u8] = b"!<arch>\n";
/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;
/// The longest version in a program, in bytes.
const MAX_VERSION: usize = 64;
/// Bytes of the header of an ELF file up to its architecture (`elf(5)`).
const HEADER: usize = 20;
/// 64 bits, little endian.
const ELF: &[u8] = b"\x7fELF\x02\x01";
/// Values of `e_machine`, with the architectures that Docker names.
const MACHINES: [(u16, &str); 2] = [(62, "amd64"), (183, "arm64")];

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("{0} is no build of vc-node: it is no program for 64-bit Linux")]
    NoProgram(String),
    #[error("{0} is no build of vc-node, or one from before 'vc upgrade'")]
    NoVersion(String),
    #[error("{0} has a program for another architecture than amd64 and arm64")]
    Architecture(String),
    #[error("{0} is larger than {max} MiB", max = MAX_PROGRAM >> 20)]
    TooLarge(String),
    #[error("cannot open the package {path} with dpkg-deb: {reason}")]
    Package { path: String, reason: String },
    #[error("the package {0} has no {IN_PACKAGE}")]
    NotInPackage(String),
}

impl From<FileError> for ApiError {
    fn from(error: FileError) -> Self {
        let code = match &error {
            FileError::Read { source, .. } => crate::error::io_code(source),
            _ => ErrorCode::InvalidArgument,
        };
        let hint = match &error {
            FileError::Package { .. } => {
                "unpack it where there is dpkg-deb: 'dpkg-deb -x FILE DIR', then upgrade with DIR/usr/bin/vc-node"
            }
            FileError::NotInPackage(_) => "name the package vc-node",
            FileError::NoProgram(_) | FileError::NoVersion(_) => {
                "name a vc-node binary, or the package of that name"
            }
            _ => return Self::new(code, error.to_string()),
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

/// A build of vc-node.
#[derive(Debug)]
pub(super) struct ProgramFile {
    /// The binary.
    pub(super) file: File,
    pub(super) id: ProgramId,
    pub(super) version: String,
    /// As Docker names it.
    pub(super) arch: &'static str,
}

impl ProgramFile {
    /// Opens a file. Blocks.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let name = path.display().to_string();
        let failed = |source| FileError::Read { path: name.clone(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mut start = [0; PACKAGE.len()];
        let is_package = file.read_exact(&mut start).is_ok() && start == PACKAGE;
        file.rewind().map_err(failed)?;
        if is_package {
            file = unpack(path, &name)?;
        }
        Self::examine(file, &name)
    }

    fn examine(mut file: File, name: &str) -> Result<Self, FileError> {
        let failed = |source| FileError::Read { path: name.to_owned(), source };
        let size = file.metadata().map_err(failed)?.len();
        if size > MAX_PROGRAM {
            return Err(FileError::TooLarge(name.to_owned()));
        }
        let mut header = [0; HEADER];
        file.read_exact(&mut header).map_err(|_| FileError::NoProgram(name.to_owned()))?;
        if !header.starts_with(ELF) {
            return Err(FileError::NoProgram(name.to_owned()));
        }
        let machine = u16::from_le_bytes([header[18], header[19]]);
        let arch = MACHINES.iter().find(|(number, _)| *number == machine);
        let (_, arch) = arch.ok_or_else(|| FileError::Architecture(name.to_owned()))?;
        file.rewind().map_err(failed)?;
        let (digest, version) = read(&mut file).map_err(failed)?;
        let version = version.ok_or_else(|| FileError::NoVersion(name.to_owned()))?;
        file.rewind().map_err(failed)?;
        Ok(Self { file, id: ProgramId { digest, size }, version, arch })
    }
}

/// Reads a program to its end. Returns its digest and its version.
fn read(file: &mut impl Read) -> io::Result<(String, Option<String>)> {
    let (mut hash, mut version) = (Sha256::new(), None);
    // What may be the beginning of the marker stays for the next search.
    let overlap = PROGRAM_MARKER.len() + MAX_VERSION;
    let mut bytes = Vec::with_capacity(CHUNK + overlap);
    loop {
        let kept = bytes.len();
        let count = file.by_ref().take(CHUNK as u64).read_to_end(&mut bytes)?;
        hash.update(&bytes[kept..]);
        if version.is_none() {
            version = find_version(&bytes);
        }
        if count == 0 {
            return Ok((Digest::from_sha256(hash.finalize().into()).to_string(), version));
        }
        bytes.drain(..bytes.len().saturating_sub(overlap));
    }
}

/// Returns the version that follows the marker.
fn find_version(bytes: &[u8]) -> Option<String> {
    memmem::find_iter(bytes, PROGRAM_MARKER).find_map(|at| {
        let text = &bytes[at + PROGRAM_MARKER.len()..];
        let end = text.iter().take(MAX_VERSION).position(|&byte| byte == b'\n')?;
        let version = str::from_utf8(&text[..end]).ok()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '~');
        (version.starts_with(|c: char| c.is_ascii_digit()) && version.chars().all(plain))
            .then(|| version.to_owned())
    })
}

/// Takes the program out of a Debian package, by the tool that knows all of its compressions.
fn unpack(path: &Path, name: &str) -> Result<File, FileError> {
    let cannot = |reason: String| FileError::Package { path: name.to_owned(), reason };
    let mut command = Command::new("dpkg-deb");
    // Its own path may begin with a dash.
    let path = std::path::absolute(path).map_err(|error| cannot(error.to_string()))?;
    command.arg("--fsys-tarfile").arg(path).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child =
        command.stderr(Stdio::null()).spawn().map_err(|error| cannot(error.to_string()))?;
    let found = child.stdout.take().map(find_program);
    // It ends when the rest is not read.
    let status = child.wait().map_err(|error| cannot(error.to_string()))?;
    match found {
        Some(Ok(Some(file))) => Ok(file),
        Some(Ok(None)) if status.success() => Err(FileError::NotInPackage(name.to_owned())),
        Some(Err(error)) if status.success() => Err(cannot(error.to_string())),
        _ => Err(cannot(status.to_string())),
    }
}

/// Copies the program of an archive into a temporary file.
fn find_program(archive: impl Read) -> io::Result<Option<File>> {
    for entry in tar::Archive::new(archive).entries()? {
        let entry = entry?;
        if !entry.header().entry_type().is_file()
            || entry.path()?.strip_prefix(".").unwrap_or(&entry.path()?) != Path::new(IN_PACKAGE)
        {
            continue;
        }
        let (mut file, size) = (tempfile::tempfile()?, entry.size());
        let copied = io::copy(&mut entry.take(MAX_PROGRAM + 1), &mut file)?;
        // The archive of a package that was cut off just ends.
        if copied < size.min(MAX_PROGRAM + 1) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.flush()?;
        file.rewind()?;
        return Ok(Some(file));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(machine: u16, text: &str) -> Vec<u8> {
        let mut bytes = ELF.to_vec();
        bytes.resize(18, 0);
        bytes.extend(machine.to_le_bytes());
        bytes.extend(vec![0; CHUNK - 30]);
        bytes.extend(text.as_bytes());
        bytes.extend(vec![0; 100]);
        bytes
    }

    fn open(bytes: &[u8]) -> Result<ProgramFile, FileError> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("vc-node");
        std::fs::write(&path, bytes).expect("written");
        ProgramFile::open(&path)
    }

    #[test]
    fn a_program_says_its_version_and_architecture_without_being_run() {
        let marked = program(183, &format!("{PROGRAM_MARKER}{PROGRAM_MARKER}1.2.3-rc.1\n"));
        let found = open(&marked).expect("a program");
        assert_eq!((found.version.as_str(), found.arch), ("1.2.3-rc.1", "arm64"));
        assert_eq!(found.id.size, marked.len() as u64);
        assert!(found.id.digest.starts_with("sha256:") && found.id.digest.len() == 71);
    }

    #[test]
    fn what_is_no_build_of_vc_node_is_refused() {
        let refused = |bytes: &[u8]| open(bytes).expect_err("refused").to_string();
        assert!(refused(b"#!/bin/sh\n").contains("no program for 64-bit Linux"));
        assert!(refused(&program(62, "hello")).contains("no build of vc-node, or one from before"));
        assert!(refused(&program(62, "@(#)vc-node is good\n")).contains("no build of vc-node"));
        assert!(refused(&program(40, "@(#)vc-node 1.0\n")).contains("another architecture"));
        assert!(refused(b"!<arch>\nnot a package").contains("dpkg-deb"));
    }

    #[test]
    fn the_program_of_a_package_is_found() {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in [("./usr/share/doc", "no"), ("./usr/bin/vc-node", "yes")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_bytes()).expect("appended");
        }
        let archive = builder.into_inner().expect("finished");
        let mut text = String::new();
        let file = find_program(&archive[..]).expect("read");
        file.expect("found").read_to_string(&mut text).expect("read");
        assert_eq!(text, "yes");
        assert!(find_program(&archive[..1024]).is_ok_and(|it| it.is_none()));
        let cut = archive.windows(3).position(|it| it == b"yes").expect("it is there") + 2;
        let error = find_program(&archive[..cut]).expect_err("a part of it");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
