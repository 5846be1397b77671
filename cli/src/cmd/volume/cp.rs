//! `vc volume cp`: copies files out of a snapshot, and into a volume.

use std::path::{Path, PathBuf};

use vc_protocol::control::Request;
use vc_protocol::{ApiError, ErrorCode};

use super::at::{self, At};
use super::backup::begin;
use crate::app::App;
use crate::cmd::cp::{name_of, out};
use crate::cmd::upload::copy_in;
use crate::error::Result;
use crate::render::note;

/// Arguments of `vc volume cp`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc volume cp shop/data:/app.conf .                 one file, as the newest snapshot has it
  vc volume cp data:/uploads ./uploads --at 1d       a directory, as it was a day ago
  vc volume cp data:/ ./all                          everything
  vc volume cp ./app.conf shop/data:/                into the volume
  vc volume cp ./site/. shop/data:/www               the contents of ./site, to /www

No instance has to run. If TO is an existing directory, the copy keeps its name inside it; else TO is the name of the copy.
Into a volume, files are written where its instances write, also while they run: they see each file when it is whole. Files keep
their owners, by number, their modes and times; directories that are there stay as they are. An instance of the volume has to have run
once.")]
pub(super) struct Cp {
    /// VOLUME:PATH, the path in the volume, or a local path
    #[arg(value_name = "[VOLUME:]FROM")]
    from: Endpoint,
    /// A local path, or VOLUME:PATH
    #[arg(value_name = "[VOLUME:]TO")]
    to: Endpoint,
    /// The snapshot, by its id, a time or an age: the newest that is not later [default: the newest]
    #[arg(long, value_name = "ID|TIME")]
    at: Option<At>,
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Endpoint {
    Local(PathBuf),
    Volume { volume: String, path: String },
}

/// The text names neither a local path nor something of a volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' names nothing: write VOLUME:/PATH, or a local path")]
struct EndpointError(String);

impl std::str::FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> std::result::Result<Self, EndpointError> {
        // A local path with a colon is written ./a:b.
        let local = text.starts_with(['/', '.']);
        match text.split_once(':') {
            Some((volume, path)) if !local => match volume.is_empty() || path.is_empty() {
                true => Err(EndpointError(text.to_owned())),
                false => Ok(Self::Volume { volume: volume.to_owned(), path: path.to_owned() }),
            },
            _ if text.is_empty() => Err(EndpointError(text.to_owned())),
            _ => Ok(Self::Local(PathBuf::from(text))),
        }
    }
}

impl Cp {
    pub(super) async fn run(self, app: &App) -> Result {
        let invalid = |message, hint: &str| {
            Err(ApiError::new(ErrorCode::InvalidArgument, message).with_hint(hint).into())
        };
        match (self.from, self.to) {
            (Endpoint::Volume { volume, path }, Endpoint::Local(to)) => {
                copy_out(app, volume, path, to, self.at).await
            }
            (Endpoint::Local(from), Endpoint::Volume { volume, path }) => match self.at {
                None => into(app, &from, &volume, path).await,
                Some(_) => invalid("snapshots do not change", "leave --at out"),
            },
            _ => invalid("exactly one of FROM and TO must be in a volume", "write VOLUME:/PATH"),
        }
    }
}

async fn copy_out(app: &App, volume: String, path: String, to: PathBuf, at: Option<At>) -> Result {
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

async fn into(app: &App, from: &Path, volume: &str, path: String) -> Result {
    let name = name_of(from)?;
    let changes = app
        .in_session(async |session| {
            let volume = at::find(session, volume).await?.volume;
            let request = Request::CopyIntoVolume { volume, path, name };
            copy_in(app, session, from, &request).await
        })
        .await?;
    app.out.changes(&changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_in_a_volume_or_local() {
        let there: Endpoint = "shop/data:/a:b".parse().expect("an endpoint");
        let (volume, path) = ("shop/data".to_owned(), "/a:b".to_owned());
        assert_eq!(there, Endpoint::Volume { volume, path });
        for here in ["data", "./a:b", "/a:b", "../x"] {
            assert_eq!(here.parse(), Ok(Endpoint::Local(here.into())), "{here}");
        }
        for text in ["", ":x", "data:"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
