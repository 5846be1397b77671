//! The diff of a deployment: the values of the spec that differ, by path.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use vc_crdt::View;
use vc_protocol::Name;
use vc_protocol::control::{MASK, ServiceDiff};
use vc_protocol::spec::{Deployment, FileKind, FileMount, Mount, Port, Publish, ServiceSpec};

use crate::mutation::revision;
use crate::mutation::volumes::leaves_its_data;
use crate::partition;

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
            changes.append(&mut content(&spec, show_values));
            if !spec.mode.is_per_node() {
                changes.push(format!("replicas: {}", wanted.replicas.unwrap_or(1)));
            }
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
            if let Some(replicas) =
                wanted.replicas.filter(|&replicas| replicas != before && !spec.mode.is_per_node())
            {
                changes.push(format!("replicas: {before} -> {replicas}"));
            }
            if held.spec != spec {
                changes.extend(leaves_its_data(view, service, &spec));
            }
            if show_values && held.spec == spec && spec.mode.is_job() && spec.schedule.is_none() {
                changes.push("nothing; the job runs again".to_owned());
            }
            // That the spec is equal would tell that the values are.
            if show_values && held.spec == spec && revision::retries_update(view, service) {
                changes.push("nothing; the failed update is retried".to_owned());
            }
        }
    }
    ServiceDiff { service: service.clone(), created: held.is_none(), changes }
}

/// Returns a line for each value of a new spec that is not the default.
fn content(spec: &ServiceSpec, show_values: bool) -> Vec<String> {
    let mut spec = spec.clone();
    // What the node adds: people wrote a reference.
    spec.container.image_id = None;
    if !show_values {
        mask_environment(&mut spec.container.environment);
    }
    let mut lines = Vec::new();
    files(&[], &spec.container.files, &mut lines);
    if spec.is_exclusive() || spec.on_partition.is_some() {
        lines.push(format!("on_partition: {}", partition::effect(&spec)));
    }
    let (before, after) = (plain(&ServiceSpec::default()), plain(&spec));
    values("", &before, &after, &mut |path, _, value| match value {
        Value::Null => {}
        Value::Array(items) if !is_words(path) => {
            lines.extend(items.iter().map(|item| format!("{path}: {}", show_item(item))));
        }
        value => lines.push(format!("{path}: {}", show(value))),
    });
    lines.sort();
    lines
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
    if (before.on_partition, before.is_exclusive()) != (after.on_partition, after.is_exclusive()) {
        let default = if before.on_partition.is_none() { " by default" } else { "" };
        let before = partition::behaviour(before).as_str();
        lines.push(format!("on_partition: {before}{default} -> {}", partition::effect(after)));
    }
    values("", &plain(before), &plain(after), &mut |path, before, after| {
        // One that has nothing of the other reads better as a whole.
        let is_other = |before: &[&Value], after: &[&Value]| {
            is_words(path) && !before.iter().any(|item| after.contains(item))
        };
        match (items(before), items(after)) {
            (Some(before), Some(after)) if !is_other(&before, &after) => {
                list(path, &before, &after, &mut lines);
            }
            _ => lines.push(format!("{path}: {} -> {}", show(before), show(after))),
        }
    });
    // Elements of a list stay in their order.
    lines.sort_by(|a, b| path(a).cmp(path(b)));
    lines
}

/// Returns the path that a line begins with.
fn path(line: &str) -> &str {
    line.split_once(": ").map_or(line, |(path, _)| path)
}

/// Returns a spec as JSON with what people write where it has a short form. Files are compared on their own: their versions are
/// hashes that users do not know; so is the behaviour on partitions, which has a default.
fn plain(spec: &ServiceSpec) -> Value {
    let mut bare = spec.clone();
    bare.container.files.clear();
    bare.on_partition = None;
    let mut json = serde_json::to_value(bare).unwrap_or_default();
    let texts = |all: Vec<String>| match all.is_empty() {
        true => Value::Null,
        false => all.into(),
    };
    json["ports"] = texts(spec.ports.iter().map(port).collect());
    json["constraints"] = texts(spec.constraints.iter().map(ToString::to_string).collect());
    let expose = spec.expose.iter();
    json["expose"] =
        texts(expose.map(|it| format!("{}/{}", it.target, it.protocol.as_str())).collect());
    json["container"]["mounts"] = texts(spec.container.mounts.iter().map(mount).collect());
    let networks = spec.container.networks.iter();
    json["container"]["networks"] = texts(networks.map(network).collect());
    json
}

