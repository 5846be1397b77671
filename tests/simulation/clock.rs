//! The clocks of a host: a monotonic one that may be too fast, too slow or stand still, and a wall clock that may be set.

use vc_engine::Clock;
use vc_protocol::Millis;

use crate::world::EPOCH;

/// What the monotonic clock of a host shows at the start of virtual time, in milliseconds: far enough from zero to subtract any
/// timeout.
const MONOTONIC_START: Millis = 1 << 40;

/// The clocks of one host.
#[derive(Debug, Clone)]
pub struct Clocks {
    /// What both clocks show for `since`, milliseconds of virtual time.
    since: Millis,
    monotonic: Millis,
    /// Milliseconds that the monotonic clock advances in 1000 ms; 0: it stands still.
    rate: u64,
    usual_rate: u64,
    /// Milliseconds that the wall clock is ahead of virtual time.
    wall_offset: i64,
}

impl Clocks {
    /// Returns clocks that are `offset` milliseconds ahead.
    pub fn new(offset: Millis) -> Self {
        Self {
            since: 0,
            monotonic: MONOTONIC_START + offset,
            rate: 1000,
            usual_rate: 1000,
            wall_offset: i64::try_from(offset).expect("seconds"),
        }
    }

    /// Returns what both show.
    pub fn at(&self, now: Millis) -> Clock {
        Clock { monotonic: self.monotonic(now), wall: self.wall(now) }
    }

    /// Returns what the monotonic clock shows.
    pub fn monotonic(&self, now: Millis) -> Millis {
        self.monotonic + (now - self.since) * self.rate / 1000
    }

    /// Returns what the wall clock shows, milliseconds since 1970.
    pub fn wall(&self, now: Millis) -> Millis {
        (EPOCH + now).saturating_add_signed(self.wall_offset)
    }

    /// Returns the milliseconds until the monotonic clock shows this; `None`: it stands still.
    pub fn until(&self, now: Millis, deadline: Millis) -> Option<Millis> {
        let left = deadline.saturating_sub(self.monotonic(now));
        (self.rate > 0).then(|| left.saturating_mul(1000).div_ceil(self.rate.max(1)))
    }

    /// Sets the wall clock ahead, or back.
    pub fn step_wall(&mut self, by: i64) {
        self.wall_offset += by;
    }

    /// Lets the monotonic clock advance `rate` milliseconds in 1000 ms from now on.
    pub fn drift(&mut self, now: Millis, rate: u64) {
        self.usual_rate = rate;
        self.set_rate(now, rate);
    }

    /// Stops the monotonic clock.
    pub fn stop(&mut self, now: Millis) {
        self.set_rate(now, 0);
    }

    /// Lets the monotonic clock run again.
    pub fn go_on(&mut self, now: Millis) {
        self.set_rate(now, self.usual_rate);
    }

    fn set_rate(&mut self, now: Millis, rate: u64) {
        (self.monotonic, self.since) = (self.monotonic(now), now);
        self.rate = rate;
    }
}
