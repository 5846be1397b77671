//! Zsh: the script of `clap_complete`, which also completes where it is run as a function that zsh has loaded.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::env::{self, EnvCompleter};

/// Completions of zsh.
pub(super) struct Zsh;

impl EnvCompleter for Zsh {
    fn name(&self) -> &'static str {
        env::Zsh.name()
    }

    fn is(&self, name: &str) -> bool {
        env::Zsh.is(name)
    }

    fn write_registration(
        &self,
        variable: &str,
        name: &str,
        bin: &str,
        program: &str,
        to: &mut dyn Write,
    ) -> io::Result<()> {
        env::Zsh.write_registration(variable, name, bin, program, to)?;
        // As a file `_vc` in $fpath it is the body of the function by which zsh asks the first time.
        let function = format!("_{name}");
        writeln!(to, "[ \"${{funcstack[1]}}\" != {function} ] || _clap_dynamic_completer_{name}")
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        to: &mut dyn Write,
    ) -> io::Result<()> {
        env::Zsh.write_complete(command, words, directory, to)
    }
}
