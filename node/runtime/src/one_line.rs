//! Output and error texts of other programs as one line of bounded length, without control characters.

/// The longest text, in characters; a longer one is cut and ends in `…`.
const MAX_CHARS: usize = 300;
/// How many lines of output are reported when an instance ends.
pub(crate) const MAX_LAST_LINES: u32 = 3;

/// Joins the last lines of an output, at most [`MAX_LAST_LINES`], with ` | `. Earlier lines are left out before the
/// last one is cut.
pub(crate) fn last_lines<'a>(lines: impl DoubleEndedIterator<Item = &'a str>) -> String {
    let mut all = String::new();
    let cleaned = lines.rev().map(|line| one_line(&without_controls(line)));
    for line in cleaned.filter(|line| !line.is_empty()).take(MAX_LAST_LINES as usize) {
        let longer = if all.is_empty() { line } else { format!("{line} | {all}") };
        if longer.chars().count() > MAX_CHARS + 1 {
            break;
        }
        all = longer;
    }
    all
}

/// Replaces control characters by spaces, and removes control sequences (ECMA-48).
fn without_controls(text: &str) -> String {
    let mut cleaned = String::new();
    let mut rest = text.chars().peekable();
    while let Some(char) = rest.next() {
        if char == '\u{1b}' && rest.next_if_eq(&'[').is_some() {
            // Skips the parameters up to the final character.
            for char in rest.by_ref() {
                if ('@'..='~').contains(&char) {
                    break;
                }
            }
        } else {
            cleaned.push(if char.is_control() { ' ' } else { char });
        }
    }
    cleaned
}

/// Collapses white space, and cuts the text at [`MAX_CHARS`] characters.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(MAX_CHARS) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_joined_into_one_of_bounded_length() {
        let joined = |lines: &[&str]| last_lines(lines.iter().copied());
        assert_eq!(joined(&[]), "");
        assert_eq!(joined(&["1", "2", "", "3  x", "4"]), "2 | 3 x | 4");
        assert_eq!(joined(&["\u{1b}[1;31mred\u{1b}[0m\u{7}alert\u{1b}"]), "red alert");
        let long = "é".repeat(1000);
        assert_eq!(joined(&["before", &long]), format!("{}…", "é".repeat(300)));
        assert_eq!(joined(&[&"a".repeat(290), "the cause is here"]), "the cause is here");
    }
}
