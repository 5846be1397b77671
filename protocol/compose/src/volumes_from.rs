//! `volumes_from` of a service: the mounts of another one, and a dependency on it.

use std::collections::BTreeSet;

use super::model::Service;
use super::names;
use super::problem::Problem;
use super::walk::{At, Walk};
use vc_protocol::Name;
use vc_protocol::spec::{ContainerSpec, Dependency, FileKind, Mount};

/// A service whose mounts another one gets.
pub(super) struct VolumesFrom {
    from: Name,
    read_only: bool,
    /// The path of the entry in the file.
    path: String,
}

/// Reads `volumes_from`: `SERVICE` or `SERVICE:ro`.
pub(super) fn read(at: &At<'_>) -> Vec<VolumesFrom> {
    let entry = |item: At<'_>| {
        item.read(|text| {
            let (from, mode) = text.split_once(':').unwrap_or((text, "rw"));
            if from == "container" {
                let why = format!("'{text}' is not of the file: name a volume in both");
                return Err(Problem::new(why));
            }
            let read_only = match mode {
                "rw" => false,
                "ro" => true,
                _ => return Err(Problem::new(format!("'{mode}' is not known: write ro or rw"))),
            };
            let from = names::parse(from).map_err(|why| Problem::new(why.to_string()))?;
            Ok(VolumesFrom { from, read_only, path: item.path.clone() })
        })
    };
    at.items().into_iter().filter_map(entry).collect()
}

/// Gives services the mounts of others: first those of services that get none themselves.
pub(super) fn apply(services: &mut [Service], walk: &Walk<'_>) {
    loop {
        let waiting: BTreeSet<Name> = services
            .iter()
            .filter(|it| !it.volumes_from.is_empty())
            .map(|it| it.deployment.service.service.clone())
            .collect();
        let ready = |it: &Service| {
            !it.volumes_from.is_empty()
                && !it.volumes_from.iter().any(|it| waiting.contains(&it.from))
        };
        let Some(index) = services.iter().position(ready) else { break };
        for entry in std::mem::take(&mut services[index].volumes_from) {
            let is_it = |it: &&Service| it.deployment.service.service == entry.from;
            let Some(other) = services.iter().find(is_it) else {
                walk.refuse(&entry.path, " names no service of the file that is deployed");
                continue;
            };
            let from = other.deployment.spec.container.clone();
            let spec = &mut services[index].deployment.spec;
            take(&mut spec.container, from, &entry, walk);
            spec.depends_on.entry(entry.from).or_insert(Dependency::ServiceStarted);
        }
    }
    for entry in services.iter().flat_map(|it| &it.volumes_from) {
        walk.refuse(&entry.path, " is a cycle: that service gets the volumes of this one");
    }
}

/// Adds the mounts of a container whose targets are free.
fn take(container: &mut ContainerSpec, from: ContainerSpec, entry: &VolumesFrom, walk: &Walk<'_>) {
    let of_mounts = container.mounts.iter().map(|mount| mount.target().to_owned());
    let taken: BTreeSet<String> =
        of_mounts.chain(container.files.iter().map(|file| file.target.clone())).collect();
    for mut mount in from.mounts {
        if taken.contains(mount.target()) {
            continue;
        }
        match &mut mount {
            Mount::Volume { read_only, .. } | Mount::Bind { read_only, .. } => {
                *read_only |= entry.read_only;
            }
            Mount::Anonymous { target } => {
                walk.refuse(&entry.path, &format!(" has an anonymous volume at {target}, which is of one instance: give it a name"));
                continue;
            }
            Mount::Tmpfs { .. } => continue,
        }
        container.mounts.push(mount);
    }
    let created = from.created_host_paths.into_iter().filter(|path| {
        container.mounts.iter().any(|mount| mount.host_path() == Some(path.as_str()))
    });
    let created: Vec<String> = created.collect();
    container.created_host_paths.extend(created);
    // Files of the operator's computer are mounts in the file.
    let shipped = |file: &vc_protocol::spec::FileMount| {
        file.file.kind == FileKind::Config && file.file.name.contains('/')
    };
    container
        .files
        .extend(from.files.into_iter().filter(|it| shipped(it) && !taken.contains(&it.target)));
}
