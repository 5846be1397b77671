//! Bash: that of `clap_complete` does not know that bash splits words at colons and equals signs, which are in names of images, in
//! `--node=NAME` and in `vc cp web:/file`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::engine;
use clap_complete::env::EnvCompleter;

/// The script, with `VARIABLE` and `PROGRAM` in place of these.
const SCRIPT: &str = include_str!("bash.sh");

/// Completions of bash.
pub(super) struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        variable: &str,
        _name: &str,
        _bin: &str,
        program: &str,
        to: &mut dyn Write,
    ) -> io::Result<()> {
        let program = shlex::try_quote(program).map_err(io::Error::other)?;
        let script = SCRIPT.replace("VARIABLE", variable).replace("PROGRAM", &program);
        to.write_all(script.as_bytes())
    }

    /// The words end at the cursor. Prints a candidate a line.
    fn write_complete(
        &self,
        command: &mut clap::Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        to: &mut dyn Write,
    ) -> io::Result<()> {
        let last = words.len().saturating_sub(1);
        for candidate in engine::complete(command, words, last, directory)? {
            let value = candidate.get_value().to_string_lossy();
            if !value.contains('\n') {
                writeln!(to, "{value}")?;
            }
        }
        Ok(())
    }
}
