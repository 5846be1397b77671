//! Frames between a user and the member that does what he asked.

use std::future::Future;

use futures::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use vc_protocol::NodeId;
use vc_protocol::exec::{ExecFrame, MAX_EXEC_CHUNK};

use super::say_goodbye;
use crate::frames::{FrameError, Frames, FramesIn, FramesOut};
use crate::snapshot::Snapshot;

/// Comes when the cluster holds a node for down.
pub(super) async fn lost(mut snapshot: watch::Receiver<Snapshot>, node: NodeId) {
    // An error: this node is ending, and says nothing of others.
    if snapshot.wait_for(|snapshot| !snapshot.view.up.contains(&node)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Passes frames on, both ways, until the member `there` has sent its last one, or one of them is gone.
pub(super) async fn relay<A, B>(
    user: &mut Frames<A>,
    there: &mut Frames<B>,
    lost: impl Future<Output = ()>,
    name: &str,
) -> Result<(), FrameError>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    user.set_max(MAX_EXEC_CHUNK + 1);
    there.set_max(MAX_EXEC_CHUNK + 1);
    let last = {
        let (mut to_user, mut from_user) = user.split();
        let (mut to_there, mut from_there) = there.split();
        tokio::select! {
            // First: what it said before it was lost counts.
            biased;
            last = down(&mut from_there, &mut to_user) => last?,
            gone = up(&mut from_user, &mut to_there) => return Err(gone),
            () = lost => None,
        }
    };
    let broken = || {
        let told =
            format!("lost the connection to {name}: whether the command goes on is not known");
        ExecFrame::Failed(told)
    };
    let goodbye = say_goodbye(last.unwrap_or_else(broken), user).await;
    let _ = there.close().await;
    goodbye
}

/// To the user; gives the last frame, or `None` where the stream ended without one. Errors: the user is gone.
async fn down<A, B>(
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

/// From the user; gives why nothing more comes. A member that takes no more may still have something to say.
async fn up<A, B>(from: &mut FramesIn<'_, A>, to: &mut FramesOut<'_, B>) -> FrameError
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut takes = true;
    loop {
        match from.receive_bytes().await {
            Ok(bytes) if takes => takes = to.send_bytes(bytes).await.is_ok(),
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

    /// Two ends of a pipe that holds little.
    fn pipe() -> (End, End) {
        let (a, b) = tokio::io::duplex(MAX_EXEC_CHUNK);
        (Frames::new(a.compat(), MAX_EXEC_CHUNK + 1), Frames::new(b.compat(), MAX_EXEC_CHUNK + 1))
    }

    async fn next(end: &mut End) -> Option<ExecFrame> {
        end.split().1.receive_bytes().await.ok().and_then(|bytes| ExecFrame::decode(&bytes))
    }

    #[tokio::test]
    async fn both_directions_flow_at_once_and_the_exit_code_comes_last() {
        let (mut user, mut to_user) = pipe();
        let (mut to_member, mut member) = pipe();
        let relaying = relay(&mut to_user, &mut to_member, std::future::pending(), "attic");
        // An echo: neither side reads all before it writes, so that a relay that knew one direction only would stall.
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
        let talking = async |user: &mut End| {
            let (mut to, mut from) = user.split();
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
        let talk_and_go = async move {
            talking(&mut user).await;
            drop(user);
        };
        let (ended, _member, ()) = tokio::join!(relaying, echo, talk_and_go);
        assert!(matches!(ended, Err(FrameError::Closed)));
    }

    #[tokio::test]
    async fn a_member_that_is_lost_is_told_and_a_user_who_goes_ends_it() {
        for silent in [true, false] {
            let (mut user, mut to_user) = pipe();
            let (mut to_member, member) = pipe();
            let lost = async move {
                if !silent {
                    std::future::pending::<()>().await;
                }
            };
            let relaying = relay(&mut to_user, &mut to_member, lost, "attic");
            let watching = async {
                // Silently lost, the stream stays; otherwise it breaks.
                let _kept = silent.then_some(member);
                let last = next(&mut user).await;
                let Some(ExecFrame::Failed(why)) = last else { panic!("{last:?}") };
                assert!(why.starts_with("lost the connection to attic"), "{why}");
                drop(user);
            };
            let _ = tokio::join!(relaying, watching);
        }
        let (user, mut to_user) = pipe();
        let (mut to_member, _member) = pipe();
        drop(user);
        let ended = relay(&mut to_user, &mut to_member, std::future::pending(), "attic").await;
        assert!(matches!(ended, Err(FrameError::Closed)));
    }
}
