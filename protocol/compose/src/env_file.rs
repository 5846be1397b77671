//! Env files (`.env`, `env_file:`): `KEY=value` lines, as Compose's dotenv reads them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::interpolate::Scope;
use super::model::MAX_FILE_BYTES;
use super::problem::Problem;

/// Why a text is not an env file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvFileError {
    /// It is larger than [`MAX_FILE_BYTES`].
    #[error("has more than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// A line cannot be read.
    #[error("line {line} {problem}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
}

/// Returns the variables of an env file: the last line of a name counts.
///
/// Lines are `KEY=value`, `KEY: value`, `export KEY=value`, `KEY` alone (its value comes from `env`), empty, or comments that begin
/// with `#`. A value ends with its line, or at ` #`. In `'…'` a value is literal; in `"…"` it may hold `\n`, `\r`,
/// `\t`, `\"`, `\\` and `\$`; both may hold line breaks. Except in `'…'`, variables are replaced: from `env`, else from
/// the lines above. See <https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/#env-file-syntax>.
///
/// Errors: a line that is none of these, or whose value is not UTF-8 text, by its number.
pub fn parse_env_file(
    bytes: &[u8],
    env: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, EnvFileError> {
    read(bytes, env).map(|(found, _)| found)
}

/// Does what [`parse_env_file`] does, and returns the names of unset variables that the file uses.
pub(super) fn read(bytes: &[u8], env: &BTreeMap<String, String>) -> Result<Found, EnvFileError> {
    read_with(bytes, &|name| env.get(name).cloned())
}

/// Does what [`read`] does, with variables that `env` returns.
pub(super) fn read_with(
    bytes: &[u8],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Found, EnvFileError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(EnvFileError::TooLarge);
    }
    // Comments may have any bytes, as with Compose.
    let text = String::from_utf8_lossy(bytes);
    let has_other_bytes = matches!(text, Cow::Owned(_));
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n");
    let (mut found, mut unset, mut room) = (BTreeMap::new(), BTreeSet::new(), MAX_FILE_BYTES);
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let lookup = |name: &str| env(name).or_else(|| found.get(name).cloned());
        let mut scope = Scope { room, ..Scope::new(&lookup) };
        let of_line = |problem: Problem| {
            let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
            EnvFileError::Line { line, problem: problem.to_string() }
        };
        let (entry, tail) = statement(rest, &mut scope).map_err(of_line)?;
        if let Some((_, Some(value))) = &entry
            && has_other_bytes
            && value.contains(char::REPLACEMENT_CHARACTER)
        {
            return Err(of_line(Problem::new("is not UTF-8 text")));
        }
        room = scope.room;
        unset.append(&mut scope.unset);
        match entry {
            Some((key, Some(value))) => drop(found.insert(key, value)),
            Some((key, None)) => found.extend(env(&key).map(|value| (key, value))),
            None => {}
        }
        rest = tail.trim_start();
    }
    Ok((found, unset))
}

/// The variables of a file, and the unset variables that it uses.
type Found = (BTreeMap<String, String>, BTreeSet<String>);

/// A key, and its value where the line has one.
type Entry = (String, Option<String>);

/// Returns the variables of an env file of `format: raw`: what is between `=` and the end of the line, as it is.
pub(super) fn read_raw(bytes: &[u8]) -> Result<BTreeMap<String, String>, EnvFileError> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(EnvFileError::TooLarge);
    }
    let text = String::from_utf8_lossy(bytes);
    let mut found = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let is_comment = line.trim_start().starts_with('#') || line.trim().is_empty();
        match line.split_once('=') {
            _ if is_comment => {}
            Some((key, value)) if !key.trim().is_empty() => {
                found.insert(key.trim().to_owned(), value.to_owned());
            }
            _ => {
                let problem = "is not KEY=value".to_owned();
                return Err(EnvFileError::Line { line: index + 1, problem });
            }
        }
    }
    Ok(found)
}

