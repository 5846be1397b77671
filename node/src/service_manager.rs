//! What systemd is told, where it runs the node (`sd_notify(3)`): that the node is ready, alive and stopping.

use sd_notify::NotifyState;

/// Says that the node is ready: what is to start after it may start.
pub(crate) fn ready() {
    notify(NotifyState::Ready);
}

/// Says that the node is about to end.
pub(crate) fn stopping() {
    notify(NotifyState::Stopping);
}

/// Says that the node is alive, where the unit has a `WatchdogSec`. It shares its thread with all other tasks: when they hang, so does it, and
/// systemd starts the node anew.
pub(crate) async fn keep_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut tick = tokio::time::interval(limit / 2);
    loop {
        tick.tick().await;
        notify(NotifyState::Watchdog);
    }
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell systemd how the node is");
    }
}
