//! The operator's own Docker: images that are pushed come from it, and builds happen in it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bollard::errors::Error;
use futures::stream::{Stream, StreamExt as _};
use libp2p::bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use vc_compose::Build;

/// Where Docker is when nobody says otherwise.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// How long reading a whole image may take.
const TRANSFER: Duration = Duration::from_secs(4 * 3600);

/// Which Docker.
#[derive(Debug, clap::Args)]
pub(crate) struct DockerArgs {
    /// Where your Docker answers [default: $DOCKER_HOST, else unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL")]
    docker_host: Option<String>,
}

/// A Docker engine.
pub(crate) struct Docker {
    host: String,
    client: bollard::Docker,
}

/// An image in Docker.
pub(crate) struct Image {
    /// Its id.
    pub(crate) id: String,
    /// Its size in bytes.
    pub(crate) size: u64,
}

impl DockerArgs {
    fn host(&self) -> String {
        let set = |host: &String| !host.is_empty();
        let given = self.docker_host.clone().filter(set);
        let host = given.or_else(|| std::env::var("DOCKER_HOST").ok().filter(set));
        host.unwrap_or_else(|| DEFAULT_HOST.to_owned())
    }

    /// A client. Errors: there can be no Docker there.
    pub(crate) fn connect(&self) -> anyhow::Result<Docker> {
        let host = self.host();
        let client = bollard::Docker::connect_with_host(&host)
            .map_err(|error| anyhow!("Docker does not answer at {host}: {}", reason(&error)))?;
        Ok(Docker { client: client.with_timeout(TRANSFER), host })
    }
}

impl Docker {
    /// The image that a reference names. Errors: there is none.
    pub(crate) async fn find(&self, reference: &str) -> anyhow::Result<Image> {
        // It becomes a path.
        if reference.is_empty() || reference.contains(['?', '#', '%', ' ']) {
            bail!("'{reference}' is no image reference: write NAME[:TAG]");
        }
        match self.client.inspect_image(reference).await {
            Ok(found) => Ok(Image {
                id: found.id.unwrap_or_default(),
                size: found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
            }),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Err(anyhow!(
                "your Docker at {} has no image {reference}: build it, or pull it, first",
                self.host
            )),
            Err(error) => Err(anyhow!("Docker at {}: {}", self.host, reason(&error))),
        }
    }

    /// An image as `docker save` writes it.
    pub(crate) fn save<'a>(
        &'a self,
        image: &'a Image,
    ) -> impl Stream<Item = anyhow::Result<Bytes>> + Unpin + 'a {
        let pieces = self.client.export_image(&image.id).boxed();
        pieces.map(|piece| piece.map_err(|error| anyhow!("Docker stopped: {}", reason(&error))))
    }

    /// Builds an image as `docker build` does, which says on standard error how it goes. Errors: it failed, and said why.
    pub(crate) async fn build(&self, build: &Build) -> anyhow::Result<()> {
        let mut command = Command::new("docker");
        command.args(["--host", &self.host]).args(arguments(build));
        let inline = build.dockerfile_inline.as_deref();
        command.stdin(if inline.is_some() { Stdio::piped() } else { Stdio::null() });
        // Standard output is for results.
        command.stdout(std::io::stderr()).kill_on_drop(true);
        let mut child =
            command.spawn().context("cannot run 'docker build': is the docker CLI installed?")?;
        if let (Some(mut stdin), Some(text)) = (child.stdin.take(), inline) {
            stdin.write_all(text.as_bytes()).await.context("'docker build' takes no Dockerfile")?;
        }
        let status = child.wait().await.context("cannot run 'docker build'")?;
        if !status.success() {
            bail!("{}: 'docker build' of {} failed ({status})", build.service, build.tag);
        }
        Ok(())
    }
}

fn arguments(build: &Build) -> Vec<String> {
    let mut arguments = vec!["build".to_owned(), "--tag".to_owned(), build.tag.clone()];
    let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    if build.dockerfile_inline.is_some() {
        option("--file", "-".to_owned());
    } else if let Some(file) = &build.dockerfile {
        // Docker takes it from where it runs, Compose from the context.
        option("--file", format!("{}/{file}", build.context.trim_end_matches('/')));
    }
    for (name, value) in &build.args {
        option("--build-arg", format!("{name}={value}"));
    }
    if let Some(target) = &build.target {
        option("--target", target.clone());
    }
    arguments.push(build.context.clone());
    arguments
}

/// What Docker said, else the innermost cause.
fn reason(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        Error::SocketNotFoundError(_) => {
            "there is no such socket: start Docker, or name another with --docker-host".to_owned()
        }
        error => {
            let mut cause: &dyn std::error::Error = error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            cause.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_asked_for_as_compose_does() {
        let mut build = Build {
            service: "shop/web".parse().expect("a service"),
            context: "/src/web".to_owned(),
            dockerfile: Some("docker/Dockerfile".to_owned()),
            dockerfile_inline: None,
            args: [("VERSION".to_owned(), "7".to_owned())].into(),
            target: Some("release".to_owned()),
            tag: "shop-web".to_owned(),
        };
        let line = |build: &Build| arguments(build).join(" ");
        assert_eq!(
            line(&build),
            "build --tag shop-web --file /src/web/docker/Dockerfile --build-arg VERSION=7 --target release /src/web"
        );
        build.dockerfile_inline = Some("FROM scratch".to_owned());
        (build.dockerfile, build.target) = (None, None);
        assert_eq!(line(&build), "build --tag shop-web --file - --build-arg VERSION=7 /src/web");
    }
}
