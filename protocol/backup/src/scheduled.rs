//! The names of backups that are made on a schedule.

use vc_protocol::Millis;

/// How they begin.
pub const SCHEDULED_PREFIX: &str = "vc-";
/// How they end.
const SUFFIX: &str = ".vcb";
/// What is before the end of those that lack the data of a volume.
const INCOMPLETE: &str = "-incomplete";

/// Returns the name of a backup that was made on a schedule: `vc-1767225600000.vcb`.
pub fn scheduled_name(now: Millis) -> String {
    format!("{SCHEDULED_PREFIX}{now}{SUFFIX}")
}

/// Returns the name of a backup with another name that lacks the data of a volume: `vc-1767225600000-incomplete.vcb`. What is in it
/// cannot be read without the passphrase.
pub fn incomplete_name(name: &str) -> String {
    format!("{}{INCOMPLETE}{SUFFIX}", name.strip_suffix(SUFFIX).unwrap_or(name))
}

/// Returns whether a name is one as [`incomplete_name`] returns it.
pub fn is_incomplete(name: &str) -> bool {
    name.strip_suffix(SUFFIX).is_some_and(|stem| stem.ends_with(INCOMPLETE))
}

/// Returns whether a name is one as [`scheduled_name`] returns it, or that of such a backup that lacks data.
pub fn is_scheduled(name: &str) -> bool {
    let stem = name.strip_prefix(SCHEDULED_PREFIX).and_then(|it| it.strip_suffix(SUFFIX));
    let number = stem.map(|it| it.strip_suffix(INCOMPLETE).unwrap_or(it));
    let name = number.map(|it| format!("{SCHEDULED_PREFIX}{it}{SUFFIX}"));
    number.and_then(|it| it.parse().ok()).is_some_and(|taken| Some(scheduled_name(taken)) == name)
}

/// Returns whether a name is that of a backup, as people give it, too.
pub(crate) fn is_backup(name: &str) -> bool {
    name.ends_with(SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_people_give_are_not_those_of_a_schedule() {
        let complete = scheduled_name(1_767_225_600_000);
        let incomplete = incomplete_name(&complete);
        assert_eq!(incomplete, "vc-1767225600000-incomplete.vcb");
        assert!(is_scheduled(&complete) && is_scheduled(&incomplete));
        assert!(is_incomplete(&incomplete) && !is_incomplete(&complete));
        for name in ["cluster.vcb", "vc-before-upgrade.vcb", "vc-007.vcb", "vc-+7.vcb", "vc-7"] {
            assert!(!is_scheduled(name), "{name}");
        }
    }
}
