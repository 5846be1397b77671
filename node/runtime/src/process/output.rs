//! The files that processes write their output to.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::SeekFrom;
use vc_protocol::Millis;

use crate::clock::since_epoch;
use crate::one_line::{MAX_LAST_LINES, last_lines};

/// The file of the standard output, in the instance's directory.
pub(super) const STDOUT: &str = "stdout";
/// The file of the standard error.
pub(super) const STDERR: &str = "stderr";
/// How many bytes are read at a time.
pub(super) const CHUNK: usize = 64 * 1024;
/// How many milliseconds a file's time may be behind the clock, as the kernel takes it from its last tick.
const TIME_GRANULARITY: Millis = 20;

/// Returns the last lines that a process wrote since it was started, joined: of its standard error, else of its
/// standard output.
pub(super) fn last_output(directory: &Path, started: Millis) -> String {
    let of = |name| {
        let file = File::open(directory.join(name))
            .ok()
            .filter(|file| modified(file) + TIME_GRANULARITY >= started)?;
        let from = tail_offset(&file, Some(MAX_LAST_LINES)).ok()?;
        let end = file.metadata().ok()?.len();
        let length = end.saturating_sub(from).min(CHUNK as u64);
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        file.read_exact_at(&mut bytes, end - length).ok()?;
        let lines = last_lines(String::from_utf8_lossy(&bytes).lines());
        Some(lines).filter(|lines| !lines.is_empty())
    };
    of(STDERR).or_else(|| of(STDOUT)).unwrap_or_default()
}

/// Returns when a file was last modified.
pub(super) fn modified(file: &File) -> Millis {
    let time = file.metadata().and_then(|metadata| metadata.modified()).ok();
    time.map(since_epoch).unwrap_or_default()
}

/// Returns the first offset at or after `at` that is not in a hole.
pub(super) fn first_data(file: &File, at: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(data),
        Err(rustix::io::Errno::NXIO) => Ok(file.metadata()?.len()),
        Err(rustix::io::Errno::INVAL) => Ok(at), // The file system has no holes.
        Err(error) => Err(error.into()),
    }
}

/// Returns the offset of the last `tail` lines, or 0 for all.
pub(super) fn tail_offset(file: &File, tail: Option<u32>) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let first = first_data(file, 0)?;
    let Some(tail) = tail else { return Ok(0) };
    if tail == 0 {
        return Ok(len);
    }
    let mut bytes = vec![0; CHUNK];
    let (mut end, mut found) = (len, 0_u32);
    while end > first {
        let start = end.saturating_sub(CHUNK as u64).max(first);
        let block = &mut bytes[..usize::try_from(end - start).unwrap_or(CHUNK)];
        file.read_exact_at(block, start)?;
        for (offset, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let line = start + offset as u64 + 1;
            // The newline at the end of the file starts no line.
            if line == len {
                continue;
            }
            found += 1;
            if found == tail {
                return Ok(line);
            }
        }
        end = start;
    }
    Ok(0)
}
