//! Namespaces that a container shares with its host: `pid`, `ipc`, `uts`, `userns_mode` and `cgroup`.

use super::walk::Fields;
use vc_protocol::spec::{CgroupNamespace, IpcNamespace, Namespaces};

/// Takes the namespaces from a service.
pub(super) fn take(service: &mut Fields<'_>) -> Namespaces {
    let mut is_host = |key| {
        let Some(at) = service.take(key) else { return false };
        match at.text() {
            Some("host") => true,
            Some(other) => {
                at.invalid(format!(
                    "'{other}' is not supported: instances share only those of their host; write host or leave it out"
                ));
                false
            }
            None => false,
        }
    };
    let [host_pid, host_uts, host_users] = ["pid", "uts", "userns_mode"].map(&mut is_host);
    let cgroup = service.take("cgroup").and_then(|at| match at.text()? {
        "host" => Some(CgroupNamespace::Host),
        "private" => Some(CgroupNamespace::Private),
        other => {
            at.invalid(format!("'{other}' is not known: write host or private"));
            None
        }
    });
    let ipc = service.take("ipc").and_then(|at| match at.text()? {
        "host" => Some(IpcNamespace::Host),
        "private" => Some(IpcNamespace::Private),
        "shareable" => Some(IpcNamespace::Shareable),
        "none" => Some(IpcNamespace::None),
        other => {
            at.invalid(format!(
                "'{other}' is not supported: two instances may be on two nodes; write host, private or shareable"
            ));
            None
        }
    });
    Namespaces { host_pid, host_uts, host_users, cgroup, ipc }
}
