//! Addresses of members from earlier sessions, one file per cluster. With them the CLI works when the nodes named in the
//! token have left.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use vc_client::address;
use vc_protocol::ClusterId;

use crate::files;

/// The most addresses stored of a cluster.
const MAX_REMEMBERED: usize = 32;
/// The largest file that is read, in bytes.
const MAX_FILE: usize = 64 * 1024;

#[derive(Default, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    /// Best first.
    peers: Vec<Multiaddr>,
}

/// Returns the stored addresses of a cluster, best first; none when the file cannot be read.
pub(crate) fn load(cluster: ClusterId) -> Vec<Multiaddr> {
    path(cluster).map(|path| load_from(&path).peers).unwrap_or_default()
}

/// Stores the address that accepted the token, those of the members that it named, and earlier ones up to the limit.
pub(crate) fn remember(
    cluster: ClusterId,
    connected_to: &Multiaddr,
    members: &[Multiaddr],
) -> io::Result<()> {
    match path(cluster) {
        Some(path) => remember_in(&path, connected_to, members),
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

fn remember_in(path: &Path, connected_to: &Multiaddr, members: &[Multiaddr]) -> io::Result<()> {
    let old = load_from(path);
    let all = std::iter::once(connected_to).chain(members).chain(&old.peers).cloned();
    let new = File { peers: choose(all) };
    if new == old {
        return Ok(());
    }
    files::write_private(path, &serde_json::to_string(&new)?)
}

/// Selects the addresses to store: dialable, each once, and one of every member before a second of any.
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
    fn the_last_address_comes_first_and_older_ones_stay_up_to_the_limit() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("vc/cluster.json");
        assert!(load_from(&path).peers.is_empty());
        remember_in(&path, &at(1, 1), &[at(1, 1), at(2, 1)]).expect("written");
        remember_in(&path, &at(3, 1), &[at(3, 1), at(2, 1)]).expect("written");
        assert_eq!(load_from(&path).peers, [at(3, 1), at(2, 1), at(1, 1)]);
        std::fs::write(&path, "{").expect("written");
        assert!(load_from(&path).peers.is_empty(), "a damaged file counts as empty");
    }

    #[test]
    fn one_address_of_every_member_is_stored_before_a_second_of_any() {
        let many = (1..=20).flat_map(|n| (1..=4).map(move |port| at(n, port)));
        let kept =
            choose(many.chain(["/ip4/10.0.0.1/udp/1/webrtc-direct".parse().expect("an address")]));
        assert_eq!(kept.len(), MAX_REMEMBERED);
        let peers: BTreeSet<_> = kept.iter().map(peer_of).collect();
        assert_eq!(peers.len(), 20);
        assert_eq!(kept[..20].iter().map(peer_of).collect::<BTreeSet<_>>().len(), 20);
    }
}
