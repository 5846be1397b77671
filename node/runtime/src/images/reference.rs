//! Image references as users write them: `nginx`, `shop/web:2`, `registry.example:5000/web@sha256:…`, or an image id.

use vc_protocol::image::Digest;

/// The longest reference, in bytes; Docker's limit is 255 for the name alone.
const MAX_REFERENCE: usize = 512;

/// A text that is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an image reference; write NAME[:TAG]")]
pub struct ReferenceError(String);

/// Returns the canonical form of a reference: with its tag, and without Docker Hub's own name.
///
/// # Errors
/// [`ReferenceError`] when the text has characters or parts that a reference cannot have.
pub fn canonical(text: &str) -> Result<String, ReferenceError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let invalid = text.is_empty()
        || text.len() > MAX_REFERENCE
        || !text.chars().all(allowed)
        // Docker's API takes references as part of a URL path.
        || text.split('/').any(|part| part.is_empty() || part.chars().all(|c| c == '.'));
    if invalid {
        return Err(ReferenceError(text.chars().take(MAX_REFERENCE).collect()));
    }
    if text.parse::<Digest>().is_ok() {
        return Ok(text.to_owned());
    }
    let hub = ["docker.io/library/", "docker.io/", "index.docker.io/library/"];
    let short = hub.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    Ok(tagged(short))
}

/// Returns a reference with its tag. Without one, Docker would pull *all* tags.
pub fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// Splits a reference into name and tag; `None` when it has a digest instead.
pub(super) fn name_and_tag(reference: &str) -> Option<(String, String)> {
    if reference.contains('@') || reference.parse::<Digest>().is_ok() {
        return None;
    }
    let tagged = tagged(reference);
    let (name, tag) = tagged.rsplit_once(':')?;
    Some((name.to_owned(), tag.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equivalent_references_have_one_canonical_form() {
        for (text, canon) in [
            ("nginx", "nginx:latest"),
            ("nginx:1", "nginx:1"),
            ("docker.io/library/nginx", "nginx:latest"),
            ("docker.io/shop/web:2", "shop/web:2"),
            ("localhost:5000/shop/web", "localhost:5000/shop/web:latest"),
            ("nginx@sha256:00", "nginx@sha256:00"),
        ] {
            assert_eq!(canonical(text), Ok(canon.to_owned()));
        }
        let id = Digest::of(b"").to_string();
        assert_eq!(canonical(&id), Ok(id));
        for bad in ["", "a b", "../containers/json", "a/../b", "/a", "a//b", "a?x=1", "a#b", "é"] {
            assert!(canonical(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_port_is_not_mistaken_for_a_tag() {
        let split = |text| name_and_tag(text).map(|(name, tag)| format!("{name} {tag}"));
        assert_eq!(split("localhost:5000/web").as_deref(), Some("localhost:5000/web latest"));
        assert_eq!(split("web:2").as_deref(), Some("web 2"));
        assert_eq!(split("web@sha256:00"), None);
    }
}
