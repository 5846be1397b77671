//! What a browser sends: connectivity checks, the frames of data channels, and SCTP chunks.

use std::net::SocketAddr;
use std::time::Duration;

use vc_webrtc::fuzzing::{SctpServer, answer_check, receive_messages, sign_check};

use crate::pieces::{Pieces, piece};

/// The most packets of an input: more are no other code.
const MAX_PACKETS: usize = 64;

/// Runs a datagram, a signed check or the messages of a channel, by the first byte.
pub(crate) fn run(data: &[u8]) {
    let mut pieces = Pieces(data);
    match pieces.byte() % 3 {
        0 => check(pieces.0),
        1 => {
            let username = String::from_utf8_lossy(pieces.piece()).into_owned();
            if username.len() < 600 {
                check(&sign_check(&username, pieces.bytes(600)));
            }
        }
        _ => receive_messages(std::iter::from_fn(|| {
            (!pieces.is_empty()).then(|| (pieces.byte(), pieces.piece()))
        })),
    }
}

/// Asserts that an answer is not longer than the check, so that it amplifies nothing.
fn check(datagram: &[u8]) {
    let sources = ["192.0.2.1:1", "[2001:db8::1]:1"];
    for source in sources.iter().filter_map(|it| it.parse::<SocketAddr>().ok()) {
        if let Some(answer) = answer_check(datagram, source) {
            assert!(answer.len() <= datagram.len(), "{} > {}", answer.len(), datagram.len());
        }
    }
}

/// Runs the packets of a client after its handshake.
pub(crate) fn sctp(data: &[u8]) {
    let mut pieces = Pieces(data);
    let mut server = SctpServer::connect();
    for _ in 0..MAX_PACKETS {
        if pieces.is_empty() {
            break;
        }
        let wait = pieces.byte();
        if !server.receive(pieces.piece()) {
            break;
        }
        if wait > 0 {
            server.wait(Duration::from_millis(u64::from(wait) * 20));
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let v1 = "libp2p+webrtc+v1/abcdefgh";
    let v2 = "libp2p+webrtc+v2/0123456789abcdefghijkl+/";
    let frames: &[&[u8]] =
        &[b"\x06\x12\x04data", b"\x02\x08\x00", b"\x02\x08\x03", b"\x02\x08\x01"];
    let channel = |action: u8| {
        let messages = frames.iter().flat_map(|it| [vec![action], piece(it)].concat());
        std::iter::once(2).chain(messages).collect()
    };
    let mut seeds: Vec<Vec<u8>> = (0..8).map(channel).collect();
    for username in [format!("{v1}:{v1}"), format!("{v2}:aBcD")] {
        let attributes = [0, 0x25, 0, 0, 0, 0x24, 0, 4, 1, 2, 3, 4];
        seeds.push([vec![1], piece(username.as_bytes()), attributes.to_vec()].concat());
        seeds.push([vec![0], sign_check(&username, &attributes)].concat());
    }
    seeds
}

pub(crate) fn sctp_seeds() -> Vec<Vec<u8>> {
    /// Returns a chunk with its length, padded.
    fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
        let length = (4 + value.len()) as u16;
        let mut chunk = [&[kind, flags][..], &length.to_be_bytes(), value].concat();
        chunk.resize(chunk.len().next_multiple_of(4), 0);
        chunk
    }
    let data = |tsn: u8, stream: u8, sequence: u8, kind: u8, bytes: &[u8]| {
        let header = [0, 0, 0, tsn, 0, stream, 0, sequence, 0, 0, 0, kind];
        chunk(0, 3, &[&header, bytes].concat())
    };
    let open = data(0, 1, 0, 50, &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let sack = chunk(3, 0, &[0, 0, 0, 1, 0, 16, 0, 0, 0, 1, 0, 0, 0, 2, 0, 2]);
    let reset = chunk(130, 0, &[0, 13, 0, 18, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0]);
    let packets: Vec<Vec<u8>> = vec![
        open.clone(),
        data(1, 1, 1, 53, b"\x06\x12\x04data"),
        [data(3, 2, 0, 53, b"ahead"), data(2, 2, 1, 53, b"of it")].concat(),
        sack,
        reset,
        chunk(4, 0, &[0, 1, 0, 8, 1, 2, 3, 4]),
        chunk(9, 0, &[0, 1, 0, 8, 0, 1, 0, 0]),
        chunk(7, 0, &[0, 0, 0, 0]),
        chunk(192, 0, &[0, 0, 0, 5]),
        chunk(6, 0, &[]),
    ];
    let input = |packet: &Vec<u8>| [vec![0], piece(packet)].concat();
    let mut seeds: Vec<Vec<u8>> =
        packets.iter().map(|it| [input(&open), input(it)].concat()).collect();
    seeds.push(packets.iter().flat_map(input).collect());
    seeds.push(packets.iter().flat_map(|it| [vec![30], piece(it)].concat()).collect());
    seeds
}
