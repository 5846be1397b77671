//! The runs that have failed once, in `seeds.txt`, and those that find planted bugs, in `planted.txt`: tests replay both.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::settings::Settings;

/// Returns the path of the file of these settings.
pub fn path_of(settings: &Settings) -> PathBuf {
    let file = if settings.plant.is_some() { "planted.txt" } else { "seeds.txt" };
    [env!("CARGO_MANIFEST_DIR"), file].iter().collect()
}

/// Returns the settings in a text of this form, without empty lines and what follows a `#`. Errors: the number of the line
/// that is malformed.
pub fn parse(text: &str) -> Result<Vec<Settings>, usize> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim());
    let lines = lines.enumerate().filter(|(_, line)| !line.is_empty());
    lines.map(|(number, line)| Settings::parse(line).map_err(|_| number + 1)).collect()
}

/// Appends failing settings with what went wrong.
pub fn append(path: &Path, settings: &Settings, message: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let first: String = message.lines().next().unwrap_or("").chars().take(140).collect();
    writeln!(file, "{settings} # {first}")
}
