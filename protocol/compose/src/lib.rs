//! Compose files: text in, deployments out.
//!
//! Reads the part of the [Compose specification](https://github.com/compose-spec/compose-spec/blob/main/spec.md) that a
//! cluster of many nodes can implement faithfully; `docs/compose.md` lists it. Everything else is refused by its path
//! (`services.web.network_mode is not supported`) and never ignored; one run lists all problems.
//!
//! Stages: `yaml` (text to tree, with line and column) → `interpolate` (`${VAR}`) → `load` and `merge` (several files, `include`
//! and `extends` to one tree) → top-level declarations → `service` and its parts (tree to spec, by path) → checks over all
//! services (cycles, ports). Nothing here reads a file or the environment: both are arguments, in the [`Context`].

mod build;
mod declared;
mod dependencies;
mod deploy;
mod devices;
mod directories;
mod duration;
mod env_file;
mod environment;
mod export;
mod extends;
mod extension;
mod files;
mod health;
mod interpolate;
mod limits;
mod links;
mod load;
mod logging;
mod merge;
mod model;
mod names;
mod namespaces;
mod networks;
mod paths;
mod ports;
mod problem;
mod profiles;
mod service;
mod settings;
mod shell_words;
mod target;
mod top;
mod tree;
mod update;
mod volume_spec;
mod volumes;
mod volumes_from;
mod walk;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};

pub use env_file::{EnvFileError, parse_env_file};
pub use export::{Export, Exported, export};
pub use model::{
    Build, ComposeError, Context, Entry, MAX_CONTENT_BYTES, MAX_CONTENTS_BYTES, MAX_FILE_BYTES,
    MAX_SERVICES, Project, Source, Upload,
};

use directories::Directories;
use files::Files;
use top::Top;
use tree::Tree;
use vc_protocol::spec::{Deployment, FileContent};
use vc_protocol::{Name, ServiceKey};
use walk::{At, Walk};

/// Reads a Compose file that has no name. Errors: see [`ComposeError`].
pub fn parse(text: &str, context: &Context<'_>) -> Result<Project, ComposeError> {
    parse_files(&[Source { name: "", text }], context)
}

