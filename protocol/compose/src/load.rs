//! The files of a project as one tree: those that are given, what they `include`, and what their services `extends`.
//!
//! Each document is interpolated, and its relative paths are made relative to the project's directory, before it is merged
//! with others: the variables and the directory of an included file are its own.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::env_file;
use super::interpolate;
use super::merge::{merge, strip};
use super::model::{ComposeError, MAX_FILE_BYTES, Source};
use super::paths::{self, join, parent};
use super::tree::{Origins, Tree};
use super::walk::{At, Walk};
use super::yaml::{self, Node};

/// Files that one project consists of, each counted as often as it is read.
const MAX_FILES: usize = 100;
/// What an included file adds to a project.
const IMPORTED: [&str; 5] = ["services", "volumes", "networks", "secrets", "configs"];

type Env = BTreeMap<String, String>;

/// Where a file is, and what it is read with.
pub(super) struct Place {
    /// Its project's directory, relative to that of the whole; empty for the same.
    pub(super) directory: String,
    pub(super) env: Rc<Env>,
    /// Whether the variables are those of an included project.
    pub(super) is_included: bool,
}

/// A file by its name, and its text.
type Text = (Rc<str>, String);

/// Loads these files, each merged over the ones before it. Problems are recorded in `walk`, too.
///
/// Errors: invalid YAML, a file that is too large, or all of them together.
pub(super) fn load(
    sources: &[Source<'_>],
    walk: &Walk<'_>,
    env: Env,
) -> Result<Tree, ComposeError> {
    let place = Place { directory: String::new(), env: Rc::new(env), is_included: false };
    let files: Vec<Text> = sources.iter().map(|it| (it.name.into(), it.text.to_owned())).collect();
    let mut loader = Loader { walk, files: 0, weight: 0 };
    let tree = loader.model(&files, &place, &mut Vec::new())?;
    Ok(Tree { node: strip(tree.node), origins: tree.origins })
}

/// Returns the project's name as these files say it: the last one counts.
pub(super) fn name_of(sources: &[Source<'_>], env: &Env) -> Option<String> {
    let documents = sources.iter().filter_map(|source| yaml::load(source.text).ok()).flatten();
    let lookup = |name: &str| env.get(name).cloned();
    let mut names = documents.filter_map(|document| match document.get("name") {
        Some(Node::Text(name)) => interpolate::Scope::new(&lookup).expand(name).ok(),
        _ => None,
    });
    names.rfind(|name| !name.is_empty())
}

pub(super) struct Loader<'l, 'w> {
    pub(super) walk: &'l Walk<'w>,
    /// Files read so far.
    files: usize,
    /// Weight of what was copied for `extends`.
    pub(super) weight: usize,
}

impl Loader<'_, '_> {
    /// Loads files that are one project, or an included part of one. `including` are the files that lead to it.
    fn model(
        &mut self,
        files: &[Text],
        place: &Place,
        including: &mut Vec<String>,
    ) -> Result<Tree, ComposeError> {
        let mut merged = Tree { node: Node::Null, origins: Origins::default() };
        for (name, text) in files {
            for document in self.documents(name, text, place)? {
                let document = self.with_included(document, name, place, including)?;
                let document = self.with_extended(document, name, place)?;
                merged = merge(merged, document, self.walk);
            }
        }
        Ok(merged)
    }

    /// Parses a text, and replaces its variables.
    pub(super) fn documents(
        &mut self,
        name: &Rc<str>,
        text: &str,
        place: &Place,
    ) -> Result<Vec<Tree>, ComposeError> {
        let of_file = |error| match name.is_empty() {
            true => error,
            false => ComposeError::File { name: name.to_string(), error: Box::new(error) },
        };
        if text.len() > MAX_FILE_BYTES {
            return Err(of_file(ComposeError::TooLarge(text.len())));
        }
        self.files += 1;
        if self.files > MAX_FILES {
            let error = format!("the project has more than {MAX_FILES} files");
            return Err(ComposeError::Refused(vec![error]));
        }
        self.walk.file.replace(Some(name.clone()));
        let lookup = |name: &str| place.env.get(name).cloned();
        let mut scope = interpolate::Scope::new(&lookup);
        let mut trees = Vec::new();
        for mut node in yaml::load(text).map_err(of_file)? {
            if !matches!(node, Node::Map(_)) {
                let error = "the file has no services: write services: at the top".to_owned();
                return Err(of_file(ComposeError::Refused(vec![error])));
            }
            interpolate::tree(&mut node, "", &mut scope, self.walk);
            if !place.directory.is_empty() {
                paths::rebase(&mut node, &place.directory);
            }
            if place.is_included {
                resolve_variables(&mut node, &place.env);
            }
            trees.push(Tree { node, origins: Origins::of(name) });
        }
        self.walk.unset.borrow_mut().append(&mut scope.unset);
        Ok(trees)
    }

    /// Merges a document over what it includes.
    fn with_included(
        &mut self,
        mut document: Tree,
        name: &Rc<str>,
        place: &Place,
        including: &mut Vec<String>,
    ) -> Result<Tree, ComposeError> {
        let Node::Map(map) = &mut document.node else { return Ok(document) };
        let Some(include) = map.remove("include") else { return Ok(document) };
        self.walk.file.replace(Some(name.clone()));
        let at = At { node: &include, path: "include".to_owned(), walk: self.walk };
        for item in if include == Node::Null { Vec::new() } else { at.items() } {
            let Some(included) = self.included(&item, place, including)? else { continue };
            document = merge(included, document, self.walk);
        }
        Ok(document)
    }

    /// Loads an item of `include`; `None`: it is refused.
    fn included(
        &mut self,
        item: &At<'_>,
        place: &Place,
        including: &mut Vec<String>,
    ) -> Result<Option<Tree>, ComposeError> {
        let (listed, directory, env_files) = if let Node::Map(_) = item.node {
            let mut fields = item.fields();
            let found = ["path", "project_directory", "env_file"].map(|key| fields.take(key));
            fields.finish(&[]);
            found.into()
        } else {
            (Some(item.clone()), None, None)
        };
        let paths: Vec<At<'_>> = listed.map(|at| at.one_or_many()).unwrap_or_default();
        let names: Vec<String> = paths
            .iter()
            .filter_map(|at| at.text())
            .map(|path| join(&place.directory, path))
            .collect();
        let Some(first) = names.first().cloned() else {
            item.refuse("has no path: name a file");
            return Ok(None);
        };
        if including.contains(&first) {
            let names = [&including[..], std::slice::from_ref(&first)].concat();
            item.refuse(format!("is a cycle: {}", names.join(" -> ")));
            return Ok(None);
        }
        let directory = match directory.as_ref().and_then(|at| at.text()) {
            Some(path) => join(&place.directory, path),
            None => parent(&first),
        };
        let mut found = Env::new();
        match env_files.map(|at| at.one_or_many()) {
            Some(files) => files.iter().for_each(|at| self.env_file(at, place, &mut found)),
            // As beside the first file, it need not be there.
            None => {
                let path = join(&directory, ".env");
                if let Ok(content) = (self.walk.context.read)(&path) {
                    self.add_env(item, &path, &content, place, &mut found);
                }
            }
        }
        let env = found.into_iter().chain((*place.env).clone()).collect();
        let mut files = Vec::new();
        for (name, at) in names.iter().zip(&paths) {
            files.extend(self.read_text(at, name).map(|text| (Rc::from(name.as_str()), text)));
        }
        if files.len() < names.len() {
            return Ok(None);
        }
        including.push(first);
        let before = self.walk.file.borrow().clone();
        let model = self.model(
            &files,
            &Place { directory, env: Rc::new(env), is_included: true },
            including,
        );
        self.walk.file.replace(before);
        including.pop();
        let mut model = model?;
        if let Node::Map(map) = &mut model.node {
            if map.contains_key("x-vc") {
                item.refuse("has x-vc at its top: write it in the file that includes it");
            }
            map.retain(|key, _| IMPORTED.contains(&key.as_str()));
        }
        Ok(Some(model))
    }

    /// Reads an `env_file` of an `include`.
    fn env_file(&self, at: &At<'_>, place: &Place, found: &mut Env) {
        let Some(path) = at.text().filter(|path| *path != "/dev/null") else { return };
        let path = join(&place.directory, path);
        if let Some(content) = self.read(at, &path) {
            self.add_env(at, &path, &content, place, found);
        }
    }

    /// Adds the variables of an env file, which may use those around it and those of the files before it.
    fn add_env(&self, at: &At<'_>, path: &str, content: &[u8], place: &Place, found: &mut Env) {
        let lookup = |name: &str| place.env.get(name).or_else(|| found.get(name)).cloned();
        match env_file::read_with(content, &lookup) {
            Ok((more, _)) => found.extend(more),
            Err(why) => at.invalid(format!("'{path}' {why}")),
        }
    }

    /// Reads a Compose file.
    pub(super) fn read_text(&self, at: &At<'_>, path: &str) -> Option<String> {
        let text = String::from_utf8(self.read(at, path)?);
        text.map_err(|_| at.invalid(format!("'{path}' is not UTF-8 text"))).ok()
    }

    fn read(&self, at: &At<'_>, path: &str) -> Option<Vec<u8>> {
        if path.contains("://") || path.starts_with("git@") {
            at.invalid(format!("'{path}' is not on this computer: download it, and name the file"));
            return None;
        }
        let read = (self.walk.context.read)(path);
        read.map_err(|error: io::Error| at.invalid(format!("cannot read '{path}': {error}"))).ok()
    }
}

/// Gives the variables that an included file names without a value those of its own environment.
fn resolve_variables(document: &mut Node, env: &Env) {
    let Node::Map(top) = document else { return };
    let Some(Node::Map(services)) = top.get_mut("services") else { return };
    for service in services.values_mut() {
        let Node::Map(service) = service else { continue };
        resolve(service.get_mut("environment"), env);
        if let Some(Node::Map(build)) = service.get_mut("build") {
            resolve(build.get_mut("args"), env);
        }
    }
}

fn resolve(variables: Option<&mut Node>, env: &Env) {
    match variables {
        Some(Node::Map(map)) => {
            for (key, value) in map.iter_mut().filter(|(_, value)| **value == Node::Null) {
                if let Some(found) = env.get(key) {
                    *value = Node::Text(found.clone());
                }
            }
        }
        Some(Node::List(items)) => {
            for item in items {
                if let Node::Text(key) = item
                    && let Some(found) = env.get(key.as_str())
                {
                    *item = Node::Text(format!("{key}={found}"));
                }
            }
        }
        _ => {}
    }
}
