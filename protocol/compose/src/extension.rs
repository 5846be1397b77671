//! `x-vc` of a service: settings beyond Compose.

use super::problem::Problem;
use super::target::absolute;
use super::walk::{At, Fields};
use super::{duration, ports};
use vc_protocol::spec::{
    DisconnectPolicy, MAX_KEPT_RUNS, OnPartition, Overlap, PlacementPolicy, ProxyProtocol, Publish,
    Reconcile, Schedule,
};

/// The values of `x-vc`.
pub(super) struct Extension {
    pub(super) on_partition: Option<OnPartition>,
    pub(super) schedule: Option<Schedule>,
    /// How many slots of a job run at a time; 0 for all.
    pub(super) max_concurrent: u32,
    pub(super) placement: PlacementPolicy,
    pub(super) disconnect: DisconnectPolicy,
    /// `None`: ports are not published.
    pub(super) publish: Option<Publish>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    /// Paths that are mounted from whichever node runs the service, with what is below them.
    pub(super) host_paths: Vec<String>,
}

impl Default for Extension {
    fn default() -> Self {
        Self {
            on_partition: None,
            schedule: None,
            max_concurrent: 0,
            placement: PlacementPolicy::Auto,
            disconnect: DisconnectPolicy::default(),
            publish: Some(Publish::Cluster),
            proxy_protocol: None,
            host_paths: Vec::new(),
        }
    }
}

/// Why a Compose file names no receivers of alerts, and what to do.
pub(super) const NOTIFY: &str = " is not supported, as only admins add receivers of alerts: use 'vc notify add NAME webhook URL --project PROJECT'";

/// Reads `x-vc`.
pub(super) fn read(at: &At<'_>) -> Extension {
    let mut fields = at.fields();
    let mut found = Extension::default();
    if let Some(at) = fields.take("on_partition") {
        match at.text() {
            None => {}
            Some("available") => found.on_partition = Some(OnPartition::Available),
            Some("exclusive") => found.on_partition = Some(OnPartition::Exclusive),
            Some(other) => {
                at.invalid(format!("'{other}' is not known: write exclusive or available"))
            }
        }
    }
    found.max_concurrent =
        fields.take("max_concurrent").and_then(|at| at.number()).unwrap_or_default();
    if let Some(at) = fields.take("placement") {
        match at.text() {
            None | Some("auto") => {}
            Some("pack") => found.placement = PlacementPolicy::Pack,
            Some("spread") => found.placement = PlacementPolicy::Spread,
            Some(other) => {
                at.invalid(format!("'{other}' is not known: write auto, pack or spread"))
            }
        }
    }
    if let Some(at) = fields.take("publish") {
        match at.text() {
            None | Some("cluster") => {}
            Some("node") => found.publish = Some(Publish::Node),
            Some("none") => found.publish = None,
            Some(other) => {
                at.invalid(format!("'{other}' is not known: write cluster, node or none"))
            }
        }
    }
    if let Some(at) = fields.take("proxy_protocol") {
        found.proxy_protocol = at.read(ports::proxy_protocol_of).flatten();
    }
    if let Some(at) = fields.take("host_paths") {
        let items = at.items();
        found.host_paths =
            items.iter().filter_map(|item| item.read(|text| absolute(text, None))).collect();
    }
    found.schedule = schedule(&mut fields);
    found.disconnect = disconnect(&mut fields);
    fields.finish(&[
        ("disconnect", " is not supported: write its options into x-vc"),
        ("notify", NOTIFY),
    ]);
    found
}

/// Reads `schedule` and the options beside it.
fn schedule(fields: &mut Fields<'_>) -> Option<Schedule> {
    let at = fields.take("schedule");
    let options = ["time_zone", "overlap", "catch_up", "timeout", "keep", "at_most_once"];
    let [zone, overlap, catch_up, timeout, keep, once] = options.map(|name| fields.take(name));
    let Some(at) = at else {
        for at in [zone, overlap, catch_up, timeout, keep, once].into_iter().flatten() {
            at.refuse("is for a service with x-vc.schedule");
        }
        return None;
    };
    let mut found = Schedule::new(at.text().unwrap_or_default());
    if let Some(zone) = zone.and_then(|at| at.text()) {
        zone.clone_into(&mut found.time_zone);
    }
    if let Some(overlap) = overlap.and_then(|at| {
        at.read(|text| {
            Overlap::ALL.into_iter().find(|it| it.as_str() == text).ok_or_else(|| {
                Problem::new(format!("'{text}' is not known: write forbid, allow or replace"))
            })
        })
    }) {
        found.overlap = overlap;
    }
    found.catch_up_ms = catch_up.and_then(|at| at.read(duration::parse)).unwrap_or_default();
    found.timeout_ms = timeout.and_then(|at| at.read(duration::parse)).unwrap_or_default();
    if let Some((at, number)) = keep.and_then(|at| at.number::<u32>().map(|number| (at, number))) {
        if !(1..=MAX_KEPT_RUNS).contains(&number) {
            at.refuse(format!("is not between 1 and {MAX_KEPT_RUNS}"));
        }
        found.keep = number;
    }
    if let Some(once) = once.and_then(|at| at.bool()) {
        found.at_most_once = once;
    }
    match found.timetable() {
        Ok(_) => Some(found),
        Err(error) => {
            at.invalid(error);
            None
        }
    }
}

/// Reads the options of Nomad's `disconnect` block.
fn disconnect(fields: &mut Fields<'_>) -> DisconnectPolicy {
    let mut found = DisconnectPolicy::default();
    if let Some(time) = fields.take("lost_after").and_then(|at| at.read(duration::parse)) {
        found.lost_after_ms = time;
    }
    if let Some(replace) = fields.take("replace").and_then(|at| at.bool()) {
        found.replace = replace;
    }
    found.stop_on_client_after_ms =
        fields.take("stop_on_client_after").and_then(|at| at.read(duration::parse));
    if let Some(rule) = fields.take("reconcile").and_then(|at| at.read(reconcile)) {
        found.reconcile = rule;
    }
    found
}

fn reconcile(text: &str) -> Result<Reconcile, Problem> {
    Reconcile::ALL.into_iter().find(|it| it.as_str() == text).ok_or_else(|| {
        let all = Reconcile::ALL.map(Reconcile::as_str).join(", ");
        Problem::new(format!("'{text}' is not known: write one of {all}"))
    })
}
