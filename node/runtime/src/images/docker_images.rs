//! The images of a Docker engine, by the digests of their configurations whatever the engine calls them.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::ImageInspect;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ImportImageOptionsBuilder, ListImagesOptionsBuilder,
    RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::io::{StreamReader, SyncIoBridge};
use vc_image_archive::oci;
use vc_protocol::image::{Digest, Manifest, RegistryAnswer};

use super::availability::REGISTRY_TIMEOUT;
use super::blocking::blocking;
use super::engine_ids::EngineIds;
use super::reference::{name_and_tag, tagged};
use crate::docker_error::{self, DockerError};
use crate::engine_info::{EngineInfo, EngineInfoCache};

/// How long a query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long reading or writing a whole image may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
/// How long a pull may show no progress.
const REGISTRY_IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How many images are inspected for common layers, the newest first.
const MAX_INSPECTED: usize = 256;
/// How Docker's progress of a load begins that has failed.
const UNPACK_ERROR: &str = "Error unpacking image";
/// How many images are inspected at a time.
const CONCURRENT_INSPECTS: usize = 8;

/// A client of a Docker engine, for its images.
#[derive(Debug, Clone)]
pub(super) struct DockerImages {
    host: Arc<str>,
    info: EngineInfoCache,
    ids: Arc<EngineIds>,
    /// Held while an image is identified.
    identifying: Arc<Mutex<()>>,
}

/// An image as the engine has it.
struct Inspected {
    /// What the engine calls it.
    id: Digest,
    details: ImageInspect,
}

impl DockerImages {
    /// Returns a client of the engine at `host` (`unix:///PATH` or `tcp://HOST:PORT`), without connecting.
    pub(super) fn new(host: &str, ids: EngineIds) -> Self {
        let (info, identifying) = (EngineInfoCache::default(), Arc::default());
        Self { host: host.into(), info, ids: Arc::new(ids), identifying }
    }

    /// Reports whether the engine runs on this host.
    pub(super) fn is_local(&self) -> bool {
        self.host.starts_with("unix://")
    }

    fn client(&self, limit: Duration) -> Result<bollard::Docker, Error> {
        Ok(bollard::Docker::connect_with_host(&self.host)?.with_timeout(limit))
    }

    async fn info(&self) -> Result<EngineInfo, Error> {
        self.info.get(&self.client(QUERY_TIMEOUT)?, &self.host).await
    }

    /// Looks up an image by reference, or by what the engine calls it; `None` when the engine does not have it.
    async fn inspect(&self, name: &str) -> Result<Option<Inspected>, DockerError> {
        let details = match self.client(QUERY_TIMEOUT)?.inspect_image(name).await {
            Err(error) if docker_error::status(&error) == Some(404) => return Ok(None),
            found => found?,
        };
        let id = details.id.clone().unwrap_or_default().parse()?;
        Ok(Some(Inspected { id, details }))
    }

    /// Looks up an image by its id.
    async fn inspect_id(&self, id: &Digest) -> Result<Option<Inspected>, DockerError> {
        for name in self.ids.of_image(id) {
            if let Some(found) = self.inspect(name.as_str()).await? {
                return Ok(Some(found));
            }
        }
        // The classic image store names images so.
        Ok(self
            .inspect(id.as_str())
            .await?
            .filter(|found| self.ids.image(&found.id).is_none_or(|it| it == *id)))
    }

    /// Returns the id and size in bytes of the image that a reference names; `None` when Docker does not have it.
    ///
    /// An image that was pulled or built in a containerd image store is identified once: from containerd's files, or, where
    /// this node cannot read them, by exporting it up to its manifest, which continues after a caller has stopped waiting.
    pub(super) async fn find(&self, reference: &str) -> Result<Option<(Digest, u64)>, DockerError> {
        let Some(Inspected { id, details }) = self.inspect(reference).await? else {
            return Ok(None);
        };
        Ok(Some((self.identify(id).await?, size(&details))))
    }

