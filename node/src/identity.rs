//! The identity of this node on disk: its key, its cluster and its certificate.
//!
//! | file              | content                                                                                   |
//! | ----------------- | ----------------------------------------------------------------------------------------- |
//! | `node.key`        | Ed25519 seed of the node, base64                                                          |
//! | `cluster.key`     | Ed25519 seed of the cluster's root key, base64; on servers only                           |
//! | `signing.keys`    | Ed25519 seeds of later signing keys, base64, one a line; on servers only                  |
//! | `files.key`       | 32-byte key that secrets and configs are sealed with, base64; on servers only             |
//! | `webrtc.pem`      | certificate and key of WebRTC-direct; its hash is in the addresses that browsers dial     |
//! | `membership.json` | cluster id, membership certificate and first peers; written last, it makes a member       |
//!
//! All have mode 0600.

use std::io;
use std::path::{Path, PathBuf};

use libp2p::multiaddr::Protocol;
use serde::{Deserialize, Serialize};
use vc_protocol::token::{
    Certificate, Issuer, NodeRole, Scope, Signer, TokenError, UserRole, issue_certificate,
    verify_certificate,
};
use vc_protocol::{ClusterId, Keypair, Millis, Multiaddr, NodeId};
use vc_runtime::Identity;

use crate::credentials::Credentials;
use crate::seal::{FileKeys, Seal};

const NODE_KEY: &str = "node.key";
const CLUSTER_KEY: &str = "cluster.key";
const SIGNING_KEYS: &str = "signing.keys";
const FILES_KEY: &str = "files.key";
const WEBRTC: &str = "webrtc.pem";
const MEMBERSHIP: &str = "membership.json";
/// Says who the node was, once it has left its cluster.
pub(crate) const LEFT: &str = "left.json";
/// Name of the file that `init` writes the first admin token to.
pub(crate) const ADMIN_TOKEN: &str = "admin.token";
/// Lifetime of that token: one year.
const ADMIN_TTL: Millis = 365 * 24 * 3_600_000;

/// Why the identity could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// The data directory belongs to no cluster yet.
    #[error(
        "{0} belongs to no cluster yet: create one with 'vc-node init' or join one with 'vc-node join --token-file FILE'"
    )]
    NotAMember(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error(
        "{path} is damaged ({reason}): restore it from a backup, or join again with another --data-dir"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The WebRTC certificate is damaged.
    #[error(
        "{path} is damaged ({source}): remove it to get a new one; browsers then need new links"
    )]
    WebRtc {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: vc_webrtc::CertificateError,
    },
    /// The membership certificate is not valid for the key and cluster beside it.
    #[error("the certificate in {path} does not match node.key: {source}")]
    Certificate {
        /// The membership file.
        path: PathBuf,
        /// What is wrong with it.
        source: TokenError,
    },
    /// `files.key` is missing.
    #[error(
        "{0}, the key of the cluster's secrets, is missing: copy it from another server's data directory, \
         or join again with another --data-dir"
    )]
    NoFilesKey(PathBuf),
    /// No WebRTC certificate could be made.
    #[error(transparent)]
    Generate(vc_webrtc::CertificateError),
    /// The certificate of the first member cannot be signed.
    #[error("cannot sign the certificate of this node: {0}")]
    FirstCertificate(TokenError),
    /// The first admin token cannot be signed.
    #[error("cannot sign the admin token: {0}")]
    AdminToken(TokenError),
    /// The operating system has no random numbers.
    #[error("cannot read random numbers from the operating system: {0}")]
    Random(#[from] getrandom::Error),
    /// A key has another type than Ed25519.
    #[error("the key is not an Ed25519 key")]
    KeyType,
}

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    /// It is not base64.
    #[error("not base64")]
    Base64,
    /// It is not 32 bytes.
    #[error("not an Ed25519 seed of 32 bytes")]
    Seed,
}

/// What makes this node a member of its cluster.
pub(crate) struct Membership {
    /// The data directory.
    pub(crate) dir: PathBuf,
    /// The node's key pair; its public part is the node's id.
    pub(crate) key: Keypair,
    /// The node's id.
    pub(crate) node: NodeId,
    /// The cluster's id.
    pub(crate) cluster: ClusterId,
    /// Membership certificate and signing keys, which a rotation replaces.
    pub(crate) credentials: Credentials,
    /// The cluster's root key; on servers only.
    pub(crate) root: Option<Keypair>,
    /// The key that secrets and configs are sealed with; on servers only.
    pub(crate) seal: Option<Seal>,
    /// When this node became a member, in milliseconds since the Unix epoch.
    pub(crate) since: Millis,
}

