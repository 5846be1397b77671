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

/// Things that each begin with four bytes, the last two of which are a length, one behind the padding of the other: all their
/// bytes but the padding. `None` is where their lengths make no sense any more.
fn things(mut rest: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let first = rest.get(2..4).and_then(|length| {
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            rest.get(..length).filter(|it| it.len() >= 4)
        });
        let behind = first.map_or(rest.len(), |it| it.len().next_multiple_of(4));
        rest = rest.get(behind..).unwrap_or_default();
        Some(first)
    })
}

/// The chunks of a packet, with their kinds.
fn chunks(packet: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    things(packet.get(PACKET_HEADER..).unwrap_or_default()).map(|chunk| Some((chunk?[0], chunk?)))
}

/// The parameters of a chunk, with their kinds; `None`: they do not fill it.
fn parameters(chunk: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let kind = |it: &[u8]| u16::from_be_bytes([it[0], it[1]]);
    things(chunk.get(4..)?).map(|parameter| Some((kind(parameter?), parameter?))).collect()
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
        if self.unread == 0 {
            self.resets.clear();
            (self.asked, self.late) = (0, 0);
        }
    }

    fn data(&mut self, chunk: &[u8]) -> Result<bool, Abuse> {
        let Some(tsn) = number(chunk, 4).filter(|_| chunk.len() > DATA_HEADER) else {
            return Err(Abuse::Empty);
        };
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
mod tests;
