//! Splits a command line into words like a POSIX shell.
//!
//! No shell runs the words, so an operator among them (`&&`, `|`, `>`) would become an argument of the program: it is
//! refused. Unlike in most splitters, `#` does not start a comment, which would drop the rest silently.

use super::problem::Problem;

const OPERATORS: [&str; 10] = ["&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1", "2>"];

/// Returns the words of `text`. Errors: an open quote, or an unquoted operator.
pub(super) fn split(text: &str) -> Result<Vec<String>, Problem> {
    let mut words = Vec::new();
    // The current word, and whether a part of it was quoted; `None` between words.
    let mut word: Option<(String, bool)> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_ascii_whitespace() {
            words.extend(word.take());
            continue;
        }
        if c == '\\' && chars.next_if_eq(&'\n').is_some() {
            continue;
        }
        let (current, quoted) = word.get_or_insert_default();
        match c {
            '\'' => {
                *quoted = true;
                loop {
                    match chars.next().ok_or("has a ' that is never closed")? {
                        '\'' => break,
                        c => current.push(c),
                    }
                }
            }
            '"' => {
                *quoted = true;
                loop {
                    match chars.next().ok_or("has a \" that is never closed")? {
                        '"' => break,
                        '\\' => match chars.next().ok_or("has a \" that is never closed")? {
                            '\n' => {}
                            c @ ('"' | '\\' | '$' | '`') => current.push(c),
                            c => current.extend(['\\', c]),
                        },
                        c => current.push(c),
                    }
                }
            }
            '\\' => {
                *quoted = true;
                current.push(chars.next().ok_or("ends with a \\")?);
            }
            c => current.push(c),
        }
    }
    words.extend(word);
    if let Some((operator, _)) =
        words.iter().find(|(word, quoted)| !quoted && OPERATORS.contains(&word.as_str()))
    {
        return Err(Problem::new(format!(
            "has '{operator}', but no shell runs it: write [\"sh\", \"-c\", \"…\"] or quote it"
        )));
    }
    Ok(words.into_iter().map(|(word, _)| word).collect())
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn text_is_split_like_a_shell() {
        for (text, expected) in [
            ("", &[] as &[&str]),
            ("  ", &[]),
            ("nginx -g 'daemon off;'", &["nginx", "-g", "daemon off;"]),
            ("a\tb\nc", &["a", "b", "c"]),
            (r#"sh -c "echo \"$HOME\" \n""#, &["sh", "-c", r#"echo "$HOME" \n"#]),
            (r"a\ b c\'d", &["a b", "c'd"]),
            ("'' \"\"", &["", ""]),
            ("x''y", &["xy"]),
            ("a \\\n  b", &["a", "b"]),
            ("--url=http://h/?a=1&b=2", &["--url=http://h/?a=1&b=2"]),
            ("redis-server --requirepass #1", &["redis-server", "--requirepass", "#1"]),
            ("find . -exec ls {} \\;", &["find", ".", "-exec", "ls", "{}", ";"]),
            ("expr 1 '>' 2", &["expr", "1", ">", "2"]),
        ] {
            assert_eq!(split(text).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn operators_and_open_quotes_are_refused() {
        for text in [
            "a 'b",
            "a \"b",
            "a \"b\\",
            "a\\",
            "npm i && npm start",
            "cat x | wc",
            "a > b",
            "a ; b",
        ] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
