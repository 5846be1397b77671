//! How a wait is shown.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use vc_protocol::Slot;

use super::Standing;
use crate::app::App;
use crate::render::print;

/// A line that changes on a terminal, a line a change otherwise, nothing to programs.
pub(super) struct Display {
    bar: Option<ProgressBar>,
    quiet: bool,
    /// What was said last of each instance.
    said: BTreeMap<Slot, String>,
}

impl Display {
    pub(super) fn new(app: &App) -> Self {
        let bar = app.out.is_live().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, quiet: app.out.is_json(), said: BTreeMap::new() }
    }

    pub(super) fn show(&mut self, standing: &Standing) -> anyhow::Result<()> {
        let Standing { count, missing, said, .. } = standing;
        if let Some(bar) = &self.bar {
            bar.set_message(match missing.as_slice() {
                [] => count.clone(),
                missing => format!("{count}; {}", missing.join(", ")),
            });
        } else if !self.quiet {
            for (slot, text) in said {
                if self.said.get(slot) != Some(text) {
                    print(&format!("{text}\n"))?;
                }
            }
            self.said = said.iter().cloned().collect();
        }
        Ok(())
    }

    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
