//! Many sessions of one user on one stream: yamux, whose windows bound what a stream that nobody reads can hold.

use std::future::poll_fn;

use tokio::task::JoinSet;
use tokio::time::sleep;
use vc_protocol::control::Reply;
use vc_protocol::{ApiError, ErrorCode};
use yamux::{Config, Connection, Mode};

use super::{IDLE, Next, Session, User};
use crate::frames::{Duplex, Frames};

/// Sessions at once. With one more the multiplexer ends the connection: clients keep below.
const MAX_STREAMS: usize = 256;
/// What a stream may have under way from the start, in bytes: yamux's own.
const WINDOW: usize = 256 * 1024;

/// Serves a stream until it breaks, or nothing is asked on it for long. What still runs then is dropped.
pub(super) async fn serve(session: &Session, user: &User, stream: impl Duplex) {
    let mut config = Config::default();
    config.set_max_num_streams(MAX_STREAMS);
    config.set_max_connection_receive_window(Some(MAX_STREAMS * WINDOW));
    let mut connection = Connection::new(stream, config, Mode::Server);
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            opened = poll_fn(|cx| connection.poll_next_inbound(cx)) => {
                let Some(Ok(stream)) = opened else { return };
                let (session, user) = (session.clone(), user.clone());
                sessions.spawn(async move {
                    let mut frames = Frames::new(stream, user.max_frame());
                    let Some(_place) = user.quota.stream() else {
                        let reason = "too many streams have this token: end some".to_owned();
                        let _ = frames.send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason))).await;
                        return;
                    };
                    if session.answer_all(&user, &mut frames).await == Next::Multiplex {
                        let reason = "this stream is one of many already".to_owned();
                        let _ = frames.send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason))).await;
                    }
                    let _ = frames.close().await;
                });
            }
            Some(_) = sessions.join_next() => {}
            () = sleep(IDLE), if sessions.is_empty() => return,
        }
    }
}
