//! What SCTP is given of what a peer sends, so that no peer makes it hold or search more than it should.
//!
//! SCTP's own bound is its window, which counts bytes of data: nothing for a chunk without any, one for a chunk of one byte,
//! which takes a hundred times that and keeps its packet alive; and nothing at all for what was read while an earlier chunk is
//! missing. And each chunk makes it search and sort those that it holds. So chunks are counted here:
//!
//! - at most [`UNREAD`] that came and were not read, and [`AHEAD`] behind one that is missing: that bounds what SCTP holds
//!   (for packets are not longer than a path takes), and what one chunk costs;
//! - what is searched has to be in proportion to what was sent ([`EARNED`] for a byte): that bounds what a second costs;
//! - what it remembers of streams that the peer closes while something of them was not read: [`RESETS`], and [`LATE`] chunks
//!   that come for them all the same.
//!
//! Counting is worth something only if SCTP finds the same chunks in a packet. It steps over a chunk by the length that it
//! makes of what it understood, so nothing is given to it whose length says otherwise, or that a browser need not send.
//!
//! An honest peer stays far below, whatever it uploads: a full window is a thousand full chunks. The size of a chunk says
//! nothing: Chromium cuts a message wherever its own window ends.

use std::collections::HashSet;

use crate::link::RECEIVE_WINDOW;

/// Chunks of data that came and were not read: more end the connection.
const UNREAD: usize = 3072;
/// How far behind the first missing chunk others are taken; further ones are as good as lost, and come again.
const AHEAD: u32 = 4096;
/// Streams that the peer may close before all is over of those that it closed.
const RESETS: usize = 512;
/// Chunks of data for these.
const LATE: usize = 256;
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
/// Kinds of chunks (RFC 9260, RFC 6525).
const DATA: u8 = 0;
const INIT: u8 = 1;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const SHUTDOWN_COMPLETE: u8 = 14;
const RECONFIG: u8 = 130;
/// Kinds of parameters.
const HEARTBEAT_INFO: u16 = 1;
const RESET_REQUEST: u16 = 13;
const RECONFIG_RESPONSE: u16 = 16;
/// Before the streams of a request to reset some, in bytes.
const RESET_HEADER: usize = 16;

/// Why a peer's packets are not taken any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Abuse {
    #[error("a chunk of data without data")]
    Empty,
    #[error("too many chunks that nobody can read")]
    Unread,
    #[error("its packets cost too much")]
    Costly,
    #[error("too many streams that it closes without an end")]
    Resets,
}

/// The chunks of one association.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Up to which chunk all have come, as this side last said; none before it did.
    acknowledged: Option<u32>,
    /// Chunks that came behind that one. Each is counted as unread once, however often it comes.
    ahead: HashSet<u32>,
    unread: usize,
    /// SCTP holds nothing: that is what this side said last, and nothing has come since.
    empty: bool,
    /// The peer has shown that it can be reached, and begins no association any more.
    begun: bool,
    /// Streams that the peer has asked to close since all was over of those before, and with which request last.
    resets: HashSet<u16>,
    asked: usize,
    request: Option<u32>,
    /// Chunks for these.
    late: usize,
    saved: u64,
    /// Chunks since the last call of [`Intake::turn`].
    taken: usize,
}

/// The chunks of a packet: type, and all bytes but the padding. `None` is where their lengths make no sense any more.
fn chunks(packet: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    let mut rest = packet.get(PACKET_HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (bytes, next) = cut(std::mem::take(&mut rest))
            .map_or((None, None), |(chunk, rest)| (Some(chunk), Some(rest)));
        rest = next.unwrap_or_default();
        Some(bytes.map(|chunk| (chunk[0], chunk)))
    })
}

