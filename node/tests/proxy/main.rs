//! The routing mesh over real sockets: two nodes' routers in one process, each with a swarm of its own, and plain
//! listeners on the loopback in place of containers.

#![allow(clippy::expect_used, reason = "a test's way to say what must not fail")]

mod hostile;
mod nodes;
mod ports;
mod tcp;
mod udp;
mod weight;
