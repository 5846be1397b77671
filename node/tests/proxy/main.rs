//! The proxy over real sockets: the routers of two nodes in one process, each with its own swarm, and listeners on
//! loopback addresses in place of containers.

#![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

mod hostile;
mod nodes;
mod ports;
mod restart;
mod tcp;
mod udp;
mod weight;
