//! Mount targets inside of a container.

use std::collections::BTreeMap;

use super::problem::Problem;
use super::walk::At;

/// The mount targets of one service, with the path of the entry that uses each.
#[derive(Default)]
pub(super) struct Targets(BTreeMap<String, String>);

impl Targets {
    /// Reserves a target for the entry at `at`. Refuses one that is in use.
    pub(super) fn take(&mut self, at: &At<'_>, target: &str) {
        if let Some(other) = self.0.get(target) {
            at.refuse(format!("is mounted at {target}, as {other} is"));
        } else {
            self.0.insert(target.to_owned(), at.path.clone());
        }
    }
}

/// Returns `text` as a normalised absolute path; relative paths are below `base`.
pub(super) fn absolute(text: &str, base: Option<&str>) -> Result<String, Problem> {
    let full = match base {
        Some(base) if !text.starts_with('/') => format!("{base}/{text}"),
        _ => text.to_owned(),
    };
    if !full.starts_with('/') {
        return Err(Problem::new(format!("'{text}' is not an absolute path: begin it with /")));
    }
    if full.split('/').any(|part| part == "..") {
        return Err(Problem::new(format!("'{text}' climbs with ..: write the path itself")));
    }
    let parts: Vec<&str> =
        full.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() {
        return Err(Problem::new(format!("'{text}' is the root: name a path below it")));
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::absolute;

    #[test]
    fn paths_are_normalised() {
        for (text, base, expected) in [
            ("/data", None, "/data"),
            ("/etc/app//conf.d/./", None, "/etc/app/conf.d"),
            ("token", Some("/run/secrets"), "/run/secrets/token"),
            ("a/b", Some(""), "/a/b"),
            ("/elsewhere", Some("/run/secrets"), "/elsewhere"),
        ] {
            assert_eq!(absolute(text, base).as_deref(), Ok(expected), "{text}");
        }
        for (text, base) in [("data", None), ("/", None), ("/a/../b", None), ("..", Some("/run"))] {
            assert!(absolute(text, base).is_err(), "{text}");
        }
    }
}
