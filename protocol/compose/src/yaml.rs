//! Text to tree: the YAML half of the reader.
//!
//! Compose interprets most scalars by their position, not by their form: `"8080"` and `8080` are the same
//! port, and `1.10` in `environment` is a text. So the tree keeps every scalar as it was written and has no
//! numbers; only YAML 1.2's booleans are normalised and its nulls are distinct. That also keeps `22:22` from becoming a
//! base-60 number and `no` from becoming `false`, as in YAML 1.1.
//!
//! Costs of hostile input are bounded: nesting by [`MAX_DEPTH`], alias expansion ("billion laughs") by [`MAX_WEIGHT`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::model::ComposeError;

/// Nesting depth of lists and maps, aliases expanded. Compose needs eight.
const MAX_DEPTH: usize = 32;
/// Weight of the whole tree, aliases expanded: the bytes of its texts plus [`NODE_WEIGHT`] per node. A file of 1000
/// services that share 20 lines through an anchor has half of it. The parser has no such limit.
pub(super) const MAX_WEIGHT: usize = 8 << 20;
/// Documents of one text.
const MAX_DOCUMENTS: usize = 100;
/// About the memory of a map's key or value, in bytes.
const NODE_WEIGHT: usize = 64;

/// A YAML value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// `~`, `null` or an empty value.
    Null,
    /// A scalar, as it was written.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping; merge keys (`<<`) are already applied.
    Map(BTreeMap<String, Node>),
    /// `!reset`: leaves out what is merged under it, and itself. Gone once the files are merged.
    Reset,
    /// `!override`: replaces what is merged under it. Gone once the files are merged.
    Override(Box<Node>),
}

impl Node {
    /// Returns the entry of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        if let Self::Map(map) = self { map.get(key) } else { None }
    }

    /// Returns the weight of the tree, as [`MAX_WEIGHT`] limits it.
    pub(super) fn weight(&self) -> usize {
        NODE_WEIGHT
            + match self {
                Self::Null | Self::Reset => 0,
                Self::Text(text) => text.len(),
                Self::List(items) => items.iter().map(Self::weight).sum(),
                Self::Map(map) => {
                    map.iter().map(|(key, node)| NODE_WEIGHT + key.len() + node.weight()).sum()
                }
                Self::Override(node) => node.weight(),
            }
    }
}

/// Parses a text into its documents; one that is empty has one, null. Errors: invalid YAML, with line and column.
pub(super) fn load(text: &str) -> Result<Vec<Node>, ComposeError> {
    let parser =
        Parser::new_from_str_with_options(text, granit_parser::options! { emit_comments: false });
    let mut composer = Composer { parser, anchors: BTreeMap::new(), weight: 0 };
    let mut documents = Vec::new();
    loop {
        let (event, span) = composer.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            Event::StreamEnd => {
                if documents.is_empty() {
                    documents.push(Node::Null);
                }
                return Ok(documents);
            }
            _ if documents.len() >= MAX_DOCUMENTS => {
                return Err(syntax(&span, "too many documents begin: split the file"));
            }
            event => documents.push(composer.node(event, &span, 0)?.0),
        }
    }
}

fn syntax(span: &Span, message: impl Into<String>) -> ComposeError {
    ComposeError::Syntax {
        line: span.start.line(),
        column: span.start.col() + 1,
        message: message.into(),
    }
}

/// A node with an anchor, for aliases.
struct Anchored {
    node: Node,
    weight: usize,
    height: usize,
}

struct Composer<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, Anchored>,
    weight: usize,
}

