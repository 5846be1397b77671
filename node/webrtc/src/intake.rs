//! What SCTP is given of what a peer sends, so that no peer makes it hold or search more than it should.
//!
//! SCTP's own bound is its window, which counts bytes of data: nothing for a chunk without any, one for a chunk of one byte,
//! which takes a hundred times that and keeps its packet alive; and nothing at all for what was read while an earlier chunk is
//! missing. And each chunk makes it search and sort those that it holds. So chunks are counted here:
//!
//! - at most [`UNREAD`] that came and were not read, and [`AHEAD`] behind one that is missing: that bounds what SCTP holds
//!   (for packets are not longer than a path takes), and what one chunk costs;
//! - what is searched has to be in proportion to what was sent ([`EARNED`] for a byte): that bounds what a second costs.
//!
//! An honest peer stays far below, whatever it uploads: a full window is a thousand full chunks. The size of a chunk says
//! nothing: Chromium cuts a message wherever its own window ends.

use std::collections::HashSet;

use crate::link::RECEIVE_WINDOW;

/// Chunks of data that came and were not read: more end the connection.
const UNREAD: usize = 3072;
/// How far behind the first missing chunk others are taken; further ones are as good as lost, and come again.
const AHEAD: u32 = 4096;
/// How many chunks SCTP may look at for each byte that came.
const EARNED: u64 = 16;
/// What may be saved up of that: a window of the smallest messages, once, and then some.
const SAVED: u64 = 16 << 20;

/// Bytes of a packet beside SCTP's: the headers of IP, UDP and DTLS, about.
const CARRIAGE: usize = 100;
/// Before the first chunk of a packet, in bytes.
const PACKET_HEADER: usize = 12;
/// Before the data of a chunk of data, in bytes.
const DATA_HEADER: usize = 16;
/// Before the gaps of an acknowledgement, in bytes.
const SACK_HEADER: usize = 16;
const DATA: u8 = 0;
const SACK: u8 = 3;

/// Why a peer's packets are not taken any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Abuse {
    #[error("a chunk of data without data")]
    Empty,
    #[error("too many chunks that nobody can read")]
    Unread,
    #[error("its packets cost too much")]
    Costly,
}

/// The chunks of one association.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Up to which chunk all have come, as this side last said; none before it did.
    acknowledged: Option<u32>,
    /// Chunks that came behind that one. Each is counted as unread once, however often it comes.
    ahead: HashSet<u32>,
    unread: usize,
    saved: u64,
    /// Chunks since the last call of [`Intake::turn`].
    taken: usize,
}

/// The chunks of a packet, as far as their lengths make sense: type, and all bytes but the padding.
fn chunks(packet: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = packet.get(PACKET_HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
        let chunk = rest.get(..length).filter(|chunk| chunk.len() >= 4)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((chunk[0], chunk))
    })
}

