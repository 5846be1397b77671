//! What an image is made of, every part named by its content.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The most layers an image may have; Docker's own limit is lower.
const MAX_LAYERS: usize = 256;
/// The largest configuration of an image, in bytes.
pub(crate) const MAX_CONFIG: usize = 1024 * 1024;

/// A SHA-256, written `sha256:` and 64 lowercase hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is no [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no image id: write sha256: and 64 hex digits")]
pub struct DigestError(String);

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::new_with_prefix(bytes))
    }

    /// Of what was hashed.
    pub(crate) fn from_hash(hash: Sha256) -> Self {
        Self(format!("sha256:{}", data_encoding::HEXLOWER.encode(&hash.finalize())))
    }

    /// The hex digits alone: safe as a file's name.
    pub(crate) fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// As people compare ids: the first twelve digits.
    pub(crate) fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// As Docker writes it.
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

/// How a blob holds a layer's tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As it is: it does not shrink.
    Raw,
    /// Compressed with zstd.
    Zstd,
}

/// A layer, and the blob that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Of its tar: what the image's configuration names.
    pub diff_id: Digest,
    /// Length of its tar in bytes.
    pub size: u64,
    /// Of the blob's bytes.
    pub blob: Digest,
    /// Length of the blob in bytes.
    pub blob_size: u64,
    /// How the blob holds it.
    pub encoding: Encoding,
}

/// An image: its configuration, whose hash is its id, and the layers that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The image's id.
    pub id: Digest,
    /// Its configuration, to the byte.
    pub config: String,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
}

/// What is read of an image's configuration.
#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

/// The layers that a configuration names. Errors: it is none.
pub(crate) fn diff_ids(config: &str) -> Result<Vec<Digest>, String> {
    let config: Config = serde_json::from_str(config)
        .map_err(|error| format!("its configuration does not read ({error})"))?;
    Ok(config.rootfs.diff_ids)
}

impl Manifest {
    /// Whether the parts belong together: the id is the configuration's, and the layers are those it names. Errors: why
    /// not.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.config.len() > MAX_CONFIG || self.layers.len() > MAX_LAYERS {
            return Err("it is larger than an image can be".to_owned());
        }
        if Digest::of(self.config.as_bytes()) != self.id {
            return Err("its configuration is not that of its id".to_owned());
        }
        if !diff_ids(&self.config)?.iter().eq(self.layers.iter().map(|layer| &layer.diff_id)) {
            return Err("its layers are not those of its configuration".to_owned());
        }
        let raw_differs = |layer: &&Layer| {
            layer.encoding == Encoding::Raw
                && (&layer.diff_id, layer.size) != (&layer.blob, layer.blob_size)
        };
        if self.layers.iter().any(|layer| raw_differs(&layer)) {
            return Err("a layer differs from itself".to_owned());
        }
        let sizes = self.layers.iter().flat_map(|layer| [layer.size, layer.blob_size]);
        if sizes.into_iter().try_fold(0u64, u64::checked_add).is_none() {
            return Err("it is larger than an image can be".to_owned());
        }
        Ok(())
    }

    /// Bytes of its layers, uncompressed.
    pub(crate) fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sha256_in_lowercase_is_a_digest() {
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
    fn parts_that_do_not_belong_together_are_no_image() {
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
}
