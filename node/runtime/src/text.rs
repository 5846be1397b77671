//! Texts of others as reasons: one line of bounded length, without control characters.

/// How many lines tell of the end of an instance.
pub(crate) const LAST_LINES: u32 = 3;

/// The last lines that an instance wrote as one, of at most 300 characters: the earlier ones are left out before the last
/// one is cut. What would move a terminal's cursor or colour its text is left out.
pub(crate) fn on_one_line<'a>(lines: impl DoubleEndedIterator<Item = &'a str>) -> String {
    let mut all = String::new();
    let plain = lines.rev().map(|line| one_line(&without_controls(line)));
    for line in plain.filter(|line| !line.is_empty()).take(LAST_LINES as usize) {
        let longer = if all.is_empty() { line } else { format!("{line} | {all}") };
        if longer.chars().count() > 301 {
            break;
        }
        all = longer;
    }
    all
}

/// Text without control sequences (ECMA-48) and other control characters.
fn without_controls(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars().peekable();
    while let Some(char) = rest.next() {
        if char == '\u{1b}' && rest.next_if_eq(&'[').is_some() {
            // Parameters, up to the final character.
            for char in rest.by_ref() {
                if ('@'..='~').contains(&char) {
                    break;
                }
            }
        } else {
            plain.push(if char.is_control() { ' ' } else { char });
        }
    }
    plain
}

/// A message as one line of at most 300 characters, as reasons are.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(300) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_one_line_of_bounded_length() {
        let told = |lines: &[&str]| on_one_line(lines.iter().copied());
        assert_eq!(told(&[]), "");
        assert_eq!(told(&["1", "2", "", "3  x", "4"]), "2 | 3 x | 4");
        assert_eq!(told(&["\u{1b}[1;31mred\u{1b}[0m\u{7}alert\u{1b}"]), "red alert");
        let long = "é".repeat(1000);
        assert_eq!(told(&["before", &long]), format!("{}…", "é".repeat(300)));
        assert_eq!(told(&[&"a".repeat(290), "the cause is here"]), "the cause is here");
    }
}
