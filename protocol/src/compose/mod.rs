//! Compose files: text in, deployments out.
//!
//! The subset of the [Compose specification](https://github.com/compose-spec/compose-spec/blob/main/spec.md) that a
//! cluster without volumes and networks can keep its word on; `docs/compose.md` lists it. Everything else is refused
//! by its path (`services.web.network_mode is not supported`) and never ignored, all of it at once.
//!
//! The way of a file: `yaml` (text to tree, with line and column) → `interpolate` (`${VAR}`) → `service` and `deploy`
//! (tree to spec, by path) → the services together (names, cycles). Nothing here reads a file or the environment: both
//! come in with the [`Context`].

mod deploy;
mod duration;
mod env_file;
mod interpolate;
mod ports;
mod service;
mod walk;
mod words;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::{fmt, io};

pub use env_file::parse_env_file;

use crate::spec::{Dependency, Deployment};
use crate::{Name, ServiceKey};
use walk::{At, Walk};
use yaml::Node;

/// The largest file, in bytes; an env file too.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// The largest number of services in one file.
pub const MAX_SERVICES: usize = 1000;

/// What a file means depends on this too.
pub struct Context<'a> {
    /// The project's name, when the user says it (`-p`): it wins over the file's `name:`.
    pub project: Option<Name>,
    /// The name of the directory the file is in. When nobody names the project, it does, in lower case and without
    /// what a [`Name`] cannot hold.
    pub directory: Option<&'a str>,
    /// The environment, for `${VAR}` and for variables that the file names without a value. Compose lets a `.env` file
    /// beside the file fill in what the process does not set; [`parse_env_file`] reads it.
    pub env: &'a BTreeMap<String, String>,
    /// Reads an `env_file`, whose path is relative to the file. `NotFound` matters: such a file may be optional.
    pub read: &'a dyn Fn(&str) -> io::Result<String>,
}

/// What a Compose file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its name.
    pub name: Name,
    /// Its services, by name.
    pub services: Vec<Deployment>,
    /// What a person should hear, one line each: variables that are not set and have no default.
    pub warnings: Vec<String>,
}

/// Why a text is no Compose file that can be deployed. One line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// Larger than [`MAX_FILE_BYTES`].
    #[error("the file has {0} bytes, more than {MAX_FILE_BYTES}")]
    TooLarge(usize),
    /// No YAML.
    #[error("line {line}, column {column}: {}", OneLine(.message))]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Character of the line, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// Not supported, or wrong: each begins with the path of what it is about.
    #[error("{}", OneLine(&.0.join("; ")))]
    Refused(Vec<String>),
}

/// Text of the user's making, kept on one line.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") }
        })
    }
}

/// Reads a Compose file. Errors: see [`ComposeError`]; nothing of the file counts then.
pub fn parse(text: &str, context: &Context<'_>) -> Result<Project, ComposeError> {
    if text.len() > MAX_FILE_BYTES {
        return Err(ComposeError::TooLarge(text.len()));
    }
    let mut root = yaml::load(text)?;
    if !matches!(root, Node::Map(_)) {
        return Err(ComposeError::Refused(vec![
            "the file has no services: write services: at the top".to_owned(),
        ]));
    }
    let walk = Walk::new(context);
    let lookup = |name: &str| context.env.get(name).cloned();
    let mut scope = interpolate::Scope::new(&lookup);
    interpolate::tree(&mut root, "", &mut scope, &walk);
    walk.unset.borrow_mut().append(&mut scope.unset);
    check(&walk)?;

    let (name, services) = project(&At { node: &root, path: String::new(), walk: &walk });
    check(&walk)?;
    let unset = walk.unset.borrow();
    let warnings = unset
        .iter()
        .map(|name| format!("the variable {name} is not set: it counts as empty"))
        .collect();
    match name {
        Some(name) => Ok(Project { name, services, warnings }),
        None => Err(ComposeError::Refused(vec![
            "the project has no name: write name: at the top".to_owned(),
        ])),
    }
}

fn check(walk: &Walk<'_>) -> Result<(), ComposeError> {
    let problems = walk.problems();
    if problems.is_empty() { Ok(()) } else { Err(ComposeError::Refused(problems)) }
}

