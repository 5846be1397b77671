//! The audit trail: what changes of the cluster document did, in words.
//!
//! Computed from the signed changes themselves, as the difference between an entry and what was there before. The difference of
//! concurrent changes may depend on the order in which a server received them; who made which change, when and from where does
//! not. Neither secrets nor environment values get into it.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::Value;
use vc_crdt::{
    ClusterChange, FileKey, ImageRecord, JoinKey, JoinRecord, MoveOrder, RevocationKey,
    TokenRecord, Tombstone, TrustEntry, TrustKey, VersionKey, VersionRecord, View, VoterEntry,
    VoterKey, Write,
};
use vc_protocol::audit::{AuditAction, AuditRow, ChangeRef};
use vc_protocol::change::{Actor, SignedChange};
use vc_protocol::spec::FileKind;
use vc_protocol::token::{Scope, decode_unverified};
use vc_protocol::{NodeId, ServiceKey, Slot};

/// The entries of the cluster document as the changes so far left them, and the records that are not handed out yet.
#[derive(Default)]
pub(crate) struct AuditTrail {
    entries: BTreeMap<(&'static str, String), Value>,
    /// The actor and the length of the checkpoint of each generation.
    checkpoints: BTreeMap<u64, (Actor, u64)>,
    rows: Vec<AuditRow>,
}

/// One thing that a change did.
struct Effect {
    action: AuditAction,
    service: Option<ServiceKey>,
    text: String,
}

impl Effect {
    fn new(action: AuditAction, text: String) -> Option<Self> {
        Some(Self { action, service: None, text })
    }

    fn of(service: ServiceKey, action: AuditAction, text: String) -> Option<Self> {
        Some(Self { action, service: Some(service), text })
    }
}

impl AuditTrail {
    /// Takes in all changes that were loaded, in any order. Those that are recorded already are recorded again.
    pub(crate) fn load(&mut self, accepted: &[SignedChange], view: &View) {
        let mut changes: Vec<_> = accepted.iter().filter_map(ClusterChange::of).collect();
        changes.sort_by_key(|it| (it.generation, it.order, it.body.actor));
        for change in changes {
            self.record(change, view);
        }
    }

    /// Takes in a change that was accepted, after those that it depends on.
    pub(crate) fn accept(&mut self, signed: &SignedChange, view: &View) {
        if let Some(change) = ClusterChange::of(signed) {
            self.record(change, view);
        }
    }

    /// Returns the records since the last call.
    pub(crate) fn take(&mut self) -> Vec<AuditRow> {
        std::mem::take(&mut self.rows)
    }

    fn record(&mut self, change: ClusterChange, view: &View) {
        let ClusterChange { body, generation, writes, .. } = change;
        if let Some(checkpoint) = &body.checkpoint {
            self.checkpoints.insert(generation, (body.actor, checkpoint.parts));
            self.checkpoints.retain(|&it, _| it + 2 >= generation || it == generation);
        }
        let start = self.checkpoints.get(&generation);
        let repeats =
            start.is_some_and(|(actor, parts)| *actor == body.actor && body.seq <= *parts);
        let effects = self.effects(writes, view);
        if repeats {
            return;
        }
        let (user, token, address) = match body.on_behalf_of {
            Some(by) => (Some(by.name), Some(by.token_id), by.address),
            None => (None, None, None),
        };
        for (Effect { action, service, text }, part) in effects.into_iter().zip(0..) {
            // The name in a join token is not that of a user.
            let user = user.clone().filter(|_| action != AuditAction::NodeJoined);
            self.rows.push(AuditRow {
                time: body.timestamp,
                action,
                text,
                user,
                token: token.clone(),
                address: address.clone(),
                service,
                node: body.author,
                node_name: view.name(body.author),
                via: None,
                via_name: None,
                more: 0,
                change: Some(ChangeRef {
                    generation,
                    actor: body.actor.to_string(),
                    seq: body.seq,
                    part,
                }),
                event: 0,
            });
        }
    }

