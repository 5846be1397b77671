//! `extends` of a service: it is merged over another one, of its file or of another.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::load::{Loader, Place};
use super::merge::merge;
use super::model::ComposeError;
use super::paths::{join, parent};
use super::tree::{Origins, Tree};
use super::walk::{At, Fields};
use super::yaml::{MAX_WEIGHT, Node};

/// Services of which each extends the next.
const MAX_EXTENDED: usize = 64;

impl Loader<'_, '_> {
    /// Merges the services of a document over those that they extend.
    pub(super) fn with_extended(
        &mut self,
        document: Tree,
        name: &Rc<str>,
        place: &Place,
    ) -> Result<Tree, ComposeError> {
        let Some(Node::Map(services)) = document.node.get("services") else { return Ok(document) };
        let extending: Vec<String> = services
            .iter()
            .filter(|(_, it)| it.get("extends").is_some())
            .map(|(key, _)| key.clone())
            .collect();
        let mut extended: Vec<Tree> = Vec::new();
        let file = Extended { name: name.clone(), directory: place.directory.clone(), document };
        for service in &extending {
            let mut seen = BTreeSet::new();
            extended.extend(self.resolved(&file, service, place, &mut seen)?);
        }
        let Extended { mut document, .. } = file;
        for service in extended {
            // It has what the document says of the service, and comes instead of that.
            if let Some(Node::Map(map)) = service.node.get("services") {
                for (key, node) in map {
                    if let Node::Map(top) = &mut document.node
                        && let Some(Node::Map(services)) = top.get_mut("services")
                    {
                        services.insert(key.clone(), node.clone());
                        let path = service_path(key);
                        document.origins.take(&path, &service.origins, &path);
                    }
                }
            }
        }
        Ok(document)
    }

    /// Returns a service merged over what it extends, in a tree of its own; `None`: it is refused, or there is none.
    fn resolved(
        &mut self,
        file: &Extended,
        service: &str,
        place: &Place,
        seen: &mut BTreeSet<(Rc<str>, String)>,
    ) -> Result<Option<Tree>, ComposeError> {
        let Some(mut own) = file.service(service) else { return Ok(None) };
        let Some(extends) = own.remove_extends(service) else { return Ok(Some(own)) };
        self.walk.file.replace(Some(file.name.clone()));
        let path = At::key_path(&service_path(service), "extends");
        let at = At { node: &extends, path, walk: self.walk };
        let mut fields = if let Node::Map(_) = extends { at.fields() } else { Fields::none() };
        let (named, of_file) = (fields.take("service"), fields.take("file"));
        fields.finish(&[]);
        let named = if let Node::Map(_) = extends { named } else { Some(at.clone()) };
        let Some(base) = named.as_ref().and_then(|at| at.text()) else {
            at.refuse("has no service: name the one that it extends");
            return Ok(None);
        };
        if !seen.insert((file.name.clone(), service.to_owned())) {
            at.refuse("is a cycle: a service that it extends extends it");
            return Ok(None);
        }
        if seen.len() > MAX_EXTENDED {
            at.refuse(format!("is one of more than {MAX_EXTENDED} in a row"));
            return Ok(None);
        }
        let other = match of_file.as_ref().and_then(|at| at.text().map(|text| (at, text))) {
            None => None,
            Some((at, path)) => {
                let path = join(&file.directory, path);
                let Some(text) = self.read_text(at, &path) else { return Ok(None) };
                let name: Rc<str> = path.as_str().into();
                let there = Place {
                    directory: parent(&path),
                    env: place.env.clone(),
                    is_included: place.is_included,
                };
                let documents = self.documents(&name, &text, &there)?;
                let merged =
                    documents.into_iter().reduce(|base, over| merge(base, over, self.walk));
                merged.map(|document| Extended { name, directory: there.directory, document })
            }
        };
        let from = other.as_ref().unwrap_or(file);
        if from.service(base).is_none() {
            self.walk.file.replace(Some(file.name.clone()));
            at.refuse(format!("names '{base}', which is no service of {}", from.shown()));
            return Ok(None);
        }
        let Some(found) = self.resolved(from, base, place, seen)? else { return Ok(None) };
        self.weight = self.weight.saturating_add(found.node.weight());
        if self.weight > MAX_WEIGHT {
            self.walk.file.replace(Some(file.name.clone()));
            at.refuse("makes the project too large: split it");
            return Ok(None);
        }
        Ok(Some(merge(renamed(found, base, service), own, self.walk)))
    }
}

/// A file with services that extend, or are extended.
struct Extended {
    name: Rc<str>,
    /// Its directory, relative to that of the project.
    directory: String,
    document: Tree,
}

impl Extended {
    /// Returns a tree with one of its services only.
    fn service(&self, name: &str) -> Option<Tree> {
        let node = self.document.node.get("services")?.get(name)?.clone();
        let mut origins = Origins::default();
        let path = service_path(name);
        origins.take(&path, &self.document.origins, &path);
        Some(Tree { node: alone(name, node), origins })
    }

    fn shown(&self) -> String {
        if self.name.is_empty() { "the file".to_owned() } else { self.name.to_string() }
    }
}

impl Tree {
    /// Takes `extends` from the service that the tree has.
    fn remove_extends(&mut self, service: &str) -> Option<Node> {
        let Node::Map(top) = &mut self.node else { return None };
        let Node::Map(services) = top.get_mut("services")? else { return None };
        let Node::Map(service) = services.get_mut(service)? else { return None };
        service.remove("extends").filter(|it| !matches!(it, Node::Null | Node::Reset))
    }
}

/// Returns a file with one service only.
fn alone(service: &str, node: Node) -> Node {
    let services = Node::Map([(service.to_owned(), node)].into());
    Node::Map([("services".to_owned(), services)].into())
}

/// Returns the tree of one service under another name.
fn renamed(tree: Tree, from: &str, to: &str) -> Tree {
    let node = tree.node.get("services").and_then(|it| it.get(from)).cloned();
    let mut origins = Origins::default();
    origins.take(&service_path(to), &tree.origins, &service_path(from));
    Tree { node: alone(to, node.unwrap_or(Node::Null)), origins }
}

fn service_path(name: &str) -> String {
    At::key_path("services", name)
}
