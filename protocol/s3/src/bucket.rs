//! What is read of a bucket, and deleted.

use std::io::Write;
use std::sync::Arc;

use futures::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore as _, ObjectStoreExt as _, RetryConfig};
use tokio::time::Duration;

use crate::address::Address;
use crate::connector::Connector;
use crate::credentials::Credentials;
use crate::error::{Cause, S3Error};

/// How often a request is repeated that the server could not do at the moment, and for how long.
const MAX_RETRIES: usize = 4;
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);

/// The objects below an address. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub(crate) store: Arc<AmazonS3>,
    address: Address,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The end of its key, behind that of the address.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

impl Bucket {
    /// Returns the objects below an address. Asks no server.
    ///
    /// # Errors
    /// Never in practice: an address that was parsed has all that is needed.
    pub fn open(address: &Address, credentials: &Credentials) -> Result<Self, S3Error> {
        let retry = RetryConfig {
            max_retries: MAX_RETRIES,
            retry_timeout: RETRY_TIMEOUT,
            ..RetryConfig::default()
        };
        // Nothing of the environment: an endpoint of another program must not get the backups.
        let mut builder = AmazonS3Builder::new()
            .with_http_connector(Connector)
            .with_bucket_name(address.bucket())
            .with_region(address.region())
            .with_access_key_id(&credentials.key_id)
            .with_secret_access_key(&credentials.secret)
            // Some servers do not have `DeleteObjects`.
            .with_disable_bulk_delete(true)
            .with_retry(retry);
        if let Some(token) = &credentials.session_token {
            builder = builder.with_token(token);
        }
        match address.endpoint() {
            // Others than AWS have no name in the DNS for each bucket.
            Some(endpoint) => {
                let is_plain = endpoint.starts_with("http://");
                builder = builder.with_endpoint(endpoint).with_allow_http(is_plain);
            }
            // The certificate of AWS is for names without more dots.
            None => {
                builder = builder.with_virtual_hosted_style_request(!address.bucket().contains('.'))
            }
        }
        let store = builder.build().map_err(|error| S3Error::new("use", address, &error))?;
        Ok(Self { store: Arc::new(store), address: address.clone() })
    }

    /// Returns the address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the path of an object. Names are such as backups have.
    pub(crate) fn path(&self, name: &str) -> Path {
        Path::from(self.address.key(name))
    }

    pub(crate) fn failed(&self, doing: &'static str, error: &object_store::Error) -> S3Error {
        S3Error::new(doing, &self.address, error)
    }

    /// Lists the objects directly below the address whose names begin with `prefix`.
    ///
    /// # Errors
    /// The server refuses, or cannot be reached.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Object>, S3Error> {
        let key = self.address.key(prefix);
        let (mut objects, mut page_token) = (Vec::new(), None);
        loop {
            let delimiter = Some("/".into());
            let options =
                PaginatedListOptions { delimiter, page_token, ..PaginatedListOptions::default() };
            let page = self.store.list_paginated(Some(&key), options).await;
            let page = page.map_err(|error| self.failed("list", &error))?;
            objects.extend(page.result.objects.into_iter().filter_map(|it| {
                Some(Object { name: it.location.filename()?.to_owned(), size: it.size })
            }));
            page_token = page.page_token;
            if page_token.is_none() {
                return Ok(objects);
            }
        }
    }

    /// Returns the first bytes of an object, at most `most`.
    ///
    /// # Errors
    /// There is none, the server refuses, or cannot be reached.
    pub async fn first_bytes(&self, name: &str, most: u64) -> Result<Vec<u8>, S3Error> {
        let range = Some(GetRange::Bounded(0..most));
        let options = GetOptions { range, ..GetOptions::default() };
        let failed = |error| self.failed_for("read", name, &error);
        let answer = self.store.get_opts(&self.path(name), options).await.map_err(failed)?;
        // A server that knows no ranges sends all of it.
        let mut stream = answer.into_stream();
        let (mut bytes, most) = (Vec::new(), usize::try_from(most).unwrap_or(usize::MAX));
        while let Some(chunk) = stream.try_next().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() >= most {
                bytes.truncate(most);
                break;
            }
        }
        Ok(bytes)
    }

    /// Copies an object to `to`. Returns its size. What was written when it fails is no object.
    ///
    /// # Errors
    /// There is none, the server refuses or cannot be reached, or `to` has failed.
    pub async fn download(&self, name: &str, to: &mut impl Write) -> Result<u64, S3Error> {
        let failed = |error| self.failed_for("read", name, &error);
        let answer = self.store.get(&self.path(name)).await.map_err(failed)?;
        let expected = answer.meta.size;
        let mut stream = answer.into_stream();
        let mut size = 0;
        while let Some(chunk) = stream.try_next().await.map_err(failed)? {
            let written = to.write_all(&chunk);
            written.map_err(|error| S3Error {
                doing: "copy",
                address: self.address.join(name).to_string(),
                cause: Cause::Other(format!("cannot write the file here: {error}")),
            })?;
            size += chunk.len() as u64;
        }
        if size == expected {
            return Ok(size);
        }
        let cause = Cause::Unreachable(format!("{size} of {expected} bytes came"));
        Err(S3Error { doing: "read", address: self.address.join(name).to_string(), cause })
    }

    /// Renames an object: the server copies it, which S3 does up to 5 GB, and deletes the first.
    ///
    /// # Errors
    /// There is none, it is too large, the server refuses or cannot be reached.
    pub async fn rename(&self, from: &str, to: &str) -> Result<(), S3Error> {
        let renamed = self.store.rename(&self.path(from), &self.path(to)).await;
        renamed.map_err(|error| self.failed_for("rename", from, &error))
    }

    /// Deletes an object. One that is not there is no error.
    ///
    /// # Errors
    /// The server refuses, or cannot be reached.
    pub async fn delete(&self, name: &str) -> Result<(), S3Error> {
        let deleted = self.store.delete(&self.path(name)).await;
        deleted.map_err(|error| self.failed_for("delete", name, &error))
    }

    fn failed_for(&self, doing: &'static str, name: &str, error: &object_store::Error) -> S3Error {
        S3Error::new(doing, &self.address.join(name), error)
    }
}
