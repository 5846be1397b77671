//! Which changes a replica has, and which can be the next ones.

use std::collections::BTreeMap;

use vc_protocol::change::{Actor, ChangeBody, DocumentId, VersionVector, generation_of};

/// The versions of all documents.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    pub(crate) versions: VersionVector,
    /// A later generation of the cluster document whose checkpoint is not complete, with the changes of each actor.
    pub(crate) upcoming: Option<(u64, BTreeMap<Actor, u64>)>,
}

impl Progress {
    /// Returns whether a change is the next one of its actor.
    pub(crate) fn follows(&self, body: &ChangeBody) -> bool {
        match body.document {
            DocumentId::Cluster { generation } => {
                let cluster = &self.versions.cluster;
                let upcoming = self.upcoming.as_ref().filter(|(it, _)| *it == generation);
                let held = cluster.get(&generation).or(upcoming.map(|(_, actors)| actors));
                let is_next = body.seq == held.map_or(0, |held| last(held, &body.actor)) + 1;
                let known = held.is_some() || (cluster.is_empty() && generation == 0);
                // Any later one can begin: the author of an incomplete checkpoint may never return.
                is_next
                    && (known || (generation > generation_of(cluster) && body.checkpoint.is_some()))
            }
            DocumentId::Node { node, generation } => match self.versions.nodes.get(&node) {
                Some(&(held, seq)) if held == generation => body.seq == seq + 1,
                Some(&(held, _)) if held > generation => false,
                _ => body.seq == 1,
            },
        }
    }

    /// Takes in a change that follows.
    pub(crate) fn advance(&mut self, body: &ChangeBody) {
        match body.document {
            DocumentId::Cluster { generation } => {
                let cluster = &mut self.versions.cluster;
                let held = if generation <= generation_of(cluster) {
                    cluster.entry(generation).or_default()
                } else {
                    let upcoming = self.upcoming.get_or_insert_default();
                    if upcoming.0 != generation {
                        *upcoming = (generation, BTreeMap::new());
                    }
                    &mut upcoming.1
                };
                held.insert(body.actor, body.seq);
            }
            DocumentId::Node { node, generation } => {
                self.versions.nodes.insert(node, (generation, body.seq));
            }
        }
    }
}

/// Returns the highest sequence number of an actor; 0 if there is none.
pub(crate) fn last(actors: &BTreeMap<Actor, u64>, actor: &Actor) -> u64 {
    actors.get(actor).copied().unwrap_or(0)
}