    /// Applies writes, and returns what they did.
    fn effects(&mut self, writes: Vec<Write>, view: &View) -> Vec<Effect> {
        let of_map = |map: &'static str| {
            let of_map = writes.iter().filter(move |it| it.map == Some(map));
            of_map.map(|it| (it.key.clone(), it.value.is_some())).collect::<BTreeMap<_, _>>()
        };
        // The number of replicas of a service that is new or goes is said with the service.
        let (services, scales) = (of_map("services"), of_map("scale"));
        let comes_or_goes: BTreeSet<String> = services
            .into_iter()
            .filter(|(key, stays)| !stays || !self.entries.contains_key(&("services", key.clone())))
            .map(|(key, _)| key)
            .collect();
        let replicas = |key: &str| {
            let scale = writes.iter().find(|it| it.map == Some("scale") && it.key == key);
            scale.and_then(|it| it.value.clone())
        };
        // A rollback says so of the version that it replaces.
        let replaced = writes.iter().filter(|it| it.map == Some("history"));
        let rolled_back: BTreeSet<String> = replaced
            .filter(|it| it.value.as_deref().is_some_and(says_rolled_back))
            .filter_map(|it| Some(it.key.parse::<VersionKey>().ok()?.service.to_string()))
            .collect();
        let mut effects = Vec::new();
        for Write { map, key, value } in &writes {
            let Some(map) = *map else {
                let text = format!("wrote {key}, which this version does not know");
                effects.extend(Effect::new(AuditAction::EntryWritten, text));
                continue;
            };
            let after: Option<Value> =
                value.as_ref().map(|text| serde_json::from_str(text).unwrap_or_default());
            // That a version is replaced is said with the service.
            if map == "history" {
                continue;
            }
            let entry = (map, key.clone());
            let before = match &after {
                // That it is there suffices: contents may be large.
                Some(_) if map == "files" => self.entries.insert(entry, Value::Bool(true)),
                Some(after) => self.entries.insert(entry, after.clone()),
                None => self.entries.remove(&entry),
            };
            let is_known = map == "files" && before.is_some();
            if before == after || (is_known && after.is_some()) {
                continue;
            }
            if map == "scale" && comes_or_goes.contains(key) && scales.contains_key(key) {
                continue;
            }
            let (before, after) = (before.as_ref(), after.as_ref());
            let by_rollback = rolled_back.contains(key.as_str());
            effects.extend(effect(map, key, before, after, replicas(key), by_rollback, view));
        }
        effects
    }
}

