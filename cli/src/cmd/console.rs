//! `vc console`: opens the console in a browser.

use std::fs::DirBuilder;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Serialize;
use tokio::net::TcpListener;
use vc_console::{Extras, OneTimeLink};
use vc_protocol::control::Request;
use vc_protocol::token::Scope;
use vc_protocol::{ApiError, ErrorCode, Millis};

use crate::app::App;
use crate::credentials::Credential;
use crate::error::{Error, Result, Stop, SystemError};
use crate::files;
use crate::link;
use crate::render::{self, note, print};
use vc_client::expect_reply;

/// Arguments of `vc console`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc console                                 serve it on this computer and open it
  vc console --no-open                       print the link only
  vc console --listen 127.0.0.1:8080         on a fixed port
  vc console --url https://console.example/  print a link to a console hosted elsewhere
  vc --token phone.token console --url https://console.example/ --qr

The link contains your token, in the fragment, which browsers do not send to servers: anyone with the link has your
rights. For a phone, create a token with a lower role and a shorter lifetime:
  vc token create --user phone --role viewer --ttl 12h --browser > phone.token")]
pub(crate) struct Args {
    /// Loopback address to serve it on; port 0 is any free port
    #[arg(long, value_name = "ADDRESS", default_value_t = (Ipv4Addr::LOCALHOST, 0).into(), value_parser = loopback)]
    listen: SocketAddr,
    /// Serve nothing; print a link to the console hosted at this URL
    #[arg(long, value_name = "URL", value_parser = secure, conflicts_with_all = ["listen", "no_open"])]
    url: Option<String>,
    /// Do not open a browser
    #[arg(long)]
    no_open: bool,
    /// Also print the link as a QR code, for a phone; requires --url
    #[arg(long)]
    qr: bool,
}

/// The option's value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum OptionError {
    #[error("write an address with a port, as 127.0.0.1:8080")]
    AddressSyntax,
    #[error("browsers enable cryptography over plain HTTP on loopback only: listen on 127.0.0.1")]
    RemoteAddress,
    #[error(
        "write a URL as https://console.example/: browsers enable cryptography over HTTPS only"
    )]
    InsecureUrl,
}

/// Parses a loopback address with a port.
fn loopback(text: &str) -> std::result::Result<SocketAddr, OptionError> {
    let address: SocketAddr = text.parse().map_err(|_| OptionError::AddressSyntax)?;
    if address.ip().is_loopback() { Ok(address) } else { Err(OptionError::RemoteAddress) }
}

/// Parses a URL whose pages are a secure context (<https://www.w3.org/TR/secure-contexts/>).
fn secure(text: &str) -> std::result::Result<String, OptionError> {
    let (scheme, rest) = text.split_once("://").ok_or(OptionError::InsecureUrl)?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_local = ["127.0.0.1", "localhost", "[::1]"].iter().any(|it| [host, name].contains(it));
    let fits = !host.is_empty()
        && !host.contains('@')
        && (scheme == "https" || scheme == "http" && is_local);
    if !fits || text.contains(|c: char| c == '#' || c.is_whitespace() || c.is_control()) {
        return Err(OptionError::InsecureUrl);
    }
    Ok(if path.is_empty() { format!("{text}/") } else { text.to_owned() })
}

/// The JSON result.
#[derive(Serialize)]
struct Row<'a> {
    link: &'a str,
    expires: Millis,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        if self.qr && self.url.is_none() {
            return Err(Error::Usage("--qr requires --url: a phone cannot reach 127.0.0.1 here"));
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

    async fn serve(&self, app: &App, credential: &Credential) -> Result {
        let cannot = || SystemError::doing(format!("listen on {}", self.listen));
        let listener = TcpListener::bind(self.listen).await.map_err(|error| {
            ApiError::from(cannot()(error)).with_hint("choose another address with --listen")
        })?;
        let console = format!("http://{}/", listener.local_addr().map_err(cannot())?);
        let link = self.link(app, &console, credential).await?;
        self.show(app, &link, credential)?;
        let opens_browser = !self.no_open && app.out.is_live() && has_display();
        let one_time_link = match opens_browser.then(|| redirect(&console, link)) {
            Some(Ok((link, file))) => {
                tokio::spawn(open(file));
                Some(link)
            }
            Some(Err(error)) => {
                note(&format!("cannot open a browser: {error}: open the link yourself"));
                None
            }
            None => None,
        };
        tokio::select! {
            error = vc_console::serve(listener, Extras { one_time_link, ..Extras::default() }) => {
                Err(SystemError::doing("serve the console")(error).into())
            }
            result = tokio::signal::ctrl_c() => {
                result.map_err(SystemError::doing("wait for signals"))?;
                Err(Stop::Interrupted.into())
            }
        }
    }

    /// Returns the link, with the addresses of the nodes that are up.
    async fn link(&self, app: &App, console: &str, credential: &Credential) -> Result<String> {
        let nodes = expect_reply!(app.ask(Request::Nodes).await?, Nodes)?;
        Ok(link::to(console, credential, &nodes))
    }

    fn show(&self, app: &App, link: &str, credential: &Credential) -> Result {
        let expires = link::expires(credential);
        app.out.show(&Row { link, expires }, |row, _| format!("{}\n", row.link))?;
        if self.qr && !app.out.is_json() {
            let code = render::qr(link, app.out.style()).ok_or_else(|| {
                let message = "the link is too long for a QR code";
                let error = ApiError::new(ErrorCode::InvalidArgument, message);
                error.with_hint("use a token from 'vc token create --browser'")
            })?;
            print(&code)?;
        }
        let role = match credential.claims.scope {
            Scope::User(role) => role.as_str(),
            other => other.kind(),
        };
        note(&format!(
            "anyone with this link has the rights of '{}' ({role}) until {}",
            credential.claims.sub,
            render::minute(expires)
        ));
        Ok(())
    }
}

