//! The only ICE that a server with a known address needs ("ICE lite"): answers to connectivity checks.
//!
//! A browser cannot tell the node its ICE credentials before it knocks, so the specification puts them into the `USERNAME`
//! of every check, `SERVER:CLIENT`:
//! - `libp2p+webrtc+v1/RANDOM` on both sides, and the same text is both passwords;
//! - `libp2p+webrtc+v2/PASSWORD` as the server's, where PASSWORD is the client's own; the client's name is its own, too.
//!
//! Either way a check is signed with the server's name, which the check itself carries: whoever can write the name can sign.
//! The signature therefore tells well-formed checks from noise, and binds later packets to the name that the first one chose
//! (which only the client and those on the path know). It authenticates nobody: Noise does, later.

use std::net::SocketAddr;

use is::{
    DefaultSha1HmacProvider, Sha1HmacProvider,
    stun::{StunMessage, TransId},
};

const V1: &str = "libp2p+webrtc+v1/";
const V2: &str = "libp2p+webrtc+v2/";

/// How long a name (`ufrag`) of ICE may be, in characters (RFC 8839, 5.4).
const NAME: std::ops::RangeInclusive<usize> = 4..=256;
/// How long a password of ICE may be, in characters.
const PASSWORD: std::ops::RangeInclusive<usize> = 22..=256;

/// The longest check that is looked at, in bytes. Browsers send some 200.
const MAX_CHECK: usize = 1200;
/// The type of a request for a binding (RFC 8489, section 5).
const BINDING_REQUEST: [u8; 2] = [0, 1];

/// A connectivity check whose signature is right.
#[derive(Debug)]
pub(crate) struct Check<'a> {
    /// `SERVER:CLIENT`: what tells one client from another.
    pub username: &'a str,
    /// Whether the client wants this pair of addresses to be the one that is used.
    pub nominated: bool,
    id: TransId,
}

/// Why a datagram is no check of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("not a binding request")]
    NotACheck,
    #[error("the username is of no known version")]
    Username,
    #[error("the signature is wrong")]
    Signature,
}

/// Whether a datagram claims to be STUN (RFC 7983).
pub(crate) fn is_stun(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(0..=3))
}

/// Whether a datagram claims to be DTLS (RFC 7983).
pub(crate) fn is_dtls(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(20..=63))
}

/// The password that checks with this username are signed with.
fn password(username: &str) -> Option<&str> {
    let (server, client) = username.split_once(':')?;
    if !is_ice(server, NAME) || !is_ice(client, NAME) {
        return None;
    }
    let known = if server.starts_with(V1) {
        server == client
    } else if let Some(password) = server.strip_prefix(V2) {
        is_ice(password, PASSWORD)
    } else {
        false
    };
    known.then_some(server)
}

fn is_ice(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    DefaultSha1HmacProvider.sha1_hmac(key, parts)
}

impl<'a> Check<'a> {
    /// Reads a datagram.
    pub(crate) fn read(datagram: &'a [u8]) -> Result<Self, Refused> {
        if datagram.len() > MAX_CHECK || !datagram.starts_with(&BINDING_REQUEST) {
            return Err(Refused::NotACheck);
        }
        let message = StunMessage::parse(datagram).map_err(|_| Refused::NotACheck)?;
        if !message.is_binding_request() {
            return Err(Refused::NotACheck);
        }
        let username = message.username().ok_or(Refused::Username)?;
        let password = password(username).ok_or(Refused::Username)?;
        if !message.verify(password.as_bytes(), hmac) {
            return Err(Refused::Signature);
        }
        Ok(Self { username, nominated: message.use_candidate(), id: message.trans_id() })
    }

