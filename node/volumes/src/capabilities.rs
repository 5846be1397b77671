//! What the rsync of a receiver can do, in the letters that it gives the program that it starts at the other end.

/// The most letters.
const MAX: usize = 64;

/// The letters after `-e` in rsync's short options (`compat.c`), such as `.LsfxCIvu`. Anything else that the other node sends is
/// refused, so it cannot add options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capabilities(String);

impl Capabilities {
    /// Checks letters that the other node sends.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let letters = std::str::from_utf8(bytes).ok()?.strip_prefix('.')?;
        let valid = letters.len() < MAX && letters.bytes().all(|byte| byte.is_ascii_alphabetic());
        valid.then(|| Self(format!(".{letters}")))
    }

    /// Finds the letters in the arguments of the remote program, as rsync gives them to `--rsh`.
    pub(crate) fn of_arguments<'a>(arguments: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut short = arguments.filter(|it| it.starts_with('-') && !it.starts_with("--"));
        let letters = short.find_map(|option| Some(option.split_once('e')?.1.to_owned()))?;
        Self::parse(letters.as_bytes())
    }

    /// The letters.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_found_in_the_arguments_and_nothing_else_is_accepted() {
        let arguments = "peer rsync --server --sender -lHogDtpAXrSe.iLsfxCIvu --numeric-ids . .";
        let found = Capabilities::of_arguments(arguments.split(' ')).expect("there");
        assert_eq!(found.as_str(), ".iLsfxCIvu");
        for bad in ["", "iLs", ".iLs --rsh=sh", ".i\n", ".i/", ".é"] {
            assert_eq!(Capabilities::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Capabilities::parse(format!(".{}", "a".repeat(100)).as_bytes()), None);
        assert!(Capabilities::parse(b".").is_some());
    }
}
