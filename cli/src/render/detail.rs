//! `vc inspect`: a service, what it is and where it runs.

use vc_protocol::control::ServiceDetail;

use super::{Style, instances, services};
use vc_client::text::one_line;

/// The service's row, its instances, and its spec as JSON.
pub(crate) fn inspect(detail: &ServiceDetail, style: Style) -> String {
    let row = services(std::slice::from_ref(&detail.row), style);
    let instances = instances(&detail.instances, style);
    let spec = serde_json::to_string_pretty(&detail.spec).unwrap_or_default();
    let before = match &detail.previous {
        None => "no version before".to_owned(),
        Some(previous) => format!("the version before ran {}", one_line(&previous.container.image)),
    };
    let by = one_line(&detail.deployed_by);
    format!("{row}\n{instances}\ndeployed by {by}; {before}\n{spec}\n")
}
