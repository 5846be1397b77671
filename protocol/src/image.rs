//! Images between members ([`IMAGE_PROTOCOL`](crate::wire::IMAGE_PROTOCOL)): what an image consists of, each part named
//! by its digest, and how members ask each other for the parts.
//!
//! A stream carries one [`Request`] and its responses, as frames of JSON. After [`Response::Blob`] the bytes of the blob
//! follow as frames of at most [`BLOB_FRAME`] bytes, and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The longest range of a blob that one request asks for, in bytes.
pub const MAX_RANGE: u64 = 4 * 1024 * 1024;
/// The most paths that one [`Request::MissingPaths`] asks for; further ones are ignored.
pub const MAX_PATHS: usize = 256;
/// The most bytes of a blob in one frame.
pub const BLOB_FRAME: usize = 256 * 1024;
/// The most images that one [`Request::Has`] asks for; further ones are ignored.
pub const MAX_IDS: usize = 1000;
/// The most layers of an image; Docker's own limit is lower.
pub const MAX_LAYERS: usize = 256;
/// The largest configuration of an image, in bytes.
pub const MAX_CONFIG: usize = 1024 * 1024;

/// A SHA-256 digest, written `sha256:` and 64 lowercase hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is not a [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an image id; write sha256: and 64 hex digits")]
pub struct DigestError(String);

impl Digest {
    /// Returns the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(bytes).into())
    }

    /// Returns the digest with this hash.
    pub fn from_sha256(hash: [u8; 32]) -> Self {
        Self(format!("sha256:{}", data_encoding::HEXLOWER.encode(&hash)))
    }

    /// Returns the hex digits alone, which are safe as a file name.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// Returns the first twelve hex digits, as Docker's CLI shows ids.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// Returns the text as Docker writes it, with `sha256:`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        match text.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.bytes().all(digit) => Ok(Self(text.to_owned())),
            _ => Err(DigestError(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a blob encodes the tar of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// The tar itself, where compression does not shrink it.
    Raw,
    /// The tar, compressed with Zstandard (RFC 8878).
    Zstd,
}

/// A layer of an image, and the blob that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// The digest of the uncompressed tar, as the image's configuration lists it.
    pub diff_id: Digest,
    /// Length of the uncompressed tar in bytes.
    pub size: u64,
    /// The digest of the blob's bytes, which names it.
    pub blob: Digest,
    /// Length of the blob in bytes.
    pub blob_size: u64,
    /// How the blob encodes the tar.
    pub encoding: Encoding,
}

/// An image: its configuration, whose digest is the image's id, and the layers that the configuration lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The image's id.
    pub id: Digest,
    /// The bytes of its configuration (OCI image specification, `config.md`), unchanged.
    pub config: String,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
}

/// Why the parts of a [`Manifest`] do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It exceeds [`MAX_CONFIG`], [`MAX_LAYERS`] or 2^64 bytes.
    #[error(
        "the image is too large: at most {MAX_LAYERS} layers, and {} KiB of configuration, are supported",
        MAX_CONFIG / 1024
    )]
    TooLarge,
    /// The digest of the configuration is not the id.
    #[error("the configuration does not match the image id")]
    ConfigDigest,
    /// The configuration is not JSON with `rootfs.diff_ids`.
    #[error("the configuration cannot be parsed: {0}")]
    ConfigFormat(String),
    /// The layers are not those that the configuration lists.
    #[error("the layers do not match those in the configuration")]
    Layers,
    /// A layer with [`Encoding::Raw`] has a blob with another digest or size than its tar.
    #[error("layer {0} is stored uncompressed but its blob has another digest or size")]
    RawLayer(Digest),
}

/// The part of an image's configuration that is read.
#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

/// Returns the digests of the layers that a configuration lists, the lowest first.
///
/// # Errors
/// [`ManifestError::ConfigFormat`] when `config` is not an image configuration.
pub fn diff_ids(config: &str) -> Result<Vec<Digest>, ManifestError> {
    let config: Config = serde_json::from_str(config)
        .map_err(|error| ManifestError::ConfigFormat(error.to_string()))?;
    Ok(config.rootfs.diff_ids)
}

impl Manifest {
    /// Checks that the id is the digest of the configuration, and that the layers are those it lists.
    ///
    /// # Errors
    /// The first [`ManifestError`] found.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.config.len() > MAX_CONFIG || self.layers.len() > MAX_LAYERS {
            return Err(ManifestError::TooLarge);
        }
        if Digest::of(self.config.as_bytes()) != self.id {
            return Err(ManifestError::ConfigDigest);
        }
        if !diff_ids(&self.config)?.iter().eq(self.layers.iter().map(|layer| &layer.diff_id)) {
            return Err(ManifestError::Layers);
        }
        let raw_differs = |layer: &&Layer| {
            layer.encoding == Encoding::Raw
                && (&layer.diff_id, layer.size) != (&layer.blob, layer.blob_size)
        };
        if let Some(layer) = self.layers.iter().find(raw_differs) {
            return Err(ManifestError::RawLayer(layer.diff_id.clone()));
        }
        let sizes = self.layers.iter().flat_map(|layer| [layer.size, layer.blob_size]);
        if sizes.into_iter().try_fold(0u64, u64::checked_add).is_none() {
            return Err(ManifestError::TooLarge);
        }
        Ok(())
    }

    /// Returns the total length of the uncompressed layers in bytes.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add)
    }
}

