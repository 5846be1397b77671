//! Why a backup cannot be made, checked or read.

use std::io;
use std::path::PathBuf;

use vc_protocol::{ApiError, ErrorCode};
use vc_s3::{Cause, S3Error};

use crate::format::FORMAT;

/// Why a backup cannot be written or read. What exists is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is something else.
    #[error("{0} is no backup of a cluster")]
    NotABackup(PathBuf),
    /// A newer version wrote it.
    #[error("{path} has format {found}, and this version reads formats up to {FORMAT}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It is not as it was written.
    #[error("{0} is damaged: its checksum does not match, so it was cut off or changed")]
    Damaged(PathBuf),
    /// It does not decrypt.
    #[error("the passphrase is not that of {0}")]
    Passphrase(PathBuf),
    /// Its passphrase costs more work than any version of this program asks for.
    #[error(
        "{0} asks for too much work to try its passphrase: no version of this program wrote it"
    )]
    TooMuchWork(PathBuf),
    /// It decrypts, and its content is not what this version writes.
    #[error("{path} cannot be used: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What receives the content has failed.
    #[error(transparent)]
    Sink(io::Error),
    /// Object storage has failed, or refused.
    #[error(transparent)]
    Storage(#[from] S3Error),
    /// There is none below the address.
    #[error("there is no backup below {0}")]
    NoneStored(String),
    /// There are several below the address, of which one is to be named.
    #[error("there are backups of several clusters there: name one, such as {newest} or {other}")]
    SeveralClusters {
        /// The newest one.
        newest: String,
        /// One of another cluster.
        other: String,
    },
    /// The content cannot be encrypted.
    #[error("cannot encrypt the backup: {0}")]
    Encrypt(String),
}

impl From<BackupError> for ApiError {
    fn from(error: BackupError) -> Self {
        use BackupError as E;
        let (code, hint) = match &error {
            E::Read { source, .. } | E::Write { source, .. } | E::Sink(source) => {
                match source.kind() {
                    io::ErrorKind::NotFound => (ErrorCode::NotFound, ""),
                    io::ErrorKind::PermissionDenied => (ErrorCode::PermissionDenied, ""),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        (ErrorCode::ResourceExhausted, "free space there, or name another file")
                    }
                    _ => (ErrorCode::Internal, ""),
                }
            }
            E::Storage(error) => (storage_code(&error.cause), ""),
            E::NoneStored(_) => (ErrorCode::NotFound, "name the bucket and prefix of --backup-dir"),
            E::SeveralClusters { .. } => (ErrorCode::InvalidArgument, ""),
            E::NotABackup(_) => (ErrorCode::InvalidArgument, "name a file that 'vc backup' wrote"),
            E::Newer { .. } => (ErrorCode::Unimplemented, "use the version that wrote it"),
            E::Damaged(_) => {
                (ErrorCode::InvalidArgument, "use another copy of it, or an earlier backup")
            }
            E::Passphrase(_) => {
                (ErrorCode::InvalidArgument, "without it nothing in the file can be read")
            }
            E::TooMuchWork(_) | E::Malformed { .. } => {
                (ErrorCode::InvalidArgument, "use another copy of it, or an earlier backup")
            }
            E::Encrypt(_) => (ErrorCode::Internal, ""),
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

fn storage_code(cause: &Cause) -> ErrorCode {
    match cause {
        Cause::NoBucket(_) | Cause::NotFound => ErrorCode::NotFound,
        Cause::UnknownKey | Cause::WrongSecret | Cause::Expired => ErrorCode::Unauthenticated,
        Cause::Denied(_) => ErrorCode::PermissionDenied,
        Cause::Clock(_) | Cause::Region(_) => ErrorCode::FailedPrecondition,
        Cause::Full(_) | Cause::TooLarge(..) => ErrorCode::ResourceExhausted,
        Cause::Unreachable(_) | Cause::Busy(_) => ErrorCode::Unavailable,
        Cause::Other(_) => ErrorCode::Internal,
    }
}

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// There is no terminal to ask for it.
    #[error("a backup needs a passphrase, and there is no terminal to ask for it")]
    NoTerminal,
    /// The two differ.
    #[error("the passphrases differ")]
    Differ,
    /// It is empty.
    #[error("the passphrase is empty")]
    Empty,
    /// The file cannot be read.
    #[error("cannot read the passphrase in {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The terminal cannot be used.
    #[error("cannot ask for the passphrase: {0}")]
    Terminal(io::Error),
}

impl From<PassphraseError> for ApiError {
    fn from(error: PassphraseError) -> Self {
        let hint = match &error {
            PassphraseError::NoTerminal | PassphraseError::Terminal(_) => {
                "name a file that has it with --passphrase-file"
            }
            PassphraseError::Differ => "try again",
            PassphraseError::Empty => "choose one of several words that nobody guesses",
            PassphraseError::File { .. } => "",
        };
        Self::new(ErrorCode::InvalidArgument, error.to_string()).with_hint(hint)
    }
}
