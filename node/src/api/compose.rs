//! Compose files of users who cannot read them themselves: browsers.

use std::collections::BTreeMap;
use std::io;

use vc_compose::Context;
use vc_protocol::Name;
use vc_protocol::control::ComposeProject;

/// What the text asks for. Errors: it is no Compose file; it refers to something beside itself.
pub(super) fn read(text: &str, project: Option<Name>) -> Result<ComposeProject, String> {
    let context = Context {
        project,
        directory: None,
        env: &BTreeMap::new(),
        read: &|_| Err(alone()),
        open: &|_| Err(alone()),
    };
    let read = vc_compose::parse(text, &context).map_err(|error| error.to_string())?;
    if let Some(build) = read.builds.first() {
        return Err(format!(
            "{} is to be built, which only a node with its sources can: deploy it with 'vc deploy --build'",
            build.service
        ));
    }
    Ok(ComposeProject {
        project: read.name,
        deployments: read.services,
        files: read.files,
        warnings: read.warnings,
    })
}

/// Why nothing beside the text can be read.
fn alone() -> io::Error {
    io::Error::other(
        "only the file itself is here: deploy with 'vc deploy', which reads what it refers to",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_deployments() {
        let text = "name: shop\nservices: {web: {image: 'web:1', ports: ['8080:80']}}";
        let read = read(text, None).expect("a project");
        assert_eq!(read.project.as_str(), "shop");
        assert_eq!(read.deployments[0].service.to_string(), "shop/web");
    }

    #[test]
    fn a_text_that_needs_more_than_itself_is_refused_with_what_to_do() {
        let needs_file = "name: shop\nservices: {web: {image: 'web:1', env_file: web.env}}";
        let builds = "name: shop\nservices: {web: {build: .}}";
        for text in [needs_file, builds] {
            let refused = read(text, None).expect_err("it refers to files");
            assert!(refused.contains("vc deploy"), "{refused}");
        }
    }
}
