//! Keys as the tools of AWS have them: in the environment, or in a file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// The largest file, in bytes.
const MAX_FILE: u64 = 64 << 10;
/// The profile where none is named.
const DEFAULT_PROFILE: &str = "default";

/// A key of S3, with its secret. Not displayed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) key_id: String,
    pub(crate) secret: String,
    pub(crate) session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// None are named.
    #[error(
        "no credentials of S3: name a file as 'aws configure' writes it (--backup-credentials-file of 'vc-node run', else --credentials-file), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    None,
    /// One of the two is set.
    #[error("{0} is not set, and the other one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is")]
    Half(&'static str),
    /// The file cannot be read.
    #[error("cannot read the credentials in {0}: {1}")]
    File(PathBuf, io::Error),
    /// The file lacks them.
    #[error("{path} has no {missing} in its profile [{profile}]")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The profile.
        profile: String,
        /// What it lacks.
        missing: &'static str,
    },
}

impl Credentials {
    /// Finds the credentials: in the file that is named; else in `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
    /// `AWS_SESSION_TOKEN`; else in the file `AWS_SHARED_CREDENTIALS_FILE`, or `~/.aws/credentials`. Of a file, it is the profile
    /// `AWS_PROFILE`, or `default`. Blocks.
    ///
    /// # Errors
    /// There are none, or the file cannot be used.
    pub fn find(file: Option<&Path>) -> Result<Self, CredentialsError> {
        Self::find_in(file, |name| std::env::var_os(name).filter(|it| !it.is_empty()))
    }

    fn find_in(
        file: Option<&Path>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, CredentialsError> {
        let text = |name| variable(name).and_then(|it| it.into_string().ok());
        let profile = text("AWS_PROFILE").unwrap_or_else(|| DEFAULT_PROFILE.to_owned());
        if let Some(path) = file {
            return Self::read(path, &profile);
        }
        match (text("AWS_ACCESS_KEY_ID"), text("AWS_SECRET_ACCESS_KEY")) {
            (Some(key_id), Some(secret)) => {
                return Ok(Self { key_id, secret, session_token: text("AWS_SESSION_TOKEN") });
            }
            (Some(_), None) => return Err(CredentialsError::Half("AWS_SECRET_ACCESS_KEY")),
            (None, Some(_)) => return Err(CredentialsError::Half("AWS_ACCESS_KEY_ID")),
            (None, None) => {}
        }
        if let Some(path) = variable("AWS_SHARED_CREDENTIALS_FILE") {
            return Self::read(Path::new(&path), &profile);
        }
        let home = variable("HOME").ok_or(CredentialsError::None)?;
        match Self::read(&Path::new(&home).join(".aws/credentials"), &profile) {
            Err(CredentialsError::File(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(CredentialsError::None)
            }
            read => read,
        }
    }

    fn read(path: &Path, profile: &str) -> Result<Self, CredentialsError> {
        let mut text = String::new();
        let read = std::fs::File::open(path);
        let read = read.and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
        read.map_err(|error| CredentialsError::File(path.to_owned(), error))?;
        let mut values = section(&text, profile);
        let mut take = |missing: &'static str| {
            let (path, profile) = (path.to_owned(), profile.to_owned());
            let value = values.remove(missing).filter(|it| !it.is_empty());
            value.ok_or(CredentialsError::Missing { path, profile, missing })
        };
        let (key_id, secret) = (take("aws_access_key_id")?, take("aws_secret_access_key")?);
        Ok(Self { key_id, secret, session_token: take("aws_session_token").ok() })
    }
}

/// Returns the values of one section of a file as AWS has it: `[name]`, then lines of `key = value`.
fn section(text: &str, name: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut is_inside = false;
    for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            is_inside = header.trim() == name;
        } else if let Some((key, value)) = line.split_once('=')
            && is_inside
            && !line.starts_with(['#', ';'])
        {
            values.insert(key.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# of ann\n[default]\r\naws_access_key_id = AKIA1\naws_secret_access_key=a/b=c+1\n\
        ;x = y\n\n[ backup ]\nAWS_ACCESS_KEY_ID=AKIA2\naws_secret_access_key = two\n\
        aws_session_token = t==\n[empty]\naws_access_key_id=AKIA3\n";

    fn find(file: Option<&Path>, set: &[(&str, &str)]) -> Result<Credentials, CredentialsError> {
        Credentials::find_in(file, |name| {
            set.iter().find(|(it, _)| *it == name).map(|(_, value)| OsString::from(*value))
        })
    }

    fn credentials(key_id: &str, secret: &str, token: Option<&str>) -> Credentials {
        let session_token = token.map(str::to_owned);
        Credentials { key_id: key_id.to_owned(), secret: secret.to_owned(), session_token }
    }

    #[test]
    fn a_named_file_goes_before_the_environment_and_that_before_the_file_at_home() {
        let home = tempfile::tempdir().expect("a directory");
        let home_path = home.path().display().to_string();
        let at_home = ("HOME", home_path.as_str());
        assert!(matches!(find(None, &[at_home]), Err(CredentialsError::None)));
        std::fs::create_dir(home.path().join(".aws")).expect("made");
        let path = home.path().join(".aws/credentials");
        std::fs::write(&path, FILE).expect("written");

        let first = credentials("AKIA1", "a/b=c+1", None);
        assert_eq!(find(None, &[at_home]).expect("found"), first);
        let set = [at_home, ("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "s")];
        assert_eq!(find(None, &set).expect("found"), credentials("E", "s", None));
        assert_eq!(find(Some(&path), &set).expect("found"), first);
        let profile = [at_home, ("AWS_PROFILE", "backup")];
        assert_eq!(find(None, &profile).expect("found"), credentials("AKIA2", "two", Some("t==")));
        let shared = path.display().to_string();
        let set = [("AWS_SHARED_CREDENTIALS_FILE", shared.as_str()), ("HOME", "/nowhere")];
        assert_eq!(find(None, &set).expect("found"), first);
        assert!(!format!("{first:?}").contains("AKIA"));
    }

    #[test]
    fn what_is_missing_is_named_and_no_secret_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("credentials");
        std::fs::write(&path, FILE).expect("written");
        for (set, why) in [
            (("AWS_PROFILE", "empty"), "no aws_secret_access_key in its profile [empty]"),
            (("AWS_PROFILE", "other"), "no aws_access_key_id in its profile [other]"),
        ] {
            let refused = find(Some(&path), &[set]).expect_err(why).to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let half = find(None, &[("AWS_ACCESS_KEY_ID", "E")]).expect_err("half").to_string();
        assert!(half.starts_with("AWS_SECRET_ACCESS_KEY is not set"), "{half}");
        let missing = find(Some(&dir.path().join("x")), &[]).expect_err("missing");
        assert!(missing.to_string().starts_with("cannot read the credentials in"));
    }
}
