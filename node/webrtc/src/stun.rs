//! ICE lite (RFC 8445): answers connectivity checks, all that a server with a known address needs.
//!
//! There is no signalling to exchange ICE credentials, so the specification carries them in the `USERNAME` of every check,
//! `SERVER_UFRAG:CLIENT_UFRAG`:
//! - version 1: `libp2p+webrtc+v1/RANDOM` is both sides' ufrag and password;
//! - version 2: the server's ufrag and password are `libp2p+webrtc+v2/PASSWORD`, where PASSWORD is the client's; the client
//!   chooses its ufrag freely.
//!
//! Either way a check is signed with the server's ufrag, which the check itself carries, so anyone can sign. The signature filters
//! out malformed packets and binds later checks to the first one's ufrag, which only the client and on-path observers know. It
//! does not authenticate: Noise does.

use std::net::SocketAddr;

use is::{
    DefaultSha1HmacProvider, Sha1HmacProvider,
    stun::{StunMessage, TransId},
};

const V1: &str = "libp2p+webrtc+v1/";
const V2: &str = "libp2p+webrtc+v2/";

/// Length of an ICE ufrag, in characters (RFC 8839, 5.4).
const UFRAG_LENGTH: std::ops::RangeInclusive<usize> = 4..=256;
/// Length of an ICE password, in characters (RFC 8839, 5.4).
const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 22..=256;

/// The longest check that is parsed, in bytes. Browsers send about 200.
const MAX_CHECK: usize = 1200;
/// The message type of a binding request (RFC 8489, section 5).
const BINDING_REQUEST: [u8; 2] = [0, 1];

/// A connectivity check with a valid signature.
#[derive(Debug)]
pub(crate) struct Check<'a> {
    /// `SERVER_UFRAG:CLIENT_UFRAG`: identifies the client.
    pub username: &'a str,
    /// USE-CANDIDATE: the client nominates this path.
    pub nominated: bool,
    id: TransId,
}

/// Why a datagram is not answered as a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("not a binding request")]
    NotABindingRequest,
    #[error("the username is not of webrtc-direct version 1 or 2")]
    Username,
    #[error("the message integrity does not match the username")]
    Signature,
}

/// Returns whether a datagram's first byte marks it as STUN (RFC 7983).
pub(crate) fn is_stun(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(0..=3))
}

/// Returns whether a datagram's first byte marks it as DTLS (RFC 7983).
pub(crate) fn is_dtls(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(20..=63))
}

/// Returns the password that signs checks with this username, or `None` for an unknown version.
fn password(username: &str) -> Option<&str> {
    let (server, client) = username.split_once(':')?;
    if !is_ice_chars(server, UFRAG_LENGTH) || !is_ice_chars(client, UFRAG_LENGTH) {
        return None;
    }
    let known = if server.starts_with(V1) {
        server == client
    } else if let Some(password) = server.strip_prefix(V2) {
        is_ice_chars(password, PASSWORD_LENGTH)
    } else {
        false
    };
    known.then_some(server)
}

fn is_ice_chars(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    DefaultSha1HmacProvider.sha1_hmac(key, parts)
}

impl<'a> Check<'a> {
    /// Parses a datagram and verifies its signature.
    pub(crate) fn read(datagram: &'a [u8]) -> Result<Self, CheckError> {
        if datagram.len() > MAX_CHECK || !datagram.starts_with(&BINDING_REQUEST) {
            return Err(CheckError::NotABindingRequest);
        }
        let message = StunMessage::parse(datagram).map_err(|_| CheckError::NotABindingRequest)?;
        if !message.is_binding_request() {
            return Err(CheckError::NotABindingRequest);
        }
        let username = message.username().ok_or(CheckError::Username)?;
        let password = password(username).ok_or(CheckError::Username)?;
        if !message.verify(password.as_bytes(), hmac) {
            return Err(CheckError::Signature);
        }
        Ok(Self { username, nominated: message.use_candidate(), id: message.trans_id() })
    }

    /// Encodes the signed answer to a check received from `source`.
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

