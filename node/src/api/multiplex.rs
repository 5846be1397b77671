//! Many sessions on one stream: yamux, whose windows bound what a stream that is not read holds.

use std::future::poll_fn;

use tokio::task::JoinSet;
use tokio::time::sleep;
use vc_protocol::control::Reply;
use vc_protocol::{ApiError, ErrorCode};
use yamux::{Config, Connection, Mode};

use super::ControlService;
use super::service::{IDLE_TIMEOUT, Next};
use crate::auth::User;
use crate::frames::{Duplex, Frames};

/// Streams open at once. Yamux closes the connection on one more, so clients keep below.
const MAX_STREAMS: usize = 256;
/// Initial window of a stream in bytes, fixed by yamux.
const WINDOW: usize = 256 * 1024;

/// Serves a multiplexed stream until it breaks or has had no open stream for [`IDLE_TIMEOUT`]; then aborts what still runs.
pub(super) async fn serve(service: &ControlService, user: &User, stream: impl Duplex) {
    let mut config = Config::default();
    config.set_max_num_streams(MAX_STREAMS);
    config.set_max_connection_receive_window(Some(MAX_STREAMS * WINDOW));
    let mut connection = Connection::new(stream, config, Mode::Server);
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            opened = poll_fn(|cx| connection.poll_next_inbound(cx)) => {
                let Some(Ok(stream)) = opened else { return };
                sessions.spawn(serve_stream(service.clone(), user.clone(), stream));
            }
            Some(_) = sessions.join_next() => {}
            () = sleep(IDLE_TIMEOUT), if sessions.is_empty() => return,
        }
    }
}

/// Serves one of the streams, within the token's limit.
async fn serve_stream(service: ControlService, user: User, stream: impl Duplex) {
    let mut frames = Frames::new(stream, user.max_frame());
    let Some(_permit) = user.quota.stream() else {
        let error = ApiError::new(
            ErrorCode::ResourceExhausted,
            "this token has too many streams open on this node",
        );
        let error = error.with_hint("close some of them");
        let _ = frames.send(&Reply::Error(error)).await;
        return;
    };
    if service.serve_requests(&user, &mut frames, || {}).await == Next::Multiplex {
        let error = ApiError::new(
            ErrorCode::InvalidArgument,
            "this stream is multiplexed already and cannot be multiplexed again",
        );
        let _ = frames.send(&Reply::Error(error)).await;
    }
    let _ = frames.close().await;
}