/// Returns whether this session has a graphical display.
fn has_display() -> bool {
    ["WAYLAND_DISPLAY", "DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|it| !it.is_empty()))
}

/// Writes a page that leads to the link, once, and that only this user can read: any user can read the browser's command line.
/// Returns the link for the server, which deletes the page when it was used, and the path of the page.
fn redirect(
    console: &str,
    link: String,
) -> std::result::Result<(OneTimeLink, PathBuf), SystemError> {
    let directory = files::state("").ok_or_else(|| {
        let error = io::Error::other("neither XDG_STATE_HOME nor HOME is set");
        SystemError::doing("find a directory for the page that opens the console")(error)
    })?;
    redirect_in(&directory, console, link)
}

fn redirect_in(
    directory: &Path,
    console: &str,
    link: String,
) -> std::result::Result<(OneTimeLink, PathBuf), SystemError> {
    let path = format!("open/{}", unguessable()?);
    let page = format!(
        "<!doctype html><meta charset=utf-8><meta name=referrer content=no-referrer>\
         <meta http-equiv=refresh content=\"0;url={console}{path}\"><title>Virtual Cluster</title>\
         <a href=\"{console}{path}\">Open the console</a>\n"
    );
    let write = || {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // With mode 0600.
        let mut file =
            tempfile::Builder::new().prefix("console-").suffix(".html").tempfile_in(directory)?;
        file.write_all(page.as_bytes())?;
        Ok(file.into_temp_path())
    };
    let file = write().map_err(SystemError::doing(format!("write to {}", directory.display())))?;
    let page = file.to_path_buf();
    Ok((OneTimeLink::new(path, link, file), page))
}

/// Opens a page in the default browser.
async fn open(page: PathBuf) {
    let mut command = tokio::process::Command::new("xdg-open");
    command.arg(page).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if !command.status().await.is_ok_and(|status| status.success()) {
        note("cannot open a browser: open the link yourself");
    }
}

/// Returns 128 random bits in hexadecimal.
fn unguessable() -> std::result::Result<String, SystemError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| SystemError::doing("read random numbers")(error.into()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_browser_gets_a_private_page_that_works_once() {
        use std::os::unix::fs::PermissionsExt as _;

        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let directory = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let link = "/#token=eyJ.secret".to_owned();
        let (once, page) =
            redirect_in(&directory.path().join("vc"), &format!("http://{address}/"), link)
                .expect("written");
        let mode = std::fs::metadata(&page).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&page).expect("read");
        let (_, url) = text.split_once("url=").expect("a redirect");
        let (url, _) = url.split_once('"').expect("its end");
        let path = url.strip_prefix(&format!("http://{address}")).expect("of this server");
        // What all users see says nothing.
        let seen = page.display().to_string();
        assert!(!seen.contains("eyJ") && !seen.contains(&path[6..]), "{seen}");
        assert!(!text.contains("eyJ"), "{text}");

        let extras = Extras { one_time_link: Some(once), ..Extras::default() };
        tokio::spawn(vc_console::serve(listener, extras));
        let get = async || {
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer");
            answer
        };
        let answer = get().await;
        // A program without the console's files answers 503.
        if !answer.contains(" 503 ") {
            assert!(answer.contains("/#token=eyJ.secret"), "{answer}");
            assert!(!page.exists(), "it is deleted");
            assert!(!get().await.contains("eyJ"));
        }
    }

    #[test]
    fn a_page_that_is_not_used_is_deleted_at_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let (once, page) =
            redirect_in(directory.path(), "http://127.0.0.1:1/", String::new()).expect("written");
        assert!(page.exists());
        drop(once);
        assert!(!page.exists());
    }

    #[test]
    fn only_secure_contexts_are_linked_to() {
        for (given, link) in [
            ("https://console.example", "https://console.example/"),
            ("https://console.example:8443/vc/", "https://console.example:8443/vc/"),
            ("https://console.example/index.html?x=1", "https://console.example/index.html?x=1"),
            ("http://127.0.0.1:4779", "http://127.0.0.1:4779/"),
            ("http://[::1]/", "http://[::1]/"),
            ("http://localhost:5173/", "http://localhost:5173/"),
        ] {
            assert_eq!(secure(given), Ok(link.to_owned()));
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
