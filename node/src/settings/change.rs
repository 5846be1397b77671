//! The difference between two settings.

use std::collections::BTreeMap;
use std::fmt;

use clap::ValueEnum as _;

use vc_protocol::in_words;

use super::values::{RoleChoice, RuntimeChoice, Setting, Settings};

/// A setting that changes. Displayed as `cpus: 4 -> 1.5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SettingChange {
    setting: Setting,
    /// The values; `None` for the default.
    from: Option<String>,
    to: Option<String>,
}

impl fmt::Display for SettingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.setting.to_possible_value();
        let name = name.as_ref().map_or("", |value| value.get_name());
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "unset".to_owned());
        write!(f, "{name}: {} -> {}", text(&self.from), text(&self.to))
    }
}

/// Returns a size as its option takes it.
fn size(bytes: u64) -> String {
    match bytes % (1 << 20) {
        0 => format!("{}m", bytes >> 20),
        _ => bytes.to_string(),
    }
}

impl Settings {
    /// Returns what changes from these settings to `new`.
    pub(crate) fn changes(&self, new: &Self) -> Vec<SettingChange> {
        let change = |&setting: &Setting| {
            let (from, to) = (self.text(setting), new.text(setting));
            (from != to).then_some(SettingChange { setting, from, to })
        };
        Setting::value_variants().iter().filter_map(change).collect()
    }

    /// Returns a setting as text; `None` for the default.
    fn text(&self, setting: Setting) -> Option<String> {
        match setting {
            Setting::Name => self.name.as_ref().map(ToString::to_string),
            Setting::Listen => self.listen.map(|it| it.to_string()),
            Setting::Port => self.port.map(|it| it.to_string()),
            Setting::Advertise => self.advertise.map(|it| it.to_string()),
            Setting::Role => self.role.map(|it| match it {
                RoleChoice::Server => "server".to_owned(),
                RoleChoice::Worker => "worker".to_owned(),
                RoleChoice::Witness => "witness".to_owned(),
            }),
            Setting::Runtime => self.runtime.map(|it| match it {
                RuntimeChoice::Docker => "docker".to_owned(),
                RuntimeChoice::Process => "process".to_owned(),
            }),
            Setting::DockerHost => self.docker_host.clone(),
            Setting::NetworkPool => self.network_pool.map(|it| it.to_string()),
            Setting::Label => {
                let labels: BTreeMap<_, _> = self.labels.iter().cloned().collect();
                let labels = labels.iter().map(|(key, value)| format!("{key}={value}"));
                Some(labels.collect::<Vec<_>>().join(" ")).filter(|text| !text.is_empty())
            }
            Setting::Resource => {
                let resources: BTreeMap<_, _> = self.resources.iter().cloned().collect();
                let resources = resources.iter().map(|(kind, count)| format!("{kind}={count}"));
                Some(resources.collect::<Vec<_>>().join(" ")).filter(|text| !text.is_empty())
            }
            Setting::Cpus => self.cpus.map(|millis| match millis % 1000 {
                0 => (millis / 1000).to_string(),
                rest => format!("{}.{rest:03}", millis / 1000).trim_end_matches('0').to_owned(),
            }),
            Setting::Memory => self.memory.map(size),
            Setting::VolumeBandwidth => self.volume_bandwidth.map(size),
            Setting::Metrics => self.metrics.map(|it| it.to_string()),
            Setting::BackupDir => self.backup_dir.as_ref().map(ToString::to_string),
            Setting::BackupCredentialsFile => {
                self.backup_credentials_file.as_ref().map(|it| it.display().to_string())
            }
            Setting::BackupPassphraseFile => {
                self.backup_passphrase_file.as_ref().map(|it| it.display().to_string())
            }
            Setting::BackupEvery => self.backup_every.map(in_words),
            Setting::BackupKeep => self.backup_keep.map(|it| it.to_string()),
            Setting::BackupMaxAge => self.backup_max_age.map(in_words),
            Setting::BackupVolumes => self.backup_volumes.then(|| "set".to_owned()),
            Setting::AllowNotifyCommands => self.allow_notify_commands.then(|| "set".to_owned()),
            Setting::NoRemoteUpgrade => self.no_remote_upgrade.then(|| "set".to_owned()),
            Setting::NoMdns => self.no_mdns.then(|| "set".to_owned()),
            Setting::NoConsole => self.no_console.then(|| "set".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_show_the_old_and_the_new_value() {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let old = Settings {
            labels: vec![label("zone", "a"), label("disk", "ssd")],
            cpus: Some(4000),
            memory: Some(4 << 30),
            volume_bandwidth: Some(50 << 20),
            no_mdns: true,
            ..Settings::default()
        };
        let new = Settings {
            labels: vec![label("disk", "ssd"), label("zone", "a")],
            port: Some(5000),
            cpus: Some(1500),
            memory: Some(1000),
            ..Settings::default()
        };
        let lines: Vec<String> = old.changes(&new).iter().map(ToString::to_string).collect();
        let expected = [
            "port: unset -> 5000",
            "cpus: 4 -> 1.5",
            "memory: 4096m -> 1000",
            "volume-bandwidth: 50m -> unset",
            "no-mdns: set -> unset",
        ];
        assert_eq!(lines, expected);
        assert_eq!(old.changes(&old), []);
    }
}
