//! A visitor of the tree that knows paths and collects problems.
//!
//! A reader that meets an invalid value records it with its path and continues with a default, so that one run lists
//! all problems; the caller checks [`Walk::problems`] at the end and discards the result if there are any. [`Fields`]
//! guarantees that nothing is ignored: a reader takes the keys it knows, and [`Fields::finish`] refuses the rest.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::rc::Rc;
use std::str::FromStr;

use super::model::Context;
use super::tree::Origins;
use super::yaml::Node;

/// Problems that are listed; more are only counted.
const MAX_PROBLEMS: usize = 64;
/// Characters of a problem: paths and values are input.
const MAX_PROBLEM_CHARS: usize = 400;

/// The context of a walk, and what it collected.
pub(super) struct Walk<'a> {
    pub(super) context: &'a Context<'a>,
    /// Unset variables that values use.
    pub(super) unset: RefCell<BTreeSet<String>>,
    /// What works otherwise than elsewhere, one line each.
    pub(super) warnings: RefCell<BTreeSet<String>>,
    /// Ports of all services so far.
    pub(super) ports: Cell<usize>,
    /// The name of the first file.
    main: Rc<str>,
    /// The file that is read at present, before the files are merged.
    pub(super) file: RefCell<Option<Rc<str>>>,
    /// The files that the values of the merged ones are from.
    pub(super) origins: RefCell<Origins>,
    problems: RefCell<Vec<String>>,
    more: Cell<usize>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(context: &'a Context<'a>, main: &str) -> Self {
        Self {
            context,
            main: main.into(),
            unset: RefCell::default(),
            warnings: RefCell::default(),
            ports: Cell::default(),
            origins: RefCell::default(),
            file: RefCell::default(),
            problems: RefCell::default(),
            more: Cell::new(0),
        }
    }

    /// Returns the name of the file that the value at `path` is from, in brackets, unless it is the first one.
    fn shown_origin(&self, path: &str) -> String {
        let file = self.file.borrow().clone();
        let file = file.or_else(|| self.origins.borrow().at(path).cloned());
        file.filter(|file| **file != *self.main)
            .map_or_else(String::new, |file| format!(" ({file})"))
    }

    /// Records a problem at `path`; `why` continues the path: ` is not supported` or `: is too large`.
    pub(super) fn refuse(&self, path: &str, why: &str) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() >= MAX_PROBLEMS {
            self.more.set(self.more.get() + 1);
            return;
        }
        let origin = self.shown_origin(path);
        let problem: String =
            format!("{path}{origin}{why}").chars().take(MAX_PROBLEM_CHARS).collect();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// Records a warning, once.
    pub(super) fn warn(&self, line: String) {
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < MAX_PROBLEMS {
            warnings.insert(line);
        }
    }

    /// Returns the problems in the order of the walk.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.borrow().clone();
        problems.extend((self.more.get() > 0).then(|| format!("and {} more", self.more.get())));
        problems
    }
}

/// A value and its path.
#[derive(Clone)]
pub(super) struct At<'a> {
    pub(super) node: &'a Node,
    pub(super) path: String,
    pub(super) walk: &'a Walk<'a>,
}

