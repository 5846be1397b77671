//! The shell of a node: what the engine decides, this does.

mod api;
pub mod args;
mod auth;
mod console;
pub mod dns;
pub mod driver;
mod events;
mod exec;
mod host;
mod http;
mod identity;
pub mod images;
mod join;
mod logs;
pub mod network;
mod prepare;
pub mod proxy;
mod run;
pub mod runtime;
mod seal;
pub mod store;

use std::sync::LazyLock;

use vc_protocol::Millis;

pub use run::start;
pub(crate) use vc_client::frames;

/// This node's time, in milliseconds since the epoch. It never goes back while the process lives.
pub(crate) fn now() -> Millis {
    static CLOCK: LazyLock<Box<dyn Fn() -> Millis + Send + Sync>> =
        LazyLock::new(|| Box::new(driver::clock()));
    CLOCK()
}

/// A random number from the operating system.
pub(crate) fn random() -> anyhow::Result<u64> {
    Ok(u64::from_be_bytes(random_bytes()?))
}

/// Random bytes from the operating system, good for keys.
pub(crate) fn random_bytes<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes)
}
