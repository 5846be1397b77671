//! `vc console`: the cluster in a browser.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap::error::ErrorKind;
use serde::Serialize;
use tokio::net::TcpListener;
use vc_console::Admission;
use vc_protocol::Millis;
use vc_protocol::control::Request;
use vc_protocol::token::Scope;

use crate::app::{App, Stop};
use crate::args::Cli;
use crate::credentials::Credential;
use crate::link;
use crate::render::{self, note, print};
use vc_client::expect_reply;

/// Arguments of `vc console`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc console                                 serve it on this node, and open it
  vc console --no-open                       only print the link
  vc console --listen 127.0.0.1:8080         on a port that stays the same
  vc console --url https://console.example/  a link to a console that is hosted elsewhere
  vc --token phone.token console --url https://console.example/ --qr

The link has your token in it, in the part that browsers keep to themselves: whoever has the link has your rights. For a
phone make a token that can do less, for less time:
  vc token create --user phone --role viewer --ttl 12h --browser > phone.token")]
pub(crate) struct Args {
    /// Address of this node to serve it on; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value_t = (Ipv4Addr::LOCALHOST, 0).into(), value_parser = loopback)]
    listen: SocketAddr,
    /// Serve nothing: print a link to the console that is hosted here
    #[arg(long, value_name = "URL", value_parser = secure, conflicts_with_all = ["listen", "no_open"])]
    url: Option<String>,
    /// Do not open a browser
    #[arg(long)]
    no_open: bool,
    /// Show the link as a QR code too, for a phone; needs --url
    #[arg(long)]
    qr: bool,
}

/// Only this node's browsers shall come.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "write an address with a port, as 127.0.0.1:8080".to_owned())?;
    if !address.ip().is_loopback() {
        let why = "browsers give pages of other nodes no cryptography over plain HTTP: listen on 127.0.0.1";
        return Err(why.to_owned());
    }
    Ok(address)
}

/// An address whose pages browsers give what the console needs.
fn secure(text: &str) -> Result<String, String> {
    let bad =
        "write an address as https://console.example/: browsers give other pages no cryptography";
    let (scheme, rest) = text.split_once("://").ok_or(bad)?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_local = ["127.0.0.1", "localhost", "[::1]"].iter().any(|it| [host, name].contains(it));
    let fits = !host.is_empty()
        && !host.contains('@')
        && (scheme == "https" || scheme == "http" && is_local);
    if !fits || text.contains(|c: char| c == '#' || c.is_whitespace() || c.is_control()) {
        return Err(bad.to_owned());
    }
    Ok(if path.is_empty() { format!("{text}/") } else { text.to_owned() })
}

/// What programs get.
#[derive(Serialize)]
struct Row<'a> {
    link: &'a str,
    expires: Millis,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> anyhow::Result<()> {
        if self.qr && self.url.is_none() {
            let why = "a phone cannot reach this node's 127.0.0.1: name a console that is hosted elsewhere with --url";
            Cli::command().error(ErrorKind::MissingRequiredArgument, why).exit();
        }
        let credential = app.credential()?;
        match &self.url {
            Some(url) => {
                let link = self.link(app, url, &credential).await?;
                self.show(app, &link, &credential)
            }
            None => self.serve(app, &credential).await,
        }
    }

    async fn serve(&self, app: &App, credential: &Credential) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.listen).await.with_context(|| {
            format!("cannot listen on {}: choose another --listen", self.listen)
        })?;
        let console = format!("http://{}/", listener.local_addr()?);
        let link = self.link(app, &console, credential).await?;
        self.show(app, &link, credential)?;
        let wanted = !self.no_open && app.out.is_live() && has_display();
        let admission = if wanted {
            let path = format!("open/{}", unguessable()?);
            tokio::spawn(open(format!("{console}{path}")));
            Some(Admission::new(path, link))
        } else {
            None
        };
        tokio::select! {
            error = vc_console::serve(listener, admission) => {
                Err(error).context("cannot serve the console any more")
            }
            result = tokio::signal::ctrl_c() => {
                result?;
                Err(Stop::Interrupted.into())
            }
        }
    }

    /// The link, with what the cluster knows of itself now.
    async fn link(
        &self,
        app: &App,
        console: &str,
        credential: &Credential,
    ) -> anyhow::Result<String> {
        let nodes = expect_reply!(app.ask(Request::Nodes).await?, Nodes)?;
        Ok(link::to(console, credential, &nodes))
    }

    fn show(&self, app: &App, link: &str, credential: &Credential) -> anyhow::Result<()> {
        let expires = link::expires(credential);
        app.out.show(&Row { link, expires }, |row, _| format!("{}\n", row.link))?;
        if self.qr && !app.out.is_json() {
            let too_long =
                "the link is too long for a QR code: use a token from 'vc token create --browser'";
            print(&render::qr(link, app.out.style()).context(too_long)?)?;
        }
        let role = match credential.claims.scope {
            Scope::User(role) => role.as_str(),
            other => other.kind(),
        };
        note(&format!(
            "whoever has this link has the rights of '{}' ({role}) until {}",
            credential.claims.sub,
            render::minute(expires)
        ));
        Ok(())
    }
}

/// Whether there is a desktop to show a browser on.
fn has_display() -> bool {
    ["WAYLAND_DISPLAY", "DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|it| !it.is_empty()))
}

/// Opens the desktop's browser.
async fn open(url: String) {
    let mut command = tokio::process::Command::new("xdg-open");
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !command.status().await.is_ok_and(|status| status.success()) {
        note("no browser could be opened: open the link yourself");
    }
}

/// 128 random bits in hexadecimal.
fn unguessable() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("the system has no random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_browsers_trust_are_linked_to() {
        for (given, link) in [
            ("https://console.example", "https://console.example/"),
            ("https://console.example:8443/vc/", "https://console.example:8443/vc/"),
            ("https://console.example/index.html?x=1", "https://console.example/index.html?x=1"),
            ("http://127.0.0.1:4779", "http://127.0.0.1:4779/"),
            ("http://[::1]/", "http://[::1]/"),
            ("http://localhost:5173/", "http://localhost:5173/"),
        ] {
            assert_eq!(secure(given).as_deref(), Ok(link));
        }
        for bad in [
            "console.example",
            "https://",
            "https:///x",
            "http://console.example/",
            "http://localhost.example/",
            "https://console.example/#token=x",
            "https://console.example/ x",
            "ftp://console.example/",
            "http://127.0.0.1:80@console.example/",
        ] {
            assert!(secure(bad).is_err(), "{bad}");
        }
        assert!(loopback("[::1]:80").is_ok());
        assert!(loopback("0.0.0.0:80").is_err());
        assert!(loopback("127.0.0.1").is_err());
    }
}
