//! Who this node is, on disk: its key, its cluster, its certificate.
//!
//! `node.key` and `cluster.key` are Ed25519 seeds, base64, mode 0600; `cluster.key` is there on servers only. `files.key`
//! is what secrets and configs are sealed with, 32 bytes, base64, mode 0600. `webrtc.pem` is the certificate, with its key,
//! whose hash is in the addresses that browsers dial.
//! `membership.json` says which cluster and holds the certificate.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vc_protocol::{ClusterId, Keypair, Millis, Multiaddr, NodeId};

use crate::seal::Seal;

const NODE_KEY: &str = "node.key";
const CLUSTER_KEY: &str = "cluster.key";
const FILES_KEY: &str = "files.key";
const WEBRTC: &str = "webrtc.pem";
const MEMBERSHIP: &str = "membership.json";
/// The admin's token that `init` writes.
pub const ADMIN_TOKEN: &str = "admin.token";

/// Everything that makes this node a member.
pub struct Membership {
    /// Its key.
    pub key: Keypair,
    /// Its id.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The word of the cluster's root that it is a member.
    pub certificate: String,
    /// The cluster's root key, on servers.
    pub root: Option<Keypair>,
    /// The key of the cluster's secrets and configs.
    pub(crate) seal: Seal,
    /// When the data directory was founded or joined.
    pub since: Millis,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    cluster: ClusterId,
    certificate: String,
    since: Millis,
    /// Where members were when this node joined: for the first contact.
    #[serde(default)]
    peers: Vec<Multiaddr>,
}

/// A key as text: its seed, base64.
pub(crate) fn encode_key(key: &Keypair) -> Option<String> {
    let key = key.clone().try_into_ed25519().ok()?;
    Some(data_encoding::BASE64.encode(key.secret().as_ref()))
}

/// A key from text.
pub(crate) fn decode_key(text: &str) -> anyhow::Result<Keypair> {
    let seed = data_encoding::BASE64.decode(text.trim().as_bytes()).context("not base64")?;
    Keypair::ed25519_from_bytes(seed).context("not an Ed25519 seed")
}

/// Makes the data directory, for its owner alone. Errors: it cannot be made or written.
pub fn prepare(dir: &Path) -> anyhow::Result<()> {
    let made = fs::create_dir_all(dir)
        .and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o700)));
    made.with_context(|| format!("cannot make the data directory {}", dir.display()))
}

/// Whether a data directory belongs to a cluster already.
pub fn is_member(dir: &Path) -> bool {
    dir.join(MEMBERSHIP).exists()
}

/// The text of a file; `None`: there is no such file.
fn read_if_there(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The node's key: from disk, or a new one.
pub fn node_key(dir: &Path) -> anyhow::Result<Keypair> {
    let path = dir.join(NODE_KEY);
    if let Some(text) = read_if_there(&path)? {
        return decode_key(&text).with_context(|| format!("{} is not a node key", path.display()));
    }
    let key = Keypair::generate_ed25519();
    write_secret(&path, &encode_key(&key).context("an Ed25519 key")?)?;
    Ok(key)
}

/// The certificate that browsers know this node by: from disk, or a new one. With another one, every address that a
/// browser has kept would be wrong.
pub fn webrtc_certificate(dir: &Path) -> anyhow::Result<vc_webrtc::Certificate> {
    let path = dir.join(WEBRTC);
    if let Some(pem) = read_if_there(&path)? {
        return vc_webrtc::Certificate::from_pem(&pem).with_context(|| {
            format!("{} is damaged: remove it, and browsers need new links", path.display())
        });
    }
    let certificate = vc_webrtc::Certificate::generate()?;
    write_secret(&path, certificate.to_pem())?;
    Ok(certificate)
}

/// Writes a membership. The membership file comes last: it makes the directory a member's.
pub fn save(dir: &Path, membership: &Membership, peers: &[Multiaddr]) -> anyhow::Result<()> {
    if let Some(root) = &membership.root {
        write_secret(&dir.join(CLUSTER_KEY), &encode_key(root).context("an Ed25519 key")?)?;
    }
    write_secret(&dir.join(FILES_KEY), &membership.seal.encode())?;
    let saved = Saved {
        cluster: membership.cluster,
        certificate: membership.certificate.clone(),
        since: membership.since,
        peers: peers.to_vec(),
    };
    write_secret(&dir.join(MEMBERSHIP), &serde_json::to_string_pretty(&saved)?)
}

/// Reads a membership, and where members were at first. Errors: there is none, or a file is damaged.
pub fn load(dir: &Path) -> anyhow::Result<(Membership, Vec<Multiaddr>)> {
    let path = dir.join(MEMBERSHIP);
    let text = read_if_there(&path)?.with_context(|| {
        format!(
            "{} belongs to no cluster yet: found one with 'vc-node init' or join one with 'vc-node join TOKEN'",
            dir.display()
        )
    })?;
    let saved: Saved =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let key = node_key(dir)?;
    let node = NodeId::of(&key.public())?;
    vc_protocol::token::verify_certificate(&saved.certificate, saved.cluster, Some(node))
        .with_context(|| format!("the certificate in {} does not fit node.key", path.display()))?;
    let root = read_if_there(&dir.join(CLUSTER_KEY))?
        .map(|text| decode_key(&text).context("cluster.key is damaged"))
        .transpose()?;
    let text = read_if_there(&dir.join(FILES_KEY))?.with_context(|| {
        format!(
            "{0}/{FILES_KEY} is missing, the key of the cluster's secrets: copy it from another member's data directory, \
             or join again with another --data-dir",
            dir.display()
        )
    })?;
    let seal = Seal::decode(&text).context("files.key is damaged")?;
    let membership = Membership {
        key,
        node,
        cluster: saved.cluster,
        certificate: saved.certificate,
        root,
        seal,
        since: saved.since,
    };
    Ok((membership, saved.peers))
}

/// Writes a file that only its owner reads, whole or not at all.
pub fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let next = path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        match path.parent() {
            Some(dir) => fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
