//! Writes YAML: block style, and double quotes where a plain text could be read as something else.

use std::fmt::Write as _;

/// A value of a Compose file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Yaml {
    Text(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

impl Yaml {
    /// Returns a text that is no reference to a variable.
    pub(super) fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string().replace('$', "$$"))
    }

    pub(super) fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(Self::text).collect())
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Text(_) => false,
            Self::List(items) => items.is_empty(),
            Self::Map(entries) => entries.is_empty(),
        }
    }
}

/// Writes a map as a file.
pub(super) fn write(entries: &[(String, Yaml)]) -> String {
    let mut out = String::new();
    map(entries, 0, &mut out);
    out
}

fn map(entries: &[(String, Yaml)], depth: usize, out: &mut String) {
    for (index, (key, value)) in entries.iter().enumerate() {
        // The first line of a map in a list is behind its dash.
        if index > 0 || !out.ends_with("- ") {
            indent(depth, out);
        }
        let _ = write!(out, "{}:", scalar(key));
        below(value, depth, out);
    }
}

/// Writes what is behind a colon.
fn below(value: &Yaml, depth: usize, out: &mut String) {
    match value {
        Yaml::Text(text) => {
            let _ = writeln!(out, " {}", scalar(text));
        }
        Yaml::List(_) if value.is_empty() => out.push_str(" []\n"),
        Yaml::Map(_) if value.is_empty() => out.push_str(" {}\n"),
        Yaml::List(items) => {
            out.push('\n');
            for item in items {
                indent(depth + 1, out);
                out.push_str("- ");
                match item {
                    Yaml::Map(entries) if !entries.is_empty() => map(entries, depth + 2, out),
                    Yaml::Text(text) => {
                        let _ = writeln!(out, "{}", scalar(text));
                    }
                    // Compose has no lists in lists.
                    Yaml::List(_) | Yaml::Map(_) => out.push_str("{}\n"),
                }
            }
        }
        Yaml::Map(entries) => {
            out.push('\n');
            map(entries, depth + 1, out);
        }
    }
}

fn indent(depth: usize, out: &mut String) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

/// Returns a text as it is where YAML reads it as a text, or a number that Compose takes for one; otherwise in quotes.
fn scalar(text: &str) -> String {
    let is_plain = text
        .starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/'))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_./-+@".contains(c));
    let word = text.to_ascii_lowercase();
    let is_other = matches!(
        word.as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | ".inf" | ".nan"
    );
    // A number is written as one only where it reads as the same text again.
    let begins_as_number = text.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let is_number = text.parse::<u64>().is_ok_and(|number| number.to_string() == text);
    // A letter that no notation of numbers has.
    let is_digit = |c: char| c.is_ascii_hexdigit() || matches!(c, 'o' | 'O' | 'x' | 'X');
    let is_word = text.chars().any(|c| c.is_ascii_alphabetic() && !is_digit(c));
    match is_plain && !is_other && (!begins_as_number || is_number || is_word) {
        true => text.to_owned(),
        false => quoted(text),
    }
}

/// Returns a text in double quotes, with YAML's escapes.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control()
                || matches!(c, '\u{85}' | '\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}') =>
            {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_would_be_something_else_are_quoted() {
        for plain in ["web", "nginx/web", "/data", "80", "1m30s", "a-b", "20G"] {
            assert_eq!(scalar(plain), plain);
        }
        for other in [
            "", "yes", "No", "null", "~", "1.5", "0x1f", "007", "- a", "a: b", "#a", "a b", "*",
            "1e3",
        ] {
            assert!(scalar(other).starts_with('"'), "{other}");
        }
        assert_eq!(quoted("a\"\\\n\u{1}"), r#""a\"\\\n\U00000001""#);
        assert_eq!(Yaml::text("$HOME"), Yaml::Text("$$HOME".to_owned()));
    }
}
