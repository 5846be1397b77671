//! Frames of a stream, as the libp2p WebRTC specification defines them: length-delimited protobuf messages.
//!
//! ```proto
//! message Message {
//!   enum Flag { FIN = 0; STOP_SENDING = 1; RESET_STREAM = 2; FIN_ACK = 3; }
//!   optional Flag flag = 1;
//!   optional bytes message = 2;
//! }
//! ```
//!
//! js-libp2p sends the length and the message as two SCTP messages, so the decoder treats a channel as a byte stream.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use prost::Message as _;

/// The longest frame including its length prefix, in bytes: what every browser can receive.
pub(crate) const MAX_FRAME: usize = 16 * 1024;

/// Space to reserve before the data of a frame, in bytes: two for the length, one for the key, two for the data's length.
pub(crate) const HEADER: usize = 5;

/// The protobuf key of `message`: field 2, length-delimited.
const DATA_KEY: u8 = 2 << 3 | 2;

/// The longest length prefix of a valid frame, in bytes.
const MAX_LENGTH_PREFIX: usize = 3;

/// A control flag of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Flag {
    /// The sender has finished writing.
    Fin = 0,
    /// The sender has stopped reading.
    StopSending = 1,
    /// The sender aborts the stream; data in flight may be lost.
    Reset = 2,
    /// Acknowledges a [`Flag::Fin`] and all data before it.
    FinAck = 3,
}

/// A frame on the wire. Unknown fields are skipped.
#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(enumeration = "Flag", optional, tag = "1")]
    flag: Option<i32>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    message: Option<Bytes>,
}

/// A decoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub flag: Option<Flag>,
    pub data: Bytes,
}

/// The peer sent bytes that are not a sequence of frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("invalid frame: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("frame of {0} bytes exceeds the maximum of {MAX_FRAME}")]
    TooLong(usize),
}

/// Encodes a frame that carries only a flag.
pub(crate) fn encode_flag(flag: Flag) -> Bytes {
    Wire { flag: Some(flag.into()), message: None }.encode_length_delimited_to_vec().into()
}

/// Writes the header of a frame with `length` bytes of data into the end of `space`, and returns how many leading bytes of
/// `space` are unused. `length` is at most [`MAX_FRAME`] - [`HEADER`].
///
/// Encodes in place: the data is written behind the reserved space, not copied into a [`Wire`].
pub(crate) fn write_header(space: &mut [u8; HEADER], length: usize) -> usize {
    let inner = 1 + prost::length_delimiter_len(length) + length;
    let key = HEADER - 1 - prost::length_delimiter_len(length);
    let unused = key - prost::length_delimiter_len(inner);
    space[key] = DATA_KEY;
    // These fail only for lack of space, which was computed above.
    let _ = prost::encode_length_delimiter(inner, &mut &mut space[unused..key]);
    let _ = prost::encode_length_delimiter(length, &mut &mut space[key + 1..]);
    unused
}

/// Reassembles frames from the bytes of a channel. Buffers at most one incomplete frame.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    partial: BytesMut,
}

impl Decoder {
    /// Feeds received bytes and calls `on_frame` with each frame that is now complete.
    pub(crate) fn push(
        &mut self,
        mut bytes: Bytes,
        mut on_frame: impl FnMut(Frame),
    ) -> Result<(), FrameError> {
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(&bytes);
            if next_frame(&self.partial)?.is_none() {
                return Ok(());
            }
            bytes = self.partial.split().freeze();
        }
        while let Some(range) = next_frame(&bytes)? {
            let rest = bytes.split_off(range.end);
            on_frame(decode(bytes.slice(range.start..))?);
            bytes = rest;
        }
        self.partial.extend_from_slice(&bytes);
        Ok(())
    }
}