/// Says what a write of one entry did; `None` for what only tidies up.
fn effect(
    map: &str,
    key: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    replicas: Option<String>,
    by_rollback: bool,
    view: &View,
) -> Option<Effect> {
    use AuditAction as A;
    let node = || key.parse::<NodeId>().map_or_else(|_| key.to_owned(), |node| view.name(node));
    match (map, after) {
        ("services", Some(after)) => {
            let service = key.parse().ok()?;
            let image = |of: &Value| text_at(of, &["spec", "container", "image"]);
            let Some(before) = before else {
                let replicas = replicas.as_deref().unwrap_or("1");
                let count = match text_at(after, &["spec", "mode"]).as_str() {
                    "global" | "global-job" => "on each node".to_owned(),
                    _ if replicas == "1" => "1 replica".to_owned(),
                    _ => format!("{replicas} replicas"),
                };
                let text = format!("deployed {service} (image {}, {count})", image(after));
                return Effect::of(service, A::ServiceDeployed, text);
            };
            let (verb, mut details) = revision(before, after);
            let verb = if by_rollback { "rolled back" } else { verb };
            let (from, to) = (image(before), image(after));
            let id = |of: &Value| text_at(of, &["spec", "container", "image_id"]);
            if from != to {
                details.insert(0, format!("image {from} -> {to}"));
            } else if id(before) != id(after) {
                details.insert(0, format!("image {to} {} -> {}", id(before), id(after)));
            }
            let details = match details.is_empty() {
                true => String::new(),
                false => format!(" ({})", details.join(", ")),
            };
            let text = format!("{verb} {service}{details}");
            Effect::of(service, A::ServiceUpdated, text)
        }
        ("services", None) => {
            let service: ServiceKey = key.parse().ok()?;
            let text = format!("removed {service}");
            Effect::of(service, A::ServiceRemoved, text)
        }
        ("scale", Some(to)) => {
            let service: ServiceKey = key.parse().ok()?;
            let from = before.map_or_else(|| "1".to_owned(), Value::to_string);
            let text = format!("scaled {service} from {from} to {to}");
            Effect::of(service, A::ServiceScaled, text)
        }
        ("moves", Some(order)) => {
            let (slot, order): (Slot, MoveOrder) = (key.parse().ok()?, read(order)?);
            let (from, to) = (view.name(order.from), view.name(order.to));
            let text = format!("moved {slot} from {from} to {to}");
            Effect::of(slot.service, A::SlotMoved, text)
        }
        ("drained", Some(Value::Bool(true))) => {
            Effect::new(A::NodeDrained, format!("drained {}", node()))
        }
        ("drained", _) => Effect::new(A::NodeUndrained, format!("ended the drain of {}", node())),
        ("left", Some(_)) => {
            Effect::new(A::NodeRemoved, format!("removed {} from the cluster", node()))
        }
        ("files", after) => {
            let FileKey { project, file, .. } = key.parse().ok()?;
            let kind = match file.kind {
                FileKind::Secret => "secret",
                FileKind::Config => "config",
            };
            let (action, verb) = match after {
                Some(_) => (A::FileStored, "stored"),
                None => (A::FileDeleted, "deleted the unused"),
            };
            Effect::new(action, format!("{verb} {kind} {} of {project}", file.name))
        }
        ("images", Some(image)) => {
            let image: ImageRecord = read(image)?;
            let id: String = image.id.chars().take(19).collect();
            Effect::new(A::ImagePushed, format!("pushed image {key} ({id})"))
        }
        ("images", None) => Effect::new(A::ImageRemoved, format!("removed image {key}")),
        ("tombstones", Some(tombstone)) => {
            let Tombstone { forgotten, .. } = read(tombstone)?;
            let (action, verb) = match forgotten {
                true => (A::VolumeForgotten, "forgot"),
                false => (A::VolumeRemoved, "removed"),
            };
            Effect::new(action, format!("{verb} volume {key}"))
        }
        ("tokens", Some(token)) => {
            let TokenRecord { name, scope, .. } = read(token)?;
            let what = match scope {
                Scope::User(role) => format!("user {name} ({})", role.as_str()),
                Scope::Join(role) | Scope::Member(role) | Scope::Former(role) => {
                    format!("a node ({})", role.as_str())
                }
                // Never listed.
                Scope::Signing(_) => "a signing key".to_owned(),
            };
            Effect::new(A::TokenCreated, format!("created token {key} for {what}"))
        }
        ("revocations", Some(_)) => match key.parse().ok()? {
            RevocationKey::Token(id) => {
                let of = view.cluster.tokens.get(&id);
                let of = of.map_or_else(String::new, |token| format!(" of {}", token.name));
                Effect::new(A::TokenRevoked, format!("revoked token {id}{of}"))
            }
            RevocationKey::User(name) => {
                Effect::new(A::UserRevoked, format!("revoked all tokens of {name}"))
            }
        },
        ("joins", Some(join)) => {
            let (JoinKey { token, node }, JoinRecord { name, .. }) =
                (key.parse().ok()?, read(join)?);
            let text = format!("admitted node {name} ({}) with token {token}", node.short());
            Effect::new(A::NodeJoined, text)
        }
        ("projects", after) => {
            let verb = if after.is_some() { "changed" } else { "removed" };
            Effect::new(A::PolicyChanged, format!("{verb} the policy of project {key}"))
        }
        ("receivers", after) => {
            let verb = match (before, after) {
                (_, None) => "removed",
                (None, Some(_)) => "added",
                (Some(_), Some(_)) => "changed",
            };
            Effect::new(A::ReceiverChanged, format!("{verb} receiver {key} of alerts"))
        }
        // What nodes write of the alerts that they have sent.
        ("alerts", _) => None,
        ("trust", Some(entry)) => {
            let text = match key.parse().ok()? {
                TrustKey::Epoch(epoch) => format!("rotated the signing key (epoch {epoch})"),
                TrustKey::Certificate { node, .. } => {
                    let name = view.name(node);
                    match read(entry)? {
                        TrustEntry::Certificate(certificate) if is_former(&certificate) => {
                            format!("kept what {name} wrote as a member")
                        }
                        _ => format!("issued a new certificate for {name}"),
                    }
                }
            };
            Effect::new(A::TrustChanged, text)
        }
        ("voters", Some(entry)) => {
            let text = match (key.parse().ok()?, read(entry)?) {
                (VoterKey::Set(number), VoterEntry::Set(set)) => {
                    let mut names: Vec<String> =
                        set.voters.iter().map(|it| view.name(*it)).collect();
                    names.sort_unstable();
                    let how = if set.forced { "forced" } else { "changed" };
                    format!("{how} the voters to {} (set {number})", names.join(", "))
                }
                (VoterKey::Wish(node), VoterEntry::Wish(true)) => {
                    format!("asked for {} as a voter", view.name(node))
                }
                (VoterKey::Wish(node), _) => {
                    format!("asked for {} to be no voter", view.name(node))
                }
                (VoterKey::Set(_), VoterEntry::Wish(_)) => return None,
            };
            Effect::new(A::VotersChanged, text)
        }
        ("voters", None) => match key.parse().ok()? {
            VoterKey::Wish(node) => {
                let text = format!("left it to the cluster whether {} is a voter", view.name(node));
                Effect::new(A::VotersChanged, text)
            }
            VoterKey::Set(_) => None,
        },
        // Certificates of earlier signing keys, moves that are done, and tokens that have expired, are forgotten.
        ("scale" | "moves" | "tombstones" | "tokens" | "revocations" | "joins" | "trust", None)
        | ("left", None) => None,
        _ => {
            let verb = if after.is_some() { "wrote" } else { "removed" };
            Effect::new(A::EntryWritten, format!("{verb} {key} in {map}"))
        }
    }
}

