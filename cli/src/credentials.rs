//! The user's token: where it comes from, and what can be said about it without asking anybody.

use std::io;
use std::path::{Path, PathBuf};

use vc_protocol::Millis;
use vc_protocol::token::{self, Claims, MAX_TOKEN, Scope, TokenError};

use crate::files;

/// Why there is no token to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    /// None was given, and none is kept.
    #[error(
        "no token: give one with --token FILE, set VC_TOKEN, or keep one with 'vc login TOKEN'"
    )]
    Missing,
    /// Neither.
    #[error("there is no file '{0}', and {malformed}", malformed = TokenError::Malformed)]
    NeitherFileNorToken(String),
    /// A file that cannot be read.
    #[error("cannot read {}: {}", .0.display(), .1.kind())]
    Unreadable(PathBuf, io::Error),
    /// The token is worth nothing.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No place to keep it.
    #[error("cannot keep the token: neither XDG_CONFIG_HOME nor HOME is set")]
    Homeless,
    /// It could not be kept.
    #[error("cannot write {}: {}", .0.display(), .1.kind())]
    Unwritable(PathBuf, io::Error),
}

/// A token that is good as far as this node can tell.
pub(crate) struct Credential {
    /// The secret.
    pub(crate) token: String,
    /// What it says.
    pub(crate) claims: Claims,
}

/// The token to use: the one given, else the one kept.
pub(crate) fn find(given: Option<&str>, now: Millis) -> Result<Credential, CredentialError> {
    find_in(given, files::config("token").as_deref(), now)
}

fn find_in(
    given: Option<&str>,
    kept: Option<&Path>,
    now: Millis,
) -> Result<Credential, CredentialError> {
    let text = match given.map(str::trim).filter(|given| !given.is_empty()) {
        Some(given) => read(given)?,
        None => {
            let path = kept.ok_or(CredentialError::Missing)?;
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

/// What the user means by `given`: a token, or a file that holds one.
pub(crate) fn read(given: &str) -> Result<String, CredentialError> {
    if looks_like_a_token(given) {
        return Ok(given.to_owned());
    }
    let path = Path::new(given);
    files::read(path, MAX_TOKEN).map_err(|error| match error.kind() {
        // A token that was cut or folded is a secret still: it is not repeated on the screen.
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

/// Every JSON object in base64 begins with `eyJ`; a JWT is three parts of base64url.
fn looks_like_a_token(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.starts_with("eyJ") && text.matches('.').count() == 2 && text.bytes().all(letter)
}

/// Refuses what no node would accept. The chain down to the root is in the token, so all but revocation shows here.
pub(crate) fn check(text: &str, now: Millis) -> Result<Credential, CredentialError> {
    let token = text.trim().to_owned();
    let claims = token::decode_unverified(&token)?;
    match token::verify(&token, claims.aud, now) {
        // It is this node's clock against the issuer's: let the node judge.
        Ok(_) | Err(TokenError::NotYetValid) => {}
        Err(error) => return Err(error.into()),
    }
    match claims.scope {
        Scope::User(_) => Ok(Credential { token, claims }),
        other => Err(TokenError::WrongScope { found: other.kind(), wanted: "user" }.into()),
    }
}

/// Keeps a token for later commands; says where.
pub(crate) fn keep(credential: &Credential) -> Result<PathBuf, CredentialError> {
    let path = files::config("token").ok_or(CredentialError::Homeless)?;
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

    fn who(given: Option<&str>, kept: Option<&Path>) -> String {
        match find_in(given, kept, NOW) {
            Ok(credential) => credential.claims.sub,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_given_token_wins_over_the_kept_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let kept = directory.path().join("token");
        std::fs::write(&kept, format!("{}\n", user("kept"))).expect("written");
        let file = directory.path().join("admin.token");
        std::fs::write(&file, format!(" {}\n", user("file"))).expect("written");
        let file = file.to_str().expect("text");

        assert_eq!(who(Some(&user("given")), Some(&kept)), "given");
        assert_eq!(who(Some(file), Some(&kept)), "file");
        assert_eq!(who(None, Some(&kept)), "kept");
        assert_eq!(who(Some(""), Some(&kept)), "kept");
        let none = CredentialError::Missing.to_string();
        assert_eq!(who(None, Some(&directory.path().join("nothing"))), none);
        assert_eq!(who(None, None), none);
    }

    #[test]
    fn what_is_worth_nothing_is_refused_here() {
        let good = user("ada");
        let at = |now| check(&good, now).err().map(|error| error.to_string());
        assert_eq!(at(NOW), None);
        assert_eq!(at(NOW + HOUR), Some(TokenError::Expired.to_string()));
        assert_eq!(at(NOW - HOUR), None, "the node judges that");
        let text = |given: &str| who(Some(given), None);
        assert_eq!(text(&good[..good.len() - 6]), TokenError::BadSignature.to_string());
        assert_eq!(text(&good[..good.len() / 2]), TokenError::Malformed.to_string());
        assert!(text("missing.token").contains("no file 'missing.token'"));
        let node = text(&token("m", Scope::Join(NodeRole::Worker)));
        assert_eq!(node, "this is a node token; a user token is needed here");
    }
}
