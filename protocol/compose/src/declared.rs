//! Declarations at the top of a file: what volumes, networks, secrets and configs have in common.

use std::collections::BTreeSet;

use super::environment;
use super::walk::{At, Fields};
use super::yaml::Node;
use vc_protocol::Name;

/// Reads the names that top-level `volumes` or `networks` declares. `drivers` are accepted and ignored; `driver` explains why
/// others are refused; `reasons` explain refused keys.
pub(super) fn declared(
    at: Option<&At<'_>>,
    drivers: &[&str],
    driver: &str,
    reasons: &[(&'static str, &str)],
) -> BTreeSet<Name> {
    let mut found = BTreeSet::new();
    for (key, at) in at.map(At::entries).unwrap_or_default() {
        match key.parse::<Name>() {
            Ok(name) => drop(found.insert(name)),
            Err(why) => at.invalid(why),
        }
        if *at.node == Node::Null {
            continue;
        }
        let mut fields = at.fields();
        check_renaming(key, &mut fields);
        if let Some(at) = fields.take("driver")
            && let Some(other) = at.text().filter(|it| !drivers.contains(it))
        {
            at.invalid(format!("'{other}' is not supported: {driver}"));
        }
        // Labels are checked and otherwise unused.
        fields.take("labels").map(|at| environment::labels(&at));
        for key in ["external", "internal"] {
            if let Some((_, why)) = reasons.iter().find(|(refused, _)| *refused == key) {
                refuse_unless_false(&mut fields, key, why);
            }
        }
        fields.finish(reasons);
    }
    found
}

/// Refuses a `name` that differs from the key of the declaration.
pub(super) fn check_renaming(key: &str, fields: &mut Fields<'_>) {
    if let Some(at) = fields.take("name")
        && at.text().is_some_and(|name| name != key)
    {
        at.refuse(format!("is not supported: within the project it is '{key}'"));
    }
}

/// Refuses the value of a key, unless it is `false`. `why` continues the path.
pub(super) fn refuse_unless_false(fields: &mut Fields<'_>, key: &'static str, why: &str) {
    if let Some(at) = fields.take(key).filter(|at| *at.node != Node::Text("false".to_owned())) {
        at.walk.refuse(&at.path, why);
    }
}