/// The first of the things that are each a type, or flags, and a length in four bytes, and what is behind its padding.
fn cut(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    let first = bytes.get(..length).filter(|it| it.len() >= 4)?;
    Some((first, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The parameters of a chunk, with their types; `None`: they do not fill it.
fn parameters(chunk: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let (mut found, mut rest) = (Vec::new(), chunk.get(4..)?);
    while !rest.is_empty() {
        let (parameter, next) = cut(rest)?;
        found.push((u16::from_be_bytes([parameter[0], parameter[1]]), parameter));
        rest = next;
    }
    Some(found)
}

/// Whether SCTP finds a chunk as long as it says it is. `last`: there is none behind it.
fn is_plain(kind: u8, chunk: &[u8], last: bool) -> bool {
    let counted = |at: usize| usize::from(u16::from_be_bytes([chunk[at], chunk[at + 1]]));
    match kind {
        DATA | COOKIE_ECHO => true,
        INIT | ABORT => last,
        SACK => {
            chunk.len() >= SACK_HEADER
                && chunk.len() == SACK_HEADER + 4 * (counted(12) + counted(14))
        }
        SHUTDOWN => chunk.len() == 8,
        SHUTDOWN_COMPLETE => chunk.len() == 4,
        HEARTBEAT => parameters(chunk).is_some_and(|all| matches!(all[..], [(HEARTBEAT_INFO, _)])),
        ERROR => parameters(chunk).is_some_and(|all| all.len() == 1),
        RECONFIG => parameters(chunk).is_some_and(|all| {
            let known = |&(kind, parameter): &(u16, &[u8])| match kind {
                RESET_REQUEST => parameter.len() >= RESET_HEADER && parameter.len() % 2 == 0,
                RECONFIG_RESPONSE => parameter.len() == 12,
                _ => false,
            };
            (1..=2).contains(&all.len()) && all.iter().all(known)
        }),
        _ => false,
    }
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
        Self {
            acknowledged: None,
            ahead: HashSet::new(),
            unread: 0,
            empty: true,
            begun: false,
            resets: HashSet::new(),
            asked: 0,
            request: None,
            late: 0,
            saved: SAVED,
            taken: 0,
        }
    }

    /// Whether a packet that came is for SCTP.
    pub(crate) fn arrives(&mut self, packet: &[u8]) -> Result<bool, Abuse> {
        self.saved = (self.saved + (packet.len() + CARRIAGE) as u64 * EARNED).min(SAVED);
        let mut all = chunks(packet).peekable();
        while let Some(next) = all.next() {
            self.taken += 1;
            let Some((kind, chunk)) =
                next.filter(|&(kind, it)| is_plain(kind, it, all.peek().is_none()))
            else {
                return Ok(false);
            };
            if kind == INIT && self.begun {
                return Ok(false);
            }
            self.begun |= kind == COOKIE_ECHO;
            let held = 1 + self.unread + self.ahead.len();
            let searched = match kind {
                DATA => held,
                SACK => acknowledged(chunk),
                // Whatever else there is names at most so many things to look for.
                _ => held * chunk.len() / 4,
            };
            self.saved = self.saved.checked_sub(searched as u64).ok_or(Abuse::Costly)?;
            if kind == RECONFIG {
                self.reconfigures(chunk)?;
            }
            if kind == DATA && !self.data(chunk)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn reconfigures(&mut self, chunk: &[u8]) -> Result<(), Abuse> {
        for (kind, parameter) in parameters(chunk).unwrap_or_default() {
            let request = number(parameter, 4);
            if kind != RESET_REQUEST || request == self.request {
                continue;
            }
            self.request = request;
            let streams = parameter.get(RESET_HEADER..).unwrap_or_default().chunks_exact(2);
            // None would mean all.
            if streams.len() == 0 {
                return Err(Abuse::Resets);
            }
            self.asked += streams.len();
            self.resets.extend(streams.map(|id| u16::from_be_bytes([id[0], id[1]])));
        }
        if self.asked > RESETS { Err(Abuse::Resets) } else { Ok(()) }
    }

    /// Of every stream that SCTP has told the end of, all is over. Of those that it holds something of it has not told.
    pub(crate) fn settled(&mut self) {
        if self.empty {
            self.resets.clear();
            (self.asked, self.late) = (0, 0);
        }
    }

    fn data(&mut self, chunk: &[u8]) -> Result<bool, Abuse> {
        let Some(tsn) = number(chunk, 4).filter(|_| chunk.len() > DATA_HEADER) else {
            return Err(Abuse::Empty);
        };
        self.empty = false;
        self.late += usize::from(self.resets.contains(&u16::from_be_bytes([chunk[8], chunk[9]])));
        if self.late > LATE {
            return Err(Abuse::Resets);
        }
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
        for (_, chunk) in chunks(packet).flatten().filter(|(kind, _)| *kind == SACK) {
            if let (Some(tsn), Some(window)) = (number(chunk, 4), number(chunk, 8)) {
                self.acknowledged = Some(tsn);
                self.empty = window >= RECEIVE_WINDOW;
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
        assert_eq!(intake.arrives(&packet([vec![DATA, 3, 0, 3]])), Ok(false), "malformed");
    }

    /// A request to reset streams.
    fn reset(request: u32, streams: &[u16]) -> Vec<u8> {
        let streams: Vec<u8> = streams.iter().flat_map(|id| id.to_be_bytes()).collect();
        let length = (RESET_HEADER + streams.len()) as u16;
        let head = [
            [13u16, length].map(u16::to_be_bytes).concat(),
            request.to_be_bytes().to_vec(),
            vec![0; 8],
        ];
        chunk(RECONFIG, &[head.concat(), streams].concat())
    }

    #[test]
    fn chunks_that_hide_others_are_not_given_to_sctp() {
        let hidden = [data(1, 1), data(2, 1)].concat();
        let response = [vec![0, 16, 0, 12], vec![0; 8]].concat();
        let hiding = [
            chunk(11, &hidden),
            chunk(8, &hidden),
            chunk(SHUTDOWN_COMPLETE, &hidden),
            chunk(SHUTDOWN, &[&[0; 4][..], &hidden].concat()),
            chunk(SACK, &[&[0; 12][..], &hidden].concat()),
            chunk(HEARTBEAT, &[&[0, 1, 0, 8, 7, 7, 7, 7][..], &hidden].concat()),
            chunk(ERROR, &[&[0, 1, 0, 8, 7, 7, 7, 7][..], &hidden].concat()),
            chunk(RECONFIG, &[response.clone(), response.clone(), hidden.clone()].concat()),
            chunk(RECONFIG, &[vec![0, 16, 0, 20], vec![0; 16]].concat()),
            chunk(192, &[0; 8]),
            [chunk(INIT, &[0; 16]), data(1, 1)].concat(),
        ];
        let mut intake = Intake::new();
        for chunk in hiding {
            assert_eq!(intake.arrives(&packet([chunk.clone()])), Ok(false), "{chunk:?}");
        }
        let plain = [
            vec![chunk(INIT, &[0; 16])],
            vec![chunk(COOKIE_ECHO, &[7; 30]), data(1, 3)],
            vec![sack(1, 0), data(2, 3)],
            vec![chunk(HEARTBEAT, &[0, 1, 0, 11, 7, 7, 7, 7, 7, 7, 7])],
            vec![chunk(RECONFIG, &response)],
            vec![chunk(RECONFIG, &[reset(7, &[1, 2, 3])[4..].to_vec(), response].concat())],
            vec![chunk(SHUTDOWN, &[0; 4])],
            vec![chunk(ABORT, &[0, 12, 0, 9, 7, 7, 7, 7, 7])],
        ];
        for chunks in plain {
            assert_eq!(intake.arrives(&packet(chunks.clone())), Ok(true), "{chunks:?}");
        }
        assert_eq!(intake.arrives(&packet([chunk(INIT, &[0; 16])])), Ok(false), "it has begun");
    }

    #[test]
    fn streams_may_be_closed_for_ever_by_who_leaves_nothing_behind() {
        let mut intake = Intake::new();
        for n in 0..10_000u32 {
            assert_eq!(intake.arrives(&packet([data(n, 10)])), Ok(true));
            intake.leaves(&packet([sack(n, 0)]));
            let close = packet([reset(n, &[0])]);
            assert_eq!((intake.arrives(&close), intake.arrives(&close)), (Ok(true), Ok(true)));
            intake.settled();
        }
    }

    #[test]
    fn streams_that_are_closed_with_something_unread_end_the_connection() {
        assert_eq!(Intake::new().arrives(&packet([reset(1, &[])])), Err(Abuse::Resets), "all");
        let mut intake = Intake::new();
        let ended = (0..10_000u32).find_map(|n| {
            intake.arrives(&packet([data(n, 1)])).expect("a chunk");
            intake.leaves(&packet([sack(n, 1)]));
            intake.settled();
            intake.arrives(&packet([reset(n, &[n as u16 + 1])])).err().map(|abuse| (n, abuse))
        });
        assert_eq!(ended, Some((RESETS as u32, Abuse::Resets)));
    }

    #[test]
    fn data_for_streams_that_are_being_closed_ends_the_connection() {
        let mut intake = Intake::new();
        assert_eq!(intake.arrives(&packet([data(0, 1), reset(1, &[0])])), Ok(true));
        let ended = (1..10_000).find_map(|tsn| {
            intake.arrives(&packet([data(tsn, 1)])).err().map(|abuse| (tsn, abuse))
        });
        assert_eq!(ended, Some((LATE as u32 + 1, Abuse::Resets)));
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
