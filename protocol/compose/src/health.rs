//! `healthcheck:` of a service.

use super::duration;
use super::walk::At;
use super::yaml::Node;
use vc_protocol::spec::Healthcheck;

/// Reads a health check; `None` where it is refused.
pub(super) fn read(at: &At<'_>) -> Option<Healthcheck> {
    let mut fields = at.fields();
    let (test, disable) =
        (fields.take("test"), fields.take("disable").and_then(|at| at.bool()).unwrap_or_default());
    // Docker reads zero as "the image's value".
    let mut time =
        |key| fields.take(key).and_then(|at| at.read(duration::parse)).filter(|&ms| ms > 0);
    let [interval_ms, timeout_ms, start_period_ms, start_interval_ms] =
        ["interval", "timeout", "start_period", "start_interval"].map(&mut time);
    let retries = fields.take("retries").and_then(|at| at.number()).filter(|&n| n > 0);
    fields.finish(&[]);
    let test = match test {
        Some(test) if disable => {
            test.refuse("and disable are both there: keep one");
            return None;
        }
        Some(test) => check(&test),
        None if disable => vec!["NONE".to_owned()],
        None if [
            interval_ms,
            timeout_ms,
            start_period_ms,
            start_interval_ms,
            retries.map(u64::from),
        ]
        .iter()
        .all(Option::is_none) =>
        {
            return None;
        }
        // That of the image, at other times.
        None => Vec::new(),
    };
    Some(Healthcheck { test, interval_ms, timeout_ms, retries, start_period_ms, start_interval_ms })
}

/// Reads `test`: a shell command, or a list that begins with `CMD`, `CMD-SHELL` or `NONE`.
fn check(at: &At<'_>) -> Vec<String> {
    if let Node::Text(_) = at.node {
        return at
            .text()
            .map(|text| vec!["CMD-SHELL".to_owned(), text.to_owned()])
            .unwrap_or_default();
    }
    let test = at.texts();
    match (test.first().map(String::as_str), test.len()) {
        (Some("NONE"), 1) | (Some("CMD-SHELL"), 2) | (Some("CMD"), 2..) => {}
        _ => at
            .refuse("must begin with CMD and a program, or be [\"CMD-SHELL\", text] or [\"NONE\"]"),
    }
    test
}
