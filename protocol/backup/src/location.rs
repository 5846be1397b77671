//! Where backups are.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vc_s3::{Address, AddressError, SCHEME};

/// A path of this host, or an address of object storage, which begins with `s3://`. Displayed as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file or directory.
    Path(PathBuf),
    /// An object, or what objects are in.
    S3(Address),
}

impl Location {
    /// Returns the location with a path that means the same in another working directory.
    ///
    /// # Errors
    /// The path is empty, or there is no working directory.
    pub fn absolute(self) -> std::io::Result<Self> {
        match self {
            Self::Path(path) => std::path::absolute(path).map(Self::Path),
            Self::S3(address) => Ok(Self::S3(address)),
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl FromStr for Location {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.starts_with(SCHEME) {
            true => text.parse().map(Self::S3),
            false => text.parse().map(Self::Path).map_err(|error: Infallible| match error {}),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::S3(address) => address.fmt(f),
        }
    }
}

impl Serialize for Location {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Path(path) => path.serialize(serializer),
            Self::S3(address) => address.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Location {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
