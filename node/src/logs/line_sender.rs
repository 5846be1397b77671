//! Sends log lines to a client or a member.

use futures::{AsyncRead, AsyncWrite};
use vc_protocol::control::{LogBatch, LogRow, Reply};

use crate::frames::{FrameError, Frames};

/// Limit of the bytes of lines that are sent together, if there are several.
const MAX_BYTES: usize = 64 << 10;
/// What a line costs beside its text, in bytes.
const OVERHEAD: usize = 64;

/// Puts lines of the same instance together, for readers that take them so.
pub(super) struct LineSender {
    batched: bool,
    waiting: Option<LogBatch>,
    bytes: usize,
}

impl LineSender {
    /// `batched`: the reader takes several lines in a frame.
    pub(super) fn new(batched: bool) -> Self {
        Self { batched, waiting: None, bytes: 0 }
    }

    /// Buffers a line until [`finish`](Self::finish), or until those that wait are enough.
    pub(super) async fn feed<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        row: LogRow,
        frames: &mut Frames<S>,
    ) -> Result<(), FrameError> {
        if !self.batched {
            return frames.feed(&Reply::Log(row)).await;
        }
        let bytes = row.line.len() + OVERHEAD;
        let continues = self.waiting.as_ref().is_some_and(|batch| batch.is_of(&row));
        if !continues || self.bytes + bytes > MAX_BYTES {
            self.finish(frames).await?;
        }
        self.waiting.get_or_insert_with(|| LogBatch::for_lines_like(&row)).push(row);
        self.bytes += bytes;
        Ok(())
    }

    /// Passes on what waits.
    pub(super) async fn finish<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        frames: &mut Frames<S>,
    ) -> Result<(), FrameError> {
        self.bytes = 0;
        match self.waiting.take() {
            Some(batch) => frames.feed(&Reply::Logs(batch)).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::compat::TokioAsyncReadCompatExt as _;
    use vc_protocol::control::LogStream;
    use vc_protocol::wire::MAX_FRAME;

    use super::*;

    fn row(replica: u32, line: &str) -> LogRow {
        let key = vc_protocol::Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        LogRow {
            service: "shop/web".parse().expect("a service"),
            replica,
            node: vc_protocol::NodeId::of(&key.public()).expect("ed25519"),
            time: Some(7),
            stream: LogStream::Stdout,
            line: line.to_owned(),
            lost: None,
        }
    }

    /// Sends the rows; returns the frames that arrive.
    async fn sent(batched: bool, rows: &[LogRow]) -> Vec<Reply> {
        let (near, far) = tokio::io::duplex(16 << 20);
        let mut near = Frames::new(near.compat(), MAX_FRAME);
        let mut lines = LineSender::new(batched);
        for row in rows {
            lines.feed(row.clone(), &mut near).await.expect("sent");
        }
        lines.finish(&mut near).await.expect("sent");
        near.close().await.expect("closed");
        let mut far = Frames::new(far.compat(), MAX_FRAME);
        let mut replies = Vec::new();
        while let Ok(reply) = far.receive().await {
            replies.push(reply);
        }
        replies
    }

    fn rows_of(replies: Vec<Reply>) -> Vec<LogRow> {
        let rows = replies.into_iter().flat_map(|reply| match reply {
            Reply::Log(row) => vec![row],
            Reply::Logs(batch) => batch.into_rows().collect(),
            other => panic!("{other:?}"),
        });
        rows.collect()
    }

    #[tokio::test]
    async fn lines_arrive_once_and_in_order_in_few_frames_for_readers_that_take_several() {
        let rows: Vec<LogRow> =
            (0..3000).map(|n| row(1 + n / 1000, &format!("line {n} of many"))).collect();
        let together = sent(true, &rows).await;
        assert!(together.len() < 10, "{}", together.len());
        assert_eq!(rows_of(together), rows);
        let single = sent(false, &rows).await;
        assert_eq!(single.len(), rows.len());
        assert_eq!(rows_of(single), rows);
    }

    #[tokio::test]
    async fn the_longest_lines_fit_into_frames() {
        let long = "\u{1}".repeat(vc_runtime::MAX_LINE);
        let rows = [row(1, "short"), row(1, &long), row(1, &long)];
        assert_eq!(rows_of(sent(true, &rows).await), rows);
    }
}
