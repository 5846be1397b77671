//! Handover of sockets from a process of the node to the one that is started after it on the same data directory.
//!
//! A process that restarts leaves a *socket holder* behind (`socket_holder`): a small process of the same program that keeps
//! the listening sockets open, so that new connections wait in their backlogs. The next process takes the sockets from it over a
//! Unix socket in the data directory. The holder also goes on forwarding the established connections to instances on this node,
//! until they are closed.

mod sockets;
mod transfer;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, sockopt};

pub use sockets::{Connection, Sockets};
pub(crate) use transfer::{Item, bind, receive, send};

/// For how long sockets are held for the next process.
pub(crate) const HOLD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the other process may take to send or to take one socket.
pub(crate) const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);
/// The byte that confirms that everything has arrived.
pub(crate) const RECEIVED: u8 = 1;

/// Takes the sockets that the process before this one has left; none if it has left none. Blocks.
///
/// # Errors
/// The holder does not answer, or not in time.
pub(crate) fn take(dir: &Path) -> io::Result<Sockets> {
    let mut sockets = Sockets::default();
    let Some(holder) = transfer::connect(dir)? else { return Ok(sockets) };
    set_timeouts(&holder)?;
    while let Some(item) = receive(&holder)? {
        if let Item::Socket(name, socket) = item {
            sockets.insert(name, socket);
        }
    }
    rustix::net::send(&holder, &[RECEIVED], rustix::net::SendFlags::NOSIGNAL)?;
    Ok(sockets)
}

/// Leaves sockets and connections to a new socket holder. Blocks until it has them.
///
/// # Errors
/// The holder cannot be started, or does not take them in time.
pub(crate) fn leave(dir: &Path, sockets: Sockets, connections: Vec<Connection>) -> io::Result<()> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_timeouts(&ours)?;
    // Not by its path: there may be another version by now.
    Command::new("/proc/self/exe")
        .arg0("vc-node")
        .args(["hold-sockets", "--data-dir"])
        .arg(dir)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A signal for the node's process group is not for the holder.
        .process_group(0)
        .spawn()?;
    for (name, socket) in sockets {
        send(&ours, Item::Socket(name, socket))?;
    }
    for connection in connections {
        send(&ours, Item::Connection(connection))?;
    }
    rustix::net::shutdown(&ours, Shutdown::Write)?;
    await_received(&ours)
}

/// Waits for the confirmation of the other process. Errors: it has ended, or the time is over.
pub(crate) fn await_received(socket: &OwnedFd) -> io::Result<()> {
    let mut byte = [0];
    match rustix::net::recv(socket, &mut byte, RecvFlags::empty())? {
        (_, 1) if byte == [RECEIVED] => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Bounds how long a send or a receive blocks.
pub(crate) fn set_timeouts(socket: impl AsFd) -> io::Result<()> {
    for direction in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(&socket, direction, Some(TRANSFER_TIMEOUT))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_listener_that_is_sent_accepts_what_was_in_its_backlog() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(take(dir.path()).expect("no process holds any").is_empty());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let holder = bind(dir.path()).expect("bound");
        let holds = std::thread::spawn(move || {
            let next = rustix::net::accept(&holder).expect("a process connects");
            send(&next, Item::Socket("tcp 80".to_owned(), listener.into())).expect("sent");
            rustix::net::shutdown(&next, Shutdown::Write).expect("open");
            await_received(&next).expect("confirmed");
        });
        let mut early = TcpStream::connect(address).expect("into the backlog");
        early.write_all(b"early").expect("written");
        let mut sockets = take(dir.path()).expect("taken");
        holds.join().expect("done");
        let listener: TcpListener = sockets.take("tcp 80").expect("it was sent").into();
        let (mut accepted, _) = listener.accept().expect("from the backlog");
        drop(early);
        let mut text = String::new();
        accepted.read_to_string(&mut text).expect("read");
        assert_eq!(text, "early");
    }

    #[test]
    fn a_connection_is_sent_with_the_bytes_that_are_not_written_yet() {
        let (client, instance) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a pair");
        let (to_instance, to_client) = (vec![7; 65_535], vec![8; 65_537]);
        let sent = Connection {
            client: client.into(),
            instance: instance.into(),
            to_instance: to_instance.clone(),
            to_client: to_client.clone(),
        };
        send(&ours, Item::Connection(sent)).expect("sent");
        drop(ours);
        let Some(Item::Connection(received)) = receive(&theirs).expect("received") else {
            panic!("no connection");
        };
        assert_eq!((received.to_instance, received.to_client), (to_instance, to_client));
        assert!(receive(&theirs).expect("received").is_none());
    }
}
