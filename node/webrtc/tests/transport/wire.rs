//! What a browser puts on the wire: connectivity checks, their credentials, and frames.

use bytes::Buf;
use is::{
    DefaultSha1HmacProvider, Sha1HmacProvider,
    stun::{StunMessage, TransId},
};
use libp2p::identity::ed25519::SecretKey;

/// The version of the WebRTC-direct handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    One,
    Two,
}

pub const FIN: u8 = 0;
pub const STOP_SENDING: u8 = 1;
pub const RESET: u8 = 2;
pub const FIN_ACK: u8 = 3;

fn random(length: usize) -> String {
    SecretKey::generate()
        .as_ref()
        .iter()
        .cycle()
        .take(length)
        .map(|b| char::from(b'a' + b % 26))
        .collect()
}

/// Encodes a signed connectivity check.
pub fn check(username: &str, password: &str) -> Vec<u8> {
    let mut buffer = vec![0; 1024];
    let hmac = |key: &[u8], parts: &[&[u8]]| DefaultSha1HmacProvider.sha1_hmac(key, parts);
    let length = StunMessage::binding_request(username, TransId::new(), true, 7, 1, true)
        .to_bytes(Some(password.as_bytes()), &mut buffer, hmac)
        .unwrap();
    buffer.truncate(length);
    buffer
}

/// Generates a username and the password that signs its checks.
pub fn credentials(version: Version) -> (String, String) {
    match version {
        Version::One => {
            let name = format!("libp2p+webrtc+v1/{}", random(20));
            (format!("{name}:{name}"), name)
        }
        Version::Two => {
            let name = format!("libp2p+webrtc+v2/{}", random(24));
            (format!("{name}:{}", random(4)), name)
        }
    }
}

/// Encodes a frame with data.
pub fn frame(data: &[u8]) -> Vec<u8> {
    let mut inner = vec![0x12];
    put_varint(&mut inner, data.len());
    inner.extend_from_slice(data);
    let mut frame = Vec::new();
    put_varint(&mut frame, inner.len());
    frame.extend_from_slice(&inner);
    frame
}

/// Returns the data of a frame that has nothing else.
pub fn frame_data(mut frame: &[u8]) -> Vec<u8> {
    get_varint(&mut frame);
    assert_eq!(frame.get_u8(), 0x12);
    let length = get_varint(&mut frame);
    assert_eq!(length, frame.len());
    frame.to_vec()
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn get_varint(bytes: &mut &[u8]) -> usize {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes.get_u8();
        value |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}
