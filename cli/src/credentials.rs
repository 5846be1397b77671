//! The user's token: where it is read from, and the checks that need no node.

use std::io;
use std::path::{Path, PathBuf};

use vc_protocol::token::{self, Claims, MAX_TOKEN, Scope, TokenError};
use vc_protocol::{ApiError, ErrorCode, Millis};

use crate::error::{describe_io, io_code};
use crate::files;

/// Why there is no usable token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    /// None was given, and none is stored.
    #[error("no token")]
    Missing,
    /// The text is neither a file nor a token.
    #[error("'{0}' is neither a file nor a token of a Virtual Cluster")]
    NeitherFileNorToken(String),
    /// The file cannot be read.
    #[error("cannot read {}: {}", .0.display(), describe_io(.1))]
    Unreadable(PathBuf, io::Error),
    /// The token is invalid or expired.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There is no directory to store it in.
    #[error("cannot store the token: neither XDG_CONFIG_HOME nor HOME is set")]
    NoHome,
    /// It could not be stored.
    #[error("cannot write {}: {}", .0.display(), describe_io(.1))]
    Unwritable(PathBuf, io::Error),
}

impl From<CredentialError> for ApiError {
    fn from(error: CredentialError) -> Self {
        let (code, hint) = match &error {
            CredentialError::Missing => (
                ErrorCode::Unauthenticated,
                "give one with --token FILE, set VC_TOKEN, or store one with 'vc login TOKEN'",
            ),
            CredentialError::NeitherFileNorToken(_) => (ErrorCode::NotFound, ""),
            CredentialError::Token(_) => (ErrorCode::Unauthenticated, ""),
            CredentialError::NoHome => (ErrorCode::FailedPrecondition, ""),
            CredentialError::Unreadable(_, error) | CredentialError::Unwritable(_, error) => {
                (io_code(error), "")
            }
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

/// A token that passed the checks of this computer.
pub(crate) struct Credential {
    /// The secret.
    pub(crate) token: String,
    /// Its claims.
    pub(crate) claims: Claims,
}

/// Returns the token to use: the one given, else the one stored.
pub(crate) fn find(given: Option<&str>, now: Millis) -> Result<Credential, CredentialError> {
    find_in(given, files::config("token").as_deref(), now)
}

fn find_in(
    given: Option<&str>,
    stored: Option<&Path>,
    now: Millis,
) -> Result<Credential, CredentialError> {
    let text = match given.map(str::trim).filter(|given| !given.is_empty()) {
        Some(given) => read(given)?,
        None => {
            let path = stored.ok_or(CredentialError::Missing)?;
            match files::read(path, MAX_TOKEN) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(CredentialError::Missing);
                }
                Err(error) => return Err(CredentialError::Unreadable(path.to_owned(), error)),
            }
        }
    };
    check(&text, now)
}

/// Returns the token that `given` is, or that the file of this name contains.
pub(crate) fn read(given: &str) -> Result<String, CredentialError> {
    if looks_like_a_token(given) {
        return Ok(given.to_owned());
    }
    let path = Path::new(given);
    files::read(path, MAX_TOKEN).map_err(|error| match error.kind() {
        // A truncated token is still a secret: it is not printed.
        _ if given.starts_with("eyJ") => CredentialError::Token(TokenError::Malformed),
        io::ErrorKind::NotFound => {
            CredentialError::NeitherFileNorToken(given.chars().take(80).collect())
        }
        io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidData => {
            CredentialError::Token(TokenError::Malformed)
        }
        _ => CredentialError::Unreadable(path.to_owned(), error),
    })
}

/// Returns whether it looks like a JWT: three parts of base64url, the first of which is a JSON object (`eyJ…`).
fn looks_like_a_token(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.starts_with("eyJ") && text.matches('.').count() == 2 && text.bytes().all(letter)
}

/// Rejects a token that no node would accept. It contains its chain of certificates, so all but revocation and time
/// is checked.
pub(crate) fn check(text: &str, now: Millis) -> Result<Credential, CredentialError> {
    let token = text.trim().to_owned();
    let claims = token::decode_unverified(&token)?;
    match token::verify(&token, claims.aud, now) {
        // This computer's clock may be wrong: the node decides.
        Ok(_) | Err(TokenError::NotYetValid | TokenError::Expired) => {}
        Err(error) => return Err(error.into()),
    }
    match claims.scope {
        Scope::User(_) => Ok(Credential { token, claims }),
        other => Err(TokenError::WrongScope { found: other.kind(), wanted: "user" }.into()),
    }
}

/// Stores a token for later commands; returns the file.
pub(crate) fn store(credential: &Credential) -> Result<PathBuf, CredentialError> {
    let path = files::config("token").ok_or(CredentialError::NoHome)?;
    match files::write_private(&path, &format!("{}\n", credential.token)) {
        Ok(()) => Ok(path),
        Err(error) => Err(CredentialError::Unwritable(path, error)),
    }
}

#[cfg(test)]
mod tests {
    use vc_protocol::token::{Issuer, NodeRole, UserRole, issue_certificate};
    use vc_protocol::{ClusterId, Keypair, NodeId};

