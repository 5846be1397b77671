//! What the user of a token may do: a role, in some projects or all.

use std::collections::BTreeSet;

use vc_protocol::token::{UserLimits, UserRole};
use vc_protocol::{ApiError, ErrorCode, Name};

/// The rights that a user token gives.
#[derive(Debug, Clone)]
pub(crate) struct Rights {
    /// Name of the user, for errors.
    pub(crate) name: String,
    /// The token's role.
    pub(crate) role: UserRole,
    /// The token's projects, and whether a viewer may read logs.
    pub(crate) limits: UserLimits,
}

/// Why a user may not do something.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RightsError {
    #[error("'{name}' has the role {}, and this request needs {}", .role.as_str(), .needs.as_str())]
    Role { name: String, role: UserRole, needs: UserRole },
    #[error(
        "the token of '{name}' is limited to {projects}, and this request touches the project '{project}'"
    )]
    Project { name: String, projects: String, project: String },
    #[error(
        "the token of '{name}' is limited to {projects}, and this request touches the whole cluster"
    )]
    Cluster { name: String, projects: String },
    #[error("'{name}' is a viewer without the right to read logs")]
    Logs { name: String },
}

impl From<RightsError> for ApiError {
    fn from(error: RightsError) -> Self {
        let hint = match &error {
            RightsError::Role { needs, .. } => {
                format!("ask for a token with --role {}", needs.as_str())
            }
            RightsError::Project { project, .. } => {
                format!("ask an admin for a token with --project {project}")
            }
            RightsError::Cluster { .. } => "ask an admin for a token without --project".to_owned(),
            RightsError::Logs { .. } => "ask an admin for a token with --logs".to_owned(),
        };
        Self::new(ErrorCode::PermissionDenied, error.to_string()).with_hint(hint)
    }
}

impl Rights {
    /// Errors: the role is lower than this one.
    pub(crate) fn check_role(&self, needs: UserRole) -> Result<(), RightsError> {
        if self.role >= needs {
            return Ok(());
        }
        Err(RightsError::Role { name: self.name.clone(), role: self.role, needs })
    }

    /// Errors: the token is not for this project.
    pub(crate) fn check_project(&self, project: &Name) -> Result<(), RightsError> {
        self.check_project_text(project.as_str())
    }

    /// Does the same with a text, which need not be the name of a project.
    pub(crate) fn check_project_text(&self, project: &str) -> Result<(), RightsError> {
        match self.projects() {
            Some(projects) if !projects.iter().any(|it| it.as_str() == project) => {
                let (name, projects) = (self.name.clone(), list(projects));
                // Sent back as it came, within bounds.
                let project = project.chars().take(80).collect();
                Err(RightsError::Project { name, projects, project })
            }
            _ => Ok(()),
        }
    }

    /// Errors: the token is limited to projects.
    pub(crate) fn check_unlimited(&self) -> Result<(), RightsError> {
        match self.projects() {
            Some(projects) => {
                Err(RightsError::Cluster { name: self.name.clone(), projects: list(projects) })
            }
            None => Ok(()),
        }
    }

    /// Errors: the token does not let its user read logs.
    pub(crate) fn check_logs(&self) -> Result<(), RightsError> {
        if self.may_read_logs() {
            return Ok(());
        }
        Err(RightsError::Logs { name: self.name.clone() })
    }

    /// Returns whether the user may read what instances write.
    pub(crate) fn may_read_logs(&self) -> bool {
        self.limits.may_read_logs(self.role)
    }

    /// Returns whether the user may see the values of environment variables.
    pub(crate) fn may_see_values(&self) -> bool {
        self.role >= UserRole::Deployer
    }

    /// Returns the projects that the token is limited to; `None` for all.
    pub(crate) fn projects(&self) -> Option<&BTreeSet<Name>> {
        self.limits.projects.as_ref()
    }
}

/// Names the projects of a token.
fn list(projects: &BTreeSet<Name>) -> String {
    let names: Vec<&str> = projects.iter().map(Name::as_str).collect();
    match names.as_slice() {
        [] => "no project".to_owned(),
        [one] => format!("the project {one}"),
        many => format!("the projects {}", many.join(", ")),
    }
}