impl Membership {
    /// Makes the keys of a new cluster, and its first member. Only the key of the node is saved.
    pub(crate) fn found(dir: &Path) -> Result<Self, IdentityError> {
        let (root, key) = (Keypair::generate_ed25519(), node_key(dir)?);
        let node = NodeId::of(&key.public()).map_err(|_| IdentityError::KeyType)?;
        let cluster = ClusterId::of(&root.public()).map_err(|_| IdentityError::KeyType)?;
        let since = crate::clock::now();
        let certificate = issue_certificate(&root, node, NodeRole::Server, since);
        let certificate = certificate.map_err(IdentityError::FirstCertificate)?;
        Ok(Self {
            dir: dir.to_owned(),
            key,
            node,
            cluster,
            credentials: Credentials::new(certificate, Vec::new()),
            root: Some(root),
            seal: Some(Seal::generate()?),
            since,
        })
    }

    /// Returns the addresses of this node with its id, as tokens name it.
    pub(crate) fn own_peers(&self, addresses: &[Multiaddr]) -> Vec<Multiaddr> {
        let own = Protocol::P2p(self.node.peer_id());
        addresses.iter().map(|address| address.clone().with(own.clone())).collect()
    }

    /// Returns the key that signs certificates, as this node's own certificate names it; `None` on a worker, and on a server
    /// that has not got the key yet.
    pub(crate) fn signer(&self) -> Option<Signer> {
        self.credentials.signer(self.cluster, self.root.as_ref())
    }

    /// Returns the keys of secrets and configs; `None` on a worker.
    pub(crate) fn file_keys(&self) -> Option<FileKeys> {
        let first = self.seal.clone()?;
        let certificate = Certificate::read(&self.credentials.certificate(), self.cluster);
        let present = match certificate.map(|it| it.signing) {
            Ok(signing) if signing.epoch > 0 => {
                let key = self.credentials.signing_key(signing.key);
                key.as_ref().and_then(Seal::of_signing_key)
            }
            _ => Some(first.clone()),
        };
        let signing = self.credentials.signing_keys();
        let earlier = signing.iter().rev().filter_map(Seal::of_signing_key).chain([first]);
        Some(FileKeys { present, earlier: earlier.collect() })
    }

    /// Adds a signing key, on the disk first: what it signs must not depend on a key that a crash loses.
    pub(crate) fn add_signing_key(&self, key: Keypair) -> Result<(), IdentityError> {
        let keys = self.credentials.with_signing_key(key, self.cluster);
        save_signing_keys(&self.dir, &keys)?;
        self.credentials.set_signing_keys(keys);
        Ok(())
    }

    /// Replaces this node's certificate. It is used even if it cannot be saved: the documents have it too.
    pub(crate) fn replace_certificate(&self, certificate: &str) -> Result<(), IdentityError> {
        self.credentials.set_certificate(certificate);
        let path = self.dir.join(MEMBERSHIP);
        let text = read(&path)?.ok_or_else(|| IdentityError::NotAMember(self.dir.clone()))?;
        let mut file: MembershipFile =
            serde_json::from_str(&text).map_err(|error| damaged(&path, &error))?;
        file.certificate = certificate.to_owned();
        write_membership(&path, &file)
    }
}

/// The content of `membership.json`.
#[derive(Serialize, Deserialize)]
struct MembershipFile {
    cluster: ClusterId,
    certificate: String,
    since: Millis,
    /// Addresses of members when this node joined, for the first contact.
    #[serde(default)]
    peers: Vec<Multiaddr>,
}

/// Encodes an Ed25519 key as its seed in base64; `None` for other key types.
pub(crate) fn encode_key(key: &Keypair) -> Option<String> {
    let key = key.clone().try_into_ed25519().ok()?;
    Some(data_encoding::BASE64.encode(key.secret().as_ref()))
}

/// Decodes an Ed25519 key from its seed in base64.
pub(crate) fn decode_key(text: &str) -> Result<Keypair, KeyError> {
    let seed =
        data_encoding::BASE64.decode(text.trim().as_bytes()).map_err(|_| KeyError::Base64)?;
    Keypair::ed25519_from_bytes(seed).map_err(|_| KeyError::Seed)
}

/// Returns whether a data directory belongs to a cluster.
pub(crate) fn is_member(dir: &Path) -> bool {
    dir.join(MEMBERSHIP).exists()
}

/// Reads a text file; `None` if there is none.
fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::Read { path: path.to_owned(), source }),
    }
}

/// Replaces a file that only its owner may read; `text` gets a newline.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), IdentityError> {
    vc_atomic_file::write(path, format!("{text}\n").as_bytes(), 0o600)
        .map_err(|source| IdentityError::Write { path: path.to_owned(), source })
}

fn damaged(path: &Path, reason: &impl ToString) -> IdentityError {
    IdentityError::Damaged { path: path.to_owned(), reason: reason.to_string() }
}

