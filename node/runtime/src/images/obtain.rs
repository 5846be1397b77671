//! Getting an image into Docker here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio::time::timeout;
use vc_protocol::NodeId;

use super::engine::Engine;
use super::fetch::{FetchError, Pool, blocking};
use super::flight::{Teller, Waiter};
use super::manifest::{Digest, Manifest};
use super::transfer::Broken;
use super::wire::{Answer, Call, Request, ask};
use super::{Images, QUESTION, reference};

/// How often a transfer is begun again, with whoever is left.
const ATTEMPTS: usize = 8;
/// Members that are asked at a time.
const ASKED: usize = 16;
/// The image that an instance needs.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    /// How people name it.
    pub(crate) reference: String,
    /// Which one it must be; `None`: any that the reference names.
    pub(crate) id: Option<Digest>,
    /// `os/arch`, for a registry.
    pub(crate) platform: Option<String>,
}

/// Why an image did not come from the members.
enum Miss {
    /// None of them has it; where it was looked for.
    Nowhere(String),
    /// It is there, and still it did not work.
    Broken(String),
}

impl Images {
    /// Gets an image into Docker here; several who want the same wait for one transfer. The outcome's error is one line
    /// for people that says where it was looked for.
    pub(crate) fn obtain(&self, want: Want) -> Waiter<Result<(), String>> {
        let key = want.id.as_ref().map_or(&want.reference[..], Digest::as_str).to_owned();
        let images = self.clone();
        self.0.obtaining.join(&key, |teller| async move { images.bring(&want, &teller).await })
    }

    async fn bring(&self, want: &Want, teller: &Teller<Result<(), String>>) -> Result<(), String> {
        let engine = self.0.engine.as_ref().ok_or("this node has no Docker")?;
        let name = reference::canonical(&want.reference)?;
        let id = match &want.id {
            Some(id) => Some(id.clone()),
            None => self.elsewhere(&name).await,
        };
        let mut looked = self.roll_call(&[]);
        if let Some(id) = &id {
            let found = if engine.has(id).await {
                Ok(())
            } else {
                self.bring_from_members(engine, id, teller).await
            };
            match found {
                Ok(()) => {
                    let ours = self.0.loaded.note(&self.0.store, id).await;
                    // It runs without a name too.
                    if let Err(error) = engine.tag(id, &name, &ours).await {
                        tracing::debug!(image = name, error, "an image has no name in Docker");
                    }
                    return Ok(());
                }
                Err(Miss::Nowhere(where_)) => looked = where_,
                Err(Miss::Broken(why)) => return Err(format!("image {name} does not come: {why}")),
            }
        }
        let nowhere = |registry: String| {
            format!(
                "image {name} is nowhere: not in Docker here{looked}, and {registry}: vc image push {name}"
            )
        };
        if name.parse::<Digest>().is_ok() {
            return Err(nowhere("an id names no registry".to_owned()));
        }
        teller.tell("asking the registry".to_owned());
        let pulled = engine.pull(&want.reference, want.platform.as_deref(), |status| {
            tracing::trace!(image = name, status, "pulling");
        });
        if let Err(why) = pulled.await {
            return Err(nowhere(format!("no registry gives it ({why})")));
        }
        match (&want.id, engine.find(&want.reference).await?) {
            (Some(pinned), Some((pulled, _))) if pulled != *pinned => Err(format!(
                "image {name} is {} in the registry now, but {} was deployed, which no member has{looked}: deploy again",
                pulled.short(),
                pinned.short()
            )),
            (_, Some(_)) => Ok(()),
            (_, None) => Err(nowhere("what the registry gave is not it".to_owned())),
        }
    }

    /// What a reference names that is not in Docker here: what was pushed, else what it names in a member's Docker.
    pub(super) async fn elsewhere(&self, name: &str) -> Option<Digest> {
        let pushed = self.0.roster.borrow().pushed.get(name).cloned();
        match pushed {
            Some(id) => Some(id),
            None => self.resolve_by_members(name).await.into_values().next(),
        }
    }

    /// What a reference names in the Dockers of the other members.
    pub(super) async fn resolve_by_members(&self, name: &str) -> BTreeMap<NodeId, Digest> {
        let request = Request::Resolve(name.to_owned());
        let answers = self.ask_all(&request, QUESTION).await;
        let found = answers.into_iter().filter_map(|((node, _), answer)| match answer {
            Answer::Image(id) => Some((node, id?)),
            _ => None,
        });
        found.collect()
    }

