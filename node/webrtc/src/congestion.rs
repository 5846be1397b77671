//! The congestion window of a connection.
//!
//! SCTP grows its window until a packet is lost. On a short path the loss happens in the browser's own socket buffer, which holds
//! some 50 packets, and SCTP takes a second to recover from such a burst. So the connection also limits its bytes in flight to
//! twice the bandwidth-delay product, as BBR does (Cardwell et al., 2016): it measures the delivery rate and the minimum round-trip
//! time. The minimum RTT is visible only with empty queues, so at the start and every ten seconds two rounds send a minimal window.
//!
//! On a long path the window is larger than the socket buffer. Datagrams are sent evenly over the minimum RTT, as what leaves at once
//! arrives at once, and so do its acknowledgements, which let as much leave at once again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::association::MAX_DATAGRAM;

/// Minimum window, in bytes: what fits into a browser's socket buffer.
const MIN_WINDOW: u64 = 48 * 1024;
/// Maximum window, in bytes: 10 MB/s at 100 ms. More would only queue.
const MAX_WINDOW: u64 = 1024 * 1024;
/// Window while the minimum RTT is probed, in bytes.
const PROBE_WINDOW: u64 = 4 * MAX_DATAGRAM as u64;
/// Datagrams of this time may be sent at once: timers are late by a millisecond.
const BURST: Duration = Duration::from_millis(2);
/// Bytes that a round delivers at least whose RTT counts: two datagrams, since a browser may acknowledge a single one later.
const MIN_SAMPLE: u64 = 2 * MAX_DATAGRAM as u64;
/// Rounds of a probe: one drains the queues, one is measured.
const PROBE_ROUNDS: u32 = 2;
/// Delivery-rate samples kept, one per round.
const RATE_SAMPLES: usize = 10;
/// How long a minimum RTT is used before it is probed again.
const MIN_RTT_LIFETIME: Duration = Duration::from_secs(10);

/// Limits the bytes in flight by delivery rate and minimum RTT, both measured per round.
#[derive(Debug)]
pub(crate) struct CongestionWindow {
    round: Option<Round>,
    /// Delivery rates of the last rounds, in bytes per second.
    rates: VecDeque<u64>,
    /// The minimum RTT and when it was measured.
    min_rtt: Option<(Duration, Instant)>,
    /// Rounds left of the current probe.
    probes_left: u32,
    /// The window that is sent in a time, also while the minimum RTT is probed.
    pace: Option<(usize, Duration)>,
    /// When the next datagram is due.
    due: Option<Instant>,
}

impl Default for CongestionWindow {
    fn default() -> Self {
        Self {
            round: None,
            rates: VecDeque::new(),
            min_rtt: None,
            probes_left: PROBE_ROUNDS,
            pace: None,
            due: None,
        }
    }
}

/// A round trip: ends when the bytes written before it are delivered.
#[derive(Debug, Clone, Copy)]
struct Round {
    since: Instant,
    written: u64,
    delivered: u64,
}

impl CongestionWindow {
    /// Records the total bytes written and delivered (acknowledged by the peer) so far.
    pub(crate) fn observe(&mut self, now: Instant, written: u64, delivered: u64) {
        if let Some(round) = self.round.filter(|round| delivered >= round.written) {
            self.round = None;
            self.end_round(now, now.duration_since(round.since), delivered - round.delivered);
        }
        if self.round.is_none() && delivered < written {
            self.round = Some(Round { since: now, written, delivered });
        }
    }

