//! Encryption of secrets and configs in the documents, with a key that every server has and no document holds.
//!
//! A file is encrypted with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) under a random nonce. Cluster, project, name and
//! version are the associated data: a file that is moved to another place does not decrypt. Its version is a keyed hash
//! (HMAC-SHA256) of the content, so that a reader of the documents without the key cannot test guesses either.

use std::fmt;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use vc_crdt::{FileKey, SealedFile};
use vc_protocol::spec::FileId;
use vc_protocol::{ClusterId, Name};

/// Bytes of a nonce: 192 bits do not repeat when drawn at random.
const NONCE: usize = 24;

/// Why a text is not the key of a cluster's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyFormatError {
    /// It is not base64.
    #[error("not base64")]
    Base64,
    /// It has another length.
    #[error("not 32 bytes")]
    Length,
}

/// Why a file was not sealed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    /// There was no random nonce.
    #[error("cannot read random numbers from the operating system: {0}")]
    Random(#[from] getrandom::Error),
    /// The content is too large for the cipher.
    #[error("the content is too large to be encrypted")]
    TooLarge,
}

/// The key of a cluster's secrets and configs.
#[derive(Clone)]
pub(crate) struct Seal([u8; 32]);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.write_str("Seal")
    }
}

impl Seal {
    /// Generates a key. Errors: the operating system has no random numbers.
    pub(crate) fn generate() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    /// Encodes the key in base64.
    pub(crate) fn encode(&self) -> String {
        BASE64.encode(&self.0)
    }

    /// Decodes a key from base64.
    pub(crate) fn decode(text: &str) -> Result<Self, KeyFormatError> {
        let bytes = BASE64.decode(text.trim().as_bytes()).map_err(|_| KeyFormatError::Base64)?;
        Ok(Self(bytes.try_into().map_err(|_| KeyFormatError::Length)?))
    }

    /// Returns the version of a file's content, 16 hexadecimal digits: equal for equal content in the same project under
    /// the same name.
    pub(crate) fn version(&self, project: &Name, file: &FileId, content: &[u8]) -> String {
        let place =
            FileKey { project: project.clone(), file: file.clone(), version: String::new() };
        let place = place.to_string();
        let mut mac = self.keyed("version");
        mac.update(&(place.len() as u64).to_be_bytes());
        mac.update(place.as_bytes());
        mac.update(content);
        HEXLOWER.encode(&mac.finalize().into_bytes()[..8])
    }

    /// Encrypts the content of a file.
    pub(crate) fn seal(
        &self,
        cluster: ClusterId,
        key: &FileKey,
        content: &[u8],
    ) -> Result<SealedFile, SealError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce)?;
        let place = place(cluster, key);
        let payload = Payload { msg: content, aad: place.as_bytes() };
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| SealError::TooLarge)?;
        Ok(SealedFile { sealed: BASE64.encode(&[&nonce[..], &sealed].concat()) })
    }

    /// Decrypts a file; `None` when it was sealed with another key or for another place, or is damaged.
    pub(crate) fn open(
        &self,
        cluster: ClusterId,
        key: &FileKey,
        file: &SealedFile,
    ) -> Option<Vec<u8>> {
        let bytes = BASE64.decode(file.sealed.as_bytes()).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>()?;
        let place = place(cluster, key);
        let payload = Payload { msg: sealed, aad: place.as_bytes() };
        self.cipher().decrypt(&XNonce::from(*nonce), payload).ok()
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        let key: [u8; 32] = self.keyed("seal").finalize().into_bytes().into();
        XChaCha20Poly1305::new(&key.into())
    }

    /// Derives a key for one purpose.
    #[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
    fn keyed(&self, purpose: &str) -> Hmac<Sha256> {
        let new = |key: &[u8]| <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("a key");
        let mut mac = new(&self.0);
        mac.update(b"vc files 1 ");
        mac.update(purpose.as_bytes());
        new(&mac.finalize().into_bytes())
    }
}

/// Returns the associated data that binds a file to its place.
fn place(cluster: ClusterId, key: &FileKey) -> String {
    format!("{cluster}/{key}")
}

#[cfg(test)]
mod tests {
    use vc_protocol::Keypair;
    use vc_protocol::spec::FileKind;

    use super::*;

    fn cluster(byte: u8) -> ClusterId {
        let key = Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes");
        ClusterId::of(&key.public()).expect("ed25519")
    }

    fn key(project: &str, kind: FileKind, name: &str, version: &str) -> FileKey {
        FileKey {
            project: project.parse().expect("a name"),
            file: FileId { kind, name: name.to_owned() },
            version: version.to_owned(),
        }
    }

    #[test]
    fn a_file_decrypts_only_in_its_place_with_its_key() {
        let seal = Seal([7; 32]);
        let here = key("shop", FileKind::Secret, "db", "1");
        let sealed = seal.seal(cluster(1), &here, b"hunter2").expect("sealed");
        assert_eq!(seal.open(cluster(1), &here, &sealed).as_deref(), Some(&b"hunter2"[..]));

        assert_eq!(Seal([8; 32]).open(cluster(1), &here, &sealed), None);
        assert_eq!(seal.open(cluster(2), &here, &sealed), None);
        for elsewhere in [
            key("bank", FileKind::Secret, "db", "1"),
            key("shop", FileKind::Config, "db", "1"),
            key("shop", FileKind::Secret, "db2", "1"),
            key("shop", FileKind::Secret, "db", "2"),
        ] {
            assert_eq!(seal.open(cluster(1), &elsewhere, &sealed), None, "{elsewhere}");
        }
        for damaged in ["", "AAAA", "!", &sealed.sealed[..sealed.sealed.len() - 4]] {
            let damaged = SealedFile { sealed: damaged.to_owned() };
            assert_eq!(seal.open(cluster(1), &here, &damaged), None, "{damaged:?}");
        }
        assert!(!sealed.sealed.contains(&BASE64.encode(b"hunter2")));
        assert_ne!(seal.seal(cluster(1), &here, b"hunter2").expect("sealed"), sealed);
    }

    #[test]
    fn a_version_depends_on_content_place_and_key() {
        let seal = Seal([7; 32]);
        let here = key("shop", FileKind::Secret, "db", "");
        let version = |content: &[u8]| seal.version(&here.project, &here.file, content);
        assert_eq!(version(b"1234"), version(b"1234"));
        assert_eq!(version(b"1234").len(), 16);
        assert_ne!(version(b"1234"), version(b"1235"));
        assert_ne!(version(b"1234"), Seal([8; 32]).version(&here.project, &here.file, b"1234"));
        let bank = "bank".parse().expect("a name");
        assert_ne!(version(b"1234"), seal.version(&bank, &here.file, b"1234"));
    }

    #[test]
    fn a_key_round_trips_as_text_and_is_not_in_debug_output() {
        let seal = Seal::generate().expect("random numbers");
        assert_eq!(Seal::decode(&format!("{}\n", seal.encode())).expect("back").0, seal.0);
        assert!(Seal::decode("AAAA").is_err() && Seal::decode("?").is_err());
        assert_eq!(format!("{seal:?}"), "Seal");
    }
}
