//! `vc volume cp`: copies files out of a snapshot.

use std::path::PathBuf;

use vc_protocol::control::Request;

use super::at::{self, At};
use super::backup::begin;
use crate::app::App;
use crate::cmd::cp::out;
use crate::error::Result;
use crate::render::note;

/// Arguments of `vc volume cp`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc volume cp shop/data:/app.conf .                 one file, as the newest snapshot has it
  vc volume cp data:/uploads ./uploads --at 1d       a directory, as it was a day ago
  vc volume cp data:/ ./all                          everything

No instance has to run. If TO is an existing directory, the copy keeps its name inside it; else TO is the name of the copy.")]
pub(super) struct Cp {
    /// VOLUME:PATH; the path is that in the volume
    #[arg(value_name = "FROM")]
    from: Source,
    /// A local path
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// The snapshot, by its id, a time or an age: the newest that is not later [default: the newest]
    #[arg(long, value_name = "ID|TIME")]
    at: Option<At>,
}

/// A file or directory of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    volume: String,
    path: String,
}

/// The text does not name one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' names nothing of a volume: write VOLUME:/PATH; files are copied out of volumes only"
)]
struct SourceError(String);

impl std::str::FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> std::result::Result<Self, SourceError> {
        let (volume, path) = text
            .split_once(':')
            .filter(|(volume, path)| !volume.is_empty() && !path.is_empty())
            .ok_or_else(|| SourceError(text.to_owned()))?;
        Ok(Self { volume: volume.to_owned(), path: path.to_owned() })
    }
}

impl Cp {
    pub(super) async fn run(self, app: &App) -> Result {
        let Self { from: Source { volume, path }, to, at } = self;
        // The whole volume has no name of its own.
        let contents = path.ends_with("/.") || path.trim_matches(['/', '.']).is_empty();
        app.in_session(async |session| {
            let row = at::find(session, &volume).await?;
            let (found, snapshot) = at::choose(app, session, &row, at).await?;
            note(&at::describe(&found));
            let (volume, node, path) = (row.volume, found.node, Some(path));
            begin(session, &Request::ExportVolume { volume, snapshot, node, path }).await?;
            out(session, to, contents).await
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_path_in_a_volume() {
        let source: Source = "shop/data:/a:b".parse().expect("a source");
        assert_eq!((source.volume.as_str(), source.path.as_str()), ("shop/data", "/a:b"));
        for text in ["", "data", ":/x", "data:"] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }
}
