//! The task of a connection.

mod authentication;
mod channels;
mod task;

pub(crate) use task::{Driver, Established, Inbound, Report, Shared};
