//! The passphrase of a backup.

use std::fmt;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;

use age::secrecy::SecretString;

use crate::error::PassphraseError;

/// The most bytes of a file with a passphrase.
const MAX_FILE: u64 = 4096;

/// A passphrase. Not empty.
#[derive(Clone)]
pub struct Passphrase(pub(crate) SecretString);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never itself.
        f.write_str("Passphrase")
    }
}

impl Passphrase {
    /// Returns a passphrase. Errors: it is empty.
    pub fn new(text: &str) -> Result<Self, PassphraseError> {
        match text.is_empty() {
            true => Err(PassphraseError::Empty),
            false => Ok(Self(SecretString::from(text.to_owned()))),
        }
    }

    /// Reads the first line of a file, `-` for standard input.
    ///
    /// # Errors
    /// The file cannot be read, has more than 4 KiB, or its first line is empty.
    pub fn from_file(path: &Path) -> Result<Self, PassphraseError> {
        let failed = |source| PassphraseError::File { path: path.to_owned(), source };
        let mut text = String::new();
        let read = match path == Path::new("-") {
            true => io::stdin().take(MAX_FILE + 1).read_to_string(&mut text),
            false => std::fs::File::open(path)
                .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text)),
        };
        if read.map_err(failed)? as u64 > MAX_FILE {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        Self::new(text.lines().next().unwrap_or_default())
    }

    /// Asks on the terminal, which does not show it; twice where it is `new`.
    ///
    /// # Errors
    /// There is no terminal, the two differ, or it is empty.
    pub fn ask(new: bool) -> Result<Self, PassphraseError> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(PassphraseError::NoTerminal);
        }
        let ask = |prompt| rpassword::prompt_password(prompt).map_err(PassphraseError::Terminal);
        let text = ask("Passphrase of the backup: ")?;
        if new && !text.is_empty() && ask("The same again: ")? != text {
            return Err(PassphraseError::Differ);
        }
        Self::new(&text)
    }

    /// Reads it from a file, or asks where none is named.
    ///
    /// # Errors
    /// As [`Passphrase::from_file`] and [`Passphrase::ask`].
    pub fn obtain(file: Option<&Path>, new: bool) -> Result<Self, PassphraseError> {
        file.map_or_else(|| Self::ask(new), Self::from_file)
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_it_in_its_first_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("passphrase");
        let read = |text: &[u8]| {
            std::fs::write(&path, text).expect("written");
            Passphrase::from_file(&path)
        };
        use age::secrecy::ExposeSecret as _;
        let first = read(b"correct horse \r\nsecond\n").expect("read");
        assert_eq!(first.0.expose_secret(), "correct horse ");
        assert_eq!(format!("{first:?}"), "Passphrase");
        assert!(matches!(read(b"\nx"), Err(PassphraseError::Empty)));
        assert!(matches!(read(&[b'x'; 5000]), Err(PassphraseError::File { .. })));
        assert!(matches!(read(&[0xff, 0xfe]), Err(PassphraseError::File { .. })));
    }
}
