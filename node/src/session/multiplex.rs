//! Many sessions of one user on one stream: yamux, whose windows bound what a stream that nobody reads can hold.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use vc_protocol::control::Reply;
use vc_protocol::token::UserRole;
use vc_protocol::wire::MAX_FRAME;
use yamux::{Config, Connection, Mode};

use super::{Next, Session, User};
use crate::frames::{Duplex, Frames};

/// Sessions at once. With one more the multiplexer ends the connection: clients keep below.
const MAX_STREAMS: usize = 256;
/// What a stream may have under way from the start, in bytes: yamux's own.
const WINDOW: usize = 256 * 1024;
/// A request of somebody who may only look, in bytes: as many as there are streams may be under way at once.
const MAX_LOOKING: usize = 256 * 1024;
/// Sessions that may begin at once after a quiet time.
const BURST: usize = 1000;
/// After that, one more each so often.
const EVERY: Duration = Duration::from_micros(500);

/// Serves a stream until it breaks. What still runs then is dropped.
pub(super) async fn serve(session: &Session, user: &User, stream: impl Duplex) {
    let mut config = Config::default();
    config.set_max_num_streams(MAX_STREAMS);
    config.set_max_connection_receive_window(Some(MAX_STREAMS * WINDOW));
    let mut connection = Connection::new(stream, config, Mode::Server);
    let budget = Arc::new(Semaphore::new(BURST));
    let mut sessions = JoinSet::new();
    let mut refill = tokio::time::interval(EVERY * BURST as u32 / 10);
    loop {
        tokio::select! {
            opened = poll_fn(|cx| connection.poll_next_inbound(cx)) => {
                let Some(Ok(stream)) = opened else { return };
                let (session, user, budget) = (session.clone(), user.clone(), Arc::clone(&budget));
                sessions.spawn(async move {
                    // A user beyond his budget waits.
                    let Ok(permit) = budget.acquire_owned().await else { return };
                    permit.forget();
                    let max = if user.role < UserRole::Deployer { MAX_LOOKING } else { MAX_FRAME };
                    let mut frames = Frames::new(stream, max);
                    if session.answer_all(&user, &mut frames).await == Next::Multiplex {
                        let reason = "this stream is one of many already".to_owned();
                        let _ = frames.send(&Reply::Error(reason)).await;
                    }
                    let _ = frames.close().await;
                });
            }
            Some(_) = sessions.join_next() => {}
            _ = refill.tick() => {
                let room = BURST.saturating_sub(budget.available_permits());
                budget.add_permits(room.min(BURST / 10));
            }
        }
    }
}