/// A request from one member to another, the first frame of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Asks which of these images the member has; answered by [`Response::Has`].
    Has(Vec<Digest>),
    /// Asks which image a canonical reference names in the member's Docker engine; answered by [`Response::Resolved`].
    Resolve(String),
    /// Asks for the manifest of an image; answered by [`Response::Manifest`], after any number of
    /// [`Response::Progress`] while the member exports the image from Docker.
    Manifest(Digest),
    /// Asks for a range of a blob; answered by [`Response::Blob`] and the bytes.
    Blob {
        /// The blob's digest.
        blob: Digest,
        /// The first byte of the range.
        offset: u64,
        /// Length of the range in bytes, at most [`MAX_RANGE`].
        length: u64,
    },
    /// Asks whether the registry that a canonical reference names has the image, as the member's Docker engine sees it;
    /// answered by [`Response::InRegistry`]. Older members do not answer.
    InRegistry(String),
    /// Asks which of these paths do not exist on the host of the member's Docker engine; answered by
    /// [`Response::MissingPaths`], to servers only.
    MissingPaths(Vec<String>),
    /// Asks what is at these paths of the host of the member's Docker engine; answered by [`Response::HostPaths`], to servers
    /// only.
    HostPaths(Vec<String>),
}

/// What is at a path of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// There is nothing at the path.
    Missing,
    /// A directory.
    Directory,
    /// A regular file, a socket, a device or the like.
    File,
}

/// What a registry says of an image that was not fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryAnswer {
    /// It has the image.
    Found,
    /// It does not give the image, in one line for people: it has none, asks for credentials, or cannot be reached.
    Missing(String),
    /// The engine cannot ask without fetching the image.
    Unknown,
}

/// A response to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// The images that the member has; `true` for those whose blobs are ready to be fetched.
    Has(BTreeMap<Digest, bool>),
    /// The image that the reference names; `None` when it names none.
    Resolved(Option<Digest>),
    /// The request takes time; how far it is, for people.
    Progress(String),
    /// The manifest.
    Manifest(Box<Manifest>),
    /// The bytes of the range follow.
    Blob,
    /// What the registry says.
    InRegistry(RegistryAnswer),
    /// The paths that do not exist.
    MissingPaths(Vec<String>),
    /// What is at each of the paths, in their order.
    HostPaths(Vec<PathKind>),
    /// The request failed; why, for people.
    Error(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sha256_in_lowercase_hex() {
        let digest = Digest::of(b"");
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let long = "0".repeat(64);
        for bad in ["", "sha256:", "sha256:00", &long, &format!("sha256:{}/", "0".repeat(63))] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert!(format!("sha256:{}", "A".repeat(64)).parse::<Digest>().is_err());
    }

    #[test]
    fn a_manifest_with_mismatched_parts_is_rejected() {
        let layer = |byte: u8| Layer {
            diff_id: Digest::of(&[byte]),
            size: 1,
            blob: Digest::of(&[byte]),
            blob_size: 1,
            encoding: Encoding::Raw,
        };
        let config = format!(r#"{{"rootfs":{{"diff_ids":["{}"]}}}}"#, layer(1).diff_id);
        let whole = Manifest { id: Digest::of(config.as_bytes()), config, layers: vec![layer(1)] };
        assert_eq!(whole.check(), Ok(()));
        let other_id = Manifest { id: Digest::of(b"other"), ..whole.clone() };
        let other_layer = Manifest { layers: vec![layer(2)], ..whole.clone() };
        let more_layers = Manifest { layers: vec![layer(1), layer(1)], ..whole.clone() };
        let disguised =
            Manifest { layers: vec![Layer { blob: Digest::of(b"x"), ..layer(1) }], ..whole };
        for wrong in [other_id, other_layer, more_layers, disguised] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn messages_have_stable_json() {
        let id = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let requests = [
            (Request::Has(vec![id.clone()]), format!(r#"{{"has":["{text}"]}}"#)),
            (Request::Resolve("web:1".to_owned()), r#"{"resolve":"web:1"}"#.to_owned()),
            (Request::Manifest(id.clone()), format!(r#"{{"manifest":"{text}"}}"#)),
            (
                Request::Blob { blob: id.clone(), offset: 1, length: 2 },
                format!(r#"{{"blob":{{"blob":"{text}","offset":1,"length":2}}}}"#),
            ),
        ];
        for (request, json) in requests {
            assert_eq!(serde_json::to_string(&request).expect("plain data"), json);
            assert_eq!(serde_json::from_str::<Request>(&json).expect("valid"), request);
        }
        let layer = Layer {
            diff_id: id.clone(),
            size: 3,
            blob: id.clone(),
            blob_size: 2,
            encoding: Encoding::Zstd,
        };
        let manifest = Manifest { id: id.clone(), config: "{}".to_owned(), layers: vec![layer] };
        let responses = [
            (Response::Has([(id.clone(), true)].into()), format!(r#"{{"has":{{"{text}":true}}}}"#)),
            (Response::Resolved(None), r#"{"resolved":null}"#.to_owned()),
            (Response::Progress("50%".to_owned()), r#"{"progress":"50%"}"#.to_owned()),
            (
                Response::Manifest(Box::new(manifest)),
                format!(
                    r#"{{"manifest":{{"id":"{text}","config":"{{}}","layers":[{{"diff_id":"{text}","size":3,"blob":"{text}","blob_size":2,"encoding":"zstd"}}]}}}}"#
                ),
            ),
            (Response::Blob, r#""blob""#.to_owned()),
            (Response::Error("no".to_owned()), r#"{"error":"no"}"#.to_owned()),
        ];
        for (response, json) in responses {
            assert_eq!(serde_json::to_string(&response).expect("plain data"), json);
            assert_eq!(serde_json::from_str::<Response>(&json).expect("valid"), response);
        }
    }
}
