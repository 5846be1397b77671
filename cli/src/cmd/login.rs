//! `vc login`: stores a token for later commands.

use std::io;

use vc_protocol::token::{MAX_TOKEN, Scope};

use crate::app::{App, now};
use crate::error::{Result, SystemError};
use crate::{credentials, files};

/// Arguments of `vc login`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc login admin.token
  vc login eyJ0eXAi…
  ssh alpha cat /var/lib/vc/admin.token | vc login -

The token is stored in $XDG_CONFIG_HOME/vc/token (or ~/.config/vc/token), readable by you only.")]
pub(crate) struct Args {
    /// User token, or a file that contains it; '-' reads it from standard input
    #[arg(value_name = "FILE|TOKEN")]
    user_token: String,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> Result {
        let text = match self.user_token.trim() {
            "-" => files::read_from(io::stdin().lock(), MAX_TOKEN)
                .map_err(SystemError::doing("read standard input"))?,
            given => credentials::read(given)?,
        };
        let credential = credentials::check(&text, now())?;
        let path = credentials::store(&credential)?;
        let claims = &credential.claims;
        let role = match claims.scope {
            Scope::User(role) => role.as_str(),
            other => other.kind(),
        };
        app.out.lines(&[format!(
            "{} ({role}) of cluster {}, stored in {}",
            claims.sub,
            claims.aud,
            path.display()
        )])
    }
}
