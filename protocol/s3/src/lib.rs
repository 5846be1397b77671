//! Backups in S3-compatible object storage: addresses, credentials, and the few operations that backups need.
//!
//! Signatures, retries and the XML are those of the `object_store` crate, the HTTP client is that of the workspace. Objects appear
//! whole or not at all; memory is bounded by two parts of an upload.

mod address;
mod bucket;
mod connector;
mod credentials;
mod error;
mod upload;

pub use address::{Address, AddressError, SCHEME};
pub use bucket::{Bucket, Object};
pub use credentials::{Credentials, CredentialsError};
pub use error::{Cause, S3Error};
pub use upload::{MAX_PARTS, Upload, abort_unfinished, part_size};

#[cfg(test)]
mod tests;
