//! How secrets and configs lie in the documents: sealed with a key that every member has, and nobody else.
//!
//! A file is encrypted with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) under a random nonce, bound to its place: moved
//! to another cluster, project, name or version, it does not open. Its version is a keyed hash (HMAC-SHA256), so that
//! who reads the documents without the key can neither read a file nor test a guess.

use std::fmt;

use anyhow::Context as _;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use vc_crdt::{FileKey, SealedFile};
use vc_protocol::spec::FileId;
use vc_protocol::{ClusterId, Name};

/// Bytes of a nonce: so many that a random one is never drawn twice.
const NONCE: usize = 24;

/// The key of a cluster's files.
#[derive(Clone)]
pub(crate) struct Seal([u8; 32]);

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.write_str("Seal")
    }
}

impl Seal {
    /// A new one. Errors: the operating system has no random numbers.
    pub(crate) fn generate() -> anyhow::Result<Self> {
        Ok(Self(crate::random::random_bytes()?))
    }

    /// As text: base64.
    pub(crate) fn encode(&self) -> String {
        BASE64.encode(&self.0)
    }

    /// From text. Errors: it is no such key.
    pub(crate) fn decode(text: &str) -> anyhow::Result<Self> {
        let bytes = BASE64.decode(text.trim().as_bytes()).context("not base64")?;
        Ok(Self(bytes.try_into().map_err(|_| anyhow::anyhow!("not 32 bytes"))?))
    }

    /// Which content it is: the same one has the same version, in the same place.
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

    /// Seals a content for its place. Errors: the operating system has no random numbers.
    pub(crate) fn seal(
        &self,
        cluster: ClusterId,
        key: &FileKey,
        content: &[u8],
    ) -> anyhow::Result<SealedFile> {
        let nonce: [u8; NONCE] = crate::random::random_bytes()?;
        let place = place(cluster, key);
        let payload = Payload { msg: content, aad: place.as_bytes() };
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| anyhow::anyhow!("{} cannot be sealed", key.file))?;
        Ok(SealedFile { sealed: BASE64.encode(&[&nonce[..], &sealed].concat()) })
    }

    /// What is in a sealed file; `None`: it was sealed with another key, for another place, or is damaged.
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

    /// Each use has a key of its own.
    #[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
    fn keyed(&self, purpose: &str) -> Hmac<Sha256> {
        let new = |key: &[u8]| <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("a key");
        let mut mac = new(&self.0);
        mac.update(b"vc files 1 ");
        mac.update(purpose.as_bytes());
        new(&mac.finalize().into_bytes())
    }
}

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
    fn a_file_opens_in_its_place_with_its_key_and_nowhere_else() {
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
    fn a_version_tells_contents_apart_and_needs_the_key() {
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
    fn a_key_survives_text_and_is_never_shown() {
        let seal = Seal::generate().expect("random numbers");
        assert_eq!(Seal::decode(&format!("{}\n", seal.encode())).expect("back").0, seal.0);
        assert!(Seal::decode("AAAA").is_err() && Seal::decode("?").is_err());
        assert_eq!(format!("{seal:?}"), "Seal");
    }
}