    /// Encodes a check as a browser does.
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
    fn a_version_1_check_is_signed_with_the_shared_ufrag() {
        let name = "libp2p+webrtc+v1/abcdefgh";
        let datagram = check(&format!("{name}:{name}"), name);
        let check = Check::read(&datagram).unwrap();
        assert_eq!(check.username, format!("{name}:{name}"));
        assert!(check.nominated);
    }

    #[test]
    fn a_version_2_check_carries_the_clients_password_in_the_server_ufrag() {
        let server = format!("{V2}{CLIENT_PASSWORD}");
        let datagram = check(&format!("{server}:aBcD"), &server);
        assert!(Check::read(&datagram).is_ok());
    }

    #[test]
    fn usernames_of_unknown_versions_are_rejected() {
        let v2 = format!("{V2}{CLIENT_PASSWORD}");
        for (username, password) in [
            (
                "libp2p+webrtc+v3/0123456789abcdefghijkl:abcd".to_owned(),
                "libp2p+webrtc+v3/0123456789abcdefghijkl",
            ),
            ("abcdefgh:abcdefgh".to_owned(), "abcdefgh"),
            // Version 1 with two different ufrags.
            (format!("{V1}abcd:{V1}efgh"), "libp2p+webrtc+v1/abcd"),
            // A password shorter than ICE allows.
            (format!("{V2}tooshort:abcd"), "libp2p+webrtc+v2/tooshort"),
            // A client ufrag that is too short, and one with a line break.
            (format!("{v2}:abc"), &v2),
            (format!("{v2}:abcd\r\n"), &v2),
            (format!("{v2}:ab:cd"), &v2),
        ] {
            assert_eq!(
                Check::read(&check(&username, password)).err(),
                Some(CheckError::Username),
                "{username:?}"
            );
        }
    }

    #[test]
    fn a_check_signed_with_another_password_is_rejected() {
        let name = format!("{V1}abcdefgh");
        let datagram = check(&format!("{name}:{name}"), "another password");
        assert_eq!(Check::read(&datagram).err(), Some(CheckError::Signature));
    }

    #[test]
    fn the_answer_contains_the_source_address_and_is_signed() {
        let name = format!("{V1}abcdefgh");
        let datagram = check(&format!("{name}:{name}"), &name);
        for source in ["192.0.2.1:1234", "[2001:db8::1]:1234"] {
            let source = source.parse().unwrap();
            let answer = Check::read(&datagram).unwrap().answer(source).unwrap();
            let message = StunMessage::parse(&answer).unwrap();
            assert!(message.is_successful_binding_response());
            assert_eq!(message.mapped_address(), Some(source));
            assert!(message.verify(name.as_bytes(), hmac));
            assert!(answer.len() <= datagram.len(), "an answer does not amplify");
        }
    }

    proptest! {
        #[test]
        fn a_check_with_any_signed_bit_flipped_is_rejected(at in 0usize..100, bit in 0u8..8) {
            let name = format!("{V1}abcdefgh");
            let mut datagram = check(&format!("{name}:{name}"), &name);
            // The last 8 bytes are a checksum that the signature does not cover.
            let at = at % (datagram.len() - 8);
            datagram[at] ^= 1 << bit;
            prop_assert!(Check::read(&datagram).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_rejected(datagram in proptest::collection::vec(any::<u8>(), 0..1500)) {
            prop_assert!(Check::read(&datagram).is_err());
        }

        #[test]
        fn an_accepted_username_is_of_a_known_version(username in "\\PC{0,300}") {
            if let Some(password) = password(&username) {
                prop_assert!(password.starts_with(V1) || password.starts_with(V2));
            }
        }

        #[test]
        fn every_version_1_ufrag_is_accepted(random in "[a-zA-Z0-9+/]{1,239}") {
            let name = format!("{V1}{random}");
            let username = format!("{name}:{name}");
            prop_assert_eq!(password(&username), Some(name.as_str()));
        }

        #[test]
        fn every_version_2_password_is_accepted(secret in "[a-zA-Z0-9+/]{22,239}", client in "[a-zA-Z0-9+/]{4,256}") {
            let name = format!("{V2}{secret}");
            let username = format!("{name}:{client}");
            prop_assert_eq!(password(&username), Some(name.as_str()));
        }
    }
}
