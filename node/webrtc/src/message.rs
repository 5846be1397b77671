//! The messages of a stream, as libp2p frames them on data channels: protobuf with a length before it.
//!
//! ```proto
//! message Message {
//!   enum Flag { FIN = 0; STOP_SENDING = 1; RESET_STREAM = 2; FIN_ACK = 3; }
//!   optional Flag flag = 1;
//!   optional bytes message = 2;
//! }
//! ```
//!
//! Two fields do not warrant a protobuf library: written and read by hand. A length and its message may come as two messages
//! of the channel (js-libp2p does that), so what a channel receives is one run of bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest message with its length, in bytes: what every browser can receive.
pub(crate) const MAX_MESSAGE: usize = 16 * 1024;

/// Bytes before the data of a message that carries nothing else: two of length, a tag, two of length.
pub(crate) const HEADER: usize = 5;

const FLAG: u8 = 1 << 3;
const DATA: u8 = 2 << 3 | 2;

/// What a message says beside its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    /// The sender will send no more.
    Fin = 0,
    /// The sender reads no more.
    StopSending = 1,
    /// The sender gives up: what is on its way may be lost.
    Reset = 2,
    /// The other side's [`Flag::Fin`], and with it all that was sent before, has come.
    FinAck = 3,
}

/// A message as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub flag: Option<Flag>,
    pub data: Bytes,
}

/// What a peer sent is no run of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed stream message")]
pub(crate) struct Malformed;

/// A message of one flag.
pub(crate) fn flag(flag: Flag) -> Bytes {
    Bytes::copy_from_slice(&[2, FLAG, flag as u8])
}

/// Puts the header of a message before `length` bytes of data, into the last bytes of `space`, and says how many of the bytes
/// of `space` are not used. `length` is at most [`MAX_MESSAGE`] less [`HEADER`].
pub(crate) fn header(space: &mut [u8; HEADER], length: usize) -> usize {
    let mut bytes = [0; HEADER];
    let mut rest = &mut bytes[..];
    let inner = 1 + varint_length(length) + length;
    put_varint(&mut rest, inner);
    rest.put_u8(DATA);
    put_varint(&mut rest, length);
    let unused = rest.len();
    space[unused..].copy_from_slice(&bytes[..HEADER - unused]);
    unused
}

fn varint_length(value: usize) -> usize {
    if value < 0x80 { 1 } else { 2 }
}

fn put_varint(out: &mut &mut [u8], mut value: usize) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Puts the bytes of a channel together to messages. Holds at most one message.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The beginning of a message whose end has not come yet.
    partial: BytesMut,
}

