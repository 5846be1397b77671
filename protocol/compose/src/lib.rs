//! Compose files: text in, deployments out.
//!
//! The part of the [Compose specification](https://github.com/compose-spec/compose-spec/blob/main/spec.md) that a
//! cluster of many nodes can keep its word on; `docs/compose.md` lists it. Everything else is refused by its path
//! (`services.web.network_mode is not supported`) and never ignored, all of it at once.
//!
//! The way of a file: `yaml` (text to tree, with line and column) → `interpolate` (`${VAR}`) → what the top declares →
//! `service` and its parts (tree to spec, by path) → the services together (cycles, ports). Nothing here reads a file
//! or the environment: both come in with the [`Context`].

mod build;
mod dependencies;
mod deploy;
mod duration;
mod env_file;
mod environment;
mod files;
mod health;
mod interpolate;
mod networks;
mod ports;
mod profiles;
mod service;
mod settings;
mod target;
mod update;
mod volumes;
mod walk;
mod words;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::{fmt, io};

pub use env_file::parse_env_file;

use files::Files;
use vc_protocol::spec::{Deployment, FileContent};
use vc_protocol::{Name, ServiceKey};
use walk::{At, Fields, Walk};
use yaml::Node;

/// The largest file, in bytes; an env file too.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// The largest number of services in one file.
pub const MAX_SERVICES: usize = 1000;

/// The largest secret, config or shipped file, in bytes, as Swarm has it.
pub const MAX_CONTENT_BYTES: usize = 500 << 10;
/// The most bytes of all of a project's secrets, configs and shipped files: they travel in one request.
pub const MAX_CONTENTS_BYTES: usize = 2 << 20;

/// What is at a path of the operator's node.
pub enum Entry {
    /// A regular file.
    File {
        /// What is in it; of more than [`MAX_CONTENT_BYTES`], so many and one more will do.
        content: Vec<u8>,
        /// Its permission bits; 0 where there are none.
        mode: u32,
    },
    /// A directory.
    Directory,
    /// A socket, a device or the like.
    Other,
}

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
    /// What is at a path, relative to the file: for secrets, configs and bind mounts.
    pub open: &'a dyn Fn(&str) -> io::Result<Entry>,
}

/// What a Compose file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its name.
    pub name: Name,
    /// Its services, by name.
    pub services: Vec<Deployment>,
    /// What is in the secrets, configs and shipped files that its services mount, each once.
    pub files: Vec<FileContent>,
    /// Images to build first.
    pub builds: Vec<Build>,
    /// What a person should hear, one line each: variables that are not set and have no default.
    pub warnings: Vec<String>,
}

/// An image to build before a service can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// For which service.
    pub service: ServiceKey,
    /// A directory, relative to the file, or a URL that Docker can build from.
    pub context: String,
    /// The Dockerfile, relative to the context; `None`: `Dockerfile`.
    pub dockerfile: Option<String>,
    /// The text of a Dockerfile instead.
    pub dockerfile_inline: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// The stage to stop at.
    pub target: Option<String>,
    /// What to call the image. It is the service's `image`.
    pub tag: String,
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

    let (name, parts) = project(&At { node: &root, path: String::new(), walk: &walk });
    check(&walk)?;
    let unset = walk.unset.borrow();
    let warnings = unset
        .iter()
        .map(|name| format!("the variable {name} is not set: it counts as empty"))
        .collect();
    match name {
        Some(name) => {
            let Parts { services, files, builds } = parts;
            Ok(Project { name, services, files, builds, warnings })
        }
        None => Err(ComposeError::Refused(vec![
            "the project has no name: write name: at the top".to_owned(),
        ])),
    }
}

fn check(walk: &Walk<'_>) -> Result<(), ComposeError> {
    let problems = walk.problems();
    if problems.is_empty() { Ok(()) } else { Err(ComposeError::Refused(problems)) }
}

