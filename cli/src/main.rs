//! `vc`: drives a Virtual Cluster from any node.
//!
//! One command, one file in [`cmd`]. `vc-client` finds a member and speaks the control protocol with it; [`render`]
//! turns its answers into tables or JSON. Any member will do: none is special, so none is needed.

mod app;
mod args;
mod cmd;
mod credentials;
mod docker;
mod files;
mod known_peers;
mod link;
mod render;
mod terminal;
mod unpack;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use vc_client::text::one_line;

use crate::app::{App, Stop};
use crate::args::Cli;

/// As a shell reports a process that SIGINT ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let app = App::new(cli.global);
    match run(&app, cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Stop>() {
            Some(Stop::Interrupted) => ExitCode::from(INTERRUPTED),
            Some(Stop::OutputClosed) => ExitCode::SUCCESS,
            Some(Stop::Exit(code)) => ExitCode::from(*code),
            None => {
                // When stderr is gone too, the exit code still tells.
                let _ = writeln!(std::io::stderr(), "error: {}", one_line(&format!("{error:#}")));
                ExitCode::FAILURE
            }
        },
    }
}

fn run(app: &App, command: args::Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(cmd::run(app, command));
    // A name that is still being looked up must not hold up the exit.
    runtime.shutdown_background();
    result
}