impl Decoder {
    /// Takes what a channel received; `each` is called with every message that is complete now.
    pub(crate) fn push(
        &mut self,
        mut bytes: Bytes,
        mut each: impl FnMut(Message),
    ) -> Result<(), Malformed> {
        while !self.partial.is_empty() {
            // One byte of length after another; then the rest of the message at once.
            let wanted = match split_length(&self.partial)? {
                None => 1,
                Some((prefix, length)) if self.partial.len() < prefix + length => {
                    prefix + length - self.partial.len()
                }
                Some((prefix, length)) => {
                    let mut message = self.partial.split().freeze();
                    message.advance(prefix);
                    debug_assert_eq!(message.len(), length);
                    each(decode(message)?);
                    break;
                }
            };
            // A whole message behind a length that came alone: no copy.
            if let Some((prefix, length)) = split_length(&self.partial)?
                && prefix == self.partial.len()
                && bytes.len() >= length
            {
                self.partial.clear();
                each(decode(bytes.split_to(length))?);
                break;
            }
            if bytes.is_empty() {
                return Ok(());
            }
            self.partial.extend_from_slice(&bytes.split_to(wanted.min(bytes.len())));
        }
        while !bytes.is_empty() {
            match split_length(&bytes)? {
                Some((prefix, length)) if bytes.len() >= prefix + length => {
                    bytes.advance(prefix);
                    each(decode(bytes.split_to(length))?);
                }
                _ => {
                    self.partial.extend_from_slice(&bytes);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The length that a message begins with: how many bytes it takes, and what it says. None if its end is missing.
fn split_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut rest = bytes;
    match varint(&mut rest) {
        Ok(length) if length as usize <= MAX_MESSAGE => {
            Ok(Some((bytes.len() - rest.len(), length as usize)))
        }
        Ok(_) => Err(Malformed),
        // Three bytes say more than the longest message.
        Err(Malformed) if bytes.len() < 3 => Ok(None),
        Err(Malformed) => Err(Malformed),
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn decode(message: Bytes) -> Result<Message, Malformed> {
    let mut decoded = Message { flag: None, data: Bytes::new() };
    let mut rest = &message[..];
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut rest)?;
                if tag == u64::from(FLAG) {
                    decoded.flag = match value {
                        0 => Some(Flag::Fin),
                        1 => Some(Flag::StopSending),
                        2 => Some(Flag::Reset),
                        3 => Some(Flag::FinAck),
                        // Of a later version: protobuf takes an unknown value for none.
                        _ => decoded.flag,
                    };
                }
            }
            2 => {
                let length = usize::try_from(varint(&mut rest)?).map_err(|_| Malformed)?;
                let field = rest.get(..length).ok_or(Malformed)?;
                rest = &rest[length..];
                if tag == u64::from(DATA) {
                    decoded.data = message.slice_ref(field);
                }
            }
            1 => rest = rest.get(8..).ok_or(Malformed)?,
            5 => rest = rest.get(4..).ok_or(Malformed)?,
            _ => return Err(Malformed),
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(bytes: &[u8]) -> Vec<u8> {
        let mut space = [0; HEADER];
        let unused = header(&mut space, bytes.len());
        [&space[unused..], bytes].concat()
    }

    /// What a decoder makes of the bytes when they come cut at the given places.
    fn decoded(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Message>, Malformed> {
        let (mut decoder, mut messages, mut from) = (Decoder::default(), Vec::new(), 0);
        for &to in cuts.iter().chain([&bytes.len()]) {
            decoder
                .push(Bytes::copy_from_slice(&bytes[from..to]), |message| messages.push(message))?;
            from = to;
        }
        assert!(decoder.partial.is_empty());
        Ok(messages)
    }

    #[test]
    fn every_flag_is_read_as_it_was_written() {
        for sent in [Flag::Fin, Flag::StopSending, Flag::Reset, Flag::FinAck] {
            let messages = decoded(&flag(sent), &[]).unwrap();
            assert_eq!(messages, [Message { flag: Some(sent), data: Bytes::new() }]);
        }
    }

    #[test]
    fn the_longest_message_is_as_long_as_a_browser_can_receive() {
        let bytes = data(&[7; MAX_MESSAGE - HEADER]);
        assert_eq!(bytes.len(), MAX_MESSAGE);
        assert_eq!(decoded(&bytes, &[]).unwrap()[0].data.len(), MAX_MESSAGE - HEADER);
    }

    #[test]
    fn a_message_with_data_and_a_flag_and_fields_of_a_later_version_is_read() {
        let bytes = [11, 0x12, 2, b'h', b'i', 0x08, 0, 0x18, 9, 0x22, 1, 5];
        let messages = decoded(&bytes, &[]).unwrap();
        assert_eq!(messages, [Message { flag: Some(Flag::Fin), data: Bytes::from_static(b"hi") }]);
    }

    #[test]
    fn a_message_longer_than_any_is_refused_before_it_comes() {
        for length in [&[0x81, 0x80, 0x01][..], &[0xff, 0xff, 0xff]] {
            assert_eq!(decoded(length, &[]), Err(Malformed));
            assert_eq!(decoded(length, &[1, 2]), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn messages_are_read_however_they_are_cut(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 1..6),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let bytes: Vec<u8> = parts.iter().flat_map(|part| data(part)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.sort_unstable();
            let read: Vec<Vec<u8>> = decoded(&bytes, &cuts).unwrap().into_iter().map(|m| m.data.to_vec()).collect();
            prop_assert_eq!(read, parts);
        }

        #[test]
        fn garbage_never_panics_and_never_piles_up(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let mut decoder = Decoder::default();
            for chunk in chunks {
                if decoder.push(Bytes::from(chunk), |_| {}).is_err() {
                    break;
                }
                prop_assert!(decoder.partial.len() <= MAX_MESSAGE + 3);
            }
        }
    }
}