/// Parses the statement at the start of `text` and returns it with the rest.
fn statement<'a>(
    text: &'a str,
    scope: &mut Scope<'_>,
) -> Result<(Option<Entry>, &'a str), Problem> {
    let (line, after) = text.split_once('\n').unwrap_or((text, ""));
    if line.starts_with('#') {
        return Ok((None, after));
    }
    let text =
        text.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(text);
    let text = text.trim_start_matches([' ', '\t']);
    let at = text.find(['=', ':', '\n']).unwrap_or(text.len());
    let (key, rest) = text.split_at(at);
    let key = key.trim_end();
    if key.is_empty()
        || !key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']'))
    {
        return Err(Problem::new("is not KEY=value"));
    }
    let Some(rest) = rest.strip_prefix(['=', ':']) else {
        return Ok((Some((key.to_owned(), None)), rest));
    };
    let rest = rest.trim_start_matches([' ', '\t']);
    let (value, after) = match rest.chars().next() {
        Some(quote @ ('\'' | '"')) => {
            let (value, after) = quoted(&rest[1..], quote)?;
            let (tail, after) = after.split_once('\n').unwrap_or((after, ""));
            if !(tail.trim().is_empty() || tail.trim_start().starts_with('#')) {
                return Err(Problem::new("has something after the closing quote"));
            }
            (if quote == '"' { scope.expand(&value)? } else { value }, after)
        }
        _ => {
            let (value, after) = rest.split_once('\n').unwrap_or((rest, ""));
            let comment = if value.starts_with('#') {
                Some(0)
            } else {
                value.find(" #").or_else(|| value.find("\t#"))
            };
            let value = value[..comment.unwrap_or(value.len())].trim_end();
            (scope.expand(value)?, after)
        }
    };
    Ok((Some((key.to_owned(), Some(value))), after))
}

/// Returns the value up to the closing quote, and the rest. In `"…"` a `\$` becomes the `$$` of interpolation.
fn quoted(text: &str, quote: char) -> Result<(String, &str), Problem> {
    let (mut value, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Ok((value, chars.as_str())),
            '\\' => match (chars.next().ok_or("has a quote that is never closed")?, quote) {
                (c, _) if c == quote => value.push(c),
                ('n', '"') => value.push('\n'),
                ('r', '"') => value.push('\r'),
                ('t', '"') => value.push('\t'),
                ('\\', '"') => value.push('\\'),
                ('$', '"') => value.push_str("$$"),
                (c, _) => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    Err(Problem::new("has a quote that is never closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_files_are_parsed_like_compose() {
        let env = BTreeMap::from([
            ("USER".to_owned(), "ann".to_owned()),
            ("A".to_owned(), "env".to_owned()),
        ]);
        let text = "\u{feff}# comment\n\nA=1\nexport B = two words  # why\r\nC='$USER # \"x\" \\' y' # z\n\
                    D=\"a\\n${USER}\\t\\$USER \\\"q\\\"\n e\"\nE=$USER-${B}-${A}\nUSER\nNONE\nF=\nG=a#b\nH=#c\n\
                    dotted.key-1=x\nexported=1\nA=2\nyaml: a: b\nlist[0]=1\n";
        let found = parse_env_file(text.as_bytes(), &env).expect("an env file");
        let found: Vec<(&str, &str)> =
            found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            found,
            [
                ("A", "2"),
                ("B", "two words"),
                ("C", "$USER # \"x\" ' y"),
                ("D", "a\nann\t$USER \"q\"\n e"),
                ("E", "ann-two words-env"),
                ("F", ""),
                ("G", "a#b"),
                ("H", ""),
                ("USER", "ann"),
                ("dotted.key-1", "x"),
                ("exported", "1"),
                ("list[0]", "1"),
                ("yaml", "a: b"),
            ]
        );
    }

    #[test]
    fn comments_may_have_any_bytes() {
        let env = BTreeMap::new();
        let found = parse_env_file(b"# caf\xe9\nA=1 # \xe9\n", &env).expect("an env file");
        assert_eq!(found["A"], "1");
        let error = parse_env_file(b"A=1\nB=caf\xe9\n", &env).expect_err("not text");
        assert_eq!(error.to_string(), "line 2 is not UTF-8 text");
    }

    #[test]
    fn invalid_lines_are_refused_with_their_number() {
        for (text, line) in [
            ("=x", 1),
            ("A=1\na b=1", 2),
            ("A=1\n\nB='x", 3),
            ("A=\"x\ny\" z", 1),
            ("A='x\ny'\nB=${", 3),
            ("a/b=1", 1),
            ("A=${B:?no}", 1),
        ] {
            let error = parse_env_file(text.as_bytes(), &BTreeMap::new()).expect_err(text);
            assert!(error.to_string().starts_with(&format!("line {line} ")), "{text}: {error}");
        }
    }
}
