//! No options where a word does not begin as one: without a name, shells would begin it with what the options have in common.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::env::EnvCompleter;

/// What the scripts of `clap_complete` say the index of the word is in, if it is not the last.
const INDEX: &str = "_CLAP_COMPLETE_INDEX";

/// The completions of a shell that has a candidate in each line, without options where the word does not begin with a hyphen.
pub(super) struct NamesFirst<S> {
    pub(super) shell: S,
    /// The last line of the script, with `NAME` in place of that of the program; empty for none more than that of the shell.
    pub(super) end: &'static str,
}

impl<S: EnvCompleter> EnvCompleter for NamesFirst<S> {
    fn name(&self) -> &'static str {
        self.shell.name()
    }

    fn is(&self, name: &str) -> bool {
        self.shell.is(name)
    }

    fn write_registration(
        &self,
        variable: &str,
        name: &str,
        bin: &str,
        program: &str,
        to: &mut dyn Write,
    ) -> io::Result<()> {
        self.shell.write_registration(variable, name, bin, program, to)?;
        match self.end {
            "" => Ok(()),
            end => writeln!(to, "{}", end.replace("NAME", name)),
        }
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        to: &mut dyn Write,
    ) -> io::Result<()> {
        let index = std::env::var(INDEX).ok().and_then(|index| index.parse().ok());
        // Beyond the last: zsh leaves an empty word out.
        let word = words.get(index.unwrap_or(words.len().saturating_sub(1)));
        let is_option = word.is_some_and(|word| word.to_string_lossy().starts_with('-'));
        if is_option {
            return self.shell.write_complete(command, words, directory, to);
        }
        let mut lines = Vec::new();
        self.shell.write_complete(command, words, directory, &mut lines)?;
        for line in String::from_utf8_lossy(&lines).lines().filter(|line| !line.starts_with('-')) {
            writeln!(to, "{line}")?;
        }
        Ok(())
    }
}
