//! Relays frames between a client and the member that performs its request.

use std::future::Future;

use futures::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use vc_protocol::exec::{ExecFrame, MAX_EXEC_CHUNK};
use vc_protocol::{ApiError, ErrorCode, NodeId};

use super::finish;
use crate::frames::{FrameError, Frames, FramesIn, FramesOut};
use crate::snapshot::Snapshot;

/// Completes when the cluster considers the node down.
pub(crate) async fn node_down(mut snapshot: watch::Receiver<Snapshot>, node: NodeId) {
    // An error means that this node is stopping, which says nothing about the other.
    if snapshot.wait_for(|snapshot| !snapshot.view.up.contains(&node)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Passes frames on in both directions until `member` has sent its last one, `down` completes, or a stream is closed.
/// `name` is the member's, for the client.
pub(crate) async fn relay<A, B>(
    client: &mut Frames<A>,
    member: &mut Frames<B>,
    down: impl Future<Output = ()>,
    name: &str,
) -> Result<(), FrameError>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    client.set_max(MAX_EXEC_CHUNK + 1);
    member.set_max(MAX_EXEC_CHUNK + 1);
    let last = {
        let (mut to_client, mut from_client) = client.split();
        let (mut to_member, mut from_member) = member.split();
        tokio::select! {
            // The member's frames first: those it sent before it was lost are passed on.
            biased;
            last = to_client_until_last(&mut from_member, &mut to_client) => last?,
            closed = to_member_until_closed(&mut from_client, &mut to_member) => return Err(closed),
            () = down => None,
        }
    };
    let lost = || {
        let message = format!("lost the connection to {name}; the command may still run there");
        ExecFrame::Failed(
            ApiError::new(ErrorCode::Unavailable, message).with_hint("see 'vc nodes'"),
        )
    };
    let finished = finish(last.unwrap_or_else(lost), client).await;
    let _ = member.close().await;
    finished
}

/// Passes the member's frames on. Returns the last one, or `None` when the stream ended without one.
async fn to_client_until_last<A, B>(
    from: &mut FramesIn<'_, B>,
    to: &mut FramesOut<'_, A>,
) -> Result<Option<ExecFrame>, FrameError>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    while let Ok(bytes) = from.receive_bytes().await {
        match ExecFrame::decode(&bytes) {
            Some(last @ (ExecFrame::Exit(_) | ExecFrame::Failed(_))) => return Ok(Some(last)),
            Some(ExecFrame::Stdout(_) | ExecFrame::Stderr(_)) => to.send_bytes(bytes).await?,
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Passes the client's frames on. Returns how the client's stream ended; a member that takes no more may still send.
async fn to_member_until_closed<A, B>(
    from: &mut FramesIn<'_, A>,
    to: &mut FramesOut<'_, B>,
) -> FrameError
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut open = true;
    loop {
        match from.receive_bytes().await {
            Ok(bytes) if open => open = to.send_bytes(bytes).await.is_ok(),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    type End = Frames<tokio_util::compat::Compat<tokio::io::DuplexStream>>;

    /// Two ends of a pipe that buffers one chunk.
    fn pipe() -> (End, End) {
        let (a, b) = tokio::io::duplex(MAX_EXEC_CHUNK);
        (Frames::new(a.compat(), MAX_EXEC_CHUNK + 1), Frames::new(b.compat(), MAX_EXEC_CHUNK + 1))
    }

    async fn next(end: &mut End) -> Option<ExecFrame> {
        end.split().1.receive_bytes().await.ok().and_then(|bytes| ExecFrame::decode(&bytes))
    }

    #[tokio::test]
    async fn both_directions_are_relayed_at_once_and_the_exit_code_comes_last() {
        let (mut client, mut to_client) = pipe();
        let (mut to_member, mut member) = pipe();
        let relaying = relay(&mut to_client, &mut to_member, std::future::pending(), "attic");
        // An echo: neither side reads all before it writes, so a relay of one direction at a time would stall.
        let echo = async {
            loop {
                match next(&mut member).await.expect("a frame") {
                    ExecFrame::Stdin(bytes) => {
                        let frame = ExecFrame::Stdout(bytes).encode();
                        member.send_bytes(frame).await.expect("sent");
                    }
                    frame => break assert_eq!(frame, ExecFrame::StdinEnd),
                }
            }
            member.send_bytes(ExecFrame::Exit(7).encode()).await.expect("sent");
            member
        };
        let talking = async |client: &mut End| {
            let (mut to, mut from) = client.split();
            let write = async {
                for n in 0..200_u8 {
                    let frame = ExecFrame::Stdin(vec![n; MAX_EXEC_CHUNK]).encode();
                    to.send_bytes(frame).await.expect("sent");
                }
                to.send_bytes(ExecFrame::StdinEnd.encode()).await.expect("sent");
            };
            let read = async {
                for n in 0..200_u8 {
                    let bytes = from.receive_bytes().await.expect("a frame");
                    assert_eq!(bytes[..], ExecFrame::Stdout(vec![n; MAX_EXEC_CHUNK]).encode());
                }
                from.receive_bytes().await.expect("a frame")
            };
            let ((), last) = tokio::join!(write, read);
            assert_eq!(ExecFrame::decode(&last), Some(ExecFrame::Exit(7)));
        };
        let talk_and_close = async move {
            talking(&mut client).await;
            drop(client);
        };
        let (ended, _member, ()) = tokio::join!(relaying, echo, talk_and_close);
        assert!(matches!(ended, Err(FrameError::Closed)));
    }

    #[tokio::test]
    async fn a_lost_member_is_reported_and_a_closed_client_stream_ends_the_relay() {
        for silent in [true, false] {
            let (mut client, mut to_client) = pipe();
            let (mut to_member, member) = pipe();
            let down = async move {
                if !silent {
                    std::future::pending::<()>().await;
                }
            };
            let relaying = relay(&mut to_client, &mut to_member, down, "attic");
            let watching = async {
                // A node that is down may leave its stream open.
                let _kept = silent.then_some(member);
                let last = next(&mut client).await;
                let Some(ExecFrame::Failed(why)) = last else { panic!("{last:?}") };
                assert!(why.message.starts_with("lost the connection to attic"), "{why}");
                assert_eq!(why.code, ErrorCode::Unavailable);
                drop(client);
            };
            let _ = tokio::join!(relaying, watching);
        }
        let (client, mut to_client) = pipe();
        let (mut to_member, _member) = pipe();
        drop(client);
        let ended = relay(&mut to_client, &mut to_member, std::future::pending(), "attic").await;
        assert!(matches!(ended, Err(FrameError::Closed)));
    }
}