/// Reads the top of the file.
fn project<'a>(at: &At<'a>) -> (Option<Name>, Parts) {
    let walk = at.walk;
    let mut fields = at.fields();
    let named = fields.take("name").and_then(|at| at.read(str::parse));
    let name = (walk.context.project.clone().or(named))
        .or_else(|| walk.context.directory.and_then(from_directory));
    // Obsolete, and without any effect in Compose too.
    fields.take("version");
    let entries = fields.take("services").map(|at| at.entries()).unwrap_or_default();
    let top = Top {
        volumes: volumes::declared(fields.take("volumes").as_ref()),
        networks: networks::declared(fields.take("networks").as_ref()),
        files: Files::take(&mut fields, walk),
    };
    fields.finish(&[
        ("include", " is not supported: deploy each file"),
        ("x-vc", " is not supported here: write it in a service"),
    ]);

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
    // Without a name there is no key, but there may be more to refuse.
    let project = name.clone().or_else(|| "unnamed".parse().ok());
    let (mut services, mut left_out) = (Vec::new(), BTreeSet::new());
    for (name, at) in entries {
        if !profiles::is_on(&at) {
            left_out.insert(name);
            continue;
        }
        match (name.parse(), &project) {
            (Ok(service), Some(project)) => {
                let key = ServiceKey { project: project.clone(), service };
                services.push(service::read(key, &at, &top));
            }
            (Err(why), _) => at.invalid(why),
            (Ok(_), None) => {}
        }
    }
    if services.is_empty() && !left_out.is_empty() {
        walk.refuse("services", " all have profiles that are not on: name one in COMPOSE_PROFILES");
    }
    dependencies::let_end(&mut services, walk);
    dependencies::check(&services, &left_out, walk);
    ports::check(&services, walk);
    let files = project.map(|project| top.files.contents(&project)).unwrap_or_default();
    let mut parts = Parts { files, ..Parts::default() };
    for service in services {
        parts.services.push(service.deployment);
        parts.builds.extend(service.build);
    }
    (name, parts)
}

/// What the top declares, for services to refer to.
struct Top<'a> {
    volumes: BTreeSet<Name>,
    networks: BTreeSet<Name>,
    files: Files<'a>,
}

/// What a file asks for, of a project that may have no name.
#[derive(Default)]
struct Parts {
    services: Vec<Deployment>,
    files: Vec<FileContent>,
    builds: Vec<Build>,
}

/// The names that `volumes` or `networks` at the top declares. `drivers` are those that change nothing; `driver` is why
/// there is no other. `reasons` are why some keys are refused.
fn declared(
    at: Option<&At<'_>>,
    drivers: &[&str],
    driver: &str,
    reasons: &[(&'static str, &str)],
) -> BTreeSet<Name> {
    let mut found = BTreeSet::new();
    for (key, at) in at.map(At::entries).unwrap_or_default() {
        match key.parse::<Name>() {
            Ok(name) => drop(found.insert(name)),
            Err(why) => at.invalid(why),
        }
        if *at.node == Node::Null {
            continue;
        }
        let mut fields = at.fields();
        check_renaming(key, &mut fields);
        if let Some(at) = fields.take("driver")
            && let Some(other) = at.text().filter(|it| !drivers.contains(it))
        {
            at.invalid(format!("'{other}' is not supported: {driver}"));
        }
        // Nobody reads them, but they are the user's to write.
        fields.take("labels").map(|at| environment::labels(&at));
        for key in ["external", "internal"] {
            if let Some((_, why)) = reasons.iter().find(|(refused, _)| *refused == key) {
                refuse_unless_false(&mut fields, key, why);
            }
        }
        fields.finish(reasons);
    }
    found
}

/// Refuses a `name` of something declared at the top that is not its own.
fn check_renaming(key: &str, fields: &mut Fields<'_>) {
    if let Some(at) = fields.take("name")
        && at.text().is_some_and(|name| name != key)
    {
        at.refuse(format!("is not supported: within the project it is '{key}'"));
    }
}

/// Refuses the value of a key, unless it is `false`. `why` continues the path.
fn refuse_unless_false(fields: &mut Fields<'_>, key: &'static str, why: &str) {
    if let Some(at) = fields.take(key).filter(|at| *at.node != Node::Text("false".to_owned())) {
        at.walk.refuse(&at.path, why);
    }
}

/// A project's name from its directory, as Compose makes it.
fn from_directory(directory: &str) -> Option<Name> {
    let fits = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let name: String = directory.to_lowercase().chars().filter(fits).collect();
    name.trim_start_matches(['-', '_']).chars().take(63).collect::<String>().parse().ok()
}
