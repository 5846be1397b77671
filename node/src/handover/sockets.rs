//! What is handed over.

use std::collections::BTreeMap;
use std::collections::btree_map::IntoIter;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::net::{TcpListener, UdpSocket};

/// Listening sockets, and bound ones of UDP, by a name that says what they are for.
#[derive(Debug, Default)]
pub struct Sockets(BTreeMap<String, OwnedFd>);

impl Sockets {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a socket.
    pub fn insert(&mut self, name: String, socket: OwnedFd) {
        self.0.insert(name, socket);
    }

    /// Adds a duplicate of a socket that is in use. Errors: out of file descriptors.
    pub fn insert_duplicate(&mut self, name: &str, socket: impl AsFd) -> io::Result<()> {
        self.insert(name.to_owned(), socket.as_fd().try_clone_to_owned()?);
        Ok(())
    }

    /// Adds all of these.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Removes a socket and returns it.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.0.remove(name)
    }

    /// Removes a listening socket and returns it; `None` also if it cannot be used.
    pub fn take_tcp(&mut self, name: &str) -> Option<TcpListener> {
        TcpListener::from_std(self.take(name)?.into()).ok()
    }

    /// Removes a UDP socket and returns it; `None` also if it cannot be used.
    pub fn take_udp(&mut self, name: &str) -> Option<UdpSocket> {
        UdpSocket::from_std(self.take(name)?.into()).ok()
    }

    /// Removes the sockets whose names begin with `prefix` and returns them.
    pub fn split_off(&mut self, prefix: &str) -> Self {
        Self(self.0.extract_if(.., |name, _| name.starts_with(prefix)).collect())
    }

    /// Closes all sockets.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the sockets with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &OwnedFd)> {
        self.0.iter()
    }
}

impl IntoIterator for Sockets {
    type Item = (String, OwnedFd);
    type IntoIter = IntoIter<String, OwnedFd>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// An established connection between a client and an instance on this node.
#[derive(Debug)]
pub struct Connection {
    pub(crate) client: OwnedFd,
    pub(crate) instance: OwnedFd,
    /// Bytes that the client has sent and that are not written yet.
    pub(crate) to_instance: Vec<u8>,
    /// Bytes that the instance has sent and that are not written yet.
    pub(crate) to_client: Vec<u8>,
}
