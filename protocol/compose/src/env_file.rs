//! Env files (`.env`, `env_file:`): `KEY=value` lines, as Compose's dotenv reads them.

use std::collections::{BTreeMap, BTreeSet};

use super::MAX_FILE_BYTES;
use super::interpolate::Scope;

/// Reads the variables of an env file: the later one of a name counts.
///
/// Lines are `KEY=value`, `export KEY=value`, `KEY` alone (its value comes from `env`), empty, or comments that begin
/// with `#`. A value ends with its line, or at ` #`. In `'…'` a value is literal; in `"…"` it may hold `\n`, `\r`,
/// `\t`, `\"`, `\\` and `\$`; both may hold line breaks. Except in `'…'`, variables are replaced: from `env`, else from
/// the lines above. See <https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/#env-file-syntax>.
///
/// Errors: a line that is none of these, by its number.
pub fn parse_env_file(
    text: &str,
    env: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, String> {
    read(text, env).map(|(found, _)| found)
}

/// As [`parse_env_file`], with the names of the variables that were used but not set.
pub(super) fn read(text: &str, env: &BTreeMap<String, String>) -> Result<Found, String> {
    if text.len() > MAX_FILE_BYTES {
        return Err(format!("has more than {MAX_FILE_BYTES} bytes"));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let (mut found, mut unset, mut room) = (BTreeMap::new(), BTreeSet::new(), MAX_FILE_BYTES);
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let lookup = |name: &str| env.get(name).or_else(|| found.get(name)).cloned();
        let mut scope = Scope { room, ..Scope::new(&lookup) };
        let (entry, tail) = statement(rest, &mut scope).map_err(|why| {
            let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
            format!("line {line} {why}")
        })?;
        room = scope.room;
        unset.append(&mut scope.unset);
        match entry {
            Some((key, Some(value))) => drop(found.insert(key, value)),
            Some((key, None)) => found.extend(env.get(&key).map(|value| (key, value.clone()))),
            None => {}
        }
        rest = tail.trim_start();
    }
    Ok((found, unset))
}

/// The variables of a file, and the names that it used without a value.
type Found = (BTreeMap<String, String>, BTreeSet<String>);

/// `KEY` alone, or with its value.
type Entry = (String, Option<String>);

/// The statement that `text` begins with, and what follows it.
fn statement<'a>(text: &'a str, scope: &mut Scope<'_>) -> Result<(Option<Entry>, &'a str), String> {
    let (line, after) = text.split_once('\n').unwrap_or((text, ""));
    if line.starts_with('#') {
        return Ok((None, after));
    }
    let text =
        text.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(text);
    let text = text.trim_start_matches([' ', '\t']);
    let at = text.find(['=', '\n']).unwrap_or(text.len());
    let (key, rest) = text.split_at(at);
    let key = key.trim_end();
    if key.is_empty()
        || !key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    {
        return Err("is no KEY=value".to_owned());
    }
    let Some(rest) = rest.strip_prefix('=') else {
        return Ok((Some((key.to_owned(), None)), rest));
    };
    let rest = rest.trim_start_matches([' ', '\t']);
    let (value, after) = match rest.chars().next() {
        Some(quote @ ('\'' | '"')) => {
            let (value, after) = quoted(&rest[1..], quote)?;
            let (tail, after) = after.split_once('\n').unwrap_or((after, ""));
            if !(tail.trim().is_empty() || tail.trim_start().starts_with('#')) {
                return Err("has something after the closing quote".to_owned());
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

/// The value up to the closing quote, and what follows it. In `"…"` a `\$` becomes the `$$` of interpolation.
fn quoted(text: &str, quote: char) -> Result<(String, &str), String> {
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
    Err("has a quote that is never closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_env_file_is_read_as_compose_reads_it() {
        let env = BTreeMap::from([
            ("USER".to_owned(), "ann".to_owned()),
            ("A".to_owned(), "env".to_owned()),
        ]);
        let text = "\u{feff}# comment\n\nA=1\nexport B = two words  # why\r\nC='$USER # \"x\" \\' y' # z\n\
                    D=\"a\\n${USER}\\t\\$USER \\\"q\\\"\n e\"\nE=$USER-${B}-${A}\nUSER\nNONE\nF=\nG=a#b\nH=#c\n\
                    dotted.key-1=x\nexported=1\nA=2";
        let found = parse_env_file(text, &env).expect("an env file");
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
            ]
        );
    }

    #[test]
    fn what_is_no_variable_is_refused_with_its_line() {
        for (text, line) in [
            ("=x", 1),
            ("A=1\na b=1", 2),
            ("A=1\n\nB='x", 3),
            ("A=\"x\ny\" z", 1),
            ("A='x\ny'\nB=$", 3),
            ("[section]", 1),
            ("A=${B:?no}", 1),
        ] {
            let error = parse_env_file(text, &BTreeMap::new()).expect_err(text);
            assert!(error.starts_with(&format!("line {line} ")), "{text}: {error}");
        }
    }
}