    /// Returns the size in bytes of an image; `None` when Docker does not have it.
    pub(super) async fn size(&self, id: &Digest) -> Result<Option<u64>, DockerError> {
        Ok(self.inspect_id(id).await?.map(|found| size(&found.details)))
    }

    /// Returns what the engine calls an image.
    pub(super) async fn name_of(&self, id: &Digest) -> Result<Digest, DockerError> {
        match self.ids.of_image(id).as_slice() {
            [] => Ok(id.clone()),
            _ => Ok(self.inspect_id(id).await?.map_or_else(|| id.clone(), |found| found.id)),
        }
    }

    /// Returns the image that the engine calls `id`.
    async fn identify(&self, id: Digest) -> Result<Digest, DockerError> {
        if let Some(image) = self.ids.image(&id) {
            return Ok(image);
        }
        let info = self.info().await?;
        if !info.containerd_store {
            return Ok(id);
        }
        let docker = self.clone();
        let identified = tokio::spawn(async move {
            let _one = docker.identifying.lock().await;
            if let Some(image) = docker.ids.image(&id) {
                return Ok(image);
            }
            let archive = export(docker.client(TRANSFER_TIMEOUT)?, id.to_string());
            let mut archive = SyncIoBridge::new(StreamReader::new(archive.boxed()));
            let (is_local, name) = (docker.host.starts_with("unix://"), id.clone());
            let read = blocking(move || {
                let EngineInfo { data_root, platform, .. } = info;
                let stored = || oci::stored_config_digest(&data_root, &name, &platform);
                match is_local.then(stored).flatten() {
                    Some(image) => Ok(image),
                    None => oci::config_digest(&mut archive, &name, &platform),
                }
            });
            let image = read.await.map_err(DockerError::Identify)?;
            tracing::debug!(
                image = image.short(),
                docker = id.short(),
                "image in Docker identified"
            );
            docker.ids.insert(id, image.clone(), false).await;
            Ok(image)
        });
        identified.await.unwrap_or_else(|error| Err(DockerError::Identify(io::Error::other(error))))
    }

    /// Reports whether Docker has an image; false when it does not answer.
    pub(super) async fn has(&self, id: &Digest) -> bool {
        matches!(self.inspect_id(id).await, Ok(Some(_)))
    }

    /// Reports whether Docker has an image, or what the reference names is this image.
    pub(super) async fn has_as(&self, id: &Digest, reference: &str) -> bool {
        self.has(id).await
            || matches!(self.find(reference).await, Ok(Some((found, _))) if found == *id)
    }

    /// Returns what the engine calls its images, the newest first; none when it does not answer.
    async fn names(&self) -> Vec<Digest> {
        let list = async {
            let options = ListImagesOptionsBuilder::default().all(false).build();
            self.client(QUERY_TIMEOUT)?.list_images(Some(options)).await
        };
        let images = list.await.unwrap_or_else(|error| {
            tracing::debug!(error = docker_error::message(&error), "cannot list Docker's images");
            Vec::new()
        });
        images.into_iter().filter_map(|image| image.id.parse().ok()).collect()
    }

    /// Returns the ids of all images that are identified, the newest first; none when Docker does not answer.
    pub(super) async fn all(&self) -> Vec<Digest> {
        let names = self.names().await;
        names.into_iter().map(|name| self.ids.image(&name).unwrap_or(name)).collect()
    }

    /// Forgets what the engine called images that it no longer has.
    pub(super) async fn forget_removed(&self) {
        let names = self.names().await;
        // None: it does not answer.
        if !names.is_empty() {
            self.ids.retain(&names.into_iter().collect()).await;
        }
    }

