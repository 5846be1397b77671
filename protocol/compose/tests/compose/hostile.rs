//! Hostile input: sizes, nesting, garbage.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use vc_compose::ComposeError;

use crate::{fixtures, parse, service};

#[test]
fn files_over_the_limits_are_refused() {
    let large = " ".repeat(vc_compose::MAX_FILE_BYTES + 1);
    assert_eq!(parse(&large), Err(ComposeError::TooLarge(large.len())));
    let many: String = (0..1001).map(|i| format!("  s{i}: {{image: i}}\n")).collect();
    let error = parse(&format!("services:\n{many}")).unwrap_err().to_string();
    assert_eq!(error, "services has 1001 services, more than 1000");
    let error = service(&format!("command: [\"{}\"]", "x".repeat(300_000))).unwrap_err();
    assert!(
        error.starts_with("services.s has 300") && error.ends_with("more than 262144"),
        "{error}"
    );
    let wrong: String = (0..900).map(|i| format!("  s{i}: {{image: i, ttty: 1}}\n")).collect();
    let error = parse(&format!("services:\n{wrong}")).unwrap_err().to_string();
    assert!(error.ends_with("; and 836 more"), "{error}");
    let error = service(&format!("? {}\n: 1", "x".repeat(100_000))).unwrap_err();
    assert!(error.len() < 1000, "{}", error.len());
    // A chain of all the services that a file may have is no circle.
    let chain: String =
        (1..1000).map(|i| format!("  s{i}: {{image: i, depends_on: [s{}]}}\n", i - 1)).collect();
    assert_eq!(
        parse(&format!("services:\n  s0: {{image: i}}\n{chain}")).unwrap().services.len(),
        1000
    );
}

#[test]
fn control_characters_in_keys_are_refused() {
    for part in ["environment", "labels"] {
        for key in ["a\\nb", "a\\e[2J", "a\\x9b2J"] {
            for lines in [format!("{part}: {{\"{key}\": c}}"), format!("{part}: [\"{key}=c\"]")] {
                let refused = service(&lines).unwrap_err();
                assert!(refused.contains("has control characters in its key"), "{refused}");
            }
        }
    }
}

/// Any text gives a project or a one-line error.
fn answers(text: &str) {
    if let Err(error) = parse(text) {
        let line = error.to_string();
        assert!(!line.is_empty() && !line.contains(['\n', '\r']), "{text:?}: {line:?}");
    }
}

/// Returns fragments of Compose files in random order.
fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "services",
        "image",
        "ports",
        "deploy",
        "replicas",
        "environment",
        "command",
        "healthcheck",
        "depends_on",
        "x-vc",
        "volumes",
        "secrets",
        "networks",
        "build",
        "expose",
        "tmpfs",
        "profiles",
        "extra_hosts",
        "devices",
        "ulimits",
        "type: bind",
        "source: a.conf",
        "target: /a",
        "./a.conf:/a:ro",
        "data:/a",
        ": ",
        ":\n",
        "- ",
        "\n",
        "  ",
        "    ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&a ",
        "*a",
        "<<: *a\n",
        "!!str ",
        "!x ",
        "'",
        "\"",
        "|",
        ">",
        "\\",
        "#",
        "%",
        "@",
        "?",
        "~",
        "null",
        "true",
        "80:80",
        "1-9:1-9",
        "1.5",
        "-1",
        "10s",
        "$",
        "${",
        "}",
        "$$",
        "${A:-",
        "---\n",
        "...\n",
        "\t",
        "\r\n",
        "\u{feff}",
        "\u{85}",
        "\u{2028}",
        "é",
        "=",
        "==",
        "node.name == a",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..60)
        .prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        answers(&text);
    }

    #[test]
    fn no_jumble_of_yaml_makes_it_panic(text in pieces()) {
        answers(&text);
        let indented = text.replace('\n', "\n    ");
        answers(&format!("services:\n  s:\n    image: i\n    {indented}\n"));
        let _ = vc_compose::parse_env_file(text.as_bytes(), &BTreeMap::new());
    }

    #[test]
    fn no_damage_to_a_good_file_makes_it_panic(at in 0.0..1.0, length in 0usize..40, filler in pieces()) {
        let text = fs::read_to_string(fixtures().join("web-api-redis.yaml")).unwrap();
        let chars: Vec<char> = text.chars().collect();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let at = (at * chars.len() as f64) as usize;
        let tail = chars.iter().skip(at + length);
        answers(&chars[..at].iter().copied().chain(filler.chars()).chain(tail.copied()).collect::<String>());
    }
}
