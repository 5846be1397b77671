//! What some run has to reach: a simulation that never gets there proves nothing about it.
//!
//! "Sometimes assertions", as FoundationDB and Antithesis have them.

use std::collections::BTreeSet;

macro_rules! marks {
    ($($variant:ident = $name:literal;)*) => {
        /// A state that some run has to reach.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark {
            $(#[doc = $name] $variant,)*
        }

        impl Mark {
            /// All marks.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns what was reached.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

marks! {
    ClaimsMet = "two running claims on one slot met after a heal";
    UpdateFailed = "an update failed";
    RolledBack = "a failed update was rolled back";
    RollbackOnBothSides = "nodes on both sides of a partition rolled an update back";
    ResultsDiffer = "one node said that an update failed, another that it is complete";
    AccusationRefuted = "a node refuted an accusation";
    GenerationUnderCut = "a node document got a new generation while links were cut";
    Checkpoint = "the cluster document got a new generation";
    CheckpointUnderChurn = "the cluster document got a new generation within 20 s of a join, a leave or a death";
    RestartKept = "a node was back within its announced restart, and no other had it down";
    RestartOverdue = "a node was not back within its announced restart";
    RecoveredFromFailedWrite = "a node recovered from a failed write and wrote again";
    RecoveredFromReadOnlyDisk = "a node wrote again after its disk was read-only";
    WriteTorn = "a host died while it wrote, and a part was lost";
    ConfirmedWriteLost = "a disk lost writes that it had confirmed";
    SetBack = "a node found that its data directory was set back";
    Refused = "a command was refused";
    Unplaced = "a slot fitted on no node";
    DrainedNode = "a drained node ran nothing";
    NodeLeft = "a node left the cluster and stopped its instances";
    LeftWhileAway = "a node was removed while it was down or cut off";
    JoinedUnderFault = "a node joined while another was down or links were cut";
    OlderMemberHolds = "a node held documents of a newer version";
    VersionChanged = "a node came back with another version";
    RuntimeOutage = "slots moved away from a node whose runtime did not answer";
    ClockStoodStill = "a node was considered down because its clock stood still";
    WallClockBack = "a wall clock was set back by more than ten minutes";
    CoreServed = "a healthy core served while the rest of the cluster was broken";
    CoreOfMinority = "a healthy core served that was the smaller part of the cluster";
    ManyNodes = "a cluster had more than 12 nodes";
    LeaseExpiredWhileHung = "a lease expired while the process that holds it was hung or down";
    DeathReplaced = "the replicas of a dead host were started elsewhere";
}

/// Returns the marks that no run has reached.
pub fn missing(reached: &BTreeSet<Mark>) -> Vec<Mark> {
    Mark::ALL.iter().copied().filter(|mark| !reached.contains(mark)).collect()
}
