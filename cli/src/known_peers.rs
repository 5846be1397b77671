//! Addresses of members seen in earlier sessions, a file a cluster: with them the CLI works when the node that made
//! the token is long gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use vc_client::address;
use vc_protocol::ClusterId;

use crate::files;

/// At most so many addresses are remembered of a cluster.
const MAX_REMEMBERED: usize = 32;
/// The largest file that is read, in bytes.
const MAX_FILE: usize = 64 * 1024;

#[derive(Default, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    /// Best first.
    peers: Vec<Multiaddr>,
}

/// What is remembered of a cluster, best first. A file that cannot be read counts as none: it is only a memory.
pub(crate) fn load(cluster: ClusterId) -> Vec<Multiaddr> {
    path(cluster).map(|path| load_from(&path).peers).unwrap_or_default()
}

/// Keeps where we were welcomed, the members named there, and as many of the earlier ones as there is room for.
pub(crate) fn remember(
    cluster: ClusterId,
    welcomed_at: &Multiaddr,
    members: &[Multiaddr],
) -> io::Result<()> {
    match path(cluster) {
        Some(path) => remember_in(&path, welcomed_at, members),
        None => Ok(()),
    }
}

fn path(cluster: ClusterId) -> Option<PathBuf> {
    files::state(&format!("{cluster}.json"))
}

fn load_from(path: &Path) -> File {
    files::read(path, MAX_FILE)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

fn remember_in(path: &Path, welcomed_at: &Multiaddr, members: &[Multiaddr]) -> io::Result<()> {
    let old = load_from(path);
    let all = std::iter::once(welcomed_at).chain(members).chain(&old.peers).cloned();
    let new = File { peers: choose(all) };
    if new == old {
        return Ok(());
    }
    files::write_private(path, &serde_json::to_string(&new)?)
}

/// The addresses to keep: those that can be dialled, each once, and of every member one before the second of any.
fn choose(all: impl Iterator<Item = Multiaddr>) -> Vec<Multiaddr> {
    let mut seen = BTreeSet::new();
    let mut of_peer: BTreeMap<Option<PeerId>, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, Multiaddr)> = Vec::new();
    for address in all {
        let Some(plain) = address::without_peer(&address) else { continue };
        if address::is_unspecified(&plain) || !seen.insert(plain) {
            continue;
        }
        let rank = of_peer.entry(peer_of(&address)).or_default();
        ranked.push((*rank, address));
        *rank += 1;
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.truncate(MAX_REMEMBERED);
    ranked.into_iter().map(|(_, address)| address).collect()
}

fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    address.iter().find_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        vc_protocol::Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes").public().to_peer_id()
    }

    fn at(n: u8, port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.{n}/tcp/{port}/p2p/{}", peer(n)).parse().expect("an address")
    }

    #[test]
    fn what_worked_comes_first_and_old_ones_stay_while_there_is_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("vc/cluster.json");
        assert!(load_from(&path).peers.is_empty());
        remember_in(&path, &at(1, 1), &[at(1, 1), at(2, 1)]).expect("written");
        remember_in(&path, &at(3, 1), &[at(3, 1), at(2, 1)]).expect("written");
        assert_eq!(load_from(&path).peers, [at(3, 1), at(2, 1), at(1, 1)]);
        std::fs::write(&path, "{").expect("written");
        assert!(load_from(&path).peers.is_empty(), "a broken file is no memory, and no error");
    }

    #[test]
    fn every_member_is_kept_before_any_twice() {
        let many = (1..=20).flat_map(|n| (1..=4).map(move |port| at(n, port)));
        let kept =
            choose(many.chain(["/ip4/10.0.0.1/udp/1/webrtc-direct".parse().expect("an address")]));
        assert_eq!(kept.len(), MAX_REMEMBERED);
        let peers: BTreeSet<_> = kept.iter().map(peer_of).collect();
        assert_eq!(peers.len(), 20);
        assert_eq!(kept[..20].iter().map(peer_of).collect::<BTreeSet<_>>().len(), 20);
    }
}
