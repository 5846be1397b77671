//! The token with which metrics are read from other hosts.

use std::io;
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest as _, Sha256};

/// The file of the token in the data directory.
const FILE: &str = "metrics.token";

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenFileError {
    #[error("cannot read or write {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is empty: remove it for a new token, or write one into it", .0.display())]
    Empty(PathBuf),
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// A hash of the token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct MetricsToken([u8; 32]);

impl std::fmt::Debug for MetricsToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetricsToken")
    }
}

impl MetricsToken {
    /// Reads the token of a data directory, which is made if there is none. An operator may write the same one on all nodes.
    ///
    /// # Errors
    /// The file cannot be read or written, or has no token.
    pub(crate) fn load(dir: &Path) -> Result<Self, TokenFileError> {
        let path = dir.join(FILE);
        let failed = |source| TokenFileError::Io { path: path.clone(), source };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut random = [0; 24];
                getrandom::fill(&mut random)?;
                let text = BASE64URL_NOPAD.encode(&random);
                vc_atomic_file::write(&path, format!("{text}\n").as_bytes(), 0o600)
                    .map_err(failed)?;
                text
            }
            Err(error) => return Err(failed(error)),
        };
        match text.trim() {
            "" => Err(TokenFileError::Empty(path)),
            token => Ok(Self::of(token)),
        }
    }

    fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Returns whether an `Authorization` header has the token. Hashes are compared, so the time tells nothing of the token.
    pub(super) fn allows(&self, header: Option<&str>) -> bool {
        let given = header.and_then(|header| {
            let (scheme, token) = header.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| Self::of(token.trim()))
        });
        given.as_ref() == Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_made_once_and_is_needed() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = MetricsToken::load(dir.path()).expect("made");
        assert_eq!(MetricsToken::load(dir.path()).expect("read"), made);
        let path = dir.path().join(FILE);
        let token = std::fs::read_to_string(&path).expect("read");
        let header = format!("Bearer {}", token.trim());
        assert!(made.allows(Some(&header)));
        for wrong in [None, Some("Bearer x"), Some("Bearer"), Some(token.trim()), Some("")] {
            assert!(!made.allows(wrong), "{wrong:?}");
        }
        std::fs::write(&path, "shared\n").expect("written");
        assert!(MetricsToken::load(dir.path()).expect("read").allows(Some("bearer shared")));
        std::fs::write(&path, "\n").expect("written");
        assert!(matches!(MetricsToken::load(dir.path()), Err(TokenFileError::Empty(_))));
    }
}