/// Returns what made a revision of a service, and the names of the fields that differ, without their values.
fn revision(before: &Value, after: &Value) -> (&'static str, Vec<String>) {
    let is_object = |path: &[&str]| at(before, path).is_object() && at(after, path).is_object();
    let differing = |path: &[&str]| -> Vec<String> {
        let (before, after) = (at(before, path), at(after, path));
        let keys = |of: &Value| {
            of.as_object().map(|it| it.keys().cloned().collect::<BTreeSet<_>>()).unwrap_or_default()
        };
        let mut keys = &keys(before) | &keys(after);
        keys.retain(|key| before.get(key) != after.get(key));
        keys.into_iter().collect()
    };
    let mut fields = differing(&["spec"]);
    if is_object(&["spec", "container"]) {
        fields.retain(|field| field != "container");
        fields.extend(differing(&["spec", "container"]));
    }
    let restarts = fields.iter().any(|field| field == "force_update");
    fields.retain(|field| !["force_update", "image", "image_id"].contains(&field.as_str()));
    let same_image = text_at(before, &["spec", "container", "image"])
        == text_at(after, &["spec", "container", "image"]);
    let verb = match (at(before, &["previous"]), at(after, &["spec"])) {
        (previous, spec) if previous == spec && at(before, &["spec"]) != spec => "rolled back",
        _ if restarts && fields.is_empty() && same_image => "restarted",
        (_, spec) if at(before, &["spec"]) == spec => "deployed again",
        _ => "updated",
    };
    (verb, fields)
}

/// Returns whether the JSON of a replaced version says that a rollback replaced it.
fn says_rolled_back(version: &str) -> bool {
    serde_json::from_str::<VersionRecord>(version).is_ok_and(|it| it.rolled_back)
}

fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |value, &key| value.get(key).unwrap_or(&Value::Null))
}

fn text_at(value: &Value, path: &[&str]) -> String {
    at(value, path).as_str().unwrap_or("?").to_owned()
}

/// Returns whether a certificate is that of a node which is no member any more.
fn is_former(certificate: &str) -> bool {
    decode_unverified(certificate).is_ok_and(|claims| matches!(claims.scope, Scope::Former(_)))
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests;
