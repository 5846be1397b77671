//! How much of a connection's data may be under way.
//!
//! SCTP by itself sends more and more until something is lost. On a short path that something is the browser's own socket,
//! which holds some fifty packets, and what is lost there in one burst takes SCTP a second to notice. So the connection
//! measures what the path delivers and how long a round takes at best, and keeps twice their product under way, as BBR does
//! (Cardwell et al. 2016): enough to find out whether there is more, not enough to fill queues. How long a round takes at
//! best shows only when nothing waits in front of it, so at first, and every ten seconds, little is sent for two rounds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// At least, in bytes: what fits into a browser's socket.
const LEAST: u64 = 48 * 1024;
/// At most, in bytes: 10 MB/s over 100 ms. More only makes what comes behind it wait.
const MOST: u64 = 1024 * 1024;
/// While the shortest round is looked for, in bytes.
const LITTLE: u64 = 4 * 1200;
/// Rounds of that: one in which queues drain, and one that is measured.
const PROBES: u32 = 2;
/// Rounds whose rates are remembered.
const ROUNDS: usize = 10;
/// The shortest round is believed so long.
const BELIEVED: Duration = Duration::from_secs(10);

/// Measures a path, round by round.
#[derive(Debug)]
pub(crate) struct Window {
    round: Option<Round>,
    /// Bytes a second that the last rounds delivered.
    rates: VecDeque<u64>,
    /// The shortest round, and when that was.
    shortest: Option<(Duration, Instant)>,
    /// Rounds left in which little is sent.
    probes: u32,
}

impl Default for Window {
    fn default() -> Self {
        Self { round: None, rates: VecDeque::new(), shortest: None, probes: PROBES }
    }
}

/// Ends when all that had been written at its beginning is delivered.
#[derive(Debug, Clone, Copy)]
struct Round {
    since: Instant,
    written: u64,
    delivered: u64,
}

impl Window {
    /// Takes note of what was written so far, and of how much of that the peer has.
    pub(crate) fn observe(&mut self, now: Instant, written: u64, delivered: u64) {
        if let Some(round) = self.round.filter(|round| delivered >= round.written) {
            self.round = None;
            self.measured(now, now.duration_since(round.since), delivered - round.delivered);
        }
        if self.round.is_none() && delivered < written {
            self.round = Some(Round { since: now, written, delivered });
        }
    }

    fn measured(&mut self, now: Instant, took: Duration, delivered: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        if self.rates.len() == ROUNDS {
            self.rates.pop_front();
        }
        self.rates.push_back(delivered.saturating_mul(1_000_000) / micros);
        if self.shortest.is_some_and(|(_, at)| now.duration_since(at) > BELIEVED) {
            self.shortest = None;
            self.probes = PROBES;
        } else {
            self.probes = self.probes.saturating_sub(1);
        }
        if self.probes == 0 && self.shortest.is_none_or(|(shortest, _)| took <= shortest) {
            self.shortest = Some((took, now));
        }
    }

    /// How many bytes may be under way.
    pub(crate) fn size(&self) -> usize {
        if self.probes > 0 {
            return LITTLE as usize;
        }
        let rate = self.rates.iter().copied().max().unwrap_or(0);
        let shortest = self.shortest.map_or(0, |(shortest, _)| shortest.as_micros());
        let product = u128::from(rate) * shortest / 1_000_000;
        let size = u64::try_from(2 * product).unwrap_or(MOST).clamp(LEAST, MOST);
        usize::try_from(size).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as much as it may for so many rounds over a path that takes `rtt` and carries `rate` bytes a second.
    fn run(window: &mut Window, rounds: u32, rtt: Duration, rate: u64) {
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
    fn a_long_path_gets_twice_what_it_holds() {
        let mut window = Window::default();
        run(&mut window, 20, Duration::from_millis(50), 4_000_000);
        assert!((380_000..400_001).contains(&window.size()), "{}", window.size());
    }

    #[test]
    fn a_short_path_gets_what_a_socket_holds() {
        let mut window = Window::default();
        run(&mut window, 100, Duration::from_micros(300), 20_000_000);
        assert_eq!(window.size() as u64, LEAST);
    }

    #[test]
    fn no_path_gets_more_than_the_most() {
        let mut window = Window::default();
        run(&mut window, 100, Duration::from_millis(200), 1_000_000_000);
        assert_eq!(window.size() as u64, MOST);
    }

    #[test]
    fn a_path_that_has_become_worse_is_believed_after_some_rounds() {
        let mut window = Window::default();
        run(&mut window, 20, Duration::from_millis(50), 10_000_000);
        let before = window.size();
        run(&mut window, 40, Duration::from_millis(50), 1_000_000);
        assert!(window.size() < before / 4, "{before} bytes before, {} after", window.size());
    }

    #[test]
    fn a_path_that_has_become_longer_is_measured_again() {
        let mut window = Window::default();
        run(&mut window, 20, Duration::from_millis(1), 10_000_000);
        assert_eq!(window.size() as u64, LEAST);
        // More than ten seconds.
        run(&mut window, 160, Duration::from_millis(100), 4_000_000);
        assert!(window.size() > 700_000, "{}", window.size());
    }
}
