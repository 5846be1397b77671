//! Reads Compose files for clients that cannot read them themselves, such as the browser's console.

use std::collections::BTreeMap;
use std::io;

use vc_compose::Context;
use vc_protocol::control::ComposeProject;
use vc_protocol::{ApiError, ErrorCode, Name, ServiceKey};

/// Why the text of a Compose file could not be turned into deployments.
#[derive(Debug, thiserror::Error)]
pub(super) enum ComposeError {
    #[error("{0}")]
    Parse(String),
    #[error("{0} has a build section, and its sources are not on this node")]
    Build(ServiceKey),
}

impl From<ComposeError> for ApiError {
    fn from(error: ComposeError) -> Self {
        let hint = match error {
            ComposeError::Parse(_) => "",
            ComposeError::Build(_) => "deploy it with 'vc deploy --build'",
        };
        Self::new(ErrorCode::InvalidArgument, error.to_string()).with_hint(hint)
    }
}

/// Parses the text of a Compose file that refers to no other file.
pub(super) fn read(text: &str, project: Option<Name>) -> Result<ComposeProject, ComposeError> {
    let context = Context {
        project,
        node: None,
        directory: None,
        env: &BTreeMap::new(),
        read: &|_| Err(no_files()),
        open: &|_| Err(no_files()),
    };
    let read = vc_compose::parse(text, &context)
        .map_err(|error| ComposeError::Parse(error.to_string()))?;
    if let Some(build) = read.builds.first() {
        return Err(ComposeError::Build(build.service.clone()));
    }
    Ok(ComposeProject {
        project: read.name,
        deployments: read.services,
        files: read.files,
        warnings: read.warnings,
    })
}

/// The error of every file that the text refers to.
fn no_files() -> io::Error {
    io::Error::other(
        "only the Compose file itself was sent: deploy with 'vc deploy', which also reads what it refers to",
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
    fn a_text_that_refers_to_files_is_rejected_with_a_hint() {
        let needs_file = "name: shop\nservices: {web: {image: 'web:1', env_file: web.env}}";
        let builds = "name: shop\nservices: {web: {build: .}}";
        for text in [needs_file, builds] {
            let refused = ApiError::from(read(text, None).expect_err("it refers to files"));
            assert!(refused.to_string().contains("vc deploy"), "{refused}");
        }
    }
}
