//! Copies of images: what a service is pinned to stays available when a node is lost that alone has it.
//!
//! No registry gives an image that was built and pushed, or is in the Docker engine of one node alone. So another node fetches it,
//! although it runs no instance. Every node looks by itself what is to be copied; which of them does it follows from the image and the
//! nodes, and the next one does it where that one does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use vc_crdt::View;
use vc_protocol::NodeId;
use vc_protocol::image::{Digest, MAX_IDS, Request, Response};
use vc_protocol::node::RuntimeKind;

use super::node_images::{Images, PullResult, QUERY_TIMEOUT};
use super::pull::ImageRequest;
use super::singleflight::Update;

/// On how many nodes an image is kept that a service is pinned to.
const COPIES: usize = 2;
/// The time between two rounds. An instance that starts elsewhere fetches its image in that time, and is the copy.
const INTERVAL: Duration = Duration::from_secs(15);
/// How often the number of rounds before another attempt doubles, at most: to 16 minutes.
const MAX_DOUBLINGS: u32 = 6;

/// What is to be copied, and the nodes that count.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The references of the images that services are pinned to, by their ids.
    images: BTreeMap<Digest, String>,
    /// The nodes with Docker that are up and not being drained.
    nodes: BTreeSet<NodeId>,
}

/// An image with too few copies.
#[derive(Debug, Default)]
struct Missing {
    /// In how many rounds since the last attempt.
    rounds: u32,
    failures: u32,
}

impl Wanted {
    /// Returns what a view asks for.
    pub(super) fn of(view: &View) -> Self {
        let specs = view.cluster.services.keys().filter_map(|key| view.spec(key));
        let images = specs.filter_map(|spec| {
            let id = spec.container.image_id.as_deref()?.parse().ok()?;
            Some((id, spec.container.image.clone()))
        });
        let counts = |node: &NodeId| {
            let info = view.nodes.get(node).and_then(|state| state.info.as_ref());
            let has_docker =
                info.is_some_and(|it| it.runtime == RuntimeKind::Docker && !it.witness);
            has_docker && !view.cluster.drained.get(node).is_some_and(|drained| *drained)
        };
        let nodes = view.up.iter().copied().filter(counts).collect();
        Self { images: images.take(MAX_IDS).collect(), nodes }
    }

    /// Returns whether these nodes are enough to have an image.
    fn suffices(&self, holders: &BTreeSet<NodeId>) -> bool {
        self.nodes.intersection(holders).count() >= COPIES.min(self.nodes.len())
    }

    /// Returns how many other nodes are to copy an image before `own` does; `None` if there are copies enough, or none to copy, or
    /// `own` has one or cannot.
    fn turn(&self, image: &Digest, holders: &BTreeSet<NodeId>, own: NodeId) -> Option<u32> {
        if holders.is_empty() || self.suffices(holders) {
            return None;
        }
        let order = |node: NodeId| Sha256::digest(format!("{image}{node}"));
        let others: Vec<NodeId> = self.nodes.difference(holders).copied().collect();
        let before = others.iter().filter(|&&node| order(node) < order(own)).count();
        others.contains(&own).then(|| u32::try_from(before).unwrap_or(u32::MAX))
    }
}

impl Images {
    /// Keeps copies of images on this node, forever.
    pub(super) async fn keep_copies(&self, own: NodeId, views: watch::Receiver<Arc<View>>) {
        let mut timer = tokio::time::interval(INTERVAL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missing: BTreeMap<Digest, Missing> = BTreeMap::new();
        // For which every image had its copies.
        let mut complete = Wanted::default();
        loop {
            timer.tick().await;
            let wanted = Wanted::of(&views.borrow());
            if wanted == complete {
                continue;
            }
            let holders = self.holders(own, wanted.images.keys().cloned().collect()).await;
            let mut is_complete = true;
            missing.retain(|image, _| wanted.images.contains_key(image));
            for (image, reference) in &wanted.images {
                let none = BTreeSet::new();
                let held = holders.get(image).unwrap_or(&none);
                is_complete &= wanted.suffices(held);
                let Some(turn) = wanted.turn(image, held, own) else {
                    missing.remove(image);
                    continue;
                };
                let state = missing.entry(image.clone()).or_default();
                state.rounds += 1;
                if state.rounds < turn.saturating_add(2) << state.failures.min(MAX_DOUBLINGS) {
                    continue;
                }
                state.rounds = 0;
                if let Err(error) = self.copy(image, reference).await {
                    state.failures += 1;
                    tracing::warn!(image = reference, %error, "cannot keep a copy of an image");
                }
            }
            if is_complete {
                complete = wanted;
            }
        }
    }

    /// Returns which nodes have each image.
    async fn holders(&self, own: NodeId, ids: Vec<Digest>) -> BTreeMap<Digest, BTreeSet<NodeId>> {
        let mut holders: BTreeMap<Digest, BTreeSet<NodeId>> = BTreeMap::new();
        let request = Request::Has(ids.clone());
        let (local, remote) =
            tokio::join!(self.present(ids), self.query_members(&request, QUERY_TIMEOUT));
        let mut add = |node: NodeId, held: BTreeMap<Digest, bool>| {
            for id in held.into_keys() {
                holders.entry(id).or_default().insert(node);
            }
        };
        add(own, local);
        for ((node, _), response) in remote {
            if let Response::Has(held) = response {
                add(node, held);
            }
        }
        holders
    }

    /// Fetches an image from the members that have it.
    async fn copy(&self, image: &Digest, reference: &str) -> PullResult {
        let mut pull = self.pull(ImageRequest {
            reference: reference.to_owned(),
            id: Some(image.clone()),
            platform: None,
        });
        while let Some(update) = pull.next().await {
            if let Update::Done(result) = update {
                result?;
                tracing::info!(image = reference, id = image.short(), "keeping a copy of an image");
                return Ok(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::members::node;
    use super::*;

    #[test]
    fn one_node_copies_an_image_that_another_alone_has_and_the_next_one_if_it_does_not() {
        let image = Digest::of(b"web");
        let nodes: BTreeSet<NodeId> = (1..=4).map(node).collect();
        let wanted = Wanted { images: BTreeMap::new(), nodes };
        let of = |numbers: &[u8]| numbers.iter().copied().map(node).collect::<BTreeSet<NodeId>>();
        let turn = |held: &[u8], own: u8| wanted.turn(&image, &of(held), node(own));
        let mut turns: Vec<Option<u32>> = (1..=4).map(|own| turn(&[1], own)).collect();
        assert_eq!(turns[0], None, "it has the image");
        turns.sort();
        assert_eq!(turns, [None, Some(0), Some(1), Some(2)]);
        for own in 1..=4 {
            assert_eq!(turn(&[1, 2], own), None, "there are two");
            assert_eq!(turn(&[], own), None, "there is none to copy");
        }
        // What a node has that is down, or drained, is no copy.
        assert!((2..=4).any(|own| turn(&[1, 9], own) == Some(0)));
        assert_eq!(wanted.turn(&image, &of(&[1]), node(9)), None, "it runs nothing");
        let alone = Wanted { images: BTreeMap::new(), nodes: of(&[1]) };
        assert_eq!(alone.turn(&image, &of(&[1]), node(1)), None);
    }
}
