//! What an upload says of a file beside its path, kind and bytes.

use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::fs::{
    Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, fchmod, fchown, fsetxattr,
    futimens,
};
use rustix::io::Errno;
use tar::Entry;

/// How the names of extended attributes begin that mean something on another host: those that clients send.
const EXTENDED: [&[u8]; 3] = [b"user.", b"system.posix_acl_", b"security.capability"];

/// What the headers of an entry say beside its path and kind.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    mode: Mode,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) modified: Timespec,
    extended: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the bytes of a file begin, if it goes on.
    pub(crate) offset: Option<u64>,
    /// It is no entry, but the end.
    pub(crate) end: bool,
}

impl Attributes {
    /// Reads the headers of an entry.
    pub(crate) fn of(entry: &mut Entry<'_, impl Read>) -> io::Result<Self> {
        let header = entry.header();
        let id = |id: u64| u32::try_from(id).map_err(io::Error::other);
        let mut found = Self {
            mode: Mode::from_raw_mode(header.mode()? & 0o7777),
            uid: Uid::from_raw(id(header.uid()?)?),
            gid: Gid::from_raw(id(header.gid()?)?),
            modified: Timespec {
                tv_sec: i64::try_from(header.mtime()?).map_err(io::Error::other)?,
                tv_nsec: 0,
            },
            extended: Vec::new(),
            offset: None,
            end: false,
        };
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed extended header");
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            let (key, value) = (extension.key().map_err(|_| malformed())?, extension.value_bytes());
            let text = || std::str::from_utf8(value).map_err(|_| malformed());
            match key {
                "mtime" => found.modified = parse_time(text()?).ok_or_else(malformed)?,
                "VC.offset" => found.offset = Some(text()?.parse().map_err(|_| malformed())?),
                "VC.end" => found.end = true,
                _ => {
                    if let Some(name) = key.strip_prefix("VC.xattr.") {
                        let name = from_hex(name.as_bytes()).ok_or_else(malformed)?;
                        found.extended.push((name, from_hex(value).ok_or_else(malformed)?));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Returns the name of an extended attribute that no client sends, such as one of the `trusted.` namespace.
    pub(crate) fn unknown(&self) -> Option<&[u8]> {
        let mut names = self.extended.iter().map(|(name, _)| name.as_slice());
        names.find(|name| !EXTENDED.iter().any(|prefix| name.starts_with(prefix)))
    }

    /// Returns the bytes of memory that the extended attributes take.
    pub(crate) fn extended_bytes(&self) -> usize {
        self.extended.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Returns the time of modification, for calls that set it.
    pub(crate) fn times(&self) -> Timestamps {
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        Timestamps { last_access, last_modification: self.modified }
    }

    /// Gives them to a file or directory.
    pub(crate) fn apply(&self, file: &impl AsFd) -> Result<(), Errno> {
        owned(fchown(file, Some(self.uid), Some(self.gid)))?;
        fchmod(file, self.mode)?;
        for (name, value) in &self.extended {
            match fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
                // The filesystem has none.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        futimens(file, &self.times())
    }
}

/// Ignores that only root may change the owner: without root, files keep that of this process.
pub(crate) fn owned(changed: Result<(), Errno>) -> Result<(), Errno> {
    match changed {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => Ok(()),
        changed => changed,
    }
}

/// Reads seconds since 1970 with a fraction, perhaps before.
fn parse_time(text: &str) -> Option<Timespec> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(match (negative, nanos) {
        (false, _) => Timespec { tv_sec: seconds, tv_nsec: nanos },
        (true, 0) => Timespec { tv_sec: -seconds, tv_nsec: 0 },
        (true, _) => Timespec { tv_sec: -seconds - 1, tv_nsec: 1_000_000_000 - nanos },
    })
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn times_have_nanoseconds_and_may_be_before_1970() {
        let time = |text| parse_time(text).map(|it| (it.tv_sec, it.tv_nsec));
        assert_eq!(time("12.000000034"), Some((12, 34)));
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time("-3"), Some((-3, 0)));
        for bad in ["", "1.x", "x", "--1"] {
            assert_eq!(time(bad), None, "{bad}");
        }
        assert_eq!(from_hex(b"00ffA1"), Some(vec![0, 255, 0xa1]));
        assert_eq!((from_hex(b"0"), from_hex(b"0g")), (None, None));
    }
}
