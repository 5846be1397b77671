//! `vc completions`: prints shell completions.

use std::path::{Path, absolute};

use clap_complete::Shell;

use crate::completion;
use crate::error::Result;
use crate::render::print;

/// Arguments of `vc completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  source <(vc completions bash)
  vc completions zsh > ~/.zfunc/_vc
  vc completions fish > ~/.config/fish/completions/vc.fish

The script runs vc, which asks the cluster for the names of nodes, services, volumes and the like, for at most a second, with the
token of 'vc login' or VC_TOKEN, or the --token and --peer of the line.")]
pub(crate) struct Args {
    /// Which shell
    shell: Shell,
}

impl Args {
    /// Prints the script, which runs this program by the name that it was run by.
    pub(crate) fn run(self) -> Result {
        let name = std::env::args().next().unwrap_or_else(|| "vc".to_owned());
        let program = match absolute(&name) {
            Ok(path) if Path::new(&name).components().count() > 1 => {
                path.to_string_lossy().into_owned()
            }
            _ => name,
        };
        let mut script = Vec::new();
        completion::write_script(self.shell, &program, &mut script)?;
        print(&String::from_utf8_lossy(&script))
    }
}
