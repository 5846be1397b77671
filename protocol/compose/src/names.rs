//! Names of services, networks and volumes. Those of Compose may have capitals and dots; here they are parts of host names.

use vc_protocol::{IdError, Name};

/// Returns the name under which the cluster knows what a file calls `text`: in lower case, with `-` for each dot.
pub(super) fn parse(text: &str) -> Result<Name, IdError> {
    text.parse().or_else(|error| {
        let lower = text.to_ascii_lowercase().replace('.', "-");
        lower.trim_start_matches(['-', '_']).parse().map_err(|_: IdError| error)
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_of_compose_are_names_of_hosts() {
        for (text, name) in [
            ("web", "web"),
            ("a_b-1", "a_b-1"),
            ("Web", "web"),
            ("vhost.d", "vhost-d"),
            ("_x.Y", "x-y"),
        ] {
            assert_eq!(parse(text).expect(text).as_str(), name);
        }
        for text in ["", "a b", "ä", ".", &"x".repeat(64)] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
