//! The socket holder: the process that keeps sockets open between two processes of a node, see [`handover`].

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use rustix::net::{Shutdown, SocketFlags, sockopt};
use tokio::task::JoinSet;

use crate::handover::{self, HOLD_TIMEOUT, Item, RECEIVED, Sockets};
use crate::proxy;

/// Receives sockets and connections on stdin. Keeps the sockets until the next process takes them, at most for
/// [`HOLD_TIMEOUT`], and forwards the connections until they are closed.
///
/// # Errors
/// Not everything was received.
pub(crate) async fn run(dir: &Path) -> io::Result<()> {
    let next = handover::bind(dir)?;
    let (mut sockets, mut connections) = (Sockets::default(), JoinSet::new());
    let stdin = std::io::stdin();
    while let Some(item) = handover::receive(&stdin)? {
        match item {
            Item::Socket(name, socket) => sockets.insert(name, socket),
            Item::Connection(connection) => {
                connections.spawn(proxy::resume(connection));
            }
        }
    }
    rustix::net::send(&stdin, &[RECEIVED], rustix::net::SendFlags::NOSIGNAL)?;
    rustix::net::shutdown(&stdin, Shutdown::Both)?;
    let forwarding = async move { while connections.join_next().await.is_some() {} };
    let holding = tokio::task::spawn_blocking(move || hold(next, sockets));
    // When it fails, the next process binds the ports itself.
    let ((), _) = tokio::join!(forwarding, holding);
    Ok(())
}

/// Sends the sockets to the first process that connects and confirms that it has them. Blocks.
fn hold(next: OwnedFd, sockets: Sockets) -> io::Result<()> {
    let until = Instant::now() + HOLD_TIMEOUT;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if sockets.is_empty() || left.is_zero() {
            return Ok(());
        }
        sockopt::set_socket_timeout(&next, sockopt::Timeout::Recv, Some(left))?;
        let process = rustix::net::accept_with(&next, SocketFlags::CLOEXEC)?;
        if pass_on(&process, &sockets).is_ok() {
            return Ok(());
        }
    }
}

/// Sends the sockets to a process. Blocks, at most for [`handover::TRANSFER_TIMEOUT`] if it does not answer.
fn pass_on(process: &OwnedFd, sockets: &Sockets) -> io::Result<()> {
    handover::set_timeouts(process)?;
    for (name, socket) in sockets.iter() {
        handover::send(process, Item::Socket(name.clone(), socket.try_clone()?))?;
    }
    rustix::net::shutdown(process, Shutdown::Write)?;
    handover::await_received(process)
}
