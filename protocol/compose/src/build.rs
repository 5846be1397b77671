//! `build:` of a service: an image that the operator's Docker builds.

use std::collections::BTreeMap;

use super::environment::pairs;
use super::files::expand_home;
use super::model::Build;
use super::walk::At;
use super::yaml::Node;
use vc_protocol::ServiceKey;

/// Reads the short form (a context) or the long form. The image is tagged `image`, or `PROJECT-SERVICE:latest` without one.
pub(super) fn read(service: &ServiceKey, image: Option<&str>, at: &At<'_>) -> Build {
    let tag = image
        .map_or_else(|| format!("{}-{}:latest", service.project, service.service), str::to_owned);
    let mut build = Build {
        service: service.clone(),
        context: ".".to_owned(),
        dockerfile: None,
        dockerfile_inline: None,
        args: BTreeMap::new(),
        target: None,
        tag,
    };
    let context = if let Node::Map(_) = at.node {
        let mut fields = at.fields();
        let text = |at: At<'_>| at.text().map(str::to_owned);
        build.dockerfile = fields.take("dockerfile").and_then(text);
        if let Some(at) = fields.take("dockerfile_inline") {
            if build.dockerfile.is_some() {
                at.refuse("and dockerfile are both there: keep one");
            }
            build.dockerfile_inline = text(at);
        }
        for (key, value, at) in fields.take("args").map(|at| pairs(&at)).unwrap_or_default() {
            // Without a value anywhere, the Dockerfile's default applies.
            let value = value.or_else(|| at.walk.context.env.get(&key).cloned());
            build.args.extend(value.map(|value| (key, value)));
        }
        build.target = fields.take("target").and_then(text);
        let context = fields.take("context");
        fields.finish(&[(
            "platforms",
            " is not supported: the image is built for the node it is built on",
        )]);
        context
    } else {
        Some(at.clone())
    };
    if let Some(at) = context
        && let Some(text) = at.text()
    {
        match expand_home(text, at.walk) {
            Some(path) => build.context = path,
            None => at.invalid("the variable HOME is not set"),
        }
    }
    build
}
