//! `vc man`: writes the man pages, for packages.

use std::path::PathBuf;

use crate::error::{Result, SystemError};

/// Arguments of `vc man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc man ./man1")]
pub(crate) struct Args {
    /// Where to write a page for each command
    directory: PathBuf,
}

impl Args {
    /// Writes the pages of `command`.
    pub(crate) fn run(self, command: clap::Command) -> Result {
        let written = clap_mangen::generate_to(command, &self.directory);
        Ok(written.map_err(SystemError::doing("write the man pages"))?)
    }
}
