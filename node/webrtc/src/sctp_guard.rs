//! Checks the SCTP packets of a peer before `sctp_proto` sees them, so that no peer makes it hold or search more than it should.
//!
//! SCTP's own bound is its receive window, which counts payload bytes. An empty chunk costs nothing, a chunk of one byte costs one
//! but takes a hundred times that and keeps its packet alive, and data read out of order is not counted at all; and each chunk
//! makes SCTP search and sort the chunks it holds. So this guard counts chunks:
//!
//! - at most [`MAX_UNREAD_CHUNKS`] received and unread, and [`MAX_REORDER`] behind a missing one: bounds SCTP's memory (packets are
//!   at most one MTU long) and the cost of one chunk;
//! - at most [`WORK_PER_BYTE`] chunks searched per byte received: bounds the cost per second;
//! - at most [`MAX_RESETS`] streams that the peer resets with data unread, and [`MAX_LATE_CHUNKS`] chunks that arrive for them.
//!
//! The counts hold only if SCTP parses the same chunks. It advances by the length it computes from what it understood, so the guard
//! drops packets with a chunk whose declared length differs, or that a browser has no need to send.
//!
//! A well-behaved peer stays far below these bounds: a full window is about a thousand full chunks. Chunk size alone says nothing:
//! Chromium fragments a message wherever its congestion window ends.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use crate::error::ProtocolViolation;

/// SCTP's receive window, in bytes: received data that no stream has read.
pub(crate) const RECEIVE_WINDOW: u32 = 1024 * 1024;

/// DATA chunks received and unread; more end the connection.
const MAX_UNREAD_CHUNKS: usize = 3072;
/// How far ahead of the first missing TSN a chunk is accepted. Others are dropped, and the peer retransmits them.
const MAX_REORDER: u32 = 4096;
/// Stream resets that the peer can request before SCTP has completed the earlier ones.
const MAX_RESETS: usize = 512;
/// DATA chunks accepted for streams that the peer has reset.
const MAX_LATE_CHUNKS: usize = 256;
/// Chunks that SCTP may search for each byte received.
const WORK_PER_BYTE: u64 = 16;
/// Maximum accumulated search credit, in chunks: enough for a window of the smallest messages once.
const MAX_CREDIT: u64 = 16 << 20;

/// Approximate bytes of the IP, UDP and DTLS headers of a packet.
const PACKET_OVERHEAD: usize = 100;
/// SCTP common header, in bytes.
const PACKET_HEADER: usize = 12;
/// DATA chunk header, in bytes.
const DATA_HEADER: usize = 16;
/// SACK chunk header before the gap ack blocks, in bytes.
const SACK_HEADER: usize = 16;
/// Chunk types (RFC 9260, RFC 6525).
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
/// Parameter types.
const HEARTBEAT_INFO: u16 = 1;
const RESET_REQUEST: u16 = 13;
const RECONFIG_RESPONSE: u16 = 16;
/// Outgoing SSN reset request before its stream numbers, in bytes.
const RESET_HEADER: usize = 16;

/// Counts the chunks of one association.
#[derive(Debug)]
pub(crate) struct SctpGuard {
    /// The cumulative TSN that this side last acknowledged.
    acknowledged: Option<u32>,
    /// Chunks received beyond it. Each counts as unread once, however often it is retransmitted.
    ahead: HashSet<u32>,
    unread: usize,
    /// The peer has echoed the cookie and cannot start another association.
    associated: bool,
    /// Streams that the peer has reset, with the number of resets that SCTP has not completed.
    resets: HashMap<u16, usize>,
    /// The sum of these numbers.
    reset_count: usize,
    /// The last reset request, to recognise retransmissions.
    last_request: Option<u32>,
    /// DATA chunks received for `resets`.
    late: usize,
    /// Chunks that SCTP may search.
    credit: u64,
    /// Chunks since [`SctpGuard::take_slice`] last returned true.
    slice: usize,
}

/// Iterates over values that start with four header bytes, the last two of which are their length, each padded to a multiple of 4.
/// Yields them without padding, and `None` in place of the rest after an invalid length.
fn tlvs(mut rest: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let first = rest.get(2..4).and_then(|length| {
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            rest.get(..length).filter(|it| it.len() >= 4)
        });
        let next = first.map_or(rest.len(), |it| it.len().next_multiple_of(4));
        rest = rest.get(next..).unwrap_or_default();
        Some(first)
    })
}

/// Iterates over the chunks of a packet with their types.
fn chunks(packet: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    tlvs(packet.get(PACKET_HEADER..).unwrap_or_default()).map(|chunk| Some((chunk?[0], chunk?)))
}

/// Returns the parameters of a chunk with their types, or `None` if they do not fill it.
fn parameters(chunk: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let kind = |it: &[u8]| u16::from_be_bytes([it[0], it[1]]);
    tlvs(chunk.get(4..)?).map(|parameter| Some((kind(parameter?), parameter?))).collect()
}