fn read_key(path: &Path) -> Result<Option<Keypair>, IdentityError> {
    let Some(text) = read(path)? else { return Ok(None) };
    decode_key(&text).map(Some).map_err(|error| damaged(path, &error))
}

fn write_key(path: &Path, key: &Keypair) -> Result<(), IdentityError> {
    write_secret(path, &encode_key(key).ok_or(IdentityError::KeyType)?)
}

/// Reads the node's key, or generates and saves one.
pub(crate) fn node_key(dir: &Path) -> Result<Keypair, IdentityError> {
    let path = dir.join(NODE_KEY);
    if let Some(key) = read_key(&path)? {
        return Ok(key);
    }
    let key = Keypair::generate_ed25519();
    write_key(&path, &key)?;
    Ok(key)
}

/// Reads the WebRTC certificate, or generates and saves one. It is kept because its hash is part of every address that
/// browsers have stored.
pub(crate) fn webrtc_certificate(dir: &Path) -> Result<vc_webrtc::Certificate, IdentityError> {
    let path = dir.join(WEBRTC);
    if let Some(pem) = read(&path)? {
        return vc_webrtc::Certificate::from_pem(&pem)
            .map_err(|source| IdentityError::WebRtc { path, source });
    }
    let certificate = vc_webrtc::Certificate::generate().map_err(IdentityError::Generate)?;
    write_secret(&path, certificate.to_pem())?;
    Ok(certificate)
}

fn save_signing_keys(dir: &Path, keys: &[Keypair]) -> Result<(), IdentityError> {
    let lines: Option<Vec<String>> = keys.iter().map(encode_key).collect();
    let lines = lines.ok_or(IdentityError::KeyType)?;
    write_secret(&dir.join(SIGNING_KEYS), &lines.join("\n"))
}

fn load_signing_keys(dir: &Path) -> Result<Vec<Keypair>, IdentityError> {
    let path = dir.join(SIGNING_KEYS);
    let text = read(&path)?.unwrap_or_default();
    let keys = text.lines().filter(|line| !line.is_empty());
    keys.map(|line| decode_key(line).map_err(|error| damaged(&path, &error))).collect()
}

fn write_membership(path: &Path, file: &MembershipFile) -> Result<(), IdentityError> {
    let text = serde_json::to_string_pretty(file)
        .map_err(|error| IdentityError::Write { path: path.to_owned(), source: error.into() })?;
    write_secret(path, &text)
}

/// Saves a membership and the addresses of members.
pub(crate) fn save(
    dir: &Path,
    membership: &Membership,
    peers: &[Multiaddr],
) -> Result<(), IdentityError> {
    if let Some(root) = &membership.root {
        write_key(&dir.join(CLUSTER_KEY), root)?;
    }
    if let Some(seal) = &membership.seal {
        write_secret(&dir.join(FILES_KEY), &seal.encode())?;
    }
    let signing = membership.credentials.signing_keys();
    if !signing.is_empty() {
        save_signing_keys(dir, &signing)?;
    }
    let file = MembershipFile {
        cluster: membership.cluster,
        certificate: membership.credentials.certificate(),
        since: membership.since,
        peers: peers.to_vec(),
    };
    // Last: this file makes the directory a member's.
    write_membership(&dir.join(MEMBERSHIP), &file)
}

/// Deletes the keys and the membership of a node that has left the cluster.
pub(crate) fn delete(dir: &Path) -> Result<(), IdentityError> {
    // What 'vc-node uninstall' needs to find what it has left on its host.
    if let Ok(identity) = former(dir) {
        let json = serde_json::to_vec(&LeftFile { cluster: identity.cluster, node: identity.node });
        let path = dir.join(LEFT);
        let written = json
            .map_err(io::Error::other)
            .and_then(|json| vc_atomic_file::write(&path, &json, 0o600));
        written.map_err(|source| IdentityError::Write { path, source })?;
    }
    // The membership first: without it, what a crash leaves is no member's directory.
    for name in [MEMBERSHIP, CLUSTER_KEY, SIGNING_KEYS, FILES_KEY, NODE_KEY] {
        remove(&dir.join(name))?;
    }
    Ok(())
}

/// Who a node was that has left its cluster.
#[derive(Serialize, Deserialize)]
struct LeftFile {
    cluster: ClusterId,
    node: NodeId,
}

/// Returns whose data directory it is, also after the node has left its cluster.
///
/// # Errors
/// It is none of a node, or is damaged.
pub(crate) fn former(dir: &Path) -> Result<Identity, IdentityError> {
    let path = dir.join(LEFT);
    if is_member(dir) {
        let (membership, _) = load(dir)?;
        return Ok(Identity { cluster: membership.cluster, node: membership.node });
    }
    let text = read(&path)?.ok_or_else(|| IdentityError::NotAMember(dir.to_owned()))?;
    let LeftFile { cluster, node } =
        serde_json::from_str(&text).map_err(|error| damaged(&path, &error))?;
    Ok(Identity { cluster, node })
}