    /// The answer to a check that came from `source`.
    pub(crate) fn answer(&self, source: SocketAddr) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 128];
        let length = StunMessage::binding_reply(self.id, source).to_bytes(
            Some(password(self.username)?.as_bytes()),
            &mut buffer,
            hmac,
        );
        buffer.truncate(length.ok()?);
        Some(buffer)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A check as a browser writes it.
    pub(crate) fn check(username: &str, password: &str) -> Vec<u8> {
        let mut buffer = vec![0; 2048];
        let length = StunMessage::binding_request(username, TransId::new(), true, 7, 1, true)
            .to_bytes(Some(password.as_bytes()), &mut buffer, hmac)
            .unwrap();
        buffer.truncate(length);
        buffer
    }

    const CLIENT_PASSWORD: &str = "0123456789abcdefghijkl+/";

    #[test]
    fn a_check_of_version_one_is_signed_with_the_name_that_both_sides_have() {
        let name = "libp2p+webrtc+v1/abcdefgh";
        let datagram = check(&format!("{name}:{name}"), name);
        let check = Check::read(&datagram).unwrap();
        assert_eq!(check.username, format!("{name}:{name}"));
        assert!(check.nominated);
    }

    #[test]
    fn a_check_of_version_two_carries_the_clients_password_in_the_servers_name() {
        let server = format!("{V2}{CLIENT_PASSWORD}");
        let datagram = check(&format!("{server}:aBcD"), &server);
        assert!(Check::read(&datagram).is_ok());
    }

    #[test]
    fn usernames_of_no_known_version_are_refused() {
        let v2 = format!("{V2}{CLIENT_PASSWORD}");
        for (username, password) in [
            (
                "libp2p+webrtc+v3/0123456789abcdefghijkl:abcd".to_owned(),
                "libp2p+webrtc+v3/0123456789abcdefghijkl",
            ),
            ("abcdefgh:abcdefgh".to_owned(), "abcdefgh"),
            // Version one with two names.
            (format!("{V1}abcd:{V1}efgh"), "libp2p+webrtc+v1/abcd"),
            // A password that is too short for ICE.
            (format!("{V2}tooshort:abcd"), "libp2p+webrtc+v2/tooshort"),
            // A client's name that is too short, and one with a line's end in it.
            (format!("{v2}:abc"), &v2),
            (format!("{v2}:abcd\r\n"), &v2),
            (format!("{v2}:ab:cd"), &v2),
        ] {
            assert_eq!(
                Check::read(&check(&username, password)).err(),
                Some(Refused::Username),
                "{username:?}"
            );
        }
    }

    #[test]
    fn a_check_signed_with_anything_else_is_refused() {
        let name = format!("{V1}abcdefgh");
        let datagram = check(&format!("{name}:{name}"), "another password");
        assert_eq!(Check::read(&datagram).err(), Some(Refused::Signature));
    }

    #[test]
    fn the_answer_names_the_source_and_is_signed() {
        let name = format!("{V1}abcdefgh");
        let datagram = check(&format!("{name}:{name}"), &name);
        for source in ["192.0.2.1:1234", "[2001:db8::1]:1234"] {
            let source = source.parse().unwrap();
            let answer = Check::read(&datagram).unwrap().answer(source).unwrap();
            let message = StunMessage::parse(&answer).unwrap();
            assert!(message.is_successful_binding_response());
            assert_eq!(message.mapped_address(), Some(source));
            assert!(message.verify(name.as_bytes(), hmac));
            assert!(answer.len() <= datagram.len(), "an answer is no longer than the question");
        }
    }

    proptest! {
        #[test]
        fn a_check_with_any_bit_of_its_signed_part_turned_is_refused(at in 0usize..100, bit in 0u8..8) {
            let name = format!("{V1}abcdefgh");
            let mut datagram = check(&format!("{name}:{name}"), &name);
            // The last 8 bytes are a checksum that the signature does not cover.
            let at = at % (datagram.len() - 8);
            datagram[at] ^= 1 << bit;
            prop_assert!(Check::read(&datagram).is_err());
        }

        #[test]
        fn garbage_is_refused(datagram in proptest::collection::vec(any::<u8>(), 0..1500)) {
            prop_assert!(Check::read(&datagram).is_err());
        }

        #[test]
        fn any_text_as_a_username_is_refused_or_of_a_known_version(username in "\\PC{0,300}") {
            if let Some(password) = password(&username) {
                prop_assert!(password.starts_with(V1) || password.starts_with(V2));
            }
        }

        #[test]
        fn every_name_of_version_one_is_taken(random in "[a-zA-Z0-9+/]{1,239}") {
            let name = format!("{V1}{random}");
            let username = format!("{name}:{name}");
            prop_assert_eq!(password(&username), Some(name.as_str()));
        }

        #[test]
        fn every_password_of_version_two_is_taken(secret in "[a-zA-Z0-9+/]{22,239}", client in "[a-zA-Z0-9+/]{4,256}") {
            let name = format!("{V2}{secret}");
            let username = format!("{name}:{client}");
            prop_assert_eq!(password(&username), Some(name.as_str()));
        }
    }
}
