//! `${VAR}` in values, as Compose expands it.
//!
//! `$VAR` and `${VAR}` (empty when unset), `${VAR:-default}`, `${VAR-default}`, `${VAR:?error}`,
//! `${VAR?error}`, `${VAR:+other}`, `${VAR+other}` and `$$` for `$`. The text after the operator may contain
//! variables. A `$` before anything else is one. See <https://docs.docker.com/reference/compose-file/interpolation/>.

use std::collections::BTreeSet;

use super::problem::Problem;
use super::walk::{At, Walk};
use super::yaml::Node;

/// Nesting depth of `${…}`.
const MAX_DEPTH: usize = 16;
/// Bytes of all values of a Compose file, or of one value of an env file, after expansion.
const MAX_EXPANDED: usize = 16 << 20;

/// Looks variables up, and collects those that are unset.
pub(super) struct Scope<'a> {
    /// Returns the value of a variable; `None`: unset.
    pub(super) lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Unset variables without a default.
    pub(super) unset: BTreeSet<String>,
    /// Bytes that may still be produced.
    pub(super) room: usize,
}

impl<'a> Scope<'a> {
    /// Returns a scope over `lookup`.
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, unset: BTreeSet::new(), room: MAX_EXPANDED }
    }

    /// Returns `text` with its variables replaced.
    pub(super) fn expand(&mut self, text: &str) -> Result<String, Problem> {
        self.nested(text, 0)
    }

    fn nested(&mut self, text: &str, depth: usize) -> Result<String, Problem> {
        if depth > MAX_DEPTH {
            return Err(Problem::new("nests ${…} too deeply"));
        }
        let (mut out, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            let value;
            (value, rest) = if let Some(after) = after.strip_prefix('$') {
                ("$".to_owned(), after)
            } else if let Some(after) = after.strip_prefix('{') {
                let end = closing(after).ok_or(
                    "has a ${ that is never closed: write $${ for the characters themselves",
                )?;
                (self.braced(&after[..end], depth)?, &after[end + 1..])
            } else {
                let (name, after) = name(after);
                match name.is_empty() {
                    true => ("$".to_owned(), after),
                    false => (self.value_or_nothing(name), after),
                }
            };
            self.room = self
                .room
                .checked_sub(value.len())
                .ok_or("grows too large when its variables are replaced")?;
            out.push_str(&value);
        }
        out.push_str(rest);
        Ok(out)
    }

    /// Expands the text between `${` and `}`.
    fn braced(&mut self, inside: &str, depth: usize) -> Result<String, Problem> {
        let (name, rest) = name(inside);
        let (colon, operator) = rest.strip_prefix(':').map_or((false, rest), |rest| (true, rest));
        let value = (self.lookup)(name);
        let given = value.as_ref().is_some_and(|value| !(colon && value.is_empty()));
        match operator.split_at_checked(1) {
            _ if name.is_empty() => {
                Err(Problem::new(format!("has '${{{inside}}}', which names no variable")))
            }
            None if !colon => Ok(self.value_or_nothing(name)),
            Some(("-", default)) => {
                if given {
                    Ok(value.unwrap_or_default())
                } else {
                    self.nested(default, depth + 1)
                }
            }
            Some(("+", other)) => {
                if given {
                    self.nested(other, depth + 1)
                } else {
                    Ok(String::new())
                }
            }
            Some(("?", _)) if given => Ok(value.unwrap_or_default()),
            Some(("?", message)) => {
                let message = self.nested(message, depth + 1)?;
                let message =
                    if message.is_empty() { "set it in the environment" } else { &message };
                Err(Problem::new(format!("needs the variable {name}: {message}")))
            }
            _ => Err(Problem::new(format!(
                "has '${{{inside}}}': after the name write :-default, :?error or :+other"
            ))),
        }
    }

    fn value_or_nothing(&mut self, name: &str) -> String {
        (self.lookup)(name).unwrap_or_else(|| {
            self.unset.insert(name.to_owned());
            String::new()
        })
    }
}

/// Splits a leading variable name off.
fn name(text: &str) -> (&str, &str) {
    let fits = |(at, c): (usize, char)| {
        !(c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit()))
    };
    text.split_at(text.char_indices().find(|&pair| fits(pair)).map_or(text.len(), |(at, _)| at))
}

