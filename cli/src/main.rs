//! `vc`: controls a Virtual Cluster from any node.
//!
//! Each command is one file in [`cmd`]. `vc-client` finds a member and speaks the control protocol with it; [`render`]
//! turns its replies into tables or JSON. Any member will do.

mod app;
mod args;
mod cmd;
mod completion;
mod credentials;
mod docker;
mod error;
mod files;
mod hide_token;
mod known_peers;
mod link;
mod render;
mod terminal;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

use crate::app::App;
use crate::cmd::{Cli, Command};
use crate::error::{Error, Result, Stop, SystemError};

/// The exit code by which shells report SIGINT.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    if let Some(code) = completion::run() {
        return code;
    }
    let cli = Cli::parse();
    hide_token::hide(cli.global.token.as_deref());
    let app = App::new(cli.global);
    match run(&app, cli.command) {
        Ok(()) | Err(Error::Stop(Stop::OutputClosed)) => ExitCode::SUCCESS,
        Err(Error::Stop(Stop::Interrupted)) => ExitCode::from(INTERRUPTED),
        Err(Error::Stop(Stop::Exit(code))) => ExitCode::from(code),
        Err(Error::Usage(why)) => Cli::command().error(ErrorKind::ArgumentConflict, why).exit(),
        Err(Error::Failed(error)) => {
            app.out.error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(app: &App, command: Command) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SystemError::doing("start the runtime"))?;
    let result = runtime.block_on(cmd::run(app, command));
    // A pending DNS lookup must not delay the exit.
    runtime.shutdown_background();
    result
}
