//! Secrets, configs, and the operator's files that are shipped in place of a bind mount.
//!
//! A declared file is read when a service uses it: an unused one need not exist.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;

use super::environment;
use super::model::{Entry, MAX_CONTENT_BYTES, MAX_CONTENTS_BYTES};
use super::problem::Problem;
use super::target::{Targets, absolute};
use super::walk::{At, Fields, Walk};
use super::yaml::Node;
use vc_protocol::Name;
use vc_protocol::spec::validate::is_file_name;
use vc_protocol::spec::{FileContent, FileId, FileKind, FileMount};

/// Readable by every user in the container; the mount is read-only.
const DEFAULT_MODE: u32 = 0o444;

/// Where the content of a declared file comes from; with its position in the Compose file.
enum Source<'a> {
    /// A file on the operator's host.
    Path(At<'a>),
    /// A variable of the environment.
    Variable(At<'a>),
    /// Inline text.
    Content(At<'a>),
}

/// A file that a service uses.
struct Used {
    content: Vec<u8>,
    /// Permission bits of the operator's file; 0: none.
    mode: u32,
}

/// The files of a project.
pub(super) struct Files<'a> {
    walk: &'a Walk<'a>,
    /// `None`: the declaration was refused.
    declared: BTreeMap<FileId, Option<Source<'a>>>,
    used: RefCell<BTreeMap<FileId, Used>>,
    /// Bytes left of [`MAX_CONTENTS_BYTES`].
    room: Cell<usize>,
}

impl<'a> Files<'a> {
    /// Takes `secrets` and `configs` from the top.
    pub(super) fn take(top: &mut Fields<'a>, walk: &'a Walk<'a>) -> Self {
        let mut declared = BTreeMap::new();
        for (key, kind) in [("secrets", FileKind::Secret), ("configs", FileKind::Config)] {
            let entries = top.take(key).map(|at| at.entries()).unwrap_or_default();
            for (name, at) in entries {
                if let Err(why) = check_name(name) {
                    at.invalid(why);
                }
                declared.insert(FileId { kind, name: name.to_owned() }, source(name, kind, &at));
            }
        }
        Self { walk, declared, used: RefCell::default(), room: Cell::new(MAX_CONTENTS_BYTES) }
    }

    /// Reads `secrets` or `configs` of a service.
    pub(super) fn read(
        &self,
        kind: FileKind,
        at: &At<'_>,
        targets: &mut Targets,
    ) -> Vec<FileMount> {
        let mut mounts = Vec::new();
        for item in at.items() {
            let mount = if let Node::Map(_) = item.node {
                self.long(kind, &item)
            } else {
                item.text().and_then(|name| self.mount(kind, name, None, &item))
            };
            if let Some(mount) = mount {
                targets.take(&item, &mount.target);
                mounts.push(mount);
            }
        }
        mounts
    }

    /// Reads an item of `build.secrets`. Returns the id that the Dockerfile has for it, and the path of its file.
    pub(super) fn build_secret(&self, at: &At<'_>) -> Option<(String, String)> {
        let (named, target) = if let Node::Map(_) = at.node {
            let mut fields = at.fields();
            let (source, target) = (fields.take("source"), fields.take("target"));
            // Of the mount, which a Dockerfile says for itself.
            for key in ["uid", "gid", "mode"] {
                fields.take(key);
            }
            fields.finish(&[]);
            (source, target)
        } else {
            (Some(at.clone()), None)
        };
        let Some(named) = named else {
            at.refuse("has no source: name what is declared at the top");
            return None;
        };
        let name = named.text()?;
        let id = target.and_then(|at| at.text()).unwrap_or(name).to_owned();
        let file = FileId { kind: FileKind::Secret, name: name.to_owned() };
        match self.declared.get(&file) {
            Some(Some(Source::Path(path))) => match expand_home(path.text()?, path.walk) {
                Some(path) => return Some((id, path)),
                None => path.invalid("the variable HOME is not set"),
            },
            Some(Some(_)) => named.invalid(format!(
                "'{name}' is not a file: for a build declare it with file:, or build the image with your own command"
            )),
            Some(None) => {}
            None => named.refuse(undeclared("secrets", name)),
        }
        None
    }

    fn long(&self, kind: FileKind, at: &At<'_>) -> Option<FileMount> {
        let mut fields = at.fields();
        let [source, target, uid, gid, mode] =
            ["source", "target", "uid", "gid", "mode"].map(|key| fields.take(key));
        fields.finish(&[]);
        let Some(source) = source else {
            at.refuse("has no source: name what is declared at the top");
            return None;
        };
        let mut mount = self.mount(kind, source.text()?, target.as_ref(), &source)?;
        mount.uid = uid.and_then(|at| at.number()).unwrap_or_default();
        mount.gid = gid.and_then(|at| at.number()).unwrap_or_default();
        mount.mode = mode.and_then(|at| at.read(octal)).unwrap_or(DEFAULT_MODE);
        Some(mount)
    }

    fn mount(
        &self,
        kind: FileKind,
        name: &str,
        target: Option<&At<'_>>,
        at: &At<'_>,
    ) -> Option<FileMount> {
        let (top, base) = match kind {
            FileKind::Secret => ("secrets", "/run/secrets"),
            FileKind::Config => ("configs", ""),
        };
        let file = FileId { kind, name: name.to_owned() };
        match self.declared.get(&file) {
            Some(Some(source)) => self.bring(&file, source),
            Some(None) => {}
            None => at.refuse(undeclared(top, name)),
        }
        let target = match target {
            Some(at) => at.read(|text| absolute(text, Some(base)))?,
            None => format!("{base}/{name}"),
        };
        Some(FileMount { file, version: String::new(), target, uid: 0, gid: 0, mode: DEFAULT_MODE })
    }

    /// Reads the content of a declared file, once.
    fn bring(&self, file: &FileId, source: &Source<'_>) {
        if self.used.borrow().contains_key(file) {
            return;
        }
        let (at, found) = match source {
            Source::Content(at) => (at, Ok(content_of(at).as_bytes().to_vec())),
            Source::Variable(at) => {
                let Some(name) = at.text() else { return };
                let value = self.walk.context.env.get(name).map(|value| value.clone().into_bytes());
                (at, value.ok_or_else(|| Problem::new(format!("the variable {name} is not set"))))
            }
            Source::Path(at) => {
                let Some(path) = at.text() else { return };
                (at, self.open(path).map_err(|why| why.of(path)).map(|used| used.content))
            }
        };
        let kept = found.and_then(|content| self.keep(file, Used { content, mode: 0 }));
        if let Err(why) = kept {
            at.invalid(why);
        }
    }

    /// Ships a file of the operator's host in place of a bind mount.
    pub(super) fn ship(&self, path: &str, target: &str) -> Result<FileMount, MissingContent> {
        let name = if path.contains('/') { path.to_owned() } else { format!("./{path}") };
        let file = FileId { kind: FileKind::Config, name };
        if !self.used.borrow().contains_key(&file) {
            let used = self.open(path)?;
            self.keep(&file, used).map_err(|_| MissingContent::TooLarge)?;
        }
        let mode = self.used.borrow().get(&file).map_or(0, |used| used.mode & 0o777);
        let mode = if mode == 0 { DEFAULT_MODE } else { mode };
        let target = target.to_owned();
        Ok(FileMount { file, version: String::new(), target, uid: 0, gid: 0, mode })
    }

    fn open(&self, path: &str) -> Result<Used, MissingContent> {
        let path = expand_home(path, self.walk).ok_or(MissingContent::NoHome)?;
        match (self.walk.context.open)(&path).map_err(MissingContent::Unreadable)? {
            Entry::File { content, mode } => Ok(Used { content, mode }),
            Entry::Directory => Err(MissingContent::Directory),
            Entry::Other => Err(MissingContent::Other),
        }
    }

    /// Stores a content. Errors: it exceeds a limit.
    fn keep(&self, file: &FileId, used: Used) -> Result<(), Problem> {
        let size = used.content.len();
        if size > MAX_CONTENT_BYTES {
            return Err(Problem::new(format!(
                "it has more than {} KiB: mount it under volumes: of the service",
                MAX_CONTENT_BYTES >> 10
            )));
        }
        let Some(room) = self.room.get().checked_sub(size) else {
            return Err(Problem::new(format!(
                "the files of the project have more than {} KiB together: mount it under volumes: of the service",
                MAX_CONTENTS_BYTES >> 10
            )));
        };
        self.room.set(room);
        self.used.borrow_mut().insert(file.clone(), used);
        Ok(())
    }

    /// Returns the contents that services use.
    pub(super) fn contents(self, project: &Name) -> Vec<FileContent> {
        let content = |(file, used): (FileId, Used)| FileContent {
            project: project.clone(),
            file,
            base64: data_encoding::BASE64.encode(&used.content),
        };
        self.used.into_inner().into_iter().map(content).collect()
    }
}

/// Why a file cannot be shipped.
pub(super) enum MissingContent {
    /// The path begins with `~`, and `HOME` is not set.
    NoHome,
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is a directory.
    Directory,
    /// It is a socket, a device or the like.
    Other,
    /// It is too large for a config, or one too many with the others of the project.
    TooLarge,
}

impl MissingContent {
    /// Returns the problem with `path`.
    pub(super) fn of(&self, path: &str) -> Problem {
        let text = match self {
            Self::NoHome => format!("cannot find '{path}': the variable HOME is not set"),
            Self::Unreadable(error) => format!("cannot read '{path}': {error}"),
            Self::Directory => format!("'{path}' is a directory"),
            Self::Other => format!("'{path}' is not a regular file"),
            Self::TooLarge => format!("'{path}' is too large for a config"),
        };
        Problem::new(text)
    }
}

fn content_of<'a>(at: &At<'a>) -> &'a str {
    if let Node::Text(text) = at.node { text } else { "" }
}

