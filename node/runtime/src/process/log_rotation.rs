//! Log rotation: bounds the logs while processes write them.
//!
//! Processes hold the files open and append. Copying the end elsewhere and truncating would lose what is written in
//! between. So a hole is punched instead: the file keeps its length and its offsets, but its old part takes no disk
//! space.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::output::{STDERR, STDOUT};

/// How many bytes of each log are kept, if there are that many.
pub(super) const RETAINED: u64 = 10 << 20;
/// The size on disk from which a log is rotated. A fast writer exceeds it between two rotations.
const MAX_SIZE: u64 = 2 * RETAINED;
/// The granularity of holes in bytes; file systems punch whole blocks.
const BLOCK: u64 = 1 << 16;

/// Rotates the logs of an instance.
pub(super) fn rotate(directory: &Path) {
    for name in [STDOUT, STDERR] {
        let path = directory.join(name);
        // It was removed just now.
        let Ok(file) = OpenOptions::new().write(true).open(&path) else { continue };
        if let Err(error) = rotate_file(&file) {
            tracing::warn!(path = %path.display(), %error, "cannot rotate a log");
        }
    }
}

fn rotate_file(file: &File) -> std::io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.blocks() * 512 <= MAX_SIZE || metadata.len() <= RETAINED {
        return Ok(());
    }
    let end = (metadata.len() - RETAINED) / BLOCK * BLOCK;
    match rustix::fs::fallocate(
        file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        0,
        end,
    ) {
        // The file system has no holes: losing a log is better than filling the disk.
        Err(Errno::OPNOTSUPP) => file.set_len(0),
        punched => Ok(punched?),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn a_long_log_keeps_its_end_and_frees_disk_space() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut file = File::create(dir.path().join(STDOUT)).expect("a file");
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..25 {
            file.write_all(&chunk).expect("written");
        }
        rotate(dir.path());
        let metadata = file.metadata().expect("there");
        assert_eq!(metadata.len(), 25 << 20);
        assert!(metadata.blocks() * 512 <= RETAINED + 2 * BLOCK, "{} blocks", metadata.blocks());
        let mut end = vec![0; usize::try_from(RETAINED).expect("fits")];
        file.read_exact_at(&mut end, (25 << 20) - RETAINED).err(); // The file is open for writing only.
        let file = File::open(dir.path().join(STDOUT)).expect("there");
        file.read_exact_at(&mut end, (25 << 20) - RETAINED).expect("read");
        assert!(end.iter().all(|&b| b == b'x'));
    }
}