impl<'a> At<'a> {
    pub(super) fn key_path(path: &str, key: &str) -> String {
        shown(if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") })
    }

    pub(super) fn item_path(path: &str, index: usize) -> String {
        shown(format!("{path}[{index}]"))
    }

    /// Records a problem as `path why`.
    pub(super) fn refuse(&self, why: impl Display) {
        self.walk.refuse(&self.path, &format!(" {why}"));
    }

    /// Records a problem as `path: why`.
    pub(super) fn invalid(&self, why: impl Display) {
        self.walk.refuse(&self.path, &format!(": {why}"));
    }

    /// Warns of what is here: `path why`.
    pub(super) fn warn(&self, why: impl Display) {
        let origin = self.walk.shown_origin(&self.path);
        let line = format!("{}{origin} {why}", self.path);
        let line: String = line.chars().take(MAX_PROBLEM_CHARS).collect();
        self.walk.warn(line);
    }

    /// Returns the scalar here. Refuses anything else, and an empty one.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.node {
            Node::Text(text) if !text.is_empty() => return Some(text),
            Node::Text(_) | Node::Null => self.refuse("is empty"),
            _ => self.refuse("must be a text"),
        }
        None
    }

    /// Parses the scalar here with `parse`.
    pub(super) fn read<T, E: Display>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(self.text()?).map_err(|why| self.invalid(why)).ok()
    }

    /// Reads `true` or `false`.
    pub(super) fn bool(&self) -> Option<bool> {
        self.read(|text| {
            text.parse().map_err(|_| {
                let meant = match text.to_ascii_lowercase().as_str() {
                    "yes" | "y" | "on" | "1" => ": write true",
                    "no" | "n" | "off" | "0" => ": write false",
                    _ => "",
                };
                format!("'{text}' is neither true nor false{meant}")
            })
        })
    }

    /// Reads an integer of type `T`.
    pub(super) fn number<T: FromStr>(&self) -> Option<T> {
        self.read(|text| text.parse().map_err(|_| format!("'{text}' is not an integer in range")))
    }

    /// Returns the items of the list here. Refuses anything else.
    pub(super) fn items(&self) -> Vec<At<'a>> {
        let Node::List(items) = self.node else {
            self.refuse("must be a list");
            return Vec::new();
        };
        let item = |(i, node)| At { node, path: Self::item_path(&self.path, i), walk: self.walk };
        items.iter().enumerate().map(item).collect()
    }

    /// Returns the items of the list here, or the single value here.
    pub(super) fn one_or_many(&self) -> Vec<At<'a>> {
        if let Node::List(_) = self.node { self.items() } else { vec![self.clone()] }
    }

    /// Returns the entries of the map here. Refuses anything else.
    pub(super) fn entries(&self) -> Vec<(&'a str, At<'a>)> {
        let Node::Map(map) = self.node else {
            self.refuse("must be a map");
            return Vec::new();
        };
        let entry = |(key, node): (&'a String, _)| {
            (key.as_str(), At { node, path: Self::key_path(&self.path, key), walk: self.walk })
        };
        map.iter().map(entry).collect()
    }

    /// Returns the texts of the list here; empty ones are allowed.
    pub(super) fn texts(&self) -> Vec<String> {
        let text = |item: At<'_>| match item.node {
            Node::Text(text) => Some(text.clone()),
            _ => item.text().map(str::to_owned),
        };
        self.items().into_iter().filter_map(text).collect()
    }

    /// Returns the map here as [`Fields`].
    pub(super) fn fields(&self) -> Fields<'a> {
        Fields { entries: self.entries().into_iter().collect(), known: Vec::new() }
    }
}

/// Cuts a path to the length that is shown: keys may be long, and every value below copies its path.
fn shown(path: String) -> String {
    match path.char_indices().nth(MAX_PROBLEM_CHARS) {
        Some((end, _)) => path[..end].to_owned(),
        None => path,
    }
}

/// A map from which readers take the keys they know.
pub(super) struct Fields<'a> {
    entries: BTreeMap<&'a str, At<'a>>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Returns an empty map.
    pub(super) fn none() -> Self {
        Self { entries: BTreeMap::new(), known: Vec::new() }
    }

    /// Takes the value of a key; `None` when it is missing, null or an empty text: a variable that is not set says nothing.
    pub(super) fn take(&mut self, key: &'static str) -> Option<At<'a>> {
        self.take_text(key).filter(|at| *at.node != Node::Text(String::new()))
    }

    /// Takes the value of a key whose empty text means something; `None` when it is missing or null.
    pub(super) fn take_text(&mut self, key: &'static str) -> Option<At<'a>> {
        self.known.push(key);
        self.entries.remove(key).filter(|at| *at.node != Node::Null)
    }

    /// Refuses every key that was not taken, except the `x-` extensions. `reasons` explain some of them and continue the path.
    pub(super) fn finish(mut self, reasons: &[(&'static str, &str)]) {
        self.known.extend(reasons.iter().map(|(key, _)| key));
        for (key, at) in self.entries {
            if key.starts_with("x-") && key != "x-vc" {
                continue;
            }
            if let Some((_, reason)) = reasons.iter().find(|(refused, _)| *refused == key) {
                at.walk.refuse(&at.path, reason);
                continue;
            }
            match self.known.iter().find(|known| is_typo(key, known)) {
                Some(known) => at.refuse(format!("is not supported: did you mean '{known}'?")),
                None => at.refuse("is not supported"),
            }
        }
    }
}

/// Whether the texts differ by one inserted, missing or changed letter, or two swapped ones.
fn is_typo(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[same..], &b[same..]);
    let same = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    match (&a[..a.len() - same], &b[..b.len() - same]) {
        ([] | [_], [] | [_]) => true,
        ([a, b], [c, d]) => a == d && b == c,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{At, MAX_PROBLEM_CHARS, is_typo};

    #[test]
    fn paths_are_cut_to_the_displayed_length() {
        let long = At::key_path("services", &"é".repeat(100_000));
        assert_eq!(long.chars().count(), MAX_PROBLEM_CHARS);
        assert_eq!(At::item_path(&At::key_path(&long, "a"), 7), long);
    }

    #[test]
    fn a_typo_is_one_edit() {
        for (a, b) in [
            ("imgae", "image"),
            ("comand", "command"),
            ("portss", "ports"),
            ("inage", "image"),
            ("", "a"),
        ] {
            assert!(is_typo(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("cpuset", "cpus"),
            ("links", "label"),
            ("expose", "ports"),
            ("abc", "cab"),
            ("aab", "b"),
        ] {
            assert!(!is_typo(a, b), "{a} {b}");
        }
    }
}
