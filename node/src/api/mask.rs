//! Masks what a user may not see.

use vc_engine::remove_output;
use vc_protocol::control::{EventRow, InstanceRow, RunRow, ServiceRow, StatusReport, VersionRow};

use crate::auth::Rights;

/// Masks instances: without logs, what they wrote; without values, the digests of container specs, which are over the values
/// too, so that a guess of a short one could be confirmed.
pub(super) fn instances(rights: &Rights, rows: &mut [InstanceRow]) {
    for row in rows {
        if !rights.may_see_values() {
            row.digest.clear();
        }
        if !rights.may_read_logs() {
            remove_output(&mut row.reason);
        }
    }
}

/// Masks why updates failed.
pub(super) fn services(rights: &Rights, rows: &mut [ServiceRow]) {
    if !rights.may_read_logs() {
        rows.iter_mut().for_each(|row| remove_output(&mut row.rollout.reason));
    }
}

/// Masks why updates to versions failed.
pub(super) fn versions(rights: &Rights, rows: &mut [VersionRow]) {
    if !rights.may_read_logs() {
        rows.iter_mut().for_each(|row| remove_output(&mut row.reason));
    }
}

/// Masks why runs failed.
pub(super) fn runs<'a>(rights: &Rights, rows: impl Iterator<Item = &'a mut RunRow>) {
    if !rights.may_read_logs() {
        rows.for_each(|row| remove_output(&mut row.reason));
    }
}

/// Masks problems.
pub(super) fn status(rights: &Rights, report: &mut StatusReport) {
    if !rights.may_read_logs() {
        report.problems.iter_mut().for_each(remove_output);
    }
}

/// Masks events.
pub(super) fn events(rights: &Rights, rows: &mut [EventRow]) {
    if !rights.may_read_logs() {
        rows.iter_mut().for_each(|row| remove_output(&mut row.text));
    }
}
