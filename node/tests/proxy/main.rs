//! The proxy over real sockets: the routers of two nodes in one process, each with its own swarm, and listeners on
//! loopback addresses in place of containers.

#![allow(clippy::expect_used, reason = "a test's way to say what must not fail")]

mod hostile;
mod nodes;
mod ports;
mod tcp;
mod udp;
mod weight;