/// Deletes a file. Returns whether there was one.
fn remove(path: &Path) -> Result<bool, IdentityError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(IdentityError::Write { path: path.to_owned(), source }),
    }
}

/// Reads the key of secrets and configs, which servers have. A worker deletes the one that an earlier version gave it.
fn files_key(dir: &Path, role: NodeRole) -> Result<Option<Seal>, IdentityError> {
    let path = dir.join(FILES_KEY);
    if role == NodeRole::Worker {
        if remove(&path)? {
            tracing::info!("deleted the key of the cluster's secrets: servers alone have it now");
        }
        return Ok(None);
    }
    let text = read(&path)?.ok_or_else(|| IdentityError::NoFilesKey(path.clone()))?;
    Seal::decode(&text).map(Some).map_err(|error| damaged(&path, &error))
}

/// Reads the membership, and the addresses of members when this node joined. Deletes what this node should not have.
pub(crate) fn load(dir: &Path) -> Result<(Membership, Vec<Multiaddr>), IdentityError> {
    let path = dir.join(MEMBERSHIP);
    let text = read(&path)?.ok_or_else(|| IdentityError::NotAMember(dir.to_owned()))?;
    let file: MembershipFile =
        serde_json::from_str(&text).map_err(|error| damaged(&path, &error))?;
    let key = node_key(dir)?;
    let node = NodeId::of(&key.public()).map_err(|_| IdentityError::KeyType)?;
    let (_, role) = verify_certificate(&file.certificate, file.cluster, Some(node))
        .map_err(|source| IdentityError::Certificate { path, source })?;
    let root = read_key(&dir.join(CLUSTER_KEY))?;
    let seal = files_key(dir, role)?;
    let membership = Membership {
        dir: dir.to_owned(),
        key,
        node,
        cluster: file.cluster,
        credentials: Credentials::new(file.certificate, load_signing_keys(dir)?),
        root,
        seal,
        since: file.since,
    };
    Ok((membership, file.peers))
}

/// Writes an admin token to the data directory. Returns the path of its file.
pub(crate) fn write_admin_token(
    dir: &Path,
    membership: &Membership,
    addresses: &[Multiaddr],
) -> Result<PathBuf, IdentityError> {
    let certificate = membership.credentials.certificate();
    let (cluster, key) = (membership.cluster, &membership.key);
    let issuer = Issuer { cluster, key, certificate: &certificate };
    let peers = membership.own_peers(addresses);
    let (scope, id) = (Scope::User(UserRole::Admin), getrandom::u64()?);
    let token = issuer
        .issue(scope, "admin", peers, id, crate::clock::now(), ADMIN_TTL)
        .map_err(IdentityError::AdminToken)?;
    let path = dir.join(ADMIN_TOKEN);
    write_secret(&path, &token)?;
    Ok(path)
}

#[cfg(test)]
pub(crate) mod tests {
    use vc_protocol::token::issue_certificate;

    use super::*;

    /// A member with this role, and with the file key.
    pub(crate) fn member(role: NodeRole) -> Membership {
        let (root, key) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let node = NodeId::of(&key.public()).expect("ed25519");
        let cluster = ClusterId::of(&root.public()).expect("ed25519");
        let certificate = issue_certificate(&root, node, role, 0).expect("signed");
        let seal = Some(Seal::generate().expect("random numbers"));
        let credentials = Credentials::new(certificate, Vec::new());
        let dir = PathBuf::new();
        Membership { dir, key, node, cluster, credentials, root: None, seal, since: 1 }
    }

    /// A data directory with its membership.
    fn saved(membership: &Membership) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        write_key(&dir.path().join(NODE_KEY), &membership.key).expect("written");
        save(dir.path(), membership, &[]).expect("written");
        dir
    }

    #[test]
    fn a_worker_deletes_the_file_key_of_an_earlier_version_and_a_server_needs_it() {
        let dir = saved(&member(NodeRole::Worker));
        let path = dir.path().join(FILES_KEY);
        assert!(path.exists(), "an earlier version has saved it");
        for _ in 0..2 {
            let (loaded, _) = load(dir.path()).expect("a member");
            assert!(loaded.seal.is_none() && !path.exists());
        }

        let dir = saved(&member(NodeRole::Server));
        assert!(load(dir.path()).expect("a member").0.seal.is_some());
        std::fs::remove_file(dir.path().join(FILES_KEY)).expect("removed");
        assert!(matches!(load(dir.path()), Err(IdentityError::NoFilesKey(_))));
    }
}
