//! The rules of how volumes are kept.

use super::{at, check, is_line, is_target, is_text, leads_to_secrets};
use crate::spec::{ServiceSpec, SpecError};
use crate::volume::{DriverOptions, Hooks, Keep, MAX_REPLICAS, Origin, VolumeSpec};

/// The most snapshots that each rule of [`Keep`] keeps.
pub const MAX_KEPT: u32 = 1000;
/// The longest path of a directory, and option of a mount, in bytes.
const MAX_TEXT: usize = 4096;
/// The file systems that every node can mount alike. A disk is of one host.
pub const FILE_SYSTEMS: [&str; 5] = ["nfs", "nfs4", "cifs", "smb3", "tmpfs"];
/// Options of mount(8) with which Docker does not mount a file system of the type, but a directory of the host.
const NO_MOUNT: [&str; 5] = ["bind", "rbind", "move", "remount", "loop"];

impl ServiceSpec {
    pub(super) fn validate_volumes(&self) -> Result<(), SpecError> {
        for (name, volume) in &self.volumes {
            let field = format!("volumes.{name}");
            check(self.volumes().any(|it| it == name), &field, "is mounted nowhere")?;
            volume.validate(&field)?;
        }
        Ok(())
    }
}

impl VolumeSpec {
    fn validate(&self, field: &str) -> Result<(), SpecError> {
        let short = self.lost_after_ms <= super::MAX_DURATION;
        check(short, &format!("{field}.lost_after_ms"), "is longer than a year")?;
        let Self { replicas, keep, hooks: Hooks { before, after }, driver, origin, .. } = self;
        let copies = replicas.is_none_or(|count| (1..=MAX_REPLICAS).contains(&count));
        check(copies, &format!("{field}.replicas"), "is not a number of copies from 1 to 7")?;
        let Keep { last, hourly, daily } = *keep;
        let few = [last, hourly, daily].into_iter().all(|it| it <= MAX_KEPT);
        check(few, &format!("{field}.keep"), "keeps more than 1000 snapshots by one rule")?;
        let words = before.iter().chain(after).all(|word| is_text(word));
        check(words, &format!("{field}.hooks"), super::HAS_NUL)?;
        let one = driver.is_none() || origin.is_none();
        check(one, &field, "is a network file system, which has no directory that it begins with")?;
        driver.as_ref().map_or(Ok(()), |driver| driver.validate(field))?;
        match origin {
            Some(Origin::Directory { path, .. }) => {
                let fits = is_target(path) && path.len() <= MAX_TEXT;
                check(fits, &at(field, path), "is not an absolute path of a host below /")?;
                let allowed = !leads_to_secrets(path);
                check(allowed, &at(field, path), "leads to the secrets of the node")
            }
            Some(Origin::Uploaded { path, .. }) => {
                let fits = is_line(path) && path.len() <= MAX_TEXT;
                check(fits, &at(field, path), "is not a path")
            }
            None => Ok(()),
        }
    }
}

impl DriverOptions {
    fn validate(&self, field: &str) -> Result<(), SpecError> {
        let Self { kind, device, options } = self;
        check(
            FILE_SYSTEMS.contains(&kind.as_str()),
            &at(field, kind),
            "is not nfs, nfs4, cifs, smb3 or tmpfs",
        )?;
        let remote = match kind.as_str() {
            "nfs" | "nfs4" => device.contains(':'),
            "cifs" | "smb3" => device.starts_with("//"),
            _ => true,
        };
        let fits = remote && is_line(device) && device.len() <= MAX_TEXT;
        check(
            fits,
            &at(field, device),
            "is not what such a file system mounts: ':/export', '//server/share'",
        )?;
        let text = options.is_empty() || is_line(options);
        check(text && options.len() <= MAX_TEXT, &field, "has options that are not one line")?;
        let mounts = options
            .split(',')
            .all(|option| !NO_MOUNT.contains(&option.split('=').next().unwrap_or_default().trim()));
        check(
            mounts,
            &at(field, options),
            "mounts a directory of the host instead of the file system",
        )
    }
}
