//! The images of a Docker engine.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ImportImageOptionsBuilder, ListImagesOptionsBuilder,
    RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use tokio::time::timeout;
use vc_protocol::image::{Digest, RegistryAnswer};

use super::availability::REGISTRY_TIMEOUT;
use super::reference::{name_and_tag, tagged};
use crate::docker_error::{self, DockerError};

/// How long a query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long reading or writing a whole image may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
/// How long a pull may show no progress.
const REGISTRY_IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How many images are inspected for common layers, the newest first.
const MAX_INSPECTED: usize = 256;
/// How many images are inspected at a time.
const CONCURRENT_INSPECTS: usize = 8;

/// A client of a Docker engine, for its images.
#[derive(Debug, Clone)]
pub(super) struct DockerImages {
    host: Arc<str>,
}

impl DockerImages {
    /// Returns a client of the engine at `host` (`unix:///PATH` or `tcp://HOST:PORT`), without connecting.
    pub(super) fn new(host: &str) -> Self {
        Self { host: host.into() }
    }

    /// Reports whether the engine runs on this host.
    pub(super) fn is_local(&self) -> bool {
        self.host.starts_with("unix://")
    }

    fn client(&self, limit: Duration) -> Result<bollard::Docker, Error> {
        Ok(bollard::Docker::connect_with_host(&self.host)?.with_timeout(limit))
    }

    /// Returns the id of an image and its size in bytes, by reference or id; `None` when Docker does not have it.
    pub(super) async fn find(&self, name: &str) -> Result<Option<(Digest, u64)>, DockerError> {
        let found = match self.client(QUERY_TIMEOUT)?.inspect_image(name).await {
            Err(error) if docker_error::status(&error) == Some(404) => return Ok(None),
            found => found?,
        };
        let id = found.id.unwrap_or_default().parse::<Digest>()?;
        Ok(Some((id, found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0))))
    }

    /// Reports whether Docker has an image; false when it does not answer.
    pub(super) async fn has(&self, id: &Digest) -> bool {
        matches!(self.find(id.as_str()).await, Ok(Some(_)))
    }

    /// Returns the ids of all images, the newest first; none when Docker does not answer.
    pub(super) async fn all(&self) -> Vec<Digest> {
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

    /// Returns how many of these layers, counted from the lowest, Docker has already as the lowest layers of an image.
    pub(super) async fn common_layers(&self, diff_ids: &[&Digest]) -> usize {
        let Ok(client) = self.client(QUERY_TIMEOUT) else { return 0 };
        let inspects = self.all().await.into_iter().take(MAX_INSPECTED).map(|id| {
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
    pub(super) fn save(
        &self,
        id: &Digest,
    ) -> Result<impl Stream<Item = io::Result<Bytes>>, DockerError> {
        Ok(export(self.client(TRANSFER_TIMEOUT)?, id.to_string()))
    }

    /// Loads an archive as `docker load` does.
    pub(super) async fn load(
        &self,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), DockerError> {
        let client = self.client(TRANSFER_TIMEOUT)?;
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let body = bollard::body_try_stream(archive);
        let mut steps = Box::pin(client.import_image(options, body, None));
        while let Some(step) = steps.next().await {
            step?;
        }
        Ok(())
    }

    /// Tags an image with a reference, unless the reference names an image that is not in `loaded`: tags of others stay.
    pub(super) async fn tag(
        &self,
        id: &Digest,
        reference: &str,
        loaded: &BTreeSet<Digest>,
    ) -> Result<(), DockerError> {
        let Some((name, tag)) = name_and_tag(reference) else { return Ok(()) };
        match self.find(reference).await? {
            Some((held, _)) if held == *id || !loaded.contains(&held) => return Ok(()),
            _ => {}
        }
        let options = TagImageOptionsBuilder::default().repo(&name).tag(&tag).build();
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
        let remove = async {
            let options = RemoveImageOptionsBuilder::default().force(false).build();
            let client = self.client(QUERY_TIMEOUT)?;
            // Removing the only tag removes the image; by id, Docker would refuse while a tag exists.
            let found = client.inspect_image(id.as_str()).await?;
            match found.repo_tags.as_deref() {
                Some([only]) => client.remove_image(only, Some(options), None).await,
                _ => client.remove_image(id.as_str(), Some(options), None).await,
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