fn port(port: &Port) -> String {
    let mut text = port.to_string();
    if port.publish == Publish::Node {
        text += " (mode: host)";
    }
    if port.proxy_protocol.is_some() {
        text += " (PROXY protocol)";
    }
    text
}

fn mount(mount: &Mount) -> String {
    let mode = |read_only: &bool| if *read_only { ":ro" } else { "" };
    match mount {
        Mount::Volume { name, target, read_only, nocopy, subpath } => {
            let subpath = subpath.iter().map(|path| format!("/{path}")).collect::<String>();
            let nocopy = if *nocopy { " (nocopy)" } else { "" };
            format!("volume {name}{subpath}:{target}{}{nocopy}", mode(read_only))
        }
        Mount::Anonymous { target } => format!("volume without a name at {target}"),
        Mount::Bind { source, target, read_only } => {
            format!("{source}:{target}{}", mode(read_only))
        }
        Mount::Tmpfs { target, bytes: 0 } => format!("tmpfs at {target}"),
        Mount::Tmpfs { target, bytes } => format!("tmpfs at {target} of {bytes} bytes"),
    }
}

fn network((name, aliases): (&Name, &BTreeSet<String>)) -> String {
    let aliases: Vec<&str> = aliases.iter().map(String::as_str).collect();
    match aliases.is_empty() {
        true => name.to_string(),
        false => format!("{name} as {}", aliases.join(", ")),
    }
}

/// Calls `differs` for the values that differ below a path, which are no objects on both sides.
fn values(
    path: &str,
    before: &Value,
    after: &Value,
    differs: &mut impl FnMut(&str, &Value, &Value),
) {
    let none = serde_json::Map::new();
    let (before_fields, after_fields) = match (before, after) {
        (Value::Object(before), Value::Object(after)) => (before, after),
        (Value::Null, Value::Object(after)) => (&none, after),
        (Value::Object(before), Value::Null) => (before, &none),
        _ if before == after => return,
        _ => return differs(path, before, after),
    };
    let mut keys: Vec<&String> = before_fields.keys().chain(after_fields.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let of =
            |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
        values(&path, &of(before_fields), &of(after_fields), differs);
    }
}

/// Returns whether a list is one of words that belong together, so that it reads as a whole where it is new or gone.
fn is_words(path: &str) -> bool {
    matches!(path, "container.command" | "container.entrypoint" | "container.healthcheck.test")
}

/// Returns the elements of a list, or of one that is absent.
fn items(value: &Value) -> Option<Vec<&Value>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(items) => Some(items.iter().collect()),
        _ => None,
    }
}

/// Appends lines for the elements that a list loses and gains.
fn list(path: &str, before: &[&Value], after: &[&Value], lines: &mut Vec<String>) {
    let without = |of: &[&Value], others: &[&Value]| {
        let mut others = others.to_vec();
        let mut rest = of.to_vec();
        rest.retain(|item| match others.iter().position(|it| it == item) {
            Some(index) => {
                others.swap_remove(index);
                false
            }
            None => true,
        });
        rest.into_iter().map(show_item).collect::<Vec<_>>()
    };
    let (gone, new) = (without(before, after), without(after, before));
    if gone.is_empty() && new.is_empty() {
        let whole = |items: &[&Value]| Value::Array(items.iter().map(|&it| it.clone()).collect());
        let (before, after) = (whole(before), whole(after));
        lines.push(format!("{path}: {} -> {}", show(&before), show(&after)));
    }
    lines.extend(gone.into_iter().map(|item| format!("{path}: - {item}")));
    lines.extend(new.into_iter().map(|item| format!("{path}: + {item}")));
}

/// Returns an element of a list: a text that people wrote or know as it is, anything else as JSON.
fn show_item(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.contains(char::is_control) => cut(text),
        value => show(value),
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
    cut(&value.to_string())
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
