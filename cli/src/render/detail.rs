//! Renders the result of `vc inspect`.

use vc_protocol::control::ServiceDetail;

use super::{Style, instances, services};
use vc_client::text::one_line;

/// Renders the row of the service, its instances, and its specification as JSON.
pub(crate) fn inspect(detail: &ServiceDetail, style: Style) -> String {
    let row = services(std::slice::from_ref(&detail.row), style);
    let instances = instances(&detail.instances, style);
    let spec = escape_c1(&serde_json::to_string_pretty(&detail.spec).unwrap_or_default());
    let before = match &detail.previous {
        None => "no earlier version to return to".to_owned(),
        Some(previous) => {
            format!("'vc rollback' returns to {}", one_line(&previous.container.image))
        }
    };
    let by = one_line(&detail.deployed_by);
    let effect = match detail.row.on_partition_effect.as_str() {
        "" => String::new(),
        effect => format!("{}\n", one_line(effect)),
    };
    format!("{row}\n{instances}\n{effect}last deployed by {by}; {before}\n{spec}\n")
}

/// Escapes the control characters that JSON allows in strings (C1: U+009B begins terminal sequences as ESC [ does).
fn escape_c1(json: &str) -> String {
    let escaped = |c: char| match c {
        '\u{7f}'..='\u{9f}' => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    if json.contains(|c| c > '~') { json.chars().map(escaped).collect() } else { json.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::escape_c1;

    #[test]
    fn control_characters_of_a_specification_are_escaped() {
        assert_eq!(escape_c1("{\n  \"a\": \"\u{9b}2Jü\"\n}"), "{\n  \"a\": \"\\u009b2Jü\"\n}");
    }
}
