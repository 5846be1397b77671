//! Deployments to a Compose file that can be deployed again.
//!
//! What is written is read again by this crate, and compared: a field that the file cannot say, or that this module does not write, is
//! named, and never left out in silence.

mod service;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde_json::Value;
use vc_protocol::spec::{FileId, FileKind, ServiceSpec};
use vc_protocol::volume::{Keep, OnLoss, Origin, VolumeSpec};
use vc_protocol::{Name, Stored};

use self::text::Yaml;
use crate::model::{Context, Entry};

/// A service to write.
#[derive(Debug, Clone)]
pub struct Exported {
    /// Its name.
    pub service: Name,
    /// What is deployed.
    pub spec: Stored<ServiceSpec>,
    /// Its replicas.
    pub replicas: u32,
}

/// A Compose file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its text.
    pub text: String,
    /// Secrets and configs whose files have to be supplied, as the file names them.
    pub supply: Vec<(FileId, String)>,
    /// What the file does not say as it is deployed: services with the paths of fields.
    pub inexact: Vec<(Name, Vec<String>)>,
}

/// Writes a project as a Compose file.
pub fn export(project: &Name, services: &[Exported]) -> Export {
    let mut top = vec![("name".to_owned(), Yaml::text(project))];
    let all = services
        .iter()
        .map(|it| (it.service.to_string(), Yaml::Map(service::fields(&it.spec, it.replicas))));
    top.push(("services".to_owned(), Yaml::Map(all.collect())));
    let volumes = declared_volumes(services);
    if !volumes.is_empty() {
        top.push(("volumes".to_owned(), Yaml::Map(volumes)));
    }
    let networks = declared_networks(services);
    if !networks.is_empty() {
        top.push(("networks".to_owned(), Yaml::Map(networks)));
    }
    let files: BTreeSet<&FileId> = services
        .iter()
        .flat_map(|it| it.spec.container.files.iter().map(|mount| &mount.file))
        .filter(|file| !service::is_shipped(file))
        .collect();
    let mut supply = Vec::new();
    for (key, kind) in [("secrets", FileKind::Secret), ("configs", FileKind::Config)] {
        let of_kind: Vec<&&FileId> = files.iter().filter(|it| it.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let entry = |file: &&&FileId| {
            let path = format!("./{key}/{}", file.name);
            supply.push(((**file).clone(), path.clone()));
            let source = vec![("file".to_owned(), Yaml::text(path))];
            (file.name.clone(), Yaml::Map(source))
        };
        let entries = of_kind.iter().map(entry).collect();
        top.push((key.to_owned(), Yaml::Map(entries)));
    }
    let shipped = services.iter().flat_map(|it| it.spec.container.files.iter());
    let shipped: BTreeSet<&FileId> =
        shipped.map(|it| &it.file).filter(|file| service::is_shipped(file)).collect();
    supply.extend(shipped.into_iter().map(|file| (file.clone(), file.name.clone())));
    let text = format!("{}{}", comments(services), text::write(&top));
    let inexact = compare(&text, project, services);
    Export { text, supply, inexact }
}

/// Returns what a reader of the file should know, as comments.
fn comments(services: &[Exported]) -> String {
    let pinned = services.iter().filter_map(|it| {
        let id = it.spec.container.image_id.as_ref()?;
        Some(format!("# {} runs {} of {}\n", it.service, id, it.spec.container.image))
    });
    pinned.collect()
}

fn declared_volumes(services: &[Exported]) -> Vec<(String, Yaml)> {
    let mut all: BTreeMap<&Name, VolumeSpec> = BTreeMap::new();
    for it in services {
        for name in it.spec.volumes() {
            let said = it.spec.volumes.get(name).cloned().unwrap_or_default();
            all.entry(name).or_insert(said);
        }
    }
    all.into_iter().map(|(name, spec)| (name.to_string(), Yaml::Map(volume(&spec)))).collect()
}

/// Returns the declaration of a volume. One that was a directory in its file is declared by its name: it has its data.
fn volume(spec: &VolumeSpec) -> Vec<(String, Yaml)> {
    let mut fields = Vec::new();
    if let Some(driver) = &spec.driver {
        let mut options = vec![("type".to_owned(), Yaml::text(&driver.kind))];
        options.push(("device".to_owned(), Yaml::text(&driver.device)));
        if !driver.options.is_empty() {
            options.push(("o".to_owned(), Yaml::text(&driver.options)));
        }
        fields.push(("driver_opts".to_owned(), Yaml::Map(options)));
        return fields;
    }
    if let Some(Origin::Directory { path, must_exist: true, .. }) = &spec.origin {
        let options = [("type", "none"), ("o", "bind"), ("device", path.as_str())];
        let options = options.map(|(key, value)| (key.to_owned(), Yaml::text(value)));
        fields.push(("driver_opts".to_owned(), Yaml::Map(options.to_vec())));
    }
    let mut more = Vec::new();
    let mut put = |key: &str, value: Yaml| more.push((key.to_owned(), value));
    if let Some(replicas) = spec.replicas {
        put("replicas", Yaml::text(replicas));
    }
    if spec.size_bytes > 0 {
        put("size", Yaml::text(spec.size_bytes));
    }
    if spec.on_loss == OnLoss::Wait {
        put("on_loss", Yaml::text("wait"));
    }
    if spec.lost_after_ms > 0 {
        put("lost_after", service::duration(spec.lost_after_ms));
    }
    if spec.keep != Keep::default() {
        let Keep { last, hourly, daily } = spec.keep;
        let counts = [("last", last), ("hourly", hourly), ("daily", daily)];
        let counts = counts.map(|(key, count)| (key.to_owned(), Yaml::text(count)));
        put("keep", Yaml::Map(counts.to_vec()));
    }
    let commands = [("before", &spec.hooks.before), ("after", &spec.hooks.after)];
    let commands = commands.into_iter().filter(|(_, command)| !command.is_empty());
    let commands: Vec<_> =
        commands.map(|(key, command)| (key.to_owned(), Yaml::texts(command))).collect();
    if !commands.is_empty() {
        put("hooks", Yaml::Map(commands));
    }
    if !more.is_empty() {
        fields.push(("x-vc".to_owned(), Yaml::Map(more)));
    }
    fields
}

fn declared_networks(services: &[Exported]) -> Vec<(String, Yaml)> {
    let mut all = BTreeMap::new();
    for container in services.iter().map(|it| &it.spec.container) {
        for name in container.networks.keys() {
            let is_internal = container.internal_networks.contains(name);
            let internal = vec![("internal".to_owned(), Yaml::text("true"))];
            all.insert(name.to_string(), if is_internal { internal } else { Vec::new() });
        }
        for name in container.shared_networks.keys() {
            let external = [("external", "true".to_owned()), ("name", name.to_string())];
            let external = external.map(|(key, value)| (key.to_owned(), Yaml::text(value)));
            all.insert(name.to_string(), external.to_vec());
        }
    }
    let is_said = |(name, fields): &(String, Vec<_>)| {
        name != vc_protocol::spec::DEFAULT_NETWORK || !fields.is_empty()
    };
    all.into_iter().filter(is_said).map(|(name, fields)| (name, Yaml::Map(fields))).collect()
}

/// Reads the file again, and returns what differs from what is deployed.
fn compare(text: &str, project: &Name, services: &[Exported]) -> Vec<(Name, Vec<String>)> {
    let env = BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]);
    let read = |_: &str| Err(io::ErrorKind::NotFound.into());
    // The contents are not exported, and modes are those of files.
    let open = |_: &str| Ok(Entry::File { content: Vec::new(), mode: 0o444 });
    let context = Context {
        project: Some(project.clone()),
        node: None,
        directory: None,
        env: &env,
        read: &read,
        open: &open,
    };
    let again = match crate::parse(text, &context) {
        Ok(again) => again,
        Err(error) => {
            let why = vec![format!("the file cannot be deployed as it is: {error}")];
            return services.iter().map(|it| (it.service.clone(), why.clone())).collect();
        }
    };
    let mut inexact = Vec::new();
    for it in services {
        let found = again.services.iter().find(|other| other.service.service == it.service);
        let differs = match found {
            None => vec!["all".to_owned()],
            Some(found) => {
                let mut paths = it.spec.unknown_fields();
                let (deployed, read) = (as_written(&it.spec), as_written(&found.spec));
                difference(&deployed, &read, "", &mut paths);
                paths
            }
        };
        if !differs.is_empty() {
            inexact.push((it.service.clone(), differs));
        }
    }
    inexact
}

