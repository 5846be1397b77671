//! Declarations at the top of a file: what several kinds of them have in common.

use super::walk::{At, Fields};
use super::yaml::Node;

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

/// Takes `external`. Returns whether it is, and the name of the form that was written before there was `name`: `external: {name: …}`.
pub(super) fn external<'a>(fields: &mut Fields<'a>) -> (bool, Option<At<'a>>) {
    match fields.take("external") {
        Some(at) if matches!(at.node, Node::Map(_)) => {
            let mut fields = at.fields();
            let name = fields.take("name");
            fields.finish(&[]);
            (true, name)
        }
        Some(at) => (at.bool() == Some(true), None),
        None => (false, None),
    }
}
