//! The user's local Docker engine: the source of pushed images, and where images are built.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use bollard::errors::Error;
use futures::stream::{Stream, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio_util::bytes::Bytes;
use tokio_util::io::{StreamReader, SyncIoBridge};
use vc_compose::Build;
use vc_image_archive::is_containerd_store;
use vc_image_archive::oci::{Platform, config_digest, stored_config_digest};
use vc_protocol::image::{Digest, DigestError};
use vc_protocol::{ApiError, ErrorCode};

/// The default address of Docker.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// The longest time that reading an image may take.
const TRANSFER: Duration = Duration::from_secs(4 * 3600);

/// How many bytes of an image wait between Docker and the search for its manifest.
const PIPE: usize = 256 * 1024;

/// The option that selects the Docker engine.
#[derive(Debug, clap::Args)]
pub(crate) struct DockerArgs {
    /// Address of your Docker [default: $DOCKER_HOST, else unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL")]
    docker_host: Option<String>,
}

/// An operation of the local Docker failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DockerError {
    /// The address is malformed, or names a socket that does not exist.
    #[error("cannot connect to Docker at {host}: {reason}")]
    Connect { host: String, reason: String },
    /// The text is not an image reference.
    #[error("'{0}' is not an image reference: write NAME[:TAG]")]
    Reference(String),
    /// Docker has no such image.
    #[error("Docker at {host} has no image {reference}")]
    NoImage { host: String, reference: String },
    /// Docker refused a request, or does not answer.
    #[error("Docker at {host}: {reason}")]
    Request { host: String, reason: String },
    /// Docker names the image in another way than by a SHA-256 digest.
    #[error("Docker has no usable id of the image: {0}")]
    Id(#[from] DigestError),
    /// The image could not be read to its end.
    #[error("Docker stopped sending the image: {0}")]
    Save(String),
    /// `docker build` could not be run.
    #[error("cannot run 'docker build': {0}")]
    Run(std::io::Error),
    /// `docker build` failed, and printed why.
    #[error("{service}: 'docker build' of {tag} failed ({status})")]
    Build { service: String, tag: String, status: std::process::ExitStatus },
}

impl From<DockerError> for ApiError {
    fn from(error: DockerError) -> Self {
        let (code, hint) = match &error {
            DockerError::Connect { .. } => {
                (ErrorCode::Unavailable, "start Docker, or select another with --docker-host")
            }
            DockerError::Reference(_) => (ErrorCode::InvalidArgument, ""),
            DockerError::NoImage { .. } => (ErrorCode::NotFound, "build or pull it first"),
            DockerError::Request { .. } | DockerError::Save(_) => (ErrorCode::Unavailable, ""),
            DockerError::Run(_) => (ErrorCode::Unavailable, "is the docker CLI installed?"),
            DockerError::Build { .. } | DockerError::Id(_) => (ErrorCode::FailedPrecondition, ""),
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

/// A Docker engine.
pub(crate) struct Docker {
    host: String,
    client: bollard::Docker,
}

/// An image in Docker.
pub(crate) struct Image {
    /// Its id: the digest of its configuration.
    pub(crate) id: Digest,
    /// What the engine calls it; the same in a classic image store.
    name: Digest,
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

    /// Returns a client for the engine.
    pub(crate) fn connect(&self) -> Result<Docker, DockerError> {
        let host = self.host();
        let client = bollard::Docker::connect_with_host(&host)
            .map_err(|error| DockerError::Connect { host: host.clone(), reason: reason(&error) })?;
        Ok(Docker { client: client.with_timeout(TRANSFER), host })
    }
}

impl Docker {
    /// Looks up the image of a reference.
    pub(crate) async fn find(&self, reference: &str) -> Result<Image, DockerError> {
        // It becomes part of a URL.
        if reference.is_empty() || reference.contains(['?', '#', '%', ' ']) {
            return Err(DockerError::Reference(reference.to_owned()));
        }
        let found = match self.client.inspect_image(reference).await {
            Ok(found) => found,
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => {
                let (host, reference) = (self.host.clone(), reference.to_owned());
                return Err(DockerError::NoImage { host, reference });
            }
            Err(error) => return Err(self.request_error(&error)),
        };
        let name: Digest = found.id.unwrap_or_default().parse()?;
        let size = found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        Ok(Image { id: self.identify(&name).await?, name, size })
    }

    /// Returns the id of the image that the engine calls `name`. One of a containerd image store is looked up in its files, as
    /// root, or exported up to its manifest.
    async fn identify(&self, name: &Digest) -> Result<Digest, DockerError> {
        let info = self.client.info().await.map_err(|error| self.request_error(&error))?;
        if !is_containerd_store(&info.driver_status.unwrap_or_default()) {
            return Ok(name.clone());
        }
        let text = |text: Option<String>| text.unwrap_or_default();
        let platform = Platform::of_engine(&text(info.os_type), &text(info.architecture));
        let root = PathBuf::from(text(info.docker_root_dir));
        if self.host.starts_with("unix://")
            && let Some(id) = stored_config_digest(&root, name, &platform)
        {
            return Ok(id);
        }
        let (client, name) = (self.client.clone(), name.clone());
        let read = async move {
            let archive = client.export_image(name.as_str());
            let archive =
                archive.map(|piece| piece.map_err(|error| io::Error::other(reason(&error))));
            let (reader, mut writer) = tokio::io::duplex(PIPE);
            let feed = async move {
                let mut archive = pin!(StreamReader::new(archive));
                // The reader stops when it has found the manifest.
                let _ = tokio::io::copy(&mut archive, &mut writer).await;
            };
            let mut reader = SyncIoBridge::new(reader);
            let find = tokio::task::spawn_blocking({
                let name = name.clone();
                move || config_digest(&mut reader, &name, &platform)
            });
            let ((), found) = tokio::join!(feed, find);
            found.map_err(io::Error::other).flatten()
        };
        read.await.map_err(|error| DockerError::Save(error.to_string()))
    }

    /// Returns the image as `docker save` writes it.
    pub(crate) fn save<'a>(
        &'a self,
        image: &'a Image,
    ) -> impl Stream<Item = Result<Bytes, DockerError>> + Unpin + 'a {
        let pieces = self.client.export_image(image.name.as_str()).boxed();
        pieces.map(|piece| piece.map_err(|error| DockerError::Save(reason(&error))))
    }

    fn request_error(&self, error: &Error) -> DockerError {
        DockerError::Request { host: self.host.clone(), reason: reason(error) }
    }

    /// Builds an image with `docker build`, which prints its progress on standard error.
    pub(crate) async fn build(&self, build: &Build) -> Result<(), DockerError> {
        let mut command = Command::new("docker");
        command.args(["--host", &self.host]).args(arguments(build));
        let inline = build.dockerfile_inline.as_deref();
        command.stdin(if inline.is_some() { Stdio::piped() } else { Stdio::null() });
        // Standard output is for results.
        command.stdout(std::io::stderr()).kill_on_drop(true);
        let mut child = command.spawn().map_err(DockerError::Run)?;
        if let (Some(mut stdin), Some(text)) = (child.stdin.take(), inline) {
            stdin.write_all(text.as_bytes()).await.map_err(DockerError::Run)?;
        }
        let status = child.wait().await.map_err(DockerError::Run)?;
        if !status.success() {
            let (service, tag) = (build.service.to_string(), build.tag.clone());
            return Err(DockerError::Build { service, tag, status });
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
        // Relative to the working directory for Docker, to the context for Compose.
        option("--file", format!("{}/{file}", build.context.trim_end_matches('/')));
    }
    for (name, value) in &build.args {
        option("--build-arg", format!("{name}={value}"));
    }
    if let Some(target) = &build.target {
        option("--target", target.clone());
    }
    for (name, context) in &build.contexts {
        option("--build-context", format!("{name}={context}"));
    }
    for (id, path) in &build.secrets {
        option("--secret", format!("id={id},src={path}"));
    }
    arguments.extend(build.options.iter().map(|(name, value)| format!("--{name}={value}")));
    arguments.push(build.context.clone());
    arguments
}

/// Returns the message of Docker, else the innermost cause.
fn reason(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        Error::SocketNotFoundError(_) => "no such socket".to_owned(),
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
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn build_options_match_those_of_docker_compose() {
        let mut build = Build {
            service: "shop/web".parse().expect("a service"),
            context: "/src/web".to_owned(),
            dockerfile: Some("docker/Dockerfile".to_owned()),
            dockerfile_inline: None,
            args: [("VERSION".to_owned(), "7".to_owned())].into(),
            target: Some("release".to_owned()),
            contexts: [("base".to_owned(), "/src/base".to_owned())].into(),
            secrets: [("npm".to_owned(), "/src/npmrc".to_owned())].into(),
            options: vec![("network", "host".to_owned())],
            tag: "shop-web".to_owned(),
        };
        let line = |build: &Build| arguments(build).join(" ");
        assert_eq!(
            line(&build),
            "build --tag shop-web --file /src/web/docker/Dockerfile --build-arg VERSION=7 --target release --build-context base=/src/base --secret id=npm,src=/src/npmrc --network=host /src/web"
        );
        build.dockerfile_inline = Some("FROM scratch".to_owned());
        (build.dockerfile, build.target) = (None, None);
        (build.contexts, build.options) = (BTreeMap::new(), Vec::new());
        build.secrets.clear();
        assert_eq!(line(&build), "build --tag shop-web --file - --build-arg VERSION=7 /src/web");
    }
}
