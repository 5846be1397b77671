//! A connection of the node, which is never waited for.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::message::{MAX_MESSAGE, Reply, line};

/// The connection of the node.
pub(crate) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
}

/// The connection has ended, or is of no use.
#[derive(Debug)]
pub(crate) struct Closed;

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Reads what has arrived, and returns the complete lines.
    pub(crate) fn receive(&mut self) -> Result<Vec<Vec<u8>>, Closed> {
        let mut buffer = [0; 16_384];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Closed),
                Ok(length) => self.received.extend_from_slice(buffer.get(..length).unwrap_or(&[])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(Closed),
            }
            if self.received.len() > MAX_MESSAGE {
                return Err(Closed);
            }
        }
        let mut lines = Vec::new();
        while let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
            let rest = self.received.split_off(end + 1);
            lines.push(std::mem::replace(&mut self.received, rest));
        }
        Ok(lines)
    }

    /// Sends a message. A node that does not read loses its connection: it gets a new one when it asks.
    pub(crate) fn send(&mut self, reply: &Reply) -> Result<(), Closed> {
        self.stream.write_all(&line(reply)).map_err(|_| Closed)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
