//! Reads and writes `node.json`.

use std::io;
use std::path::{Path, PathBuf};

use super::values::Settings;

pub(crate) const FILE: &str = "node.json";

/// Why the settings cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The file cannot be read or replaced.
    #[error("cannot use {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file does not hold settings.
    #[error("{path} is damaged ({source}): correct it, or remove it and give the options again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The cause, with its line.
        source: serde_json::Error,
    },
}

/// Reads the settings of a data directory; `None` if none are remembered.
pub(crate) fn load(dir: &Path) -> Result<Option<Settings>, SettingsError> {
    let path = dir.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SettingsError::Io { path, source }),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| SettingsError::Damaged { path, source })
}

/// Remembers the settings. Writes nothing if the same are remembered.
pub(crate) fn save(dir: &Path, settings: &Settings) -> Result<(), SettingsError> {
    if load(dir)?.as_ref() == Some(settings) {
        return Ok(());
    }
    let path = dir.join(FILE);
    let written = serde_json::to_string_pretty(settings)
        .map_err(io::Error::from)
        .and_then(|text| vc_atomic_file::write(&path, format!("{text}\n").as_bytes(), 0o600));
    written.map_err(|source| SettingsError::Io { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All fields, and one of a later version.
    const GOLDEN: &str = r#"{
  "name": "attic",
  "listen": "127.0.0.1",
  "port": 5000,
  "advertise": "10.0.0.1",
  "runtime": "process",
  "docker_host": "unix:///run/docker.sock",
  "labels": {
    "disk": "ssd",
    "zone": "a"
  },
  "resources": {
    "gpu": 2
  },
  "cpu_millis": 1500,
  "memory_bytes": 2147483648,
  "volume_bandwidth": 52428800,
  "metrics": "0.0.0.0:9477",
  "backup_dir": "s3://backups/vc?endpoint=http://10.0.0.5:9000",
  "backup_credentials_file": "/root/s3-credentials",
  "backup_passphrase_file": "/root/passphrase",
  "backup_every_ms": 43200000,
  "backup_keep": 14,
  "backup_max_age_ms": 7776000000,
  "backup_volumes": true,
  "no_mdns": true,
  "no_console": false,
  "rack": {
    "row": 7
  }
}
"#;

    #[test]
    fn unknown_fields_are_kept_and_missing_ones_have_their_defaults() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE);
        assert_eq!(load(dir.path()).expect("nothing there"), None);
        std::fs::write(&path, GOLDEN).expect("written");
        let settings = load(dir.path()).expect("read").expect("there");
        assert_eq!((settings.cpus, settings.memory), (Some(1500), Some(2 << 30)));
        std::fs::remove_file(&path).expect("removed");
        save(dir.path(), &settings).expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), GOLDEN);

        std::fs::write(&path, "{}").expect("written");
        assert_eq!(load(dir.path()).expect("read"), Some(Settings::default()));
        std::fs::write(&path, "{").expect("written");
        let error = load(dir.path()).expect_err("damaged").to_string();
        assert!(error.contains("node.json is damaged"), "{error}");
    }
}
