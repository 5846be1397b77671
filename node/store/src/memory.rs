//! A disk in memory, whose host may lose power: of what was not flushed, it keeps any sectors.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// What a disk writes as a whole, in bytes.
const SECTOR: usize = 512;

/// What was written and not flushed.
#[derive(Debug)]
enum Unflushed {
    Sector { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Unflushed {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(length) => to.resize(*length, 0),
            Self::Sector { at, bytes } => {
                // Behind the end of the file nothing is read.
                if let Some(place) = to.get_mut(*at..at + bytes.len()) {
                    place.copy_from_slice(bytes);
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Contents {
    /// What reads return.
    bytes: Vec<u8>,
    flushed: Vec<u8>,
    unflushed: Vec<Unflushed>,
    /// Operations until the power fails.
    left: Option<u64>,
    /// Whether it fails in a flush: everything is written by then.
    fails_in_flush: bool,
}

/// A disk in memory. Its clones are the same disk.
#[derive(Debug, Default, Clone)]
pub struct MemoryDisk(Arc<Mutex<Contents>>);

impl MemoryDisk {
    /// Returns a disk that holds these bytes.
    pub fn holding(bytes: Vec<u8>) -> Self {
        let contents = Contents { flushed: bytes.clone(), bytes, ..Contents::default() };
        Self(Arc::new(Mutex::new(contents)))
    }

    /// Returns what reads return.
    pub fn bytes(&self) -> Vec<u8> {
        self.contents().bytes.clone()
    }

    /// Lets everything that changes something fail after so many more operations of that kind: of flushes alone, or of writes too.
    pub fn fail_power_after(&self, operations: u64, in_flush: bool) {
        let mut contents = self.contents();
        (contents.left, contents.fails_in_flush) = (Some(operations), in_flush);
    }

    /// Lets nothing fail any more. What was written and not flushed stays.
    pub fn restore_power(&self) {
        self.contents().left = None;
    }

    /// Returns the disk after the power failed: with what was flushed, and some of the rest. `below` draws a number below a limit.
    pub fn after_power_loss(&self, below: &mut dyn FnMut(u64) -> u64) -> Self {
        let contents = self.contents();
        let mut bytes = contents.flushed.clone();
        // From nothing to everything.
        let kept = below(151);
        for it in &contents.unflushed {
            if below(100) < kept {
                it.apply(&mut bytes);
            }
        }
        Self::holding(bytes)
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation that changes something. Errors: the power has failed.
    fn powered(&self, is_flush: bool) -> io::Result<MutexGuard<'_, Contents>> {
        let mut contents = self.contents();
        let counts = is_flush || !contents.fails_in_flush;
        match &mut contents.left {
            Some(0) if counts => return Err(io::Error::other("no power")),
            Some(left) if counts => *left -= 1,
            _ => {}
        }
        Ok(contents)
    }
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| ErrorKind::InvalidInput.into())
}

impl StorageBackend for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.contents().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (at, length) = (index(offset)?, out.len());
        let contents = self.contents();
        out.copy_from_slice(contents.bytes.get(at..at + length).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = index(length)?;
        let mut contents = self.powered(false)?;
        contents.bytes.resize(length, 0);
        contents.unflushed.push(Unflushed::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut contents = self.powered(true)?;
        let Contents { flushed, unflushed, .. } = &mut *contents;
        unflushed.drain(..).for_each(|it| it.apply(flushed));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut contents = self.powered(false)?;
        let (mut at, mut rest) = (index(offset)?, data);
        let place = contents.bytes.get_mut(at..at + data.len()).ok_or(ErrorKind::UnexpectedEof)?;
        place.copy_from_slice(data);
        while !rest.is_empty() {
            let (sector, behind) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
            contents.unflushed.push(Unflushed::Sector { at, bytes: sector.to_vec() });
            (at, rest) = (at + sector.len(), behind);
        }
        Ok(())
    }
}
