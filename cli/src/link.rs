//! A link that signs a browser in: the URL of the console with a token and addresses of members in its fragment, which
//! browsers do not send to servers.

use vc_protocol::control::{NodeRow, NodeStatus};
use vc_protocol::{AddressKind, Millis, Multiaddr};

use crate::credentials::Credential;

/// The most addresses in a link, including those in its token. Through one member the console learns of the others.
const MAX_PEERS: usize = 6;

/// Returns a link to the console at this URL, which ends in a slash or a file name.
pub(crate) fn to(console: &str, credential: &Credential, nodes: &[NodeRow]) -> String {
    let mut link = format!("{console}#token={}", credential.token);
    let known = credential.claims.peers.iter().filter(is_for_browsers);
    let known: Vec<&Multiaddr> = known.collect();
    let more = of_members(nodes).into_iter().filter(|address| !known.contains(&address));
    for address in more.take(MAX_PEERS.saturating_sub(known.len())) {
        link += "&peer=";
        link += &escaped(&address.to_string());
    }
    link
}

fn is_for_browsers(address: &&Multiaddr) -> bool {
    AddressKind::of(address) == Some(AddressKind::WebRtc)
}

/// Returns WebRTC addresses of the nodes that are up, one of each node before a second of any.
fn of_members(nodes: &[NodeRow]) -> Vec<Multiaddr> {
    let up = nodes.iter().filter(|row| row.state == NodeStatus::Up);
    let mut ranked: Vec<(usize, Multiaddr)> = up
        .flat_map(|row| {
            let addresses = row.addresses.iter().filter(is_for_browsers);
            // With the peer id, which the browser verifies.
            addresses.filter_map(|it| it.clone().with_p2p(row.id.peer_id()).ok()).enumerate()
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, address)| address).collect()
}

/// Percent-encodes what may not stand in the value of a fragment; slashes and colons may.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Returns when the token of a link expires.
pub(crate) fn expires(credential: &Credential) -> Millis {
    credential.claims.exp.unwrap_or(0).saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use vc_protocol::token::{Claims, Scope, UserLimits, UserRole};
    use vc_protocol::{ClusterId, Keypair};

    use super::*;
    use crate::render::golden::{self, node_id};

    /// Where browsers dial member `n`, at its `i`th address.
    fn browser(n: u8, i: u8) -> Multiaddr {
        let hash = "uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g";
        let text = format!("/ip4/10.0.{i}.{n}/udp/4778/webrtc-direct/certhash/{hash}");
        text.parse::<Multiaddr>()
            .expect("an address")
            .with_p2p(node_id(n).peer_id())
            .expect("a peer")
    }

    fn node(n: u8, state: NodeStatus) -> NodeRow {
        let native = format!("/ip4/10.0.0.{n}/tcp/4777").parse().expect("an address");
        let addresses = vec![native, browser(n, 0), browser(n, 1)];
        NodeRow { addresses, ..golden::node(n, &format!("n{n}"), state) }
    }

    fn credential(peers: Vec<Multiaddr>) -> Credential {
        let root = Keypair::ed25519_from_bytes([9; 32]).expect("32 bytes");
        let claims = Claims {
            aud: ClusterId::of(&root.public()).expect("ed25519"),
            iss: node_id(1),
            sub: "ada".to_owned(),
            jti: "7".to_owned(),
            iat: 0,
            exp: Some(5),
            scope: Scope::User(UserRole::Viewer),
            uses: None,
            peers,
            issuer: None,
            limits: UserLimits::default(),
            succession: Vec::new(),
        };
        Credential { token: "a.b-c.d_e".to_owned(), claims }
    }

    fn link(peers: Vec<Multiaddr>, nodes: &[NodeRow]) -> String {
        to("https://console.example/", &credential(peers), nodes)
    }

    #[test]
    fn a_link_names_each_up_member_before_a_second_address_of_any() {
        let nodes = [node(1, NodeStatus::Up), node(2, NodeStatus::Down), node(3, NodeStatus::Up)];
        let peers = [browser(1, 0), browser(3, 0), browser(1, 1), browser(3, 1)];
        let expected: String = peers.iter().map(|address| format!("&peer={address}")).collect();
        let start = "https://console.example/#token=a.b-c.d_e";
        assert_eq!(link(vec![], &nodes), format!("{start}{expected}"));
    }

    #[test]
    fn addresses_in_the_token_are_counted_and_not_repeated() {
        let nodes: Vec<NodeRow> = (1..=9).map(|n| node(n, NodeStatus::Up)).collect();
        let count = |link: &str| link.matches("&peer=").count();
        assert_eq!(count(&link(vec![], &nodes)), MAX_PEERS);
        let named: Vec<Multiaddr> = (1..=4).map(|n| browser(n, 0)).collect();
        let short = link(named.clone(), &nodes);
        assert_eq!(count(&short), 2, "{short}");
        assert!(named.iter().all(|address| !short.contains(&address.to_string())), "{short}");
        assert_eq!(count(&link((1..=9).map(|n| browser(n, 0)).collect(), &nodes)), 0);
    }

    #[test]
    fn reserved_characters_in_addresses_are_escaped() {
        assert_eq!(escaped("/ip6zone/a&b=c#d%/x:1"), "/ip6zone/a%26b%3Dc%23d%25/x:1");
        assert_eq!(expires(&credential(vec![])), 5000);
    }
}
