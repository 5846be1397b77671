//! Text from other nodes and programs, made safe to print on one line of a terminal.

/// Returns the text on one line: control characters and runs of white space become one space.
pub fn one_line(text: &str) -> String {
    let clean: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.contains("  ") {
        clean.split_whitespace().collect::<Vec<_>>().join(" ")
    } else {
        clean
    }
}

/// Returns the first `most` items, separated by commas, and the number of the rest: `a, b and 3 more`.
pub fn list(mut items: Vec<String>, most: usize) -> String {
    let more = items.len().saturating_sub(most);
    items.truncate(most);
    let text = items.join(", ");
    if more == 0 { text } else { format!("{text} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(one_line("a\x1b[31mb\r\n c\n"), "a [31mb c");
        assert_eq!(one_line("plain"), "plain");
    }

    #[test]
    fn long_lists_are_cut() {
        let items = |n: usize| (1..=n).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(list(items(3), 3), "1, 2, 3");
        assert_eq!(list(items(5), 3), "1, 2, 3 and 2 more");
    }
}