fn number(chunk: &[u8], at: usize) -> Option<u32> {
    chunk.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// Whether a chunk comes behind another one: their numbers wrap.
fn behind(tsn: u32, other: u32) -> bool {
    tsn.wrapping_sub(other) as i32 > 0
}

impl Intake {
    pub(crate) fn new() -> Self {
        Self { acknowledged: None, ahead: HashSet::new(), unread: 0, saved: SAVED, taken: 0 }
    }

    /// Whether a packet that came is for SCTP. What is malformed is: SCTP knows best.
    pub(crate) fn arrives(&mut self, packet: &[u8]) -> Result<bool, Abuse> {
        self.saved = (self.saved + (packet.len() + CARRIAGE) as u64 * EARNED).min(SAVED);
        for (kind, chunk) in chunks(packet) {
            self.taken += 1;
            let held = 1 + self.unread + self.ahead.len();
            let searched = match kind {
                DATA => held,
                SACK => acknowledged(chunk),
                // Whatever else there is names at most so many things to look for.
                _ => held * chunk.len() / 4,
            };
            self.saved = self.saved.checked_sub(searched as u64).ok_or(Abuse::Costly)?;
            if kind == DATA && !self.data(chunk)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn data(&mut self, chunk: &[u8]) -> Result<bool, Abuse> {
        let Some(tsn) = number(chunk, 4).filter(|_| chunk.len() > DATA_HEADER) else {
            return Err(Abuse::Empty);
        };
        let acknowledged = *self.acknowledged.get_or_insert(tsn.wrapping_sub(1));
        if behind(tsn, acknowledged) {
            if tsn.wrapping_sub(acknowledged) > AHEAD {
                return Ok(false);
            }
            self.unread += usize::from(self.ahead.insert(tsn));
        }
        if self.unread > UNREAD { Err(Abuse::Unread) } else { Ok(true) }
    }

    /// A packet goes to the peer. Acknowledgements say what SCTP still waits for, and how much it holds.
    pub(crate) fn leaves(&mut self, packet: &[u8]) {
        for (_, chunk) in chunks(packet).filter(|(kind, _)| *kind == SACK) {
            if let (Some(tsn), Some(window)) = (number(chunk, 4), number(chunk, 8)) {
                self.acknowledged = Some(tsn);
                self.ahead.retain(|other| behind(*other, tsn));
                // What SCTP has thrown away was not read and is not held: no chunk has less than a byte.
                self.unread = self.unread.min(RECEIVE_WINDOW.saturating_sub(window) as usize);
            }
        }
    }

    /// Chunks were read.
    pub(crate) fn read(&mut self, chunks: usize) {
        self.unread = self.unread.saturating_sub(chunks);
    }

    /// Whether so many chunks came since this was true.
    pub(crate) fn turn(&mut self, chunks: usize) -> bool {
        let over = self.taken >= chunks;
        if over {
            self.taken = 0;
        }
        over
    }
}

/// How many chunks an acknowledgement says have come out of order. Behind those it may name some that came twice, as numbers
/// (RFC 9260, 3.3.4): nothing is searched for them.
fn acknowledged(chunk: &[u8]) -> usize {
    let count =
        chunk.get(12..14).map_or(0, |count| usize::from(u16::from_be_bytes([count[0], count[1]])));
    let gaps = chunk.get(SACK_HEADER..).unwrap_or_default().chunks_exact(4);
    gaps.take(count)
        .map(|gap| {
            let [start, end] = [[gap[0], gap[1]], [gap[2], gap[3]]].map(u16::from_be_bytes);
            usize::from(end.saturating_sub(start)) + 1
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chunks: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
        [0; PACKET_HEADER].into_iter().chain(chunks.into_iter().flatten()).collect()
    }

    /// A chunk with its length and padding.
    fn chunk(kind: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 3, 0, 0];
        bytes.extend_from_slice(value);
        let length = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn data(tsn: u32, length: usize) -> Vec<u8> {
        chunk(DATA, &[&tsn.to_be_bytes()[..], &[0; 8], &vec![7; length]].concat())
    }

    fn sack(tsn: u32, held: u32) -> Vec<u8> {
        let window = RECEIVE_WINDOW - held;
        chunk(SACK, &[tsn.to_be_bytes(), window.to_be_bytes(), [0; 4]].concat())
    }

    #[test]
    fn a_chunk_without_data_is_refused_wherever_it_stands() {
        let mut intake = Intake::new();
        assert_eq!(intake.arrives(&packet([data(1, 3), data(2, 0)])), Err(Abuse::Empty));
        assert_eq!(intake.arrives(&packet([chunk(DATA, &[0; 3])])), Err(Abuse::Empty));
        assert_eq!(intake.arrives(&packet([vec![DATA, 3, 0, 3]])), Ok(true), "malformed");
    }

    #[test]
    fn an_upload_through_a_full_window_is_taken_for_ever_though_packets_are_lost_and_come_twice() {
        let mut intake = Intake::new();
        let full = 950;
        for tsn in 0..10_000u32 {
            let tsn = tsn.wrapping_sub(5000);
            assert_eq!(intake.arrives(&packet([data(tsn, 1100)])), Ok(true));
            if tsn % 10 == 0 {
                for again in [0, 7, 2000] {
                    let again = packet([data(tsn.wrapping_sub(again), 1100)]);
                    assert_eq!(intake.arrives(&again), Ok(true));
                }
                intake.leaves(&packet([sack(tsn.wrapping_sub(20), full * 1100)]));
            }
            intake.read(usize::from(intake.unread > full as usize));
        }
    }

    #[test]
    fn what_was_thrown_away_unread_is_not_held_against_the_peer() {
        let mut intake = Intake::new();
        for tsn in 0..50_000 {
            assert_eq!(intake.arrives(&packet([data(tsn, 1)])), Ok(true));
            if tsn % 1000 == 0 {
                intake.leaves(&packet([sack(tsn, 0)]));
            }
        }
    }

    #[test]
    fn tiny_messages_that_cannot_be_read_end_the_connection() {
        let mut intake = Intake::new();
        let ended = (0..50_000).step_by(50).find_map(|first| {
            let taken = intake.arrives(&packet((first..first + 50).map(|tsn| data(tsn, 1))));
            intake.leaves(&packet([sack(first + 49, first + 50)]));
            taken.err()
        });
        assert_eq!(ended, Some(Abuse::Unread));
    }

    #[test]
    fn behind_a_missing_chunk_only_so_much_is_taken_and_the_missing_one_always() {
        let mut intake = Intake::new();
        intake.leaves(&packet([sack(u32::MAX - 10, 0)]));
        let far = (u32::MAX - 10).wrapping_add(AHEAD);
        assert_eq!(intake.arrives(&packet([data(far.wrapping_add(1), 900)])), Ok(false));
        assert_eq!(intake.arrives(&packet([data(far, 900)])), Ok(true));
        assert_eq!(intake.arrives(&packet([data(u32::MAX - 9, 900)])), Ok(true));
    }

    #[test]
    fn what_a_peer_has_got_twice_it_may_say_for_ever() {
        let twice: Vec<u8> = (0..20u16)
            .flat_map(|number| [[0, 1], number.to_be_bytes().map(|it| it ^ 0xff)].concat())
            .collect();
        let packet = packet([chunk(SACK, &[&[0; 8][..], &[0, 0, 0, 20], &twice].concat())]);
        let mut intake = Intake::new();
        assert!((0..10_000).all(|_| intake.arrives(&packet) == Ok(true)));
    }

    #[test]
    fn packets_that_cost_more_than_they_bring_end_the_connection() {
        let acknowledgement = |gaps: u8| {
            let head = [&[0; 8][..], &[0, gaps, 0, 0]].concat();
            packet([chunk(SACK, &[head, [0, 1, 3, 232].repeat(gaps.into())].concat())])
        };
        let [many, few] = [200, 1].map(acknowledgement);
        let mut intake = Intake::new();
        assert!((0..100_000).all(|_| intake.arrives(&few).is_ok()));
        let ended = (0..1000).find_map(|_| intake.arrives(&many).err());
        assert_eq!(ended, Some(Abuse::Costly));
    }
}
