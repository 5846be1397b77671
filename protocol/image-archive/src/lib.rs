//! The archives that Docker engines save images in, and which image an archive holds.
//!
//! An image is identified by the digest of its configuration, on every engine. Engines with the classic image store name
//! it so too. With the containerd image store (the default since Docker 29) an engine names it by the digest of a manifest
//! or an index, which differs between engines that hold the same image: [`oci::config_digest`] finds the configuration.

mod compression;
pub mod oci;
pub mod tar;

pub use compression::decompress;

/// The entry in the `DriverStatus` of `docker info` that an engine with the containerd image store has.
const CONTAINERD_STORE: [&str; 2] = ["driver-type", "io.containerd.snapshotter.v1"];

/// Reports whether an engine with this `DriverStatus` in `docker info` has the containerd image store.
pub fn is_containerd_store(driver_status: &[Vec<String>]) -> bool {
    driver_status.iter().any(|entry| entry.iter().eq(CONTAINERD_STORE.iter()))
}
