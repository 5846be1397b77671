//! Encryption of secrets and configs in the documents, with a key that every server has and no document holds.
//!
//! A file is encrypted with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) under a random nonce. Cluster, project, name and
//! version are the associated data: a file that is moved to another place does not decrypt. Its version is a keyed hash
//! (HMAC-SHA256) of the content, so that a reader of the documents without the key cannot test guesses either.

use std::collections::BTreeMap;
use std::fmt;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use vc_crdt::{FileKey, Receiver, ReceiverTarget, SealedFile};
use vc_protocol::spec::FileId;
use vc_protocol::{ClusterId, Keypair, Name, Stored};

/// Bytes of a nonce: 192 bits do not repeat when drawn at random.
const NONCE: usize = 24;

/// Bytes of files in one change that seals them again: less than the largest change.
const MAX_RESEALED: usize = 1024 * 1024;

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

    /// Returns the key that belongs to a signing key; `None` if that is no Ed25519 key.
    pub(crate) fn of_signing_key(key: &Keypair) -> Option<Self> {
        let secret = key.clone().try_into_ed25519().ok()?.secret();
        let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(secret.as_ref()).ok()?;
        mac.update(b"vc files 1 key");
        Some(Self(mac.finalize().into_bytes().into()))
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
        self.seal_at(&place(cluster, key), content)
    }

    fn seal_at(&self, place: &str, content: &[u8]) -> Result<SealedFile, SealError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce)?;
        let payload = Payload { msg: content, aad: place.as_bytes() };
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| SealError::TooLarge)?;
        Ok(SealedFile { sealed: BASE64.encode(&[&nonce[..], &sealed].concat()) })
    }

    /// Encrypts the URL of a receiver of alerts.
    pub(crate) fn seal_url(
        &self,
        cluster: ClusterId,
        receiver: &Name,
        url: &str,
    ) -> Result<SealedFile, SealError> {
        self.seal_at(&url_place(cluster, receiver), url.as_bytes())
    }

    /// Decrypts a file; `None` when it was sealed with another key or for another place, or is damaged.
    pub(crate) fn open(
        &self,
        cluster: ClusterId,
        key: &FileKey,
        file: &SealedFile,
    ) -> Option<Vec<u8>> {
        self.open_at(&place(cluster, key), file)
    }

    fn open_at(&self, place: &str, file: &SealedFile) -> Option<Vec<u8>> {
        let bytes = BASE64.decode(file.sealed.as_bytes()).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>()?;
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

/// The keys of a server: a rotation of the signing key gives files another key, which is derived from that one.
#[derive(Debug)]
pub(crate) struct FileKeys {
    /// The key that new files are sealed with; `None` until this server has the signing key.
    pub(crate) present: Option<Seal>,
    /// Keys that files may still be sealed with.
    pub(crate) earlier: Vec<Seal>,
}

impl FileKeys {
    /// Decrypts a file, whichever key it was sealed with.
    pub(crate) fn open(
        &self,
        cluster: ClusterId,
        key: &FileKey,
        file: &SealedFile,
    ) -> Option<Vec<u8>> {
        let mut keys = self.present.iter().chain(&self.earlier);
        keys.find_map(|seal| seal.open(cluster, key, file))
    }

    /// Decrypts the URL of a receiver of alerts, whichever key it was sealed with.
    pub(crate) fn open_url(
        &self,
        cluster: ClusterId,
        receiver: &Name,
        url: &SealedFile,
    ) -> Option<String> {
        let place = url_place(cluster, receiver);
        let mut keys = self.present.iter().chain(&self.earlier);
        String::from_utf8(keys.find_map(|seal| seal.open_at(&place, url))?).ok()
    }

    /// Seals the URLs of receivers again that were sealed with an earlier key.
    pub(crate) fn reseal_urls(
        &self,
        cluster: ClusterId,
        receivers: &BTreeMap<Name, Stored<Receiver>>,
    ) -> Result<BTreeMap<Name, SealedFile>, SealError> {
        let mut resealed = BTreeMap::new();
        let Some(present) = &self.present else { return Ok(resealed) };
        for (name, receiver) in receivers {
            let ReceiverTarget::Webhook { url, .. } = &receiver.target else { continue };
            if present.open_at(&url_place(cluster, name), url).is_some() {
                continue;
            }
            if let Some(opened) = self.open_url(cluster, name, url) {
                resealed.insert(name.clone(), present.seal_url(cluster, name, &opened)?);
            }
        }
        Ok(resealed)
    }

    /// Returns the version of a content: that of an equal file in `files`, or a new one. So a rotation replaces no instance.
    pub(crate) fn version(
        &self,
        present: &Seal,
        cluster: ClusterId,
        files: &BTreeMap<FileKey, SealedFile>,
        (project, file): (&Name, &FileId),
        content: &[u8],
    ) -> String {
        let is_equal = |(key, sealed): &(&FileKey, &SealedFile)| {
            key.project == *project
                && key.file == *file
                && self.open(cluster, key, sealed).as_deref() == Some(content)
        };
        let equal = files.iter().find(is_equal).map(|(key, _)| key.version.clone());
        equal.unwrap_or_else(|| present.version(project, file, content))
    }

    /// Seals the files again that were sealed with an earlier key, in maps of at most [`MAX_RESEALED`] bytes.
    pub(crate) fn reseal(
        &self,
        cluster: ClusterId,
        files: &BTreeMap<FileKey, SealedFile>,
    ) -> Result<Vec<BTreeMap<FileKey, SealedFile>>, SealError> {
        let Some(present) = &self.present else { return Ok(Vec::new()) };
        let (mut all, mut size) = (Vec::new(), 0);
        for (key, sealed) in files {
            if present.open(cluster, key, sealed).is_some() {
                continue;
            }
            let Some(content) = self.open(cluster, key, sealed) else { continue };
            let sealed = present.seal(cluster, key, &content)?;
            let bytes = sealed.sealed.len();
            match all.last_mut() {
                Some(last) if size + bytes <= MAX_RESEALED => {
                    size += bytes;
                    BTreeMap::insert(last, key.clone(), sealed);
                }
                _ => {
                    size = bytes;
                    all.push(BTreeMap::from([(key.clone(), sealed)]));
                }
            }
        }
        Ok(all)
    }
}

/// Returns the associated data that binds a URL to its receiver. The keys of files have four parts.
fn url_place(cluster: ClusterId, receiver: &Name) -> String {
    format!("{cluster}/receiver/{receiver}")
}

/// Returns the associated data that binds a file to its place.
fn place(cluster: ClusterId, key: &FileKey) -> String {
    format!("{cluster}/{key}")
}

#[cfg(test)]
mod tests {
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

    fn key_of(n: u8) -> Seal {
        let key = Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes");
        Seal::of_signing_key(&key).expect("a key")
    }

    #[test]
    fn files_are_sealed_again_under_their_versions_with_the_key_of_a_rotation() {
        let (old, cluster) = (Seal([7; 32]), cluster(1));
        let project: Name = "shop".parse().expect("a name");
        let file = |name: &str| FileId { kind: FileKind::Secret, name: name.to_owned() };
        let mut files = BTreeMap::new();
        for name in ["a", "b", "c"] {
            let content = name.repeat(400 << 10).into_bytes();
            let version = old.version(&project, &file(name), &content);
            let key = FileKey { project: project.clone(), file: file(name), version };
            let sealed = old.seal(cluster, &key, &content).expect("sealed");
            files.insert(key, sealed);
        }
        let keys = FileKeys { present: Some(key_of(9)), earlier: vec![old.clone()] };
        let batches = keys.reseal(cluster, &files).expect("sealed");
        assert_eq!(batches.iter().map(BTreeMap::len).collect::<Vec<_>>(), [1, 1, 1]);
        let resealed: BTreeMap<_, _> = batches.into_iter().flatten().collect();
        assert!(resealed.keys().eq(files.keys()), "the versions are kept");
        for (key, sealed) in &resealed {
            assert_eq!(old.open(cluster, key, sealed), None, "the old key opens it no more");
            assert_eq!(keys.open(cluster, key, sealed), old.open(cluster, key, &files[key]));
        }
        assert_eq!(keys.reseal(cluster, &resealed).expect("sealed"), Vec::new());

        // Equal content keeps its version; other content gets one that the old key does not tell.
        let present = key_of(9);
        let version = |content: &[u8]| {
            keys.version(&present, cluster, &resealed, (&project, &file("a")), content)
        };
        let equal = "a".repeat(400 << 10).into_bytes();
        assert_eq!(version(&equal), old.version(&project, &file("a"), &equal));
        assert_eq!(version(b"new"), present.version(&project, &file("a"), b"new"));
        assert_ne!(version(b"new"), old.version(&project, &file("a"), b"new"));
    }
}