impl<'a> Composer<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), ComposeError> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let (line, column) = (error.marker().line(), error.marker().col() + 1);
                Err(ComposeError::Syntax { line, column, message: error.info() })
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn charge(&mut self, weight: usize, span: &Span) -> Result<(), ComposeError> {
        self.weight = self.weight.saturating_add(weight);
        if self.weight > MAX_WEIGHT {
            Err(syntax(span, "the file grows too large here, with its aliases expanded: split it"))
        } else {
            Ok(())
        }
    }

    /// Builds the node that begins with `event`, and returns its height too.
    fn node(
        &mut self,
        event: Event<'a>,
        span: &Span,
        depth: usize,
    ) -> Result<(Node, usize), ComposeError> {
        if depth > MAX_DEPTH {
            return Err(syntax(span, "values are nested too deeply here"));
        }
        let (anchor, before) = (event.anchor_id(), self.weight);
        self.charge(NODE_WEIGHT, span)?;
        let (node, height, merging) = match event {
            Event::Scalar(text, style, _, tag) => {
                self.charge(text.len(), span)?;
                let (tag, merging) = merging(tag);
                (scalar(text, style, tag, span)?, 0, merging)
            }
            Event::SequenceStart(_, _, tag) => {
                let (tag, merging) = merging(tag);
                check_tag(tag.as_deref(), "seq", span)?;
                let (node, height) = self.list(depth)?;
                (node, height, merging)
            }
            Event::MappingStart(_, _, tag) => {
                let (tag, merging) = merging(tag);
                check_tag(tag.as_deref(), "map", span)?;
                let (node, height) = self.map(depth)?;
                (node, height, merging)
            }
            Event::Alias(id) => return self.alias(id, span, depth),
            _ => return Err(syntax(span, "a value is missing here")),
        };
        let node = match merging {
            None => node,
            Some(Merging::Reset) => Node::Reset,
            Some(Merging::Override) => Node::Override(Box::new(node)),
        };
        if let Some(id) = anchor {
            let weight = self.weight - before;
            self.charge(weight, span)?;
            self.anchors.insert(id, Anchored { node: node.clone(), weight, height });
        }
        Ok((node, height))
    }

    fn alias(
        &mut self,
        id: usize,
        span: &Span,
        depth: usize,
    ) -> Result<(Node, usize), ComposeError> {
        // An anchor is stored when its node ends, so an alias inside of it does not find it.
        let Some((weight, height)) = self.anchors.get(&id).map(|to| (to.weight, to.height)) else {
            return Err(syntax(span, "this alias refers to a value that contains it"));
        };
        if depth + height > MAX_DEPTH {
            return Err(syntax(span, "values are nested too deeply here"));
        }
        self.charge(weight, span)?;
        Ok((self.anchors.get(&id).map_or(Node::Null, |to| to.node.clone()), height))
    }

    fn list(&mut self, depth: usize) -> Result<(Node, usize), ComposeError> {
        let (mut items, mut height) = (Vec::new(), 0);
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok((Node::List(items), height));
            }
            let (item, below) = self.node(event, &span, depth + 1)?;
            height = height.max(below + 1);
            items.push(item);
        }
    }

    fn map(&mut self, depth: usize) -> Result<(Node, usize), ComposeError> {
        let (mut entries, mut merged, mut height) = (BTreeMap::new(), None, 0);
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let plain = matches!(event, Event::Scalar(_, ScalarStyle::Plain, ..));
            let key = match self.node(event, &span, depth + 1)?.0 {
                Node::Text(key) => key,
                Node::Null => return Err(syntax(&span, "a key is missing here")),
                _ => return Err(syntax(&span, "a key must be a text")),
            };
            let (event, at) = self.next()?;
            let (value, below) = self.node(event, &at, depth + 1)?;
            height = height.max(below + 1);
            let repeated = if plain && key == "<<" {
                merged.replace(sources(value, &at)?).is_some()
            } else {
                entries.insert(key.clone(), value).is_some()
            };
            if repeated {
                let key: String = key.chars().take(80).collect();
                return Err(syntax(&span, format!("the key '{key}' is given twice")));
            }
        }
        // The map's own keys win over merged ones, and earlier sources over later ones.
        for (key, value) in merged.into_iter().flatten().flatten() {
            entries.entry(key).or_insert(value);
        }
        Ok((Node::Map(entries), height))
    }
}

