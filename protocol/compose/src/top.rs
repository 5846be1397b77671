//! The declarations that services refer to.

use std::collections::BTreeMap;

use super::directories::Directories;
use super::files::Files;
use super::networks::Networks;
use vc_protocol::Name;
use vc_protocol::spec::Constraint;
use vc_protocol::volume::VolumeSpec;

/// What the top of the file declares.
pub(super) struct Top<'a> {
    pub(super) volumes: BTreeMap<Name, VolumeSpec>,
    pub(super) directories: Directories,
    pub(super) networks: Networks,
    pub(super) files: Files<'a>,
    /// The node that all services run on.
    pub(super) node: Option<Constraint>,
}