    /// Returns how many of these layers, counted from the lowest, Docker has already as the lowest layers of an image.
    pub(super) async fn common_layers(&self, diff_ids: &[&Digest]) -> usize {
        let (Ok(client), Ok(info)) = (self.client(QUERY_TIMEOUT), self.info().await) else {
            return 0;
        };
        let mut names = self.names().await;
        if info.containerd_store {
            // It names layers by their compressed bytes, unless they were loaded uncompressed.
            let loaded = self.ids.loaded();
            names.retain(|name| loaded.contains(name));
        }
        let inspects = names.into_iter().take(MAX_INSPECTED).map(|id| {
            let client = client.clone();
            async move {
                let found = client.inspect_image(id.as_str()).await.ok();
                let layers = found.and_then(|found| found.root_fs?.layers).unwrap_or_default();
                let same =
                    layers.iter().zip(diff_ids).take_while(|(a, b)| a.as_str() == b.as_str());
                same.count()
            }
        });
        let counts = stream::iter(inspects).buffer_unordered(CONCURRENT_INSPECTS);
        counts.fold(0, |most, count| std::future::ready(most.max(count))).await
    }

    /// Streams an image as `docker save` writes it.
    pub(super) async fn save(
        &self,
        id: &Digest,
    ) -> Result<impl Stream<Item = io::Result<Bytes>>, DockerError> {
        let name = self.name_of(id).await?;
        Ok(export(self.client(TRANSFER_TIMEOUT)?, name.to_string()))
    }

    /// Loads an archive of an image as `docker load` does; false when Docker does not have it then.
    pub(super) async fn load(
        &self,
        image: &Manifest,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<bool, DockerError> {
        let client = self.client(TRANSFER_TIMEOUT)?;
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let body = bollard::body_try_stream(archive);
        let mut steps = Box::pin(client.import_image(options, body, None));
        let mut loaded = Ok(());
        while let Some(step) = steps.next().await {
            match step {
                Err(error) => loaded = Err(DockerError::Engine(error)),
                // Docker 28 reports this as progress.
                Ok(step) => {
                    let failed = step.stream.filter(|text| text.starts_with(UNPACK_ERROR));
                    if let Some(error) = failed {
                        loaded = Err(DockerError::Engine(Error::DockerStreamError { error }));
                    }
                }
            }
        }
        if !self.info().await?.containerd_store {
            return match loaded {
                Ok(()) => Ok(self.has(&image.id).await),
                Err(error) => Err(error),
            };
        }
        let name = Digest::of(&oci::manifest_of(image).map_err(DockerError::Identify)?);
        if loaded.is_err() {
            // It lists the image without its layers.
            if self.ids.image(&name).is_none() {
                self.remove_name(&name).await?;
            }
            return loaded.map(|()| false);
        }
        let is_there = self.inspect(name.as_str()).await?.is_some();
        if is_there {
            self.ids.insert(name, image.id.clone(), true).await;
        }
        Ok(is_there)
    }

    /// Tags an image with a reference, unless the reference names an image that is not in `loaded`: tags of others stay.
    pub(super) async fn tag(
        &self,
        id: &Digest,
        reference: &str,
        loaded: &BTreeSet<Digest>,
    ) -> Result<(), DockerError> {
        let Some((name, tag)) = name_and_tag(reference) else { return Ok(()) };
        if let Some(held) = self.inspect(reference).await? {
            // One that was not identified was not loaded by this node.
            let held = self.ids.image(&held.id).unwrap_or(held.id);
            if held == *id || !loaded.contains(&held) {
                return Ok(());
            }
        }
        let options = TagImageOptionsBuilder::default().repo(&name).tag(&tag).build();
        let id = self.name_of(id).await?;
        Ok(self.client(QUERY_TIMEOUT)?.tag_image(id.as_str(), Some(options)).await?)
    }

    /// Asks the registry that a reference names whether it has the image, without fetching it.
    pub(super) async fn in_registry(&self, reference: &str) -> RegistryAnswer {
        let ask = async {
            let client = self.client(REGISTRY_TIMEOUT)?;
            client.inspect_registry_image(&tagged(reference), None).await
        };
        match timeout(REGISTRY_TIMEOUT, ask).await {
            Ok(Ok(_)) => RegistryAnswer::Found,
            Ok(Err(error)) => registry_error(&error),
            Err(_) => RegistryAnswer::Missing(DockerError::Timeout(REGISTRY_TIMEOUT).to_string()),
        }
    }

    /// Pulls from the registry that the reference names; `progress` is called with Docker's status lines.
    pub(super) async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        mut progress: impl FnMut(String),
    ) -> Result<(), DockerError> {
        let mut options = CreateImageOptionsBuilder::default().from_image(&tagged(reference));
        if let Some(platform) = platform {
            options = options.platform(platform);
        }
        let client = self.client(REGISTRY_IDLE_TIMEOUT)?;
        let mut steps = Box::pin(client.create_image(Some(options.build()), None, None));
        let mut limit = REGISTRY_TIMEOUT;
        loop {
            match timeout(limit, steps.next()).await {
                Ok(Some(step)) => {
                    limit = REGISTRY_IDLE_TIMEOUT;
                    progress(step?.status.unwrap_or_default());
                }
                Ok(None) => return Ok(()),
                Err(_) => return Err(DockerError::Timeout(limit)),
            }
        }
    }

