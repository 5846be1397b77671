//! Renders the result of `vc inspect`.

use vc_protocol::control::ServiceDetail;

use super::{Style, instances, services};
use vc_client::text::one_line;

/// Renders the row of the service, its instances, and its specification as JSON.
pub(crate) fn inspect(detail: &ServiceDetail, style: Style) -> String {
    let row = services(std::slice::from_ref(&detail.row), style);
    let instances = instances(&detail.instances, style);
    let spec = serde_json::to_string_pretty(&detail.spec).unwrap_or_default();
    let before = match &detail.previous {
        None => "no previous version".to_owned(),
        Some(previous) => {
            format!("the previous version ran {}", one_line(&previous.container.image))
        }
    };
    let by = one_line(&detail.deployed_by);
    format!("{row}\n{instances}\ndeployed by {by}; {before}\n{spec}\n")
}
