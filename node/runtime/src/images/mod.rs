//! Images without a registry: members fetch the images that they lack from each other, by digest.
//!
//! An image is named by its id, the digest of its configuration, which lists the digests of the layers' tars. A node
//! stores layers as compressed *blobs* ([`store`]), named by the digest of their own bytes. So ranges of one blob can
//! come from several members, a download resumes after any interruption, and everything is verified before use. A node
//! that has an image only in its Docker engine exports it ([`pack`]) when it is first asked for.
//!
//! **Pull** (`Images::pull`): the image comes from this node's Docker engine, else from a member, else from a registry.
//! A deployment is pinned to an image id when it is made ([`Images::pin`]), so that all replicas run the same bytes;
//! without a pin, pushed references take precedence.
//!
//! Layers are streamed to Docker while they arrive (`transfer`, [`unpack`]), so a pull takes no longer than the slower of
//! the two. The file that tells Docker what to make of them is sent last, after everything was verified.
//!
//! **Copies** (`copies`): an image that a service is pinned to is kept on two nodes, for no registry may have it.
//!
//! **Retention** (`prune`): the store keeps blobs of images that a service uses or used before its last update, and of
//! those pushed in the last seven days. Images that this node loaded into Docker are removed from it once no service has
//! needed them for seven days; other images in Docker are never touched.

mod availability;
mod blob;
mod blocking;
mod catalog;
mod copies;
mod docker_images;
mod engine_ids;
mod error;
mod export;
mod fetch;
mod host_paths;
mod loaded;
mod node_images;
pub mod pack;
mod peer_set;
mod peers;
mod pipe;
mod prune;
mod pull;
mod push;
pub mod reference;
mod resolve;
mod rpc;
mod run;
mod serve;
mod singleflight;
pub mod store;
mod traffic;
mod transfer;
pub mod unpack;

pub use availability::ImageMissing;
pub use error::{ExportError, PackError, PullError, PushError, RegistryMiss, StoreError};
pub use host_paths::PathMissing;
pub use node_images::Images;
pub(crate) use pull::ImageRequest;
pub use push::Pushed;
pub use resolve::{Moved, Pinned, Pinning};
pub use rpc::OpenStream;
pub(crate) use singleflight::Update;
pub use traffic::ImageTraffic;

#[cfg(test)]
mod tests;
