//! `vc completions`: prints shell completions.

use clap_complete::Shell;

use crate::error::Result;
use crate::render::print;

/// Arguments of `vc completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  source <(vc completions bash)
  vc completions zsh > ~/.zfunc/_vc
  vc completions fish > ~/.config/fish/completions/vc.fish")]
pub(crate) struct Args {
    /// Which shell
    shell: Shell,
}

impl Args {
    /// Prints the completions of `command`.
    pub(crate) fn run(self, mut command: clap::Command) -> Result {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "vc", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}
