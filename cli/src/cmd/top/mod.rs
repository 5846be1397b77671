//! `vc top`: watches nodes, services and instances on the terminal.
//!
//! [`model`] has the state and what keys do to it, [`draw`] shows it, [`feed`] asks the nodes; this file connects them.

mod draw;
mod feed;
mod model;
mod rows;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _, Write as _};
use std::pin::Pin;

use crossterm::event::{Event, EventStream, KeyEventKind};
use futures::StreamExt as _;
use ratatui::DefaultTerminal;
use tokio::sync::mpsc;
use vc_client::Session;
use vc_protocol::{ApiError, ErrorCode};

use self::model::{Effect, State};
use crate::app::App;
use crate::error::{Result, SystemError};
use crate::terminal::StopSignals;

/// Answers and lines of a log that wait to be shown.
const NEWS: usize = 256;

/// Arguments of `vc top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc top
  vc --peer 10.0.0.2 top                     as that node sees it

Keys: 1 2 3 nodes, services, instances; / filter; c m sort by CPU, memory; Enter and l log; e shell; ? help; q quit.
In scripts use 'vc stats', 'vc ps' and 'vc nodes'.")]
pub(crate) struct Args {}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() || app.out.is_json() {
            let error = ApiError::new(ErrorCode::InvalidArgument, "vc top needs a terminal");
            let hint = "in scripts use 'vc stats', 'vc ps' and 'vc nodes'";
            return Err(error.with_hint(hint).into());
        }
        // What is wrong with the token or the addresses is said before the screen is taken.
        let session = app.connect().await?;
        let mut screen = Screen::enter()?;
        watch(app, session, &mut screen).await
    }
}

/// Shows the cluster until the user quits.
async fn watch(app: &App, session: Session, screen: &mut Screen) -> Result {
    let (sender, mut news) = mpsc::channel(NEWS);
    let mut polling = std::pin::pin!(feed::poll(app, session, sender.clone()));
    let mut reading: Option<Pin<Box<dyn Future<Output = ()> + '_>>> = None;
    let mut signals = StopSignals::subscribe()?;
    let mut keys = EventStream::new();
    let mut state = State::new();
    loop {
        screen.draw(&state)?;
        let effect = tokio::select! {
            key = keys.next() => match key {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => state.handle(key),
                // A new size, for example, is drawn.
                Some(Ok(_)) => Effect::Nothing,
                Some(Err(error)) => {
                    return Err(SystemError::doing("read keys")(error).into());
                }
                // The terminal is closed.
                None => Effect::Quit,
            },
            Some(first) = news.recv() => {
                state.update(first);
                // A flood of lines is drawn once.
                while let Ok(more) = news.try_recv() {
                    state.update(more);
                }
                Effect::Nothing
            }
            () = &mut polling => Effect::Nothing,
            () = async { reading.as_mut().unwrap_or(&mut pending()).await }, if reading.is_some() => {
                reading = None;
                Effect::Nothing
            }
            stop = signals.receive() => return Err(stop.into()),
        };
        match effect {
            Effect::Nothing => {}
            Effect::Quit => return Ok(()),
            Effect::OpenLogs(service, replica) => {
                reading = Some(Box::pin(feed::read_logs(app, service, replica, sender.clone())));
            }
            Effect::CloseLogs => reading = None,
            Effect::Shell(service, replica) => {
                // Its thread reads no key while the shell runs.
                drop(keys);
                screen.leave()?;
                let ran = shell(app, &service, replica).await;
                screen.resume()?;
                ran?;
                keys = EventStream::new();
                // Without those that were meant for the shell.
                signals = StopSignals::subscribe()?;
            }
        }
    }
}

fn pending() -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(std::future::pending())
}

/// Runs a shell in an instance, in a process of its own that has the terminal meanwhile.
async fn shell(app: &App, service: &str, replica: u32) -> Result {
    let instance = format!("{service}.{replica}");
    let mut command = app.command()?;
    command.args(["exec", "-it", &instance, "--", "sh"]);
    let status = command.status().await.map_err(SystemError::doing("run vc exec"))?;
    if !status.success() {
        let ask = io::stderr().write_all(b"Press Enter to return to vc top. ");
        ask.map_err(SystemError::doing("write to the terminal"))?;
        let line = tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new()));
        // Whatever it is, it goes on.
        let _ = line.await;
    }
    Ok(())
}

/// The terminal in raw mode and on its alternate screen, until it is dropped, also by an error, a panic or a signal that
/// [`StopSignals`] receives.
struct Screen(DefaultTerminal);

impl Screen {
    fn enter() -> Result<Self> {
        Ok(Self(ratatui::try_init().map_err(SystemError::doing("set up the terminal"))?))
    }

    /// Gives the terminal to another program, until [`Self::resume`].
    fn leave(&self) -> Result {
        Ok(ratatui::try_restore().map_err(SystemError::doing("set up the terminal"))?)
    }

    fn resume(&mut self) -> Result {
        self.0 = ratatui::try_init().map_err(SystemError::doing("set up the terminal"))?;
        Ok(())
    }

    fn draw(&mut self, state: &State) -> Result {
        let drawn = self.0.draw(|frame| draw::draw(frame, state));
        drawn.map(drop).map_err(|error| SystemError::doing("write to the terminal")(error).into())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It fails when the terminal was closed: then there is nothing to restore.
        let _ = ratatui::try_restore();
    }
}
