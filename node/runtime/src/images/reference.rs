//! How people name images: `nginx`, `shop/web:2`, `registry.example:5000/web@sha256:…`, or an id.

use super::manifest::Digest;

/// The longest reference, in bytes; Docker's limit is 255 for the name alone.
const MAX_REFERENCE: usize = 512;

/// A reference as it is compared and recorded: with its tag written out, without Docker Hub's own name. Errors: not one.
pub fn canonical(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let wrong = text.is_empty()
        || text.len() > MAX_REFERENCE
        || !text.chars().all(plain)
        // A reference becomes a path when Docker is asked.
        || text.split('/').any(|part| part.is_empty() || part.chars().all(|c| c == '.'));
    if wrong {
        return Err(format!("'{text}' is no image reference: write NAME[:TAG]"));
    }
    if text.parse::<Digest>().is_ok() {
        return Ok(text.to_owned());
    }
    let hub = ["docker.io/library/", "docker.io/", "index.docker.io/library/"];
    let short = hub.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    Ok(tagged(short))
}

/// A reference with its tag written out: Docker pulls *all* tags of one without.
pub fn tagged(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

/// Name and tag, where a reference has them rather than a digest.
pub(crate) fn name_and_tag(reference: &str) -> Option<(String, String)> {
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
    fn one_image_has_one_canonical_name() {
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
    fn a_tag_is_told_from_a_port() {
        let split = |text| name_and_tag(text).map(|(name, tag)| format!("{name} {tag}"));
        assert_eq!(split("localhost:5000/web").as_deref(), Some("localhost:5000/web latest"));
        assert_eq!(split("web:2").as_deref(), Some("web 2"));
        assert_eq!(split("web@sha256:00"), None);
    }
}