/// Returns a spec as JSON, without what nodes and deployments add to what a file says.
fn as_written(spec: &ServiceSpec) -> Value {
    let mut spec = spec.clone();
    let container = &mut spec.container;
    container.image_id = None;
    container.force_update = 0;
    container.host_path_roots.clear();
    container.files.iter_mut().for_each(|mount| mount.version.clear());
    container.files.sort();
    let dynamic = &spec.dynamic_ports;
    spec.ports.retain(|port| !dynamic.iter().any(|it| it.is_published_as(port)));
    for volume in spec.volumes.values_mut() {
        match &mut volume.origin {
            Some(Origin::Directory { node, must_exist: true, .. }) => *node = None,
            // It is declared by its name, as its data is in the volume.
            _ => volume.origin = None,
        }
    }
    spec.volumes.retain(|_, volume| *volume != VolumeSpec::default());
    serde_json::to_value(&spec).unwrap_or_default()
}

/// Appends the paths at which two values differ.
fn difference(a: &Value, b: &Value, path: &str, paths: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(first), Value::Object(second)) => {
            let keys: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned();
                let (a, b) = (of(first).unwrap_or_default(), of(second).unwrap_or_default());
                difference(&a, &b, &path, paths);
            }
        }
        _ if a == b => {}
        _ => paths.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests;