    /// Asks every other member that is up, and gives what comes in time.
    pub(super) async fn ask_all(
        &self,
        request: &Request,
        patience: Duration,
    ) -> Vec<((NodeId, String), Answer)> {
        let members = self.0.roster.borrow().members.clone();
        let asked = members.into_iter().filter(|member| member.up).map(|member| async move {
            let answer = timeout(patience, ask(&self.0.open, member.node, request)).await;
            Some(((member.node, member.name), answer.ok()?.ok()?))
        });
        let answers: Vec<Option<_>> = stream::iter(asked).buffered(ASKED).collect().await;
        answers.into_iter().flatten().collect()
    }

    /// The other members that are up and not among `but`, and those that are down, for people.
    fn roll_call(&self, but: &[String]) -> String {
        let roster = self.0.roster.borrow();
        let names = |up: bool| -> Vec<&str> {
            let members = roster.members.iter().filter(|it| it.up == up);
            members.map(|it| &it.name[..]).filter(|name| !but.iter().any(|it| it == name)).collect()
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

    async fn bring_from_members(
        &self,
        engine: &Engine,
        id: &Digest,
        teller: &Teller<Result<(), String>>,
    ) -> Result<(), Miss> {
        let pool = Pool::new(Arc::clone(&self.0.open));
        let mut send_all = false;
        let mut trouble = None;
        for _ in 0..ATTEMPTS {
            let Some((manifest, author)) = self.manifest(id, &pool, teller).await else { break };
            let outcome = self.transfer(engine, &pool, &manifest, send_all, teller).await;
            let Err(broken) = outcome else { return Ok(()) };
            trouble = Some(match broken {
                Broken::Fetch(FetchError::Disk(why)) => return Err(Miss::Broken(why)),
                Broken::Fetch(error) => error.to_string(),
                Broken::Manifest => {
                    self.discard(&manifest).await;
                    if let Some((node, name)) = author {
                        pool.distrust(node, &name, "its blobs do not hold the layers that it says");
                    }
                    "its layers were not what they should be".to_owned()
                }
                // An engine may open the layers that it has after all.
                Broken::Docker(why) if !send_all => {
                    send_all = true;
                    why
                }
                Broken::Docker(why) => {
                    return Err(Miss::Broken(format!("Docker does not load it: {why}")));
                }
            });
        }
        let looked = self.roll_call(&[]);
        Err(match trouble {
            Some(why) if !why.is_empty() => Miss::Nowhere(format!("{looked} (who had it: {why})")),
            _ => Miss::Nowhere(looked),
        })
    }

    /// What an image is made of, from the store or a member, who is named then; the pool knows the holders afterwards.
    /// `None`: nobody says.
    async fn manifest(
        &self,
        id: &Digest,
        pool: &Pool,
        teller: &Teller<Result<(), String>>,
    ) -> Option<(Arc<Manifest>, Option<(NodeId, String)>)> {
        let store = Arc::clone(&self.0.store);
        let sought = id.clone();
        if let Ok(Some(manifest)) = blocking(move || Ok(store.complete(&sought))).await {
            pool.use_only(&[]);
            return Some((Arc::new(manifest), None));
        }
        let answers = self.ask_all(&Request::Have(vec![id.clone()]), QUESTION).await;
        let mut holders: Vec<(bool, (NodeId, String))> = answers
            .into_iter()
            .filter_map(|(member, answer)| match answer {
                Answer::Have(held) => Some((*held.get(id)?, member)),
                _ => None,
            })
            .filter(|(_, (node, _))| !pool.is_liar(*node))
            .collect();
        // Those with blobs at hand first.
        holders.sort_by_key(|(packed, _)| !packed);
        let holders: Vec<(NodeId, String)> = holders.into_iter().map(|(_, it)| it).collect();
        for (node, name) in &holders {
            let asked = async {
                let mut call =
                    Call::new(&self.0.open, *node, &Request::Manifest(id.clone())).await?;
                loop {
                    match call.answer().await? {
                        Answer::Working(progress) => {
                            tracing::debug!(name, progress, "a member prepares an image");
                            teller.tell(format!("{name} takes it out of its Docker"));
                        }
                        Answer::Manifest(manifest) => return Ok(manifest),
                        _ => return Err("it answers something else".to_owned()),
                    }
                }
            };
            let checked = asked.await.and_then(|manifest| {
                if manifest.id != *id {
                    return Err("it answers with another image".to_owned());
                }
                manifest.check().map(|()| manifest)
            });
            match checked {
                Ok(manifest) => {
                    pool.use_only(&holders);
                    return Some((Arc::new(*manifest), Some((*node, name.clone()))));
                }
                Err(why) => {
                    tracing::warn!(%node, name, image = id.short(), why, "a member does not give an image")
                }
            }
        }
        None
    }
}
