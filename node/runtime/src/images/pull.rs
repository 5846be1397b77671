//! Pulling an image into this node's Docker engine: from members, else from a registry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::time::timeout;
use vc_protocol::NodeId;
use vc_protocol::image::{Digest, Manifest, Request, Response};

use super::blocking::blocking;
use super::docker_images::DockerImages;
use super::error::{FetchError, PeerError, PullError, RegistryMiss, TransferError, short};
use super::node_images::{Images, PullResult, QUERY_TIMEOUT};
use super::peers::Peers;
use super::reference;
use super::rpc::{RpcStream, request};
use super::singleflight::{ProgressSender, Subscription};

/// How often a transfer is attempted, each time from the members that are left.
const MAX_ATTEMPTS: usize = 8;
/// How many members are queried at a time.
const CONCURRENT_QUERIES: usize = 16;

/// The image that an instance needs.
#[derive(Debug, Clone)]
pub(crate) struct ImageRequest {
    /// The reference as the user wrote it.
    pub(crate) reference: String,
    /// The id that the deployment is pinned to; `None`: any image that the reference names.
    pub(crate) id: Option<Digest>,
    /// `os/arch`, for a registry.
    pub(crate) platform: Option<String>,
}

/// Why members did not provide an image.
enum MembersFailed {
    /// No member has it, or none that is left; where it was looked for, as part of a sentence.
    NotFound(String),
    /// It is there, but another attempt would fail in the same way.
    Fatal(String),
}

impl Images {
    /// Pulls an image into this node's Docker engine; concurrent pulls of the same image share one transfer.
    pub(crate) fn pull(&self, wanted: ImageRequest) -> Subscription<PullResult> {
        let key = wanted.id.as_ref().map_or(&wanted.reference[..], Digest::as_str).to_owned();
        let images = self.clone();
        self.0.pulls.join(&key, |progress| async move {
            images.pull_once(&wanted, &progress).await.map_err(Arc::new)
        })
    }

    async fn pull_once(
        &self,
        wanted: &ImageRequest,
        progress: &ProgressSender<PullResult>,
    ) -> Result<(), PullError> {
        let docker = self.0.docker.as_ref().ok_or(PullError::NoDocker)?;
        let image = reference::canonical(&wanted.reference)?;
        let id = match &wanted.id {
            Some(id) => Some(id.clone()),
            None => self.resolve_elsewhere(&image).await,
        };
        let mut searched = self.describe_members();
        if let Some(id) = &id {
            let found = if docker.has_as(id, &image).await {
                Ok(())
            } else {
                self.pull_from_members(docker, id, progress).await
            };
            match found {
                Ok(()) => {
                    let loaded = self.0.loaded.add(&self.0.store, id).await;
                    // Containers refer to the id: the tag is for people.
                    if let Err(error) = docker.tag(id, &image, &loaded).await {
                        tracing::debug!(image, %error, "cannot tag an image in Docker");
                    }
                    return Ok(());
                }
                Err(MembersFailed::NotFound(text)) => searched = text,
                Err(MembersFailed::Fatal(reason)) => return Err(PullError::Load { image, reason }),
            }
        }
        let not_found = |registry| {
            let (image, searched) = (image.clone(), searched.clone());
            PullError::NotFound { image, searched, registry }
        };
        if image.parse::<Digest>().is_ok() {
            return Err(not_found(RegistryMiss::NoName));
        }
        let mut told = false;
        let pulled = docker.pull(&wanted.reference, wanted.platform.as_deref(), |status| {
            // Only a registry that gives the image makes progress.
            if !std::mem::replace(&mut told, true) {
                progress.send("pulling from the registry".to_owned());
            }
            tracing::trace!(image, status, "pulling from the registry");
        });
        pulled.await.map_err(|error| not_found(RegistryMiss::Failed(error)))?;
        match (&wanted.id, docker.find(&wanted.reference).await?) {
            (Some(pinned), Some((found, _))) if found != *pinned => Err(PullError::Moved {
                image,
                found: short(&found),
                pinned: short(pinned),
                searched,
            }),
            (_, Some(_)) => Ok(()),
            (_, None) => Err(not_found(RegistryMiss::OtherImage)),
        }
    }

    /// Resolves a reference outside of this node's Docker engine: a pushed image, else what it names on a member.
    async fn resolve_elsewhere(&self, image: &str) -> Option<Digest> {
        let pushed = self.0.peers.borrow().pushed.get(image).cloned();
        match pushed {
            Some(id) => Some(id),
            None => self.resolve_on_members(image).await.into_values().next(),
        }
    }

    /// Resolves a reference in the Docker engines of the other members.
    pub(super) async fn resolve_on_members(&self, image: &str) -> BTreeMap<NodeId, Digest> {
        let request = Request::Resolve(image.to_owned());
        let responses = self.query_members(&request, QUERY_TIMEOUT).await;
        let found = responses.into_iter().filter_map(|((node, _), response)| match response {
            Response::Resolved(id) => Some((node, id?)),
            _ => None,
        });
        found.collect()
    }