/// The top of the file.
fn project(at: &At<'_>) -> (Option<Name>, Vec<Deployment>) {
    let mut fields = at.fields();
    let named = fields.take("name").and_then(|at| at.read(str::parse));
    let name = at
        .walk
        .context
        .project
        .clone()
        .or(named)
        .or_else(|| at.walk.context.directory.and_then(from_directory));
    // Obsolete, and without any effect in Compose too.
    fields.take("version");
    let entries = fields.take("services").map(|at| at.entries()).unwrap_or_default();
    for (key, why) in [
        ("networks", " is not supported yet"),
        ("volumes", ": volumes are not supported yet"),
        ("secrets", " is not supported yet"),
        ("configs", " is not supported yet"),
        ("include", " is not supported: deploy each file"),
    ] {
        let empty = |node: &Node| matches!(node, Node::Map(map) if map.is_empty());
        if let Some(at) = fields.take(key).filter(|at| !empty(at.node)) {
            at.walk.refuse(&at.path, why);
        }
    }
    fields.finish(&[("x-vc", " is not supported here: write it in a service")]);

    if entries.is_empty() {
        at.walk.refuse("services", " is empty: name at least one service");
    }
    if entries.len() > MAX_SERVICES {
        at.walk.refuse(
            "services",
            &format!(" has {} services, more than {MAX_SERVICES}", entries.len()),
        );
        return (name, Vec::new());
    }
    // Without a name there is no key, but there may be more to refuse.
    let project = name.clone().or_else(|| "unnamed".parse().ok());
    let mut services = Vec::new();
    for (service, at) in entries {
        match (service.parse(), &project) {
            (Ok(service), Some(project)) => {
                services.push(service::read(ServiceKey { project: project.clone(), service }, &at));
            }
            (Err(why), _) => at.invalid(why),
            (Ok(_), None) => {}
        }
    }
    check_dependencies(&services, at.walk);
    (name, services)
}

/// A project's name from its directory, as Compose makes it.
fn from_directory(directory: &str) -> Option<Name> {
    let fits = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let name: String = directory.to_lowercase().chars().filter(fits).collect();
    name.trim_start_matches(['-', '_']).chars().take(63).collect::<String>().parse().ok()
}

/// Refuses what no order of starting can satisfy.
fn check_dependencies(services: &[Deployment], walk: &Walk<'_>) {
    let by_name: BTreeMap<&Name, &Deployment> =
        services.iter().map(|it| (&it.service.service, it)).collect();
    for (name, deployment) in &by_name {
        for (on, dependency) in &deployment.spec.depends_on {
            let path = format!("services.{name}.depends_on.{on}");
            let Some(on) = by_name.get(on) else {
                walk.refuse(&path, " names no service of the file");
                continue;
            };
            let test = on.spec.container.healthcheck.as_ref().and_then(|check| check.test.first());
            if *dependency == Dependency::ServiceHealthy && test.is_some_and(|test| test == "NONE")
            {
                walk.refuse(&path, " waits for a healthcheck that is disabled");
            }
        }
    }
    // Whatever remains when all that can start has started waits for itself.
    let mut waiting: BTreeSet<&Name> = by_name.keys().copied().collect();
    loop {
        let (blocked, free): (BTreeSet<_>, BTreeSet<_>) =
            waiting.iter().partition(|name| next(&by_name, name, &waiting).is_some());
        waiting = blocked;
        if free.is_empty() {
            break;
        }
    }
    let mut circle: Vec<&Name> = waiting.first().copied().into_iter().collect();
    while let Some(on) = circle.last().and_then(|name| next(&by_name, name, &waiting)) {
        if let Some(at) = circle.iter().position(|name| *name == on) {
            let names: Vec<&str> =
                circle[at..].iter().chain([&on]).map(|name| name.as_str()).collect();
            walk.refuse(
                &format!("services.{on}.depends_on"),
                &format!(" is a circle: {}", names.join(" -> ")),
            );
            break;
        }
        circle.push(on);
    }
}

/// The first of those waiting that `name` depends on.
fn next<'a>(
    services: &BTreeMap<&'a Name, &'a Deployment>,
    name: &Name,
    waiting: &BTreeSet<&'a Name>,
) -> Option<&'a Name> {
    services.get(name)?.spec.depends_on.keys().find_map(|on| waiting.get(on).copied())
}
