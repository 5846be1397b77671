//! Random numbers from the operating system, fit for keys.

use std::fs::File;
use std::io::{self, Read as _};

/// Returns `N` random bytes. Errors: `/dev/urandom` cannot be read.
pub(crate) fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Returns a random 64-bit number. Errors: as for [`random_bytes`].
pub(crate) fn random_u64() -> io::Result<u64> {
    Ok(u64::from_be_bytes(random_bytes()?))
}
