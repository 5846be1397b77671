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

use super::manifest::Digest;
use super::reference::{name_and_tag, tagged};
use crate::reason;

/// How long a question may take.
const QUESTION: Duration = Duration::from_secs(10);
/// How long reading or writing a whole image may take.
const TRANSFER: Duration = Duration::from_secs(4 * 3600);
/// A registry has to say something within this time.
const REGISTRY_ANSWER: Duration = Duration::from_secs(6);
/// A pull that shows no progress for so long has failed.
const REGISTRY_IDLE: Duration = Duration::from_secs(120);
/// Images that are looked at for layers in common, the newest first.
const LOOKS: usize = 256;
/// How many are looked at at a time.
const AT_A_TIME: usize = 8;

/// A Docker engine, for what concerns its images. Errors are one line for people.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    host: Arc<str>,
}

impl Engine {
    /// The engine at this address.
    pub(crate) fn new(host: &str) -> Self {
        Self { host: host.into() }
    }

    fn client(&self, limit: Duration) -> Result<bollard::Docker, Error> {
        Ok(bollard::Docker::connect_with_host(&self.host)?.with_timeout(limit))
    }

    /// The id and size of an image, by reference or id; `None`: Docker does not have it.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<(Digest, u64)>, String> {
        let ask = async {
            let client = self.client(QUESTION)?;
            match client.inspect_image(name).await {
                Ok(found) => Ok(Some(found)),
                Err(error) if reason::status(&error) == Some(404) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let Some(found) = ask.await.map_err(|error| reason::of(&error))? else { return Ok(None) };
        let id = found.id.unwrap_or_default().parse::<Digest>().map_err(|it| it.to_string())?;
        Ok(Some((id, found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0))))
    }

    /// Whether Docker has an image.
    pub(crate) async fn has(&self, id: &Digest) -> bool {
        matches!(self.find(id.as_str()).await, Ok(Some(_)))
    }

    /// Every image that Docker has; empty when it does not answer.
    pub(crate) async fn all(&self) -> Vec<Digest> {
        let list = async {
            let options = ListImagesOptionsBuilder::default().all(false).build();
            self.client(QUESTION)?.list_images(Some(options)).await
        };
        let images = list.await.unwrap_or_default();
        images.into_iter().filter_map(|image| image.id.parse().ok()).collect()
    }

    /// How many of these layers, from the lowest on, Docker has already: an image of its own begins with them.
    pub(crate) async fn shared(&self, diff_ids: &[&Digest]) -> usize {
        let Ok(client) = self.client(QUESTION) else { return 0 };
        let looks = self.all().await.into_iter().take(LOOKS).map(|id| {
            let client = client.clone();
            async move {
                let found = client.inspect_image(id.as_str()).await.ok();
                let layers = found.and_then(|found| found.root_fs?.layers).unwrap_or_default();
                let same =
                    layers.iter().zip(diff_ids).take_while(|(a, b)| a.as_str() == b.as_str());
                same.count()
            }
        });
        let counts: Vec<usize> = stream::iter(looks).buffer_unordered(AT_A_TIME).collect().await;
        counts.into_iter().max().unwrap_or(0)
    }

    /// An image as `docker save` writes it.
    pub(crate) fn save(
        &self,
        id: &Digest,
    ) -> Result<impl Stream<Item = io::Result<Bytes>>, String> {
        let client = self.client(TRANSFER).map_err(|error| reason::of(&error))?;
        let id = id.to_string();
        Ok(async_stream(client, id))
    }

    /// `docker load`.
    pub(crate) async fn load(
        &self,
        image: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), String> {
        let load = async {
            let client = self.client(TRANSFER)?;
            let options = ImportImageOptionsBuilder::default().quiet(true).build();
            let body = bollard::body_try_stream(image);
            let mut steps = Box::pin(client.import_image(options, body, None));
            while let Some(step) = steps.next().await {
                step?;
            }
            Ok::<_, Error>(())
        };
        load.await.map_err(|error| reason::of(&error))
    }

    /// Lets a reference name an image, where it names none yet or one of `ours`.
    pub(crate) async fn tag(
        &self,
        id: &Digest,
        reference: &str,
        ours: &BTreeSet<Digest>,
    ) -> Result<(), String> {
        let Some((name, tag)) = name_and_tag(reference) else { return Ok(()) };
        match self.find(reference).await? {
            Some((held, _)) if held == *id || !ours.contains(&held) => return Ok(()),
            _ => {}
        }
        let options = TagImageOptionsBuilder::default().repo(&name).tag(&tag).build();
        let tag = async { self.client(QUESTION)?.tag_image(id.as_str(), Some(options)).await };
        tag.await.map_err(|error| reason::of(&error))
    }

    /// Pulls from the registry that the reference names.
    pub(crate) async fn pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        mut tell: impl FnMut(String),
    ) -> Result<(), String> {
        let mut options = CreateImageOptionsBuilder::default().from_image(&tagged(reference));
        if let Some(platform) = platform {
            options = options.platform(platform);
        }
        let client = self.client(REGISTRY_IDLE).map_err(|error| reason::of(&error))?;
        let mut steps = Box::pin(client.create_image(Some(options.build()), None, None));
        let mut patience = REGISTRY_ANSWER;
        loop {
            match timeout(patience, steps.next()).await {
                Ok(Some(Ok(step))) => {
                    patience = REGISTRY_IDLE;
                    tell(step.status.unwrap_or_default());
                }
                Ok(Some(Err(error))) => return Err(reason::of(&error)),
                Ok(None) => return Ok(()),
                Err(_) => return Err(format!("no answer within {} s", patience.as_secs())),
            }
        }
    }

    /// Removes an image that nothing uses.
    pub(crate) async fn remove(&self, id: &Digest) -> Result<(), String> {
        let remove = async {
            let options = RemoveImageOptionsBuilder::default().force(false).build();
            let client = self.client(QUESTION)?;
            // A tag that we gave it goes first: an image with one tag is removed by that.
            let found = client.inspect_image(id.as_str()).await?;
            match found.repo_tags.as_deref() {
                Some([only]) => client.remove_image(only, Some(options), None).await,
                _ => client.remove_image(id.as_str(), Some(options), None).await,
            }
        };
        match remove.await {
            Ok(_) => Ok(()),
            Err(error) if reason::status(&error) == Some(404) => Ok(()),
            Err(error) => Err(reason::of(&error)),
        }
    }
}

/// Bollard's stream borrows the client and the name.
fn async_stream(client: bollard::Docker, id: String) -> impl Stream<Item = io::Result<Bytes>> {
    let mut inner = None;
    stream::poll_fn(move |context| {
        let inner = inner.get_or_insert_with(|| client.export_image(&id).boxed());
        inner.poll_next_unpin(context)
    })
    .map(|piece| piece.map_err(|error| io::Error::other(reason::of(&error))))
}
