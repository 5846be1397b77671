//! Why a load could not be generated.

/// Why a load could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The arguments are wrong.
    #[error(
        "usage: vc-load http ADDRESS RATE | streams|idle|datagrams ADDRESS COUNT | fetch ADDRESS PATH"
    )]
    Usage,
    /// A connection could not be opened, or failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A connection or an answer took longer than [`crate::TIMEOUT`].
    #[error("no answer in {} s", crate::TIMEOUT.as_secs())]
    TimedOut(#[from] tokio::time::error::Elapsed),
    /// The service closed a stream before its first line.
    #[error("the service closed the stream before the first line")]
    NoFirstLine,
    /// The answer is not HTTP with status 200, or is truncated.
    #[error("{0}")]
    Response(String),
    /// A task panicked.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
    /// The report could not be written.
    #[error(transparent)]
    Report(#[from] serde_json::Error),
}
