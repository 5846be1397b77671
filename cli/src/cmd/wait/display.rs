//! Shows the progress of a wait.

use std::collections::BTreeSet;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use vc_protocol::Slot;

use super::progress::Progress;
use crate::app::App;
use crate::error::Result;
use crate::render::print;

/// Shows one changing line on a terminal, one line for each new state of an instance otherwise, and nothing with
/// `--output json`.
pub(super) struct Display {
    bar: Option<ProgressBar>,
    quiet: bool,
    /// The printed states of each instance, without their numbers: neither a percentage nor a back-off makes a state new, and
    /// reasons that alternate are printed once.
    printed: BTreeSet<(Slot, String)>,
}

impl Display {
    /// Starts the display.
    pub(super) fn new(app: &App) -> Self {
        let bar = app.out.is_live().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, quiet: app.out.is_json(), printed: BTreeSet::new() }
    }

    /// Shows the progress.
    pub(super) fn show(&mut self, progress: &Progress) -> Result {
        let Progress { count, missing, states, .. } = progress;
        if let Some(bar) = &self.bar {
            bar.set_message(match missing.as_slice() {
                [] => count.clone(),
                missing => format!("{count}; {}", missing.join(", ")),
            });
        } else if !self.quiet {
            for (slot, text) in states {
                let state: String = text.chars().filter(|it| !it.is_ascii_digit()).collect();
                if self.printed.insert((slot.clone(), state)) {
                    print(&format!("{text}\n"))?;
                }
            }
        }
        Ok(())
    }

    /// Removes the line from the terminal.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