/// A tag of Compose's, which says how a value is merged.
#[derive(Clone, Copy)]
enum Merging {
    Reset,
    Override,
}

/// Splits a tag of Compose's off.
fn merging(tag: Option<Cow<'_, Tag>>) -> (Option<Cow<'_, Tag>>, Option<Merging>) {
    match tag.as_deref().map(Tag::original).as_deref() {
        Some("!reset") => (None, Some(Merging::Reset)),
        Some("!override") => (None, Some(Merging::Override)),
        _ => (tag, None),
    }
}

/// Returns the maps that a merge key names.
fn sources(value: Node, span: &Span) -> Result<Vec<BTreeMap<String, Node>>, ComposeError> {
    let nodes = if let Node::List(items) = value { items } else { vec![value] };
    let maps = nodes.into_iter().map(|node| match node {
        Node::Map(map) => Ok(map),
        _ => Err(syntax(span, "'<<' must name a map, or a list of maps")),
    });
    maps.collect()
}

fn check_tag(tag: Option<&Tag>, kind: &str, span: &Span) -> Result<(), ComposeError> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema_tag(kind) => {
            Err(syntax(span, format!("the tag {} is not supported", tag.original())))
        }
        _ => Ok(()),
    }
}

fn scalar(
    text: Cow<'_, str>,
    style: ScalarStyle,
    tag: Option<Cow<'_, Tag>>,
    span: &Span,
) -> Result<Node, ComposeError> {
    if text.contains('\0') {
        return Err(syntax(span, "a text must not contain the character NUL"));
    }
    let tag = tag.as_deref();
    let kind = match tag.map(|tag| tag.core_suffix()) {
        None => None,
        Some(Some(kind @ ("str" | "int" | "float" | "bool" | "null"))) => Some(kind),
        Some(_) => return check_tag(tag, "str", span).map(|()| Node::Null),
    };
    if kind == Some("str") || (kind.is_none() && style != ScalarStyle::Plain) {
        return Ok(Node::Text(text.into_owned()));
    }
    Ok(match text.as_ref() {
        "" | "~" | "null" | "Null" | "NULL" => Node::Null,
        "true" | "True" | "TRUE" => Node::Text("true".to_owned()),
        "false" | "False" | "FALSE" => Node::Text("false".to_owned()),
        _ => Node::Text(text.into_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree in a form that is easy to write down.
    fn json(node: &Node) -> serde_json::Value {
        match node {
            Node::Null => serde_json::Value::Null,
            Node::Text(text) => text.as_str().into(),
            Node::List(items) => items.iter().map(json).collect(),
            Node::Map(map) => map.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
            Node::Reset => "!reset".into(),
            Node::Override(node) => json(node),
        }
    }

    /// The only document of a text.
    fn load(text: &str) -> Result<Node, ComposeError> {
        super::load(text).map(|mut documents| {
            assert_eq!(documents.len(), 1, "{text}");
            documents.remove(0)
        })
    }

    #[test]
    fn scalars_keep_their_form() {
        for (text, expected) in [
            ("1.10", "1.10"),
            ("0755", "0755"),
            ("1e3", "1e3"),
            ("22:22", "22:22"),
            ("yes", "yes"),
            ("no", "no"),
            ("on", "on"),
            ("True", "true"),
            ("FALSE", "false"),
            ("'True'", "True"),
            ("\"null\"", "null"),
            ("!!str null", "null"),
            ("!!int '12'", "12"),
            ("2026-01-01", "2026-01-01"),
            ("|\n  a\n  b\n", "a\nb\n"),
            (">-\n  a\n  b\n", "a b"),
            (".nan", ".nan"),
        ] {
            assert_eq!(
                load(&format!("a: {text}\n")).map(|node| json(&node)),
                Ok(serde_json::json!({"a": expected}))
            );
        }
        for text in ["a:", "a: ~", "a: null", "a: !!null ''", "a: # why"] {
            assert_eq!(
                load(text).map(|node| json(&node)),
                Ok(serde_json::json!({"a": null})),
                "{text}"
            );
        }
        for text in ["", "# nothing\n", "---\n", "---\n...\n"] {
            assert_eq!(load(text), Ok(Node::Null), "{text}");
        }
    }

    #[test]
    fn aliases_and_merge_keys_are_expanded() {
        let text = "x: &x {k: 1.50, l: 2}\ny: &y {l: 3, m: 4}\n\
                    one: {<<: *x, l: 9}\nmany: {<<: [*x, *y]}\nsame: *y\nquoted: {'<<': *x}\n";
        let tree = json(&load(text).expect("yaml"));
        assert_eq!(tree["one"], serde_json::json!({"k": "1.50", "l": "9"}));
        assert_eq!(tree["many"], serde_json::json!({"k": "1.50", "l": "2", "m": "4"}));
        assert_eq!(tree["same"], serde_json::json!({"l": "3", "m": "4"}));
        assert_eq!(tree["quoted"]["<<"]["k"], "1.50");
    }

    #[test]
    fn invalid_yaml_is_refused_with_line_and_column() {
        for (text, line, column) in [
            ("a: 1\na: 2\n", 2, 1),
            ("a: {b: 1, b: 2}", 1, 11),
            ("a: 1\n\"a\": 2\n", 2, 1),
            ("a:\n  b: 1\n b: 2", 3, 2),
            ("a: [1, 2", 1, 4),
            ("a: \"x", 1, 4),
            ("a: 'x\ny'\nb: @x", 3, 4),
            ("a: *b", 1, 4),
            ("a: &a [*a]", 1, 8),
            ("a: !!binary aGk=", 1, 13),
            ("? [a, b]\n: c", 1, 3),
            ("~: c", 1, 1),
            ("a: {<<: 1}", 1, 9),
            ("a: {<<: {}, <<: {}}", 1, 13),
            ("a: %x", 1, 4),
            ("a: \"\\0\"", 1, 4),
        ] {
            match load(text) {
                Err(ComposeError::Syntax { line: l, column: c, message }) => {
                    assert_eq!((l, c), (line, column), "{text:?}: {message}");
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_values_of_a_file_are_limited_with_aliases_expanded() {
        let shared = |services: usize| {
            let lines: String = (0..20).map(|i| format!("  KEY_{i}: the value {i}\n")).collect();
            let mut text = format!("x-env: &env\n{lines}services:\n");
            for i in 0..services {
                text += &format!("  s{i}: {{image: 'shop/web:1', environment: *env}}\n");
            }
            text
        };
        assert!(load(&shared(1000)).is_ok());
        // Each alias costs the file 3 bytes and the reader 64 KiB: 128 of them are the limit.
        let items = |count| format!("a: &a [{}]\nb: [{}]", "x,".repeat(1000), "*a,".repeat(count));
        assert!(load(&items(100)).is_ok());
        let refused = load(&items(200)).expect_err("12 MiB");
        assert!(refused.to_string().contains("aliases"), "{refused}");
    }

    #[test]
    fn alias_bombs_and_deep_nesting_are_refused() {
        let mut laughs = "a0: &a0 [ha,ha,ha,ha,ha,ha,ha,ha,ha,ha]\n".to_owned();
        for i in 1..12 {
            laughs += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(","));
        }
        let long = format!("a: &a {}\nb: [{}]", "x".repeat(500_000), "*a,".repeat(100_000));
        let mut tall = "a0: &a0 [x]\n".to_owned();
        for i in 1..2000 {
            tall += &format!("a{i}: &a{i} [*a{}]\n", i - 1);
        }
        let deep =
            ["[".repeat(200_000), "- ".repeat(200_000), "{a: ".repeat(100), "? ".repeat(10_000)];
        for text in [laughs, long, tall].into_iter().chain(deep) {
            let error = load(&text).expect_err("must be refused");
            assert!(matches!(error, ComposeError::Syntax { .. }), "{error}");
        }
    }
}
