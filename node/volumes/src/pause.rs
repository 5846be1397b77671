//! Pausing what writes a volume.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why the instances of a volume could not be paused; one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PauseError(pub String);

/// Pauses what writes a working directory, and lets it go on.
pub trait Pause: Send + Sync {
    /// Returns once nothing writes the working directory, and since when the first of what writes it stands still.
    fn pause(&self) -> Pin<Box<dyn Future<Output = Result<Instant, PauseError>> + Send + '_>>;
    /// Lets everything go on, and returns when it did. Called after each [`Pause::pause`], also after one that failed or was dropped half way, and again
    /// if it was dropped itself.
    fn resume(&self) -> Pin<Box<dyn Future<Output = Instant> + Send + '_>>;
}

/// Pauses nothing: for directories that nothing writes.
#[derive(Debug, Clone, Copy)]
pub struct NoPause;

impl Pause for NoPause {
    fn pause(&self) -> Pin<Box<dyn Future<Output = Result<Instant, PauseError>> + Send + '_>> {
        Box::pin(async { Ok(Instant::now()) })
    }
    fn resume(&self) -> Pin<Box<dyn Future<Output = Instant> + Send + '_>> {
        Box::pin(async { Instant::now() })
    }
}

/// Resumes what was paused, also where it is dropped.
pub(crate) struct Paused {
    pause: Option<Arc<dyn Pause>>,
    /// Since when what writes stands still.
    pub(crate) since: Instant,
}

impl Paused {
    /// Pauses what writes; it goes on again if that fails.
    pub(crate) async fn begin(pause: &Arc<dyn Pause>) -> Result<Self, PauseError> {
        let mut paused = Self { pause: Some(Arc::clone(pause)), since: Instant::now() };
        match pause.pause().await {
            Ok(since) => {
                paused.since = since;
                Ok(paused)
            }
            Err(error) => {
                paused.end().await;
                Err(error)
            }
        }
    }

    /// Lets it go on, and waits for that. Returns for how long it stood still, without the commands before and after.
    pub(crate) async fn end(&mut self) -> Duration {
        let Some(pause) = self.pause.clone() else { return Duration::ZERO };
        let resumed = pause.resume().await;
        // Not before: if this future is dropped, resuming begins again.
        self.pause = None;
        resumed.saturating_duration_since(self.since)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let Some(pause) = self.pause.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    pause.resume().await;
                });
            }
            Err(_) => tracing::error!(
                "a pause was dropped outside of the runtime: its instances stay paused"
            ),
        }
    }
}
