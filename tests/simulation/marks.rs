//! What some run has to reach: a simulation that never gets there proves nothing about it.
//!
//! "Sometimes assertions", as FoundationDB and Antithesis have them.

use std::collections::BTreeSet;

macro_rules! marks {
    ($($variant:ident = $name:literal, $within:literal;)*) => {
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

            /// Returns the number of runs within which some run has to reach it.
            fn within(self) -> u64 {
                match self {
                    $(Self::$variant => $within,)*
                }
            }
        }
    };
}

marks! {
    ClaimsMet = "two running claims on one slot met after a heal", 150;
    UpdateFailed = "an update failed", 150;
    RolledBack = "a failed update was rolled back", 150;
    RollbackOnBothSides = "nodes on both sides of a partition rolled an update back, and met", 150;
    ResultsDiffer = "one node said that an update failed, another that it is complete", 1000;
    AccusationRefuted = "a node refuted an accusation", 150;
    GenerationUnderCut = "a node document got a new generation while links were cut", 1000;
    Checkpoint = "the cluster document got a new generation", 150;
    CheckpointUnderChurn = "the cluster document got a new generation within 20 s of a join, a leave or a death", 1000;
    RestartKept = "a node was back within its announced restart, and no other had it down", 150;
    RestartOverdue = "a node was not back within its announced restart", 1000;
    RecoveredFromFailedWrite = "a node recovered from a failed write and wrote again", 1000;
    RecoveredFromReadOnlyDisk = "a node wrote again after its disk was read-only", 1000;
    WriteTorn = "a host died while it wrote, and the write was rolled back", 150;
    ConfirmedWriteLost = "a disk lost writes that it had confirmed", 150;
    SetBack = "a node found that its data directory was set back", 150;
    Refused = "a command was refused", 150;
    Unplaced = "a slot fitted on no node", 150;
    DrainedNode = "a drained node ran nothing", 150;
    NodeLeft = "a node left the cluster and stopped its instances", 1000;
    LeftWhileAway = "a node was removed while it was down or cut off", 1000;
    JoinedUnderFault = "a node joined while another was down or links were cut", 150;
    OlderMemberHolds = "a node held documents of a newer version", 150;
    VersionChanged = "a node came back with another version", 150;
    RuntimeOutage = "slots moved away from a node whose runtime did not answer", 150;
    ClockStoodStill = "a node was considered down because its clock stood still", 1000;
    WallClockBack = "a wall clock was set back by more than ten minutes", 1000;
    CoreServed = "a healthy core served while the rest of the cluster was broken", 150;
    CoreOfMinority = "a healthy core served that was the smaller part of the cluster", 150;
    ManyNodes = "a cluster had more than 12 nodes", 150;
    HolderChanged = "an exclusive slot was started on another node, under a higher epoch", 150;
    LeaseEndedInHang = "the watchdog ended an instance whose lease had ended while its node's process hung", 150;
    LeaseEndedAfterCrash = "the watchdog ended an instance of a process that had died", 150;
    VotersChanged = "the voters decided on other voters", 150;
    VotersChangedUnderCut = "the voters changed while links were cut", 150;
    VotersForced = "an operator set the voters, as the majority was gone for good", 1000;
    VolumeWentOn = "another node went on with a volume, from a snapshot", 150;
    ConflictKept = "what the former writer of a volume had written last was kept aside", 1000;
    DamageIgnored = "a node ignored data that its disk had damaged", 150;
    RunBegan = "a run of a schedule began", 150;
    DeathReplaced = "the replicas of a dead host were started elsewhere", 150;
}

/// Of so many runs some should have reached all marks.
pub const MANY_RUNS: u64 = 1000;

/// Returns the marks that none of so many runs has reached, and that some should have.
pub fn missing(reached: &BTreeSet<Mark>, runs: u64) -> Vec<Mark> {
    let all = Mark::ALL.iter().copied();
    all.filter(|mark| runs >= mark.within() && !reached.contains(mark)).collect()
}