/// Reads the Compose files of a project, each merged over those before it. Relative paths, also of the others, are relative to
/// the first file. Errors: see [`ComposeError`].
pub fn parse_files(sources: &[Source<'_>], context: &Context<'_>) -> Result<Project, ComposeError> {
    let mut env = context.env.clone();
    let named = context.project.as_ref().map(Name::to_string).or_else(|| named_by(&env));
    let named = named.or_else(|| load::name_of(sources, &env));
    let named =
        named.or_else(|| context.directory.and_then(from_directory).map(|name| name.to_string()));
    env.extend(named.map(|name| (NAME_VARIABLE.to_owned(), name)));
    let walk = Walk::new(context, sources.first().map_or("", |source| source.name));
    let Tree { node, origins } = load::load(sources, &walk, env)?;
    walk.file.replace(None);
    walk.origins.replace(origins);
    check(&walk)?;

    let (name, parts) = project(&At { node: &node, path: String::new(), walk: &walk });
    check(&walk)?;
    let unset = walk.unset.borrow();
    let unset =
        unset.iter().map(|name| format!("the variable {name} is not set: it is read as empty"));
    let warnings = unset.chain(walk.warnings.take()).collect();
    match name {
        Some(name) => {
            let Parts { services, files, builds, uploads } = parts;
            Ok(Project { name, services, files, builds, uploads, warnings })
        }
        None => Err(ComposeError::Refused(vec![
            "the project has no name: write name: at the top".to_owned(),
        ])),
    }
}

/// The variable that names the project, which Compose sets too.
const NAME_VARIABLE: &str = "COMPOSE_PROJECT_NAME";

/// Returns the project's name in the environment.
fn named_by(env: &BTreeMap<String, String>) -> Option<String> {
    env.get(NAME_VARIABLE).filter(|name| !name.is_empty()).cloned()
}

fn check(walk: &Walk<'_>) -> Result<(), ComposeError> {
    let problems = walk.problems();
    if problems.is_empty() { Ok(()) } else { Err(ComposeError::Refused(problems)) }
}

/// Reads the top level of the file.
fn project<'a>(at: &At<'a>) -> (Option<Name>, Parts) {
    let walk = at.walk;
    let mut fields = at.fields();
    let named = fields.take("name").and_then(|at| at.read(str::parse));
    let of_environment = named_by(walk.context.env).and_then(|name| {
        name.parse().map_err(|why| walk.refuse(NAME_VARIABLE, &format!(": {why}"))).ok()
    });
    let name = (walk.context.project.clone().or(of_environment).or(named))
        .or_else(|| walk.context.directory.and_then(from_directory));
    // Obsolete, and without effect in Compose too.
    fields.take("version");
    let entries = fields.take("services").map(|at| at.entries()).unwrap_or_default();
    let top = Top {
        volumes: volume_spec::declared(fields.take("volumes").as_ref()),
        directories: Directories::default(),
        networks: networks::Networks::read(fields.take("networks").as_ref(), &entries),
        files: Files::take(&mut fields, walk),
        node: deploy::node(fields.take("x-vc").as_ref(), walk.context.node),
    };
    fields.finish(&[]);

    if entries.is_empty() {
        walk.refuse("services", " is empty: name at least one service");
    }
    if entries.len() > MAX_SERVICES {
        walk.refuse(
            "services",
            &format!(" has {} services, more than {MAX_SERVICES}", entries.len()),
        );
        return (name, Parts::default());
    }
    // Without a project name services have no key; a placeholder lets their problems be listed too.
    let project = name.clone().or_else(|| "unnamed".parse().ok());
    let (mut services, mut inactive, mut taken) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for (name, at) in entries {
        if !profiles::is_active(&at) {
            inactive.extend(names::parse(name));
            continue;
        }
        match (names::parse(name), &project) {
            (Ok(service), _) if !taken.insert(service.clone()) => at.refuse(networks::TWICE),
            (Ok(service), Some(project)) => {
                let key = ServiceKey { project: project.clone(), service };
                services.push(service::read(key, name, &at, &top));
            }
            (Err(why), _) => at.invalid(why),
            (Ok(_), None) => {}
        }
    }
    if services.is_empty() && !inactive.is_empty() {
        walk.refuse(
            "services",
            " all have profiles that are not enabled: name one in COMPOSE_PROFILES",
        );
    }
    volumes_from::apply(&mut services, walk);
    volumes::say_how_kept(&mut services, &top);
    links::apply(&mut services, walk);
    networks::check(&mut services, walk);
    dependencies::leave_out(&mut services);
    dependencies::allow_exit(&mut services, walk);
    dependencies::check(&services, &inactive, walk);
    ports::check(&services, walk);
    // What was refused so far has a default in its place.
    if walk.problems().is_empty() {
        for Deployment { service, spec, .. } in services.iter().map(|it| &it.deployment) {
            if let Err(error) = spec.validate() {
                walk.refuse(&format!("services.{}", service.service), &format!(": {error}"));
            }
        }
    }
    let mut parts = Parts::default();
    if let Some(project) = project {
        parts.files = top.files.contents(&project);
        parts.uploads = top.directories.uploads(&project);
    }
    for service in services {
        parts.services.push(service.deployment);
        parts.builds.extend(service.build);
    }
    (name, parts)
}

/// The contents of a project that may have no name.
#[derive(Default)]
struct Parts {
    services: Vec<Deployment>,
    files: Vec<FileContent>,
    builds: Vec<Build>,
    uploads: Vec<Upload>,
}

/// Derives a project's name from its directory by Compose's rules.
fn from_directory(directory: &str) -> Option<Name> {
    let fits = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let name: String = directory.to_lowercase().chars().filter(fits).collect();
    name.trim_start_matches(['-', '_']).chars().take(63).collect::<String>().parse().ok()
}