/// Replaces a leading `~` by the operator's home. Returns `None` where `HOME` is not set.
pub(super) fn expand_home(path: &str, walk: &Walk<'_>) -> Option<String> {
    match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            walk.context.env.get("HOME").map(|home| format!("{home}{rest}"))
        }
        _ => Some(path.to_owned()),
    }
}

fn undeclared(top: &str, name: &str) -> String {
    format!(
        "names '{name}', which is not declared: write {top}: {{{name}: {{file: …}}}} at the top"
    )
}

/// Reads the source of a declared secret or config.
fn source<'a>(name: &str, kind: FileKind, at: &At<'a>) -> Option<Source<'a>> {
    let mut fields = at.fields();
    super::declared::check_renaming(name, &mut fields);
    // Labels are checked and otherwise unused.
    fields.take("labels").map(|at| environment::labels(&at));
    super::declared::refuse_unless_false(
        &mut fields,
        "external",
        ": declare it with file: or environment:",
    );
    let mut sources = Vec::new();
    sources.extend(fields.take("file").map(Source::Path));
    sources.extend(fields.take("environment").map(Source::Variable));
    if kind == FileKind::Config {
        let content = fields.take_text("content");
        // An empty text is valid content.
        sources.extend(
            content
                .filter(|at| *at.node == Node::Text(String::new()) || at.text().is_some())
                .map(Source::Content),
        );
    }
    fields.finish(&[("content", " is not supported: a secret comes from file: or environment:")]);
    if sources.len() != 1 {
        let or = if kind == FileKind::Config {
            ", environment: or content:"
        } else {
            " or environment:"
        };
        at.refuse(format!("needs one of file:{or}"));
    }
    sources.into_iter().next()
}

/// Checks the name of a secret or config by Compose's rules.
fn check_name(name: &str) -> Result<(), Problem> {
    if is_file_name(name) {
        Ok(())
    } else {
        Err(Problem::new(format!(
            "'{name}' is not a name: use 1 to 64 letters, digits, '.', '_' and '-'"
        )))
    }
}

fn octal(text: &str) -> Result<u32, Problem> {
    text.strip_prefix("0o")
        .or_else(|| text.strip_prefix('0'))
        .and_then(|digits| u32::from_str_radix(digits, 8).ok())
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| {
            Problem::new(format!("'{text}' is not a mode: write it in octal, as in 0440"))
        })
}
