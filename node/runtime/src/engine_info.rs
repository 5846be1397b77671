//! What kind of engine answers at the address of the Docker engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{SystemInfo, SystemVersion};
use tokio::sync::Mutex;
use vc_image_archive::is_containerd_store;
use vc_image_archive::oci::Platform;

use crate::raw_http;

/// How long an answer is used: an engine may be replaced while the node runs.
const TTL: Duration = Duration::from_secs(10);
/// The name of podman in its answer to `docker version`.
const PODMAN: &str = "Podman Engine";

/// podman 4.0 or later.
const PODMAN_INFO: &str = "/v4.0.0/libpod/info";

/// The properties of an engine that make a difference to the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EngineInfo {
    /// Images are named by the digest of a manifest or an index, not by that of their configuration.
    pub(crate) containerd_store: bool,
    pub(crate) podman: bool,
    /// It runs without root, in a network of its own.
    pub(crate) rootless: bool,
    /// The ids on the host that are root's in containers, with user namespaces (`userns-remap`).
    pub(crate) user_namespace: Option<(u32, u32)>,
    pub(crate) platform: Platform,
    /// It mounts a directory of a volume; others would mount all of it.
    pub(crate) subpaths: bool,
    /// It knows the interval of healthchecks in the start period; others leave it out.
    pub(crate) start_interval: bool,
    /// Where it keeps its data, on its host.
    pub(crate) data_root: PathBuf,
}

impl EngineInfo {
    fn of(info: &SystemInfo, version: &SystemVersion) -> Self {
        let security = info.security_options.as_deref().unwrap_or_default();
        let has = |name: &str| {
            security
                .iter()
                .any(|option| option.split(',').any(|it| it.trim_start_matches("name=") == name))
        };
        let components = version.components.as_deref().unwrap_or_default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let api = api_version(version.api_version.as_deref().unwrap_or_default());
        let podman = components.iter().any(|component| component.name == PODMAN);
        Self {
            containerd_store: is_containerd_store(
                info.driver_status.as_deref().unwrap_or_default(),
            ),
            podman,
            subpaths: !podman && api >= SUBPATHS,
            start_interval: !podman && api >= START_INTERVAL,
            rootless: has("rootless"),
            user_namespace: has("userns")
                .then(|| remapped_root(info.docker_root_dir.as_deref().unwrap_or_default()))
                .flatten(),
            platform: Platform::of_engine(&text(&info.os_type), &text(&info.architecture)),
            data_root: text(&info.docker_root_dir).into(),
        }
    }
}

/// The version of Docker's API with `VolumeOptions.Subpath`, of Docker 26.
const SUBPATHS: (u32, u32) = (1, 45);
/// That with `HealthConfig.StartInterval`, of Docker 25.
const START_INTERVAL: (u32, u32) = (1, 44);

/// Parses a version of Docker's API; the lowest if it is none.
fn api_version(text: &str) -> (u32, u32) {
    let parts = text.split_once('.');
    let version = parts.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    version.unwrap_or_default()
}

/// Reads the ids from the data root, which Docker names `UID.GID` when it remaps users.
fn remapped_root(data_root: &str) -> Option<(u32, u32)> {
    let (uid, gid) = data_root.trim_end_matches('/').rsplit('/').next()?.split_once('.')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// Answers what kind of engine there is, and remembers it for some seconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct EngineInfoCache(Arc<Mutex<Option<(Instant, EngineInfo)>>>);

impl EngineInfoCache {
    /// Returns the properties of the engine at `host`, to which `client` speaks.
    ///
    /// # Errors
    /// The engine does not answer, or not as Docker does.
    pub(crate) async fn get(&self, client: &Docker, host: &str) -> Result<EngineInfo, Error> {
        let mut known = self.0.lock().await;
        if let Some((asked, info)) = &*known
            && asked.elapsed() < TTL
        {
            return Ok(info.clone());
        }
        let mut info = EngineInfo::of(&client.info().await?, &client.version().await?);
        if info.podman {
            // Docker's API does not say it before podman 5.
            let own = raw_http::get(host, PODMAN_INFO).await?;
            info.rootless |= own["host"]["security"]["rootless"] == true;
        }
        *known = Some((Instant::now(), info.clone()));
        Ok(info)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

    use super::*;

    fn of(info: &str, version: &str) -> EngineInfo {
        let info = serde_json::from_str(info).expect("an answer to `docker info`");
        EngineInfo::of(
            &info,
            &serde_json::from_str(version).expect("an answer to `docker version`"),
        )
    }

    #[test]
    fn engines_are_recognized_by_their_answers() {
        let amd64 = Platform::of_engine("linux", "amd64");
        let docker = EngineInfo {
            containerd_store: false,
            podman: false,
            rootless: false,
            user_namespace: None,
            platform: amd64,
            subpaths: false,
            start_interval: false,
            data_root: "/var/lib/docker".into(),
        };
        let version = r#"{"Components": [{"Name": "Engine", "Version": "20.10.24"}]}"#;
        let classic = r#"{
            "Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]], "DockerRootDir": "/var/lib/docker",
            "SecurityOptions": ["name=seccomp,profile=default"], "OSType": "linux", "Architecture": "x86_64"
        }"#;
        assert_eq!(of(classic, version), docker);
        for (api, subpaths) in
            [("1.44", false), ("1.45", true), ("1.51", true), ("2.0", true), ("", false)]
        {
            let version = format!(r#"{{"ApiVersion": "{api}", "Components": []}}"#);
            assert_eq!(of(classic, &version).subpaths, subpaths, "{api}");
            assert_eq!(of(classic, &version).start_interval, subpaths || api == "1.44", "{api}");
        }
        let containerd = classic.replace(
            r#"["Backing Filesystem", "extfs"]"#,
            r#"["driver-type", "io.containerd.snapshotter.v1"]"#,
        );
        assert_eq!(
            of(&containerd, version),
            EngineInfo { containerd_store: true, ..docker.clone() }
        );
        let remapped = classic
            .replace(
                r#""name=seccomp,profile=default""#,
                r#""name=seccomp,profile=default", "name=userns""#,
            )
            .replace("/var/lib/docker", "/var/lib/docker/231072.165536");
        let expected = EngineInfo {
            user_namespace: Some((231_072, 165_536)),
            data_root: "/var/lib/docker/231072.165536".into(),
            ..docker.clone()
        };
        assert_eq!(of(&remapped, version), expected);
        let rootless = classic.replace("name=seccomp,profile=default", "name=rootless");
        assert_eq!(of(&rootless, version), EngineInfo { rootless: true, ..docker.clone() });
        let podman = r#"{"Components": [{"Name": "Podman Engine", "Version": "4.3.1"}]}"#;
        assert_eq!(of(classic, podman), EngineInfo { podman: true, ..docker });
    }
}
