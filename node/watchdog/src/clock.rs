//! The clock of deadlines.

use std::os::fd::{AsFd, OwnedFd};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// Returns the time by CLOCK_BOOTTIME, in milliseconds since the boot. It is the same for all processes of the host, goes on while
/// the host is suspended, and is never set.
pub fn boottime() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let millis = time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000);
    u64::try_from(millis).unwrap_or(0)
}

/// A timer by [`boottime`].
pub(crate) struct Timer(OwnedFd);

impl Timer {
    /// Returns a timer that wakes the host from suspend, where that is permitted (CAP_WAKE_ALARM).
    pub(crate) fn new() -> rustix::io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        timerfd_create(TimerfdClockId::BoottimeAlarm, flags)
            .or_else(|_| timerfd_create(TimerfdClockId::Boottime, flags))
            .map(Self)
    }

    /// Sets when it is readable: at a time that may have passed, or never.
    pub(crate) fn set(&self, at: Option<u64>) -> rustix::io::Result<()> {
        // Zero would stop the timer.
        let millis = at.map_or(0, |at| i64::try_from(at.max(1)).unwrap_or(i64::MAX));
        let it_value = Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(
            &self.0,
            TimerfdTimerFlags::ABSTIME,
            &Itimerspec { it_interval, it_value },
        )?;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> rustix::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