/// Returns the index of the brace that closes one opened before `text`: a default may be JSON, whose braces are in pairs, or a
/// text with one brace alone.
fn closing(text: &str) -> Option<usize> {
    closing_among(text, false).or_else(|| closing_among(text, true))
}

/// Does what [`closing`] does, with all braces in pairs or only those of `${`.
fn closing_among(text: &str, only_variables: bool) -> Option<usize> {
    let (bytes, mut open, mut at) = (text.as_bytes(), 0, 0);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'$', Some(b'$')) => at += 1,
            (b'$', Some(b'{')) => (open, at) = (open + 1, at + 1),
            (b'{', _) if !only_variables => open += 1,
            (b'}', _) if open == 0 => return Some(at),
            (b'}', _) => open -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Replaces the variables in every value of a tree; keys are kept. Problems are recorded in `walk`.
pub(super) fn tree(node: &mut Node, path: &str, scope: &mut Scope<'_>, walk: &Walk<'_>) {
    match node {
        Node::Null | Node::Reset => {}
        Node::Override(node) => tree(node, path, scope, walk),
        Node::Text(text) if !text.contains('$') => {}
        Node::Text(text) => match scope.expand(text) {
            Ok(expanded) => *text = expanded,
            Err(why) => walk.refuse(path, &format!(" {why}")),
        },
        Node::List(items) => {
            items
                .iter_mut()
                .enumerate()
                .for_each(|(i, item)| tree(item, &At::item_path(path, i), scope, walk));
        }
        Node::Map(map) => map
            .iter_mut()
            .for_each(|(key, value)| tree(value, &At::key_path(path, key), scope, walk)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<String, Problem> {
        let lookup = |name: &str| match name {
            "FOO" => Some("first".to_owned()),
            "EMPTY" => Some(String::new()),
            "DOLLAR" => Some("$FOO".to_owned()),
            _ => None,
        };
        Scope::new(&lookup).expand(text)
    }

    #[test]
    fn variables_are_expanded_like_compose() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$FOO-bar ${FOO}", "first-bar first"),
            ("$FOO$FOO", "firstfirst"),
            ("a${NONE}b$NONE", "ab"),
            ("${NONE:-def}${NONE-def}", "defdef"),
            ("${EMPTY:-def}${EMPTY-def}", "def"),
            ("${FOO:-def}${FOO-def}", "firstfirst"),
            ("${FOO:+yes}${EMPTY:+yes}${EMPTY+set}${NONE+set}", "yesset"),
            ("${FOO:?err}${EMPTY?err}", "first"),
            ("${NONE:-${FOO} ${NONE2:-${EMPTY:-deep}}}!", "first deep!"),
            ("${NONE-$FOO}", "first"),
            ("${NONE:-/a:-b?c}", "/a:-b?c"),
            ("${NONE:-}", ""),
            ("$$FOO $${FOO} $$$FOO $$$$", "$FOO ${FOO} $first $$"),
            ("${NONE:-$$}", "$"),
            ("${NONE:-a$$}b}", "a$b}"),
            ("${DOLLAR}", "$FOO"),
            ("{{.Task}} }", "{{.Task}} }"),
            ("${FOO:-${NONE:?lazy}}", "first"),
            ("a $ b $1 $} ^x$", "a $ b $1 $} ^x$"),
            ("${NONE:-{\"a\": {\"b\": 1}}}", "{\"a\": {\"b\": 1}}"),
            ("${FOO:-{\"a\": {}}}", "first"),
            ("${NONE:-{}", "{"),
        ] {
            assert_eq!(expand(text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn invalid_variables_are_refused() {
        for text in ["${", "${}", "${ FOO}", "${FOO }", "${FOO!}", "${FOO:}", "${FOO:x}"] {
            assert!(expand(text).is_err(), "{text}");
        }
        assert_eq!(
            expand("${NONE:?say $FOO}"),
            Err(Problem::new("needs the variable NONE: say first"))
        );
        assert_eq!(
            expand("${EMPTY:?}"),
            Err(Problem::new("needs the variable EMPTY: set it in the environment"))
        );
        assert!(expand(&"${NONE:-".repeat(100_000)).is_err());
        assert!(expand(&format!("{}{}", "${NONE:-".repeat(100), "}".repeat(100))).is_err());
    }

    #[test]
    fn expansion_is_limited() {
        let lookup = |_: &str| Some("x".repeat(100_000));
        assert!(Scope::new(&lookup).expand(&"$X".repeat(1000)).is_err());
    }
}
