//! A YAML tree that knows which file each value is from.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::yaml::Node;

/// A document, or several merged ones.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) node: Node,
    pub(super) origins: Origins,
}

/// The files that values are from, by the values' paths: what has no entry is from the file of what is above it.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins(BTreeMap<String, Rc<str>>);

impl Origins {
    /// Returns the origins of a tree that is from one file.
    pub(super) fn of(file: &Rc<str>) -> Self {
        Self([(String::new(), file.clone())].into())
    }

    /// Returns the file that the value at `path` is from.
    pub(super) fn at(&self, path: &str) -> Option<&Rc<str>> {
        let ends = path.rmatch_indices(['.', '[']).map(|(end, _)| end);
        [path.len()].into_iter().chain(ends).chain([0]).find_map(|end| self.0.get(&path[..end]))
    }

    /// Takes the origin of the value that `other` has at `from`, with those below it, for the one at `path`.
    pub(super) fn take(&mut self, path: &str, other: &Self, from: &str) {
        let stale: Vec<String> = self.below(path).map(|(key, _)| key.clone()).collect();
        for key in stale {
            self.0.remove(&key);
        }
        self.0.extend(other.at(from).map(|file| (path.to_owned(), file.clone())));
        let moved = other.below(from).map(|(key, file)| {
            let rest = key.get(from.len()..).unwrap_or_default();
            (format!("{path}{rest}"), file.clone())
        });
        self.0.extend(moved);
    }

    /// Returns the entries below a path, and that of the path itself.
    fn below(&self, path: &str) -> impl Iterator<Item = (&String, &Rc<str>)> {
        let all = self.0.range(path.to_owned()..).take_while(move |(key, _)| key.starts_with(path));
        all.filter(move |(key, _)| {
            let rest = key.get(path.len()..).unwrap_or_default();
            path.is_empty() || rest.is_empty() || rest.starts_with(['.', '['])
        })
    }
}