/// Returns where the first frame lies in `bytes`, without its length prefix, or `None` until it is complete.
fn next_frame(bytes: &[u8]) -> Result<Option<Range<usize>>, FrameError> {
    let mut rest = bytes;
    match prost::decode_length_delimiter(&mut rest) {
        Ok(length) if length > MAX_FRAME => Err(FrameError::TooLong(length)),
        Ok(length) => {
            let start = bytes.len() - rest.len();
            Ok((rest.len() >= length).then_some(start..start + length))
        }
        Err(_) if bytes.len() < MAX_LENGTH_PREFIX => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn decode(bytes: Bytes) -> Result<Frame, FrameError> {
    let Wire { flag, message } = Wire::decode(bytes)?;
    // A flag of a later version is ignored.
    let flag = flag.and_then(|flag| Flag::try_from(flag).ok());
    Ok(Frame { flag, data: message.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(bytes: &[u8]) -> Vec<u8> {
        let mut space = [0; HEADER];
        let unused = write_header(&mut space, bytes.len());
        [&space[unused..], bytes].concat()
    }

    /// Decodes bytes that arrive split at the given offsets.
    fn decode_split(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Frame>, FrameError> {
        let (mut decoder, mut frames, mut from) = (Decoder::default(), Vec::new(), 0);
        for &to in cuts.iter().chain([&bytes.len()]) {
            decoder.push(Bytes::copy_from_slice(&bytes[from..to]), |frame| frames.push(frame))?;
            from = to;
        }
        assert!(decoder.partial.is_empty());
        Ok(frames)
    }

    #[test]
    fn every_flag_round_trips() {
        for (sent, wire) in [
            (Flag::Fin, [2, 8, 0]),
            (Flag::StopSending, [2, 8, 1]),
            (Flag::Reset, [2, 8, 2]),
            (Flag::FinAck, [2, 8, 3]),
        ] {
            assert_eq!(encode_flag(sent)[..], wire);
            let frames = decode_split(&wire, &[]).unwrap();
            assert_eq!(frames, [Frame { flag: Some(sent), data: Bytes::new() }]);
        }
    }

    #[test]
    fn the_longest_frame_is_as_long_as_a_browser_can_receive() {
        let bytes = encode(&[7; MAX_FRAME - HEADER]);
        assert_eq!(bytes.len(), MAX_FRAME);
        assert_eq!(decode_split(&bytes, &[]).unwrap()[0].data.len(), MAX_FRAME - HEADER);
    }

    #[test]
    fn a_header_written_in_place_equals_the_encoded_message() {
        for length in [0, 1, 123, 124, 125, 126, 127, 128, 129, 16_000] {
            let message = Some(vec![7; length].into());
            let encoded = Wire { flag: None, message }.encode_length_delimited_to_vec();
            assert_eq!(encode(&vec![7; length]), encoded);
        }
    }

    #[test]
    fn a_frame_with_data_a_flag_and_unknown_fields_is_decoded() {
        let bytes = [11, 0x12, 2, b'h', b'i', 0x08, 0, 0x18, 9, 0x22, 1, 5];
        let frames = decode_split(&bytes, &[]).unwrap();
        assert_eq!(frames, [Frame { flag: Some(Flag::Fin), data: Bytes::from_static(b"hi") }]);
    }

    #[test]
    fn an_unknown_flag_is_ignored() {
        let frames = decode_split(&[6, 0x08, 9, 0x12, 2, b'h', b'i'], &[]).unwrap();
        assert_eq!(frames, [Frame { flag: None, data: Bytes::from_static(b"hi") }]);
    }

    #[test]
    fn a_frame_over_the_maximum_is_rejected_by_its_length_prefix() {
        for length in [&[0x81, 0x80, 0x01][..], &[0xff, 0xff, 0xff]] {
            assert!(decode_split(length, &[]).is_err());
            assert!(decode_split(length, &[1, 2]).is_err());
        }
    }

    proptest! {
        #[test]
        fn frames_are_decoded_however_they_are_split(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 1..6),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let bytes: Vec<u8> = parts.iter().flat_map(|part| encode(part)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.sort_unstable();
            let read: Vec<Vec<u8>> = decode_split(&bytes, &cuts).unwrap().into_iter().map(|frame| frame.data.to_vec()).collect();
            prop_assert_eq!(read, parts);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_the_buffer_stays_bounded(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let mut decoder = Decoder::default();
            for chunk in chunks {
                if decoder.push(Bytes::from(chunk), |_| {}).is_err() {
                    break;
                }
                prop_assert!(decoder.partial.len() <= MAX_FRAME + MAX_LENGTH_PREFIX);
            }
        }
    }
}
