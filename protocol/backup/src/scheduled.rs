//! The names of backups that are made on a schedule.

use vc_protocol::Millis;

/// How they begin.
pub const SCHEDULED_PREFIX: &str = "vc-";
/// How they end.
const SUFFIX: &str = ".vcb";

/// Returns the name of a backup that was made on a schedule: `vc-1767225600000.vcb`.
pub fn scheduled_name(now: Millis) -> String {
    format!("{SCHEDULED_PREFIX}{now}{SUFFIX}")
}

/// Returns whether a name is one as [`scheduled_name`] returns it.
pub fn is_scheduled(name: &str) -> bool {
    let number = name.strip_prefix(SCHEDULED_PREFIX).and_then(|it| it.strip_suffix(SUFFIX));
    number.and_then(|it| it.parse().ok()).is_some_and(|taken| scheduled_name(taken) == name)
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
        assert!(is_scheduled(&scheduled_name(1_767_225_600_000)));
        for name in ["cluster.vcb", "vc-before-upgrade.vcb", "vc-007.vcb", "vc-+7.vcb", "vc-7"] {
            assert!(!is_scheduled(name), "{name}");
        }
    }
}