    /// Sends a request to every other member that is up, and returns the responses that arrive within `limit`.
    pub(super) async fn query_members(
        &self,
        query: &Request,
        limit: Duration,
    ) -> Vec<((NodeId, String), Response)> {
        let members = self.0.peers.borrow().members.clone();
        let queries = members.into_iter().filter(|member| member.up).map(|member| async move {
            match timeout(limit, request(&self.0.open, member.node, query)).await {
                Ok(Ok(response)) => Some(((member.node, member.name), response)),
                Ok(Err(error)) => {
                    tracing::debug!(member = member.name, %error, "an image query to a member failed");
                    None
                }
                Err(_) => {
                    tracing::debug!(member = member.name, "an image query to a member timed out");
                    None
                }
            }
        });
        let responses: Vec<Option<_>> =
            stream::iter(queries).buffered(CONCURRENT_QUERIES).collect().await;
        responses.into_iter().flatten().collect()
    }

    /// Lists the other members as part of a sentence: those that are up and were searched, and those that are down.
    fn describe_members(&self) -> String {
        let peers = self.0.peers.borrow();
        let names = |up: bool| -> Vec<&str> {
            peers.members.iter().filter(|it| it.up == up).map(|it| &it.name[..]).collect()
        };
        let mut text = String::new();
        if let up @ [_, ..] = &names(true)[..] {
            text.push_str(&format!(", not on {}", up.join(", ")));
        }
        match &names(false)[..] {
            [] => {}
            [one] => text.push_str(&format!(" ({one} is down)")),
            down => text.push_str(&format!(" ({} are down)", down.join(", "))),
        }
        text
    }

    async fn pull_from_members(
        &self,
        docker: &DockerImages,
        id: &Digest,
        progress: &ProgressSender<PullResult>,
    ) -> Result<(), MembersFailed> {
        let peers = Peers::new(Arc::clone(&self.0.open));
        let mut send_all_layers = false;
        let mut failure = None;
        for _ in 0..MAX_ATTEMPTS {
            let Some((manifest, source)) = self.find_manifest(id, &peers, progress).await else {
                break;
            };
            let transferred =
                self.transfer(docker, &peers, &manifest, send_all_layers, progress).await;
            self.0.traffic.ended(transferred.is_ok());
            let Err(error) = transferred else { return Ok(()) };
            let reason = error.to_string();
            tracing::info!(image = id.short(), error = reason, "a transfer of an image failed");
            match error {
                TransferError::Fetch(FetchError::Store(_)) => {
                    return Err(MembersFailed::Fatal(reason));
                }
                TransferError::Fetch(_) => {}
                TransferError::Manifest => {
                    self.discard(&manifest).await;
                    if let Some((node, name)) = source {
                        peers.distrust(node, &name, "its manifest does not match the layers");
                    }
                }
                // Docker may read the layers that it was expected to have already.
                TransferError::Docker(_) | TransferError::OtherId if !send_all_layers => {
                    send_all_layers = true;
                }
                TransferError::Docker(_) | TransferError::OtherId => {
                    return Err(MembersFailed::Fatal(reason));
                }
            }
            failure = Some(reason);
        }
        let searched = self.describe_members();
        Err(MembersFailed::NotFound(match failure {
            Some(reason) if !reason.is_empty() => format!("{searched} (last attempt: {reason})"),
            _ => searched,
        }))
    }

    /// Returns an image's manifest from the store, or from a member, with that member. Afterwards `peers` are the members
    /// to fetch from. `None`: no member has the image.
    async fn find_manifest(
        &self,
        id: &Digest,
        peers: &Peers,
        progress: &ProgressSender<PullResult>,
    ) -> Option<(Arc<Manifest>, Option<(NodeId, String)>)> {
        let store = Arc::clone(&self.0.store);
        let wanted = id.clone();
        if let Ok(Some(manifest)) = blocking(move || Ok(store.complete(&wanted))).await {
            peers.set(&[]);
            return Some((Arc::new(manifest), None));
        }
        let responses = self.query_members(&Request::Has(vec![id.clone()]), QUERY_TIMEOUT).await;
        let mut holders: Vec<(bool, (NodeId, String))> = responses
            .into_iter()
            .filter_map(|(member, response)| match response {
                Response::Has(held) => Some((*held.get(id)?, member)),
                _ => None,
            })
            .filter(|(_, (node, _))| !peers.is_untrusted(*node))
            .collect();
        // Members whose blobs are ready come first.
        holders.sort_by_key(|(ready, _)| !ready);
        let holders: Vec<(NodeId, String)> = holders.into_iter().map(|(_, it)| it).collect();
        for (node, name) in &holders {
            match self.request_manifest(*node, name, id, progress).await {
                Ok(manifest) => {
                    peers.set(&holders);
                    return Some((Arc::new(manifest), Some((*node, name.clone()))));
                }
                Err(error) => tracing::warn!(
                    %node, name, image = id.short(), %error,
                    "cannot get the manifest of an image from a member"
                ),
            }
        }
        None
    }

    async fn request_manifest(
        &self,
        node: NodeId,
        name: &str,
        id: &Digest,
        progress: &ProgressSender<PullResult>,
    ) -> Result<Manifest, PeerError> {
        let request = Request::Manifest(id.clone());
        let mut stream = RpcStream::open(&self.0.open, node, &request).await?;
        let manifest = loop {
            match stream.response().await? {
                Response::Progress(text) => {
                    tracing::debug!(name, progress = text, "a member prepares an image");
                    progress.send(format!("{name} is exporting it from Docker"));
                }
                Response::Manifest(manifest) => break *manifest,
                _ => return Err(PeerError::Protocol),
            }
        };
        if manifest.id != *id {
            return Err(PeerError::OtherImage);
        }
        manifest.check()?;
        Ok(manifest)
    }
}
