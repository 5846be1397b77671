//! The diff of a deployment: the values of the spec that differ, by path.

use std::collections::BTreeMap;

use serde_json::Value;
use vc_crdt::View;
use vc_protocol::control::{MASK, ServiceDiff};
use vc_protocol::spec::{Deployment, FileKind, FileMount, ServiceSpec};

use crate::mutation::revision;

/// The longest value in a diff, in characters.
const MAX_VALUE: usize = 200;

/// Returns the services that change, in the order of the deployments. The versions of files must be filled in as for
/// [`Deploy`](crate::Mutation::Deploy).
///
/// Without `values`, those of environment variables are neither shown nor compared: whether one differs would tell whether a
/// guess of it is right.
pub fn diff(view: &View, deployments: &[Deployment], values: bool) -> Vec<ServiceDiff> {
    let all = deployments.iter().map(|wanted| of_service(view, wanted, values));
    all.filter(|diff| diff.created || !diff.changes.is_empty()).collect()
}

/// Replaces the values of environment variables by [`MASK`].
pub fn mask_environment(environment: &mut BTreeMap<String, String>) {
    for value in environment.values_mut() {
        MASK.clone_into(value);
    }
}

fn of_service(view: &View, wanted: &Deployment, show_values: bool) -> ServiceDiff {
    let service = &wanted.service;
    let spec = revision::adopted(&view.cluster, wanted);
    let mut changes = Vec::new();
    let held = view.cluster.services.get(service);
    match held {
        None => {
            changes
                .push(format!("container.image: {}", show(&spec.container.image.clone().into())));
            changes.push(format!("replicas: {}", wanted.replicas.unwrap_or(1)));
        }
        Some(held) => {
            let masked = |spec: &ServiceSpec| {
                let mut spec = spec.clone();
                if !show_values {
                    mask_environment(&mut spec.container.environment);
                }
                spec
            };
            changes.append(&mut between(&masked(&held.spec), &masked(&spec)));
            let before = view.cluster.replicas(service);
            if let Some(replicas) = wanted.replicas.filter(|&replicas| replicas != before) {
                changes.push(format!("replicas: {before} -> {replicas}"));
            }
            // That the spec is equal would tell that the values are.
            if show_values && held.spec == spec && revision::retries_update(view, service) {
                changes.push("nothing; the failed update is retried".to_owned());
            }
        }
    }
    ServiceDiff { service: service.clone(), created: held.is_none(), changes }
}

/// Returns a line for each difference between two versions of a service, beside the restart counter. Without `values`, those of
/// environment variables are neither shown nor compared.
pub(crate) fn changes(before: &ServiceSpec, after: &ServiceSpec, values: bool) -> Vec<String> {
    let of = |spec: &ServiceSpec| {
        let mut spec = spec.clone();
        spec.container.force_update = 0;
        if !values {
            mask_environment(&mut spec.container.environment);
        }
        spec
    };
    between(&of(before), &of(after))
}

/// Returns a line for each difference between two specs.
fn between(before: &ServiceSpec, after: &ServiceSpec) -> Vec<String> {
    let mut lines = Vec::new();
    files(&before.container.files, &after.container.files, &mut lines);
    // Files are compared above; their versions are hashes that users do not know.
    let plain = |spec: &ServiceSpec| {
        let mut spec = spec.clone();
        spec.container.files.clear();
        serde_json::to_value(spec).unwrap_or_default()
    };
    values("", &plain(before), &plain(after), &mut lines);
    lines.sort();
    lines
}

/// Appends lines for the values that differ below a path. Lists are compared as a whole.
fn values(path: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let of = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or(Value::Null)
                };
                values(&path, &of(before), &of(after), lines);
            }
        }
        _ if before == after => {}
        _ => lines.push(format!("{path}: {} -> {}", show(before), show(after))),
    }
}

/// Appends lines for secrets and configs that are added, removed, moved or have another content.
fn files(before: &[FileMount], after: &[FileMount], lines: &mut Vec<String>) {
    let name = |mount: &FileMount| {
        let kind = match mount.file.kind {
            FileKind::Secret => "secret",
            FileKind::Config => "config",
        };
        format!("{kind} {}", mount.file.name)
    };
    let of = |list: &[FileMount], like: &FileMount| {
        list.iter().find(|it| it.file == like.file && it.target == like.target).cloned()
    };
    let mut say = |text: String| lines.push(format!("container.files: {text}"));
    for mount in before.iter().filter(|mount| of(after, mount).is_none()) {
        say(format!("{} no longer at {}", name(mount), mount.target));
    }
    for mount in after {
        match of(before, mount) {
            None => say(format!("{} at {}", name(mount), mount.target)),
            Some(held) if held == *mount => {}
            Some(held) => {
                if held.version != mount.version {
                    say(format!("content of {} changed", name(mount)));
                }
                if (held.uid, held.gid, held.mode) != (mount.uid, mount.gid, mount.mode) {
                    say(format!(
                        "{}: {}:{} {:o} -> {}:{} {:o}",
                        name(mount),
                        held.uid,
                        held.gid,
                        held.mode,
                        mount.uid,
                        mount.gid,
                        mount.mode
                    ));
                }
            }
        }
    }
}

/// Returns a value as JSON, cut at [`MAX_VALUE`]; `none` if it is absent.
fn show(value: &Value) -> String {
    if value.is_null() {
        return "none".to_owned();
    }
    let text = value.to_string();
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