/// Returns whether SCTP computes the declared length for a chunk. `last`: no chunk follows it.
fn has_exact_length(kind: u8, chunk: &[u8], last: bool) -> bool {
    let count = |at: usize| usize::from(u16::from_be_bytes([chunk[at], chunk[at + 1]]));
    match kind {
        DATA | COOKIE_ECHO => true,
        INIT | ABORT => last,
        SACK => {
            chunk.len() >= SACK_HEADER && chunk.len() == SACK_HEADER + 4 * (count(12) + count(14))
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

fn read_u32(chunk: &[u8], at: usize) -> Option<u32> {
    chunk.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// Compares TSNs in serial number arithmetic (RFC 1982).
fn is_after(tsn: u32, other: u32) -> bool {
    tsn.wrapping_sub(other) as i32 > 0
}

impl SctpGuard {
    pub(crate) fn new() -> Self {
        Self {
            acknowledged: None,
            ahead: HashSet::new(),
            unread: 0,
            associated: false,
            resets: HashMap::new(),
            reset_count: 0,
            last_request: None,
            late: 0,
            credit: MAX_CREDIT,
            slice: 0,
        }
    }

    /// Checks a received packet. Returns whether to pass it to SCTP; dropped packets look lost to the peer.
    pub(crate) fn on_receive(&mut self, packet: &[u8]) -> Result<bool, ProtocolViolation> {
        self.credit =
            (self.credit + (packet.len() + PACKET_OVERHEAD) as u64 * WORK_PER_BYTE).min(MAX_CREDIT);
        let mut all = chunks(packet).peekable();
        while let Some(next) = all.next() {
            self.slice += 1;
            let Some((kind, chunk)) =
                next.filter(|&(kind, it)| has_exact_length(kind, it, all.peek().is_none()))
            else {
                return Ok(false);
            };
            if kind == INIT && self.associated {
                return Ok(false);
            }
            self.associated |= kind == COOKIE_ECHO;
            let held = 1 + self.unread + self.ahead.len();
            let work = match kind {
                DATA => held,
                SACK => acknowledged_chunks(chunk),
                // Each 4 bytes of any other chunk name at most one thing to search for.
                _ => held * chunk.len() / 4,
            };
            self.credit =
                self.credit.checked_sub(work as u64).ok_or(ProtocolViolation::WorkExceeded)?;
            if kind == RECONFIG {
                self.on_reconfig(chunk)?;
            }
            if kind == DATA && !self.on_data(chunk)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn on_reconfig(&mut self, chunk: &[u8]) -> Result<(), ProtocolViolation> {
        for (kind, parameter) in parameters(chunk).unwrap_or_default() {
            let request = read_u32(parameter, 4);
            if kind != RESET_REQUEST || request == self.last_request {
                continue;
            }
            self.last_request = request;
            let streams = parameter.get(RESET_HEADER..).unwrap_or_default().chunks_exact(2);
            // An empty list means all streams.
            if streams.len() == 0 {
                return Err(ProtocolViolation::TooManyResets);
            }
            self.reset_count += streams.len();
            for id in streams {
                *self.resets.entry(u16::from_be_bytes([id[0], id[1]])).or_default() += 1;
            }
        }
        if self.reset_count > MAX_RESETS { Err(ProtocolViolation::TooManyResets) } else { Ok(()) }
    }

    /// Called when SCTP has completed a reset of a stream: what arrives from now on belongs to the next stream of that id.
    pub(crate) fn on_reset_complete(&mut self, id: u16) {
        if let Entry::Occupied(mut pending) = self.resets.entry(id) {
            self.reset_count -= 1;
            *pending.get_mut() -= 1;
            if *pending.get() == 0 {
                pending.remove();
            }
        }
        if self.resets.is_empty() {
            self.late = 0;
        }
    }

    /// Called when SCTP has completed every stream reset it has reported. It does not report those with data unread.
    pub(crate) fn on_resets_complete(&mut self) {
        if self.unread == 0 {
            self.resets.clear();
            (self.reset_count, self.late) = (0, 0);
        }
    }

    fn on_data(&mut self, chunk: &[u8]) -> Result<bool, ProtocolViolation> {
        let Some(tsn) = read_u32(chunk, 4).filter(|_| chunk.len() > DATA_HEADER) else {
            return Err(ProtocolViolation::EmptyChunk);
        };
        self.late +=
            usize::from(self.resets.contains_key(&u16::from_be_bytes([chunk[8], chunk[9]])));
        if self.late > MAX_LATE_CHUNKS {
            return Err(ProtocolViolation::TooManyResets);
        }
        let acknowledged = *self.acknowledged.get_or_insert(tsn.wrapping_sub(1));
        if is_after(tsn, acknowledged) {
            if tsn.wrapping_sub(acknowledged) > MAX_REORDER {
                return Ok(false);
            }
            self.unread += usize::from(self.ahead.insert(tsn));
        }
        if self.unread > MAX_UNREAD_CHUNKS {
            Err(ProtocolViolation::TooManyUnread)
        } else {
            Ok(true)
        }
    }

    /// Observes a packet sent to the peer: its SACKs say which chunks SCTP still waits for and how much data it holds.
    pub(crate) fn on_send(&mut self, packet: &[u8]) {
        for (_, chunk) in chunks(packet).flatten().filter(|(kind, _)| *kind == SACK) {
            if let (Some(tsn), Some(window)) = (read_u32(chunk, 4), read_u32(chunk, 8)) {
                self.acknowledged = Some(tsn);
                self.ahead.retain(|other| is_after(*other, tsn));
                // Chunks that SCTP discarded were not read and are not held. Each held chunk has at least one byte.
                self.unread = self.unread.min(RECEIVE_WINDOW.saturating_sub(window) as usize);
            }
        }
    }

    /// Records that a stream read a message of `chunks` chunks.
    pub(crate) fn on_read(&mut self, chunks: usize) {
        self.unread = self.unread.saturating_sub(chunks);
    }

    /// Returns true once every `chunks` received chunks.
    pub(crate) fn take_slice(&mut self, chunks: usize) -> bool {
        let over = self.slice >= chunks;
        if over {
            self.slice = 0;
        }
        over
    }
}

/// Returns how many chunks a SACK reports in its gap ack blocks. The duplicate TSNs behind them (RFC 9260, 3.3.4) cost no search.
fn acknowledged_chunks(chunk: &[u8]) -> usize {
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