    /// Removes an image that no container uses; one that is absent already is not an error.
    pub(super) async fn remove(&self, id: &Digest) -> Result<(), DockerError> {
        self.remove_name(&self.name_of(id).await?).await
    }

    /// Removes what the engine calls `name`.
    async fn remove_name(&self, name: &Digest) -> Result<(), DockerError> {
        let remove = async {
            let options = RemoveImageOptionsBuilder::default().force(false).build();
            let client = self.client(QUERY_TIMEOUT)?;
            // Removing the only tag removes the image; by id, Docker would refuse while a tag exists.
            let found = client.inspect_image(name.as_str()).await?;
            match found.repo_tags.as_deref() {
                Some([only]) => client.remove_image(only, Some(options), None).await,
                _ => client.remove_image(name.as_str(), Some(options), None).await,
            }
        };
        match remove.await {
            Err(error) if docker_error::status(&error) == Some(404) => Ok(()),
            removed => Ok(removed.map(drop)?),
        }
    }
}

/// Returns what an error of Docker says of the registry.
fn registry_error(error: &Error) -> RegistryAnswer {
    let message = docker_error::message(error);
    match docker_error::status(error) {
        // Podman does not implement the request.
        Some(404 | 405 | 501) if is_unsupported(&message) => RegistryAnswer::Unknown,
        Some(401 | 403) => RegistryAnswer::Missing(format!(
            "it has no such image, or asks for credentials, which nodes do not have ({message})"
        )),
        _ => RegistryAnswer::Missing(message),
    }
}

fn is_unsupported(message: &str) -> bool {
    let texts = ["page not found", "not supported", "not implemented"];
    message == "Not Found" || texts.iter().any(|text| message.contains(text))
}

/// Returns the size of an image in bytes.
fn size(details: &ImageInspect) -> u64 {
    details.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0)
}

/// Owns the client and the name, which bollard's stream borrows.
fn export(client: bollard::Docker, id: String) -> impl Stream<Item = io::Result<Bytes>> {
    let mut inner = None;
    stream::poll_fn(move |context| {
        let inner = inner.get_or_insert_with(|| client.export_image(&id).boxed());
        inner.poll_next_unpin(context)
    })
    .map(|chunk| chunk.map_err(|error| io::Error::other(docker_error::message(&error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_registries_say_whether_the_image_is_missing_or_was_not_asked_for() {
        let answer = |status_code, message: &str| {
            registry_error(&Error::DockerResponseServerError {
                status_code,
                message: message.to_owned(),
            })
        };
        for (status, message) in [
            (404, "manifest unknown: manifest unknown"),
            (
                500,
                "Get https://registry.example/v2/: dial tcp: lookup registry.example: no such host",
            ),
        ] {
            assert_eq!(answer(status, message), RegistryAnswer::Missing(message.to_owned()));
        }
        let RegistryAnswer::Missing(denied) = answer(401, "unauthorized: authentication required")
        else {
            panic!("it was asked")
        };
        assert!(denied.contains("asks for credentials"), "{denied}");
        // Engines that do not implement the request.
        for (status, message) in
            [(404, "page not found"), (404, "Not Found"), (501, "not implemented")]
        {
            assert_eq!(answer(status, message), RegistryAnswer::Unknown, "{message}");
        }
    }
}
