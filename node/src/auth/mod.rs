//! Authentication of peers that connect: the listening side of the handshake in [`vc_protocol::auth`], and its limits.
//!
//! The dialing side is [`vc_client::handshake`].

mod limits;
mod metrics;
mod peers;
pub(crate) mod privileges;
mod quota;
mod rights;
mod server;
mod user;

pub(crate) use metrics::AuthMetrics;
pub(crate) use peers::{Audience, member_addresses, peer_addresses};
pub(crate) use rights::{Rights, RightsError};
pub(crate) use server::AuthServer;
pub(crate) use user::{TokenVerifier, User};
