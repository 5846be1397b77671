//! Pausing what writes a volume.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Why the instances of a volume could not be paused; one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PauseError(pub String);

/// Pauses what writes a working directory, and lets it go on.
pub trait Pause: Send + Sync {
    /// Returns once nothing writes the working directory.
    fn pause(&self) -> Pin<Box<dyn Future<Output = Result<(), PauseError>> + Send + '_>>;
    /// Lets everything go on. Called after each [`Pause::pause`], also after one that failed or was dropped half way, and again
    /// if it was dropped itself.
    fn resume(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Pauses nothing: for directories that nothing writes.
#[derive(Debug, Clone, Copy)]
pub struct NoPause;

impl Pause for NoPause {
    fn pause(&self) -> Pin<Box<dyn Future<Output = Result<(), PauseError>> + Send + '_>> {
        Box::pin(async { Ok(()) })
    }
    fn resume(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

/// Resumes what was paused, also where it is dropped.
pub(crate) struct Paused(Option<Arc<dyn Pause>>);

impl Paused {
    /// Pauses what writes; it goes on again if that fails.
    pub(crate) async fn begin(pause: &Arc<dyn Pause>) -> Result<Self, PauseError> {
        let mut paused = Self(Some(Arc::clone(pause)));
        match pause.pause().await {
            Ok(()) => Ok(paused),
            Err(error) => {
                paused.end().await;
                Err(error)
            }
        }
    }

    /// Lets it go on, and waits for that.
    pub(crate) async fn end(&mut self) {
        if let Some(pause) = self.0.clone() {
            pause.resume().await;
            // Not before: if this future is dropped, resuming begins again.
            self.0 = None;
        }
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let Some(pause) = self.0.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move { pause.resume().await });
            }
            Err(_) => tracing::error!(
                "a pause was dropped outside of the runtime: its instances stay paused"
            ),
        }
    }
}
