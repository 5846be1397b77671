//! `vc completions`: what a shell needs to complete our commands.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
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
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "vc", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}
