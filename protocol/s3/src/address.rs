//! `s3://BUCKET/PREFIX?endpoint=URL&region=NAME`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

/// How an address begins.
pub const SCHEME: &str = "s3://";
/// The longest address, in bytes.
const MAX_ADDRESS: usize = 1024;
/// Where buckets are that name no region.
const DEFAULT_REGION: &str = "us-east-1";

/// Where objects are. It names no credentials, so it may be shown. Displayed as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    bucket: String,
    /// What the keys begin with, without `/` at its ends; empty for all of the bucket.
    prefix: String,
    /// The server; `None` for AWS.
    endpoint: Option<Url>,
    region: Option<String>,
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It does not parse.
    #[error("an S3 address is written as s3://BUCKET/PREFIX?endpoint=URL&region=NAME")]
    Malformed,
    /// It has a key or a password.
    #[error(
        "an S3 address has no keys: write them to a file, as 'aws configure' does, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    Secret,
    /// The bucket cannot exist.
    #[error("{0:?} is no name of a bucket: it has 3 to 63 lower-case letters, digits, '.' and '-'")]
    Bucket(String),
    /// The prefix has other characters.
    #[error(
        "{0:?} is no prefix of an S3 address: write letters, digits and - _ . = + @ between its slashes"
    )]
    Prefix(String),
    /// The endpoint is none.
    #[error("{0:?} is no endpoint: write http:// or https://, a host, and a port if it is another")]
    Endpoint(String),
    /// The region is none.
    #[error("{0:?} is no region: write letters, digits and '-'")]
    Region(String),
    /// Another parameter.
    #[error("an S3 address has no parameter {0:?}: it has endpoint and region")]
    Parameter(String),
}

impl Address {
    /// Returns the name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Returns the address of an object below this one.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        Self { prefix: self.key(name), ..self.clone() }
    }

    /// Returns the address of what an object is in, and the object's name.
    pub fn split(&self) -> (Self, &str) {
        let (prefix, name) = self.prefix.rsplit_once('/').unwrap_or(("", &self.prefix));
        (Self { prefix: prefix.to_owned(), ..self.clone() }, name)
    }

    /// Returns the key of an object.
    pub(crate) fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) }
    }

    /// Returns the region: that of the address, of the environment as the tools of AWS have it, or the default.
    pub(crate) fn region(&self) -> String {
        let set = |name| std::env::var(name).ok().filter(|it| !it.is_empty());
        let region = self.region.clone().or_else(|| set("AWS_REGION"));
        region.or_else(|| set("AWS_DEFAULT_REGION")).unwrap_or_else(|| DEFAULT_REGION.to_owned())
    }

    /// Returns the URL of the server that the address names; `None` for AWS.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_ref().map(|it| it.as_str().trim_end_matches('/'))
    }
}

fn is_bucket(text: &str) -> bool {
    let is_plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || b".-".contains(&it);
    (3..=63).contains(&text.len()) && text.bytes().all(is_plain) && !text.contains("..")
}

fn is_prefix(text: &str) -> bool {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"-_.=+@".contains(&it);
    let is_segment =
        |it: &str| !it.is_empty() && it != "." && it != ".." && it.bytes().all(is_plain);
    text.is_empty() || text.split('/').all(is_segment)
}

fn parse_endpoint(text: &str) -> Result<Url, AddressError> {
    let wrong = || AddressError::Endpoint(text.to_owned());
    let url = Url::parse(text).map_err(|_| wrong())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(AddressError::Secret);
    }
    let is_server = matches!(url.scheme(), "http" | "https") && url.has_host();
    let is_bare = url.query().is_none() && url.fragment().is_none();
    let is_plain = is_prefix(url.path().trim_matches('/'));
    if is_server && is_bare && is_plain { Ok(url) } else { Err(wrong()) }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let rest = text.strip_prefix(SCHEME).filter(|_| text.len() <= MAX_ADDRESS);
        let rest = rest.ok_or(AddressError::Malformed)?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        // Before any of it is shown.
        if bucket.contains('@') {
            return Err(AddressError::Secret);
        }
        if !is_bucket(bucket) {
            return Err(AddressError::Bucket(bucket.to_owned()));
        }
        let prefix = prefix.trim_end_matches('/');
        if !is_prefix(prefix) {
            return Err(AddressError::Prefix(prefix.to_owned()));
        }
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        let mut address = Self { bucket, prefix, endpoint: None, region: None };
        for parameter in query.split('&').filter(|it| !it.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or(AddressError::Malformed)?;
            let is_region = |it: &str| {
                !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-')
            };
            match name {
                "endpoint" => address.endpoint = Some(parse_endpoint(value)?),
                "region" if is_region(value) => address.region = Some(value.to_owned()),
                "region" => return Err(AddressError::Region(value.to_owned())),
                // Its value may be one.
                _ if name.to_lowercase().contains("key") => return Err(AddressError::Secret),
                _ => return Err(AddressError::Parameter(name.to_owned())),
            }
        }
        Ok(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let endpoint = self.endpoint().map(|it| format!("endpoint={it}"));
        let region = self.region.as_ref().map(|it| format!("region={it}"));
        for (parameter, before) in endpoint.into_iter().chain(region).zip(["?", "&"]) {
            write!(f, "{before}{parameter}")?;
        }
        Ok(())
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_displayed_as_they_are_written() {
        for text in [
            "s3://backups",
            "s3://my.backups-1/home/vc",
            "s3://backups?region=eu-central-1",
            "s3://backups/vc?endpoint=http://10.0.0.5:9000",
            "s3://backups/vc?endpoint=https://s3.example/storage/v1&region=garage",
            "s3://backups/vc?endpoint=http://[fd00::5]:3900",
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
        let address: Address = "s3://b-1/x/?region=a&endpoint=http://h/".parse().expect("one");
        assert_eq!(address.to_string(), "s3://b-1/x?endpoint=http://h&region=a");
        assert_eq!(address.key("vc-1.vcb"), "x/vc-1.vcb");
        let (above, name) = address.split();
        assert_eq!((above.to_string(), name), ("s3://b-1?endpoint=http://h&region=a".into(), "x"));
    }

    #[test]
    fn other_texts_are_refused_and_secrets_not_repeated() {
        for (text, why) in [
            ("backups/vc", "written as"),
            ("s3://", "no name of a bucket"),
            ("s3://Backups", "no name of a bucket"),
            ("s3://backups/a//b", "no prefix"),
            ("s3://backups/a/../b", "no prefix"),
            ("s3://backups/a b", "no prefix"),
            ("s3://backups?endpoint=ftp://h", "no endpoint"),
            ("s3://backups?endpoint=10.0.0.5:9000", "no endpoint"),
            ("s3://backups?endpoint=http://h/?x", "no endpoint"),
            ("s3://backups?region=a/b", "no region"),
            ("s3://backups?profile=x", "no parameter \"profile\""),
            ("s3://backups?region", "written as"),
        ] {
            let refused = text.parse::<Address>().expect_err(text).to_string();
            assert!(refused.contains(why), "{text}: {refused}");
        }
        for text in [
            "s3://AKIA:hunter2@backups/vc",
            "s3://backups?endpoint=http://AKIA:hunter2@h",
            "s3://backups?secret_access_key=hunter2",
        ] {
            let refused = text.parse::<Address>().expect_err(text).to_string();
            assert!(refused.contains("has no keys") && !refused.contains("hunter2"), "{refused}");
        }
    }
}
