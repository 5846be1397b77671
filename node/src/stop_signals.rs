//! The signals that stop a node.

use std::io;

use futures::FutureExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a node is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopSignal {
    /// SIGTERM: to end, and that it is started again soon.
    Terminate,
    /// SIGINT: to end.
    Interrupt,
}

/// The signals that stop this process, from when this is made: they no longer end it by themselves.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// # Errors
    /// The signals cannot be received.
    pub(crate) fn new() -> io::Result<Self> {
        let (terminate, interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt })
    }

    /// Waits for a signal. Cancel safe.
    pub(crate) async fn receive(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.terminate.recv() => StopSignal::Terminate,
            _ = self.interrupt.recv() => StopSignal::Interrupt,
        }
    }

    /// Returns whether there was a signal that nothing has waited for.
    pub(crate) fn is_pending(&mut self) -> bool {
        self.receive().now_or_never().is_some()
    }
}