    use super::*;

    const NOW: Millis = 1_800_000_000_000;
    const HOUR: Millis = 3_600_000;

    fn token(name: &str, scope: Scope) -> String {
        let root = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let server = Keypair::ed25519_from_bytes([2; 32]).expect("32 bytes");
        let node = NodeId::of(&server.public()).expect("ed25519");
        let certificate = issue_certificate(&root, node, NodeRole::Server, NOW).expect("signed");
        let cluster = ClusterId::of(&root.public()).expect("ed25519");
        Issuer { cluster, key: &server, certificate: &certificate }
            .issue(scope, name, vec![], 7, NOW, HOUR)
            .expect("signed")
    }

    fn user(name: &str) -> String {
        token(name, Scope::User(UserRole::Admin))
    }

    fn subject_or_error(given: Option<&str>, stored: Option<&Path>) -> String {
        match find_in(given, stored, NOW) {
            Ok(credential) => credential.claims.sub,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_given_token_wins_over_the_stored_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let kept = directory.path().join("token");
        std::fs::write(&kept, format!("{}\n", user("kept"))).expect("written");
        let file = directory.path().join("admin.token");
        std::fs::write(&file, format!(" {}\n", user("file"))).expect("written");
        let file = file.to_str().expect("text");

        assert_eq!(subject_or_error(Some(&user("given")), Some(&kept)), "given");
        assert_eq!(subject_or_error(Some(file), Some(&kept)), "file");
        assert_eq!(subject_or_error(None, Some(&kept)), "kept");
        assert_eq!(subject_or_error(Some(""), Some(&kept)), "kept");
        let none = CredentialError::Missing.to_string();
        assert_eq!(subject_or_error(None, Some(&directory.path().join("nothing"))), none);
        assert_eq!(subject_or_error(None, None), none);
    }

    #[test]
    fn invalid_tokens_are_rejected_before_connecting() {
        let good = user("ada");
        let at = |now| check(&good, now).err().map(|error| error.to_string());
        assert_eq!(at(NOW), None);
        for now in [NOW + HOUR, NOW - HOUR] {
            assert_eq!(at(now), None, "the node decides");
        }
        let text = |given: &str| subject_or_error(Some(given), None);
        assert_eq!(text(&good[..good.len() - 6]), TokenError::BadSignature.to_string());
        assert_eq!(text(&good[..good.len() / 2]), TokenError::Malformed.to_string());
        assert!(text("missing.token").starts_with("'missing.token' is neither a file"));
        let node = text(&token("m", Scope::Join(NodeRole::Worker)));
        assert_eq!(node, "this is a node token; a user token is needed here");
    }
}
