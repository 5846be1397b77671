//! Directories, and large files, that services mount. They are volumes that are named after their paths.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::model::Upload;
use super::volume_spec;
use super::walk::At;
use vc_protocol::spec::digest;
use vc_protocol::volume::{Origin, VolumeSpec};
use vc_protocol::{Name, VolumeKey};

/// Characters of a volume's name that are from its path.
const MAX_SLUG: usize = 50;
/// The longest list of patterns of files that are not uploaded.
const MAX_IGNORED: usize = 1000;

/// What the entry of a service mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory; whether a deployment is refused when no node has it.
    Directory { must_exist: bool },
    /// A file of the operator's computer.
    File,
}

/// A directory or file that a service mounts.
struct Directory {
    spec: VolumeSpec,
    is_file: bool,
    /// Patterns of files that are not uploaded.
    ignore: Vec<String>,
    /// The path in the file of an `x-vc`, if one says how the volume is kept.
    said: Option<String>,
}

/// The directories that services of the file mount so far, by the names of their volumes.
#[derive(Default)]
pub(super) struct Directories(RefCell<BTreeMap<Name, Directory>>);

impl Directories {
    /// Returns the volume for what is at `path`, which the entry at `at` mounts. `options` is its `x-vc`. Refuses options that
    /// contradict those of another entry.
    pub(super) fn volume(
        &self,
        at: &At<'_>,
        path: &str,
        options: Option<&At<'_>>,
        kind: Kind,
        declared: &BTreeMap<Name, VolumeSpec>,
    ) -> Option<Name> {
        let path = normal(path);
        let name = name_of(&path)?;
        let (spec, ignore) = options.map(read_options).unwrap_or_default();
        let origin = match kind {
            Kind::Directory { must_exist } if path.starts_with('/') => {
                if !ignore.is_empty() {
                    at.refuse("has x-vc.ignore, but a directory of the nodes is not uploaded");
                }
                Origin::Directory { path, node: None, must_exist }
            }
            _ => Origin::Uploaded { path, node: None },
        };
        let is_file = kind == Kind::File;
        let spec = VolumeSpec { origin: Some(origin), ..spec };
        let said = options.map(|_| at.path.clone());
        let mut found = self.0.borrow_mut();
        match found.get_mut(&name) {
            None if declared.contains_key(&name) => {
                at.refuse(format!("would be the volume '{name}', which is declared: rename that"));
                return None;
            }
            None => drop(found.insert(name.clone(), Directory { spec, is_file, ignore, said })),
            // Without options of its own it takes those of the other.
            Some(_) if said.is_none() => {}
            Some(other) => {
                if let Some(elsewhere) = &other.said
                    && (&other.spec, &other.ignore) != (&spec, &ignore)
                {
                    at.refuse(format!("has another x-vc than {elsewhere} for the same directory"));
                }
                *other = Directory { spec, is_file, ignore, said };
            }
        }
        Some(name)
    }

    /// Returns how a volume is kept that is a directory.
    pub(super) fn spec(&self, name: &Name) -> Option<VolumeSpec> {
        self.0.borrow().get(name).map(|it| it.spec.clone())
    }

    /// Returns the directories and files of the operator's computer.
    pub(super) fn uploads(self, project: &Name) -> Vec<Upload> {
        let upload = |(volume, Directory { spec, is_file, ignore, .. })| match spec.origin {
            Some(Origin::Uploaded { path, .. }) => Some(Upload {
                volume: VolumeKey { project: project.clone(), volume },
                path,
                is_file,
                ignore,
            }),
            _ => None,
        };
        self.0.into_inner().into_iter().filter_map(upload).collect()
    }
}

/// Reads `x-vc` of a mount: how the volume is kept, and `ignore`.
fn read_options(at: &At<'_>) -> (VolumeSpec, Vec<String>) {
    let mut fields = at.fields();
    let ignore = fields.take("ignore").map(|at| {
        let patterns = at.texts();
        if patterns.len() > MAX_IGNORED {
            at.refuse(format!("has more than {MAX_IGNORED} patterns"));
        }
        patterns
    });
    (volume_spec::read(fields), ignore.unwrap_or_default())
}

/// Returns a path without `.`, repeated slashes, and `..` as far as names alone tell what it leads to: two of one directory are
/// one volume.
pub(super) fn normal(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match (part, parts.last()) {
            ("" | ".", _) => {}
            ("..", Some(&last)) if last != ".." && last != "~" => drop(parts.pop()),
            ("..", None) if is_absolute => {}
            (part, _) => parts.push(part),
        }
    }
    let text = parts.join("/");
    match parts.first() {
        _ if is_absolute => format!("/{text}"),
        None => ".".to_owned(),
        Some(&(".." | "~")) => text,
        Some(_) => format!("./{text}"),
    }
}

/// Returns the name of the volume of a path: the end of the path, and a hash of all of it.
fn name_of(path: &str) -> Option<Name> {
    let word = |part: &str| -> String {
        part.chars().map(|c| c.to_ascii_lowercase()).filter(char::is_ascii_alphanumeric).collect()
    };
    let parts = path.split(|c: char| !c.is_ascii_alphanumeric()).map(word);
    let slug = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    let slug = slug.get(slug.len().saturating_sub(MAX_SLUG)..).unwrap_or_default();
    let slug = slug.trim_start_matches('-');
    let slug = if slug.is_empty() { "dir" } else { slug };
    format!("{slug}-{}", &digest(&path)[..8]).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_one_directory_are_equal() {
        for (path, expected) in [
            ("./data", "./data"),
            ("data/", "./data"),
            (".//data/./x/..", "./data"),
            (".", "."),
            ("./", "."),
            ("../x", "../x"),
            ("./../../x", "../../x"),
            ("a/../..", ".."),
            ("~/x//y", "~/x/y"),
            ("~/..", "~/.."),
            ("/srv//app/", "/srv/app"),
            ("/../srv/a/../app/.", "/srv/app"),
            ("/", "/"),
        ] {
            assert_eq!(normal(path), expected, "{path}");
            assert_eq!(normal(expected), expected);
        }
    }

    /// The name identifies the data: another one is another, empty volume.
    #[test]
    fn names_of_directories_are_frozen() {
        let name = |path: &str| name_of(path).expect("a name").to_string();
        assert_eq!(name("./data"), "data-df819189");
        assert_eq!(name("/data"), "data-81ce9ab8");
        assert_eq!(name("."), "dir-7299b59d");
        assert_eq!(name("/mnt/Docker_Volumes/app.d"), "mnt-docker-volumes-app-d-404d412f");
        assert_eq!(name("/ä/ü"), "dir-9bf8883d");
        let long = format!("/{}/b", "a".repeat(300));
        assert_eq!(name(&long).len(), 59);
    }
}
