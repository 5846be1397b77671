//! Keeping logs bounded while others write them.
//!
//! The processes hold the files open and append. Copying the end elsewhere and truncating would lose what is written in
//! between; so the old part is punched out instead: the file keeps its length, but takes no room on disk, and no offset
//! of a reader changes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::logs::{STDERR, STDOUT};

/// How much of each log is kept at least, if there was so much.
pub(super) const KEPT: u64 = 10 << 20;
/// From what size on a log is trimmed. A process that writes fast exceeds it between two trims.
const LIMIT: u64 = 2 * KEPT;
/// Holes are made of whole blocks.
const BLOCK: u64 = 1 << 16;

/// Trims the logs of an instance.
pub(super) fn trim(home: &Path) {
    for name in [STDOUT, STDERR] {
        let path = home.join(name);
        // Not there any more: it was just removed.
        let Ok(file) = OpenOptions::new().write(true).open(&path) else { continue };
        if let Err(error) = trim_file(&file) {
            tracing::warn!(path = %path.display(), %error, "cannot trim a log");
        }
    }
}

fn trim_file(file: &File) -> std::io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.blocks() * 512 <= LIMIT || metadata.len() <= KEPT {
        return Ok(());
    }
    let end = (metadata.len() - KEPT) / BLOCK * BLOCK;
    match rustix::fs::fallocate(
        file,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        0,
        end,
    ) {
        // This filesystem has no holes: better to lose a log than a disk.
        Err(Errno::OPNOTSUPP) => file.set_len(0),
        outcome => Ok(outcome?),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn a_long_log_keeps_its_end_and_loses_its_room() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut file = File::create(dir.path().join(STDOUT)).expect("a file");
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..25 {
            file.write_all(&chunk).expect("written");
        }
        trim(dir.path());
        let metadata = file.metadata().expect("there");
        assert_eq!(metadata.len(), 25 << 20);
        assert!(metadata.blocks() * 512 <= KEPT + 2 * BLOCK, "{} blocks", metadata.blocks());
        let mut end = vec![0; usize::try_from(KEPT).expect("fits")];
        file.read_exact_at(&mut end, (25 << 20) - KEPT).err(); // Written without read permission.
        let file = File::open(dir.path().join(STDOUT)).expect("there");
        file.read_exact_at(&mut end, (25 << 20) - KEPT).expect("read");
        assert!(end.iter().all(|&b| b == b'x'));
    }
}
