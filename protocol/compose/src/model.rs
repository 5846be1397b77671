//! The input and output of the parser: context, project, errors, limits.

use std::collections::{BTreeMap, BTreeSet};
use std::{fmt, io};

use super::links::Link;
use super::volumes_from::VolumesFrom;
use vc_protocol::spec::{Deployment, FileContent};
use vc_protocol::{Name, ServiceKey, VolumeKey};

/// Bytes of a Compose file or an env file.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Services in one file.
pub const MAX_SERVICES: usize = 1000;

/// Bytes of a secret, config or shipped file; Swarm's limit.
pub const MAX_CONTENT_BYTES: usize = 500 << 10;
/// Bytes of all secrets, configs and shipped files of a project: they travel in one request.
pub const MAX_CONTENTS_BYTES: usize = 2 << 20;

/// What is at a path on the operator's host.
pub enum Entry {
    /// A regular file.
    File {
        /// Its content; of a larger file, [`MAX_CONTENT_BYTES`] + 1 bytes are enough.
        content: Vec<u8>,
        /// Permission bits; 0: none.
        mode: u32,
    },
    /// A directory.
    Directory,
    /// A socket, a device or the like.
    Other,
}

/// A Compose file.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its name, for messages: of problems in other files than the first.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// The inputs of a Compose file beside its text.
pub struct Context<'a> {
    /// The project's name as given by the user (`-p`); it takes precedence over `COMPOSE_PROJECT_NAME`, and that over the
    /// file's `name:`.
    pub project: Option<Name>,
    /// The node that all services run on, by its name or id; it takes precedence over that of the file (`x-vc.node`).
    pub node: Option<&'a str>,
    /// The name of the file's directory: the project's name where nothing else gives one, in lower case and without
    /// characters that a [`Name`] cannot contain.
    pub directory: Option<&'a str>,
    /// The environment, for `${VAR}` and for variables that the file names without a value. In Compose a `.env` file
    /// beside the file adds variables that the process does not set; [`parse_env_file`](crate::parse_env_file) reads it.
    pub env: &'a BTreeMap<String, String>,
    /// Reads an `env_file`, or a file of `include` or `extends`; paths are relative to the Compose file. `NotFound` is distinguished: such a file may be optional.
    pub read: &'a dyn Fn(&str) -> io::Result<Vec<u8>>,
    /// Opens a path relative to the Compose file, for secrets, configs and bind mounts.
    pub open: &'a dyn Fn(&str) -> io::Result<Entry>,
}

/// The content of a Compose file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its name.
    pub name: Name,
    /// Its services, by name.
    pub services: Vec<Deployment>,
    /// The contents of secrets, configs and shipped files that its services mount, each once.
    pub files: Vec<FileContent>,
    /// Images to build first.
    pub builds: Vec<Build>,
    /// Directories, and large files, of the operator's computer that are volumes, by name.
    pub uploads: Vec<Upload>,
    /// Warnings, one line each: unset variables without a default, and what works otherwise than with Compose.
    pub warnings: Vec<String>,
}

/// A directory or file of the operator's computer, with which a volume begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The volume.
    pub volume: VolumeKey,
    /// The directory or file, relative to the Compose file, or below `~`. A directory need not exist.
    pub path: String,
    /// Whether it is a file, too large for a config. It is all that the volume begins with.
    pub is_file: bool,
    /// Patterns of files that are not uploaded, as in a `.dockerignore`.
    pub ignore: Vec<String>,
}

/// An image to build before a service can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The service that runs the image.
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
    /// More contexts by their names: directories, relative to the file, and URLs.
    pub contexts: BTreeMap<String, String>,
    /// Secrets by their ids in the Dockerfile: files, relative to the file.
    pub secrets: BTreeMap<String, String>,
    /// Further options of `docker build`, as `("network", "host")` for `--network=host`.
    pub options: Vec<(&'static str, String)>,
    /// The image's tag, which is the service's `image`.
    pub tag: String,
}

/// Why a text is not a Compose file that can be deployed. Each displays as one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// Larger than [`MAX_FILE_BYTES`].
    #[error("the file has {0} bytes, more than {MAX_FILE_BYTES}")]
    TooLarge(usize),
    /// Invalid YAML.
    #[error("line {line}, column {column}: {}", OneLine(.message))]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Character of the line, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// In a file that has a name.
    #[error("{}: {error}", OneLine(.name))]
    File {
        /// Its name.
        name: String,
        /// What is wrong in it.
        error: Box<ComposeError>,
    },
    /// Unsupported or invalid values; each problem begins with its path.
    #[error("{}", OneLine(&.0.join("; ")))]
    Refused(Vec<String>),
}

/// Displays input on one line: control characters are escaped.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") }
        })
    }
}

/// A service, with what only the file as a whole can check.
pub(super) struct Service {
    pub(super) deployment: Deployment,
    pub(super) build: Option<Build>,
    /// Its links to other services.
    pub(super) links: Vec<Link>,
    /// Services whose mounts it gets.
    pub(super) volumes_from: Vec<VolumesFrom>,
    /// Dependencies that need not be in the file.
    pub(super) optional: BTreeSet<Name>,
    /// Whether the file sets a restart policy.
    pub(super) sets_restart: bool,
}
