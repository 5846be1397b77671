//! What systemd is told, where it runs the node (`sd_notify(3)`): that the node is ready, alive and stopping.

use std::time::Duration;

use sd_notify::NotifyState;

/// Says that the node is ready: what is to start after it may start.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Says that the node is about to end.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Has systemd allow a node that executes another program this time until it says that it is alive, where the unit's `WatchdogSec` is less:
/// until [`restore_watchdog`], or until systemd starts the node anew.
pub(crate) fn extend_watchdog(limit: Duration) {
    if sd_notify::watchdog_enabled().is_some_and(|unit| unit < limit) {
        notify(&[NotifyState::Watchdog, watchdog(limit)]);
    }
}

/// Returns to the `WatchdogSec` of the unit.
pub(crate) fn restore_watchdog() {
    if let Some(unit) = sd_notify::watchdog_enabled() {
        notify(&[NotifyState::Watchdog, watchdog(unit)]);
    }
}

fn watchdog(limit: Duration) -> NotifyState<'static> {
    NotifyState::WatchdogUsec(u32::try_from(limit.as_micros()).unwrap_or(u32::MAX))
}

/// Says that the node is alive, where the unit has a `WatchdogSec`. It shares its thread with all other tasks: when they hang, so does it, and
/// systemd starts the node anew.
pub(crate) async fn keep_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut tick = tokio::time::interval(limit / 2);
    loop {
        tick.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell systemd how the node is");
    }
}
