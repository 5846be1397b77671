//! The declarations that services refer to.

use std::collections::BTreeSet;

use super::files::Files;
use vc_protocol::Name;

/// What the top of the file declares.
pub(super) struct Top<'a> {
    pub(super) volumes: BTreeSet<Name>,
    pub(super) networks: BTreeSet<Name>,
    pub(super) files: Files<'a>,
}
