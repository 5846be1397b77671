//! The contents of secrets and configs. Servers have the key; a worker asks a server for what an instance mounts that the
//! plan gives to the worker, and keeps it in memory only.

mod client;
mod server;

pub(crate) use client::FileClient;
pub(crate) use server::FileServer;
