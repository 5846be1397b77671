//! `${VAR}` in values, as Compose expands it.
//!
//! `$VAR` and `${VAR}` (nothing when it is not set), `${VAR:-default}`, `${VAR-default}`, `${VAR:?error}`,
//! `${VAR?error}`, `${VAR:+other}`, `${VAR+other}` and `$$` for `$`. The text after the operator may itself hold
//! variables. See <https://docs.docker.com/reference/compose-file/interpolation/>.

use std::collections::BTreeSet;

use super::walk::{At, Walk};
use super::yaml::Node;

/// How deep one `${…}` may stand inside of another.
const MAX_DEPTH: usize = 16;
/// The bytes that all texts of a file may have after expansion, and one text of an env file.
const MAX_EXPANDED: usize = 16 << 20;

/// Where names are looked up, and what was looked for in vain.
pub(super) struct Scope<'a> {
    /// The value of a variable; `None`: it is not set.
    pub(super) lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Variables without a value or a default.
    pub(super) unset: BTreeSet<String>,
    /// The bytes that may still be produced.
    pub(super) room: usize,
}

impl<'a> Scope<'a> {
    /// A scope that looks names up with `lookup`.
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, unset: BTreeSet::new(), room: MAX_EXPANDED }
    }

    /// `text` with its variables replaced. Errors: what to write instead.
    pub(super) fn expand(&mut self, text: &str) -> Result<String, String> {
        self.nested(text, 0)
    }

    fn nested(&mut self, text: &str, depth: usize) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err("nests ${…} too deeply".to_owned());
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
                if name.is_empty() {
                    return Err(
                        "has a $ that begins no variable: write $$ for the character itself"
                            .to_owned(),
                    );
                }
                (self.value_or_nothing(name), after)
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

    /// What stands between `${` and `}`.
    fn braced(&mut self, inside: &str, depth: usize) -> Result<String, String> {
        let (name, rest) = name(inside);
        let (colon, operator) = rest.strip_prefix(':').map_or((false, rest), |rest| (true, rest));
        let value = (self.lookup)(name);
        let given = value.as_ref().is_some_and(|value| !(colon && value.is_empty()));
        match operator.split_at_checked(1) {
            _ if name.is_empty() => Err(format!("has '${{{inside}}}', which names no variable")),
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
                Err(format!("needs the variable {name}: {message}"))
            }
            _ => Err(format!(
                "has '${{{inside}}}': after the name write :-default, :?error or :+other"
            )),
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

/// Where the brace closes that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let (bytes, mut open, mut at) = (text.as_bytes(), 0, 0);
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'$', Some(b'$')) => at += 1,
            (b'$', Some(b'{')) => (open, at) = (open + 1, at + 1),
            (b'}', _) if open == 0 => return Some(at),
            (b'}', _) => open -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Replaces the variables in every value of a tree; keys stay. What is wrong goes to `walk`, by path.
pub(super) fn tree(node: &mut Node, path: &str, scope: &mut Scope<'_>, walk: &Walk<'_>) {
    match node {
        Node::Null => {}
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

    fn expand(text: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "FOO" => Some("first".to_owned()),
            "EMPTY" => Some(String::new()),
            "DOLLAR" => Some("$FOO".to_owned()),
            _ => None,
        };
        Scope::new(&lookup).expand(text)
    }

    #[test]
    fn variables_are_replaced_as_compose_replaces_them() {
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
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        for text in [
            "${", "$", "a$ b", "$}", "${}", "${ FOO}", "${FOO }", "${FOO!}", "${FOO:}", "${FOO:x}",
            "$1", "^a$",
        ] {
            assert!(expand(text).is_err(), "{text}");
        }
        assert_eq!(
            expand("${NONE:?say $FOO}"),
            Err("needs the variable NONE: say first".to_owned())
        );
        assert_eq!(
            expand("${EMPTY:?}"),
            Err("needs the variable EMPTY: set it in the environment".to_owned())
        );
        assert!(expand(&"${NONE:-".repeat(100_000)).is_err());
        assert!(expand(&format!("{}{}", "${NONE:-".repeat(100), "}".repeat(100))).is_err());
    }

    #[test]
    fn a_text_that_grows_without_end_is_refused() {
        let lookup = |_: &str| Some("x".repeat(100_000));
        assert!(Scope::new(&lookup).expand(&"$X".repeat(1000)).is_err());
    }
}