    fn end_round(&mut self, now: Instant, rtt: Duration, delivered: u64) {
        let micros = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).max(1);
        if self.rates.len() == RATE_SAMPLES {
            self.rates.pop_front();
        }
        self.rates.push_back(delivered.saturating_mul(1_000_000) / micros);
        if self.min_rtt.is_some_and(|(_, at)| now.duration_since(at) > MIN_RTT_LIFETIME) {
            self.min_rtt = None;
            self.probes_left = PROBE_ROUNDS;
        } else if delivered >= MIN_SAMPLE {
            self.probes_left = self.probes_left.saturating_sub(1);
        }
        if self.probes_left > 0 {
            return;
        }
        if delivered >= MIN_SAMPLE && self.min_rtt.is_none_or(|(min, _)| rtt <= min) {
            self.min_rtt = Some((rtt, now));
        }
        if let Some((min_rtt, _)) = self.min_rtt {
            self.pace = Some((self.size(), min_rtt));
        }
    }

    /// Returns when the next datagram may be sent; `None`: at once.
    pub(crate) fn next_send(&self, now: Instant) -> Option<Instant> {
        self.due.filter(|due| *due > now)
    }

    /// Lets everything be sent at once from now on: the connection ends.
    pub(crate) fn stop_pacing(&mut self) {
        (self.pace, self.due, self.min_rtt) = (None, None, None);
    }

    /// Returns how many bytes may be sent at once when some may.
    pub(crate) fn burst(&self) -> usize {
        let Some((window, time)) = self.pace else { return usize::MAX };
        let bytes = window as u128 * BURST.as_nanos() / time.as_nanos().max(1);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Records that datagrams are sent. They take as much of the minimum RTT as of the window.
    pub(crate) fn sent(&mut self, now: Instant, bytes: usize) {
        self.due = self.pace.map(|(window, time)| {
            let nanos = time.as_nanos() * bytes as u128 / (window as u128).max(1);
            let took = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            self.due.map_or(earliest, |due| due.max(earliest)) + took
        });
    }

    /// Returns the maximum bytes in flight.
    pub(crate) fn size(&self) -> usize {
        if self.probes_left > 0 {
            return PROBE_WINDOW as usize;
        }
        let rate = self.rates.iter().copied().max().unwrap_or(0);
        let min_rtt = self.min_rtt.map_or(0, |(rtt, _)| rtt.as_micros());
        let bandwidth_delay = u128::from(rate) * min_rtt / 1_000_000;
        let size =
            u64::try_from(2 * bandwidth_delay).unwrap_or(MAX_WINDOW).clamp(MIN_WINDOW, MAX_WINDOW);
        usize::try_from(size).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends full windows for `rounds` over a path of `rtt` and `rate` bytes per second.
    fn run(window: &mut CongestionWindow, rounds: u32, rtt: Duration, rate: u64) {
        let mut now = Instant::now();
        let mut total = 0;
        for _ in 0..rounds {
            let size = window.size() as u64;
            window.observe(now, total + size, total);
            let queued = Duration::from_micros(size * 1_000_000 / rate);
            now += rtt.max(queued);
            total += size;
            window.observe(now, total, total);
        }
    }

    #[test]
    fn a_long_path_gets_two_bandwidth_delay_products() {
        let mut window = CongestionWindow::default();
        run(&mut window, 20, Duration::from_millis(50), 4_000_000);
        assert!((380_000..400_001).contains(&window.size()), "{}", window.size());
    }

    #[test]
    fn a_short_path_gets_the_minimum_window() {
        let mut window = CongestionWindow::default();
        run(&mut window, 100, Duration::from_micros(300), 20_000_000);
        assert_eq!(window.size() as u64, MIN_WINDOW);
    }

    /// Sends datagrams for a time, whenever they are due. Returns how many bytes at most at once, and how many in all.
    fn paced(window: &mut CongestionWindow, from: Instant, time: Duration) -> (usize, usize) {
        let (mut now, mut most, mut all) = (from, 0, 0);
        while now < from + time {
            let mut at_once = 0;
            while window.next_send(now).is_none() && at_once < 1_000_000 {
                window.sent(now, 1200);
                at_once += 1200;
            }
            (most, all) = (most.max(at_once), all + at_once);
            now += Duration::from_micros(100);
        }
        (most, all)
    }

    #[test]
    fn a_window_is_sent_evenly_over_the_round_trip() {
        let mut window = CongestionWindow::default();
        run(&mut window, 20, Duration::from_millis(50), 4_000_000);
        let (size, from) = (window.size(), Instant::now());
        let (most, all) = paced(&mut window, from, Duration::from_millis(50));
        assert!(most <= window.burst() + 1200 && most < size / 20, "{most} of {size} at once");
        assert!((size * 9 / 10..size * 11 / 10).contains(&all), "{all} of {size}");
    }

    #[test]
    fn on_a_short_path_the_window_alone_is_the_bound() {
        let mut window = CongestionWindow::default();
        run(&mut window, 20, Duration::from_micros(300), 20_000_000);
        assert!(window.burst() > window.size());
        let (most, _) = paced(&mut window, Instant::now(), Duration::from_micros(1));
        assert!(most > window.size());
    }

    #[test]
    fn a_late_acknowledgement_of_a_single_datagram_is_no_round_trip_time() {
        let mut window = CongestionWindow::default();
        let start = Instant::now();
        for n in 0..5 {
            let now = start + n * Duration::from_secs(1);
            window.observe(now, 100 * u64::from(n + 1), 100 * u64::from(n));
            let written = 100 * u64::from(n + 1);
            window.observe(now + Duration::from_millis(200), written, written);
        }
        assert_eq!((window.min_rtt, window.next_send(start)), (None, None));
    }

    #[test]
    fn no_path_gets_more_than_the_maximum_window() {
        let mut window = CongestionWindow::default();
        run(&mut window, 100, Duration::from_millis(200), 1_000_000_000);
        assert_eq!(window.size() as u64, MAX_WINDOW);
    }

    #[test]
    fn the_window_shrinks_when_the_delivery_rate_drops() {
        let mut window = CongestionWindow::default();
        run(&mut window, 20, Duration::from_millis(50), 10_000_000);
        let before = window.size();
        run(&mut window, 40, Duration::from_millis(50), 1_000_000);
        assert!(window.size() < before / 4, "{before} bytes before, {} after", window.size());
    }

    #[test]
    fn the_window_grows_when_the_round_trip_time_grows() {
        let mut window = CongestionWindow::default();
        run(&mut window, 20, Duration::from_millis(1), 10_000_000);
        assert_eq!(window.size() as u64, MIN_WINDOW);
        // More than ten seconds.
        run(&mut window, 160, Duration::from_millis(100), 4_000_000);
        assert!(window.size() > 700_000, "{}", window.size());
    }
}
