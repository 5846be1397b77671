//! Known bugs of the pure crates that the simulator (`tests/simulation`) has to find, compiled in only with debug assertions,
//! which no release build has. Most undo a fix.

macro_rules! planted_bugs {
    ($($variant:ident = $name:literal, $doc:literal;)*) => {
        /// A known bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum PlantedBug {
            $(#[doc = $doc] $variant,)*
        }

        impl PlantedBug {
            /// All known bugs.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the name by which `scripts/simulate --plant` knows it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Returns what is wrong with it.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => $doc,)*
                }
            }
        }
    };
}

planted_bugs! {
    AnswerBeforeWrite = "answer-before-write", "A command is answered before its change is written to disk.";
    ForgetAccusations = "forget-accusations", "A node that starts again takes back its accusations.";
    ForgetResults = "forget-results", "A node that starts again forgets how updates ended.";
    NoStartupHold = "no-startup-hold", "A node that starts does not wait for the documents of the others.";
    EarlyHeartbeat = "early-heartbeat", "A node sends heartbeats before it has written its document anew.";
    ReuseActor = "reuse-actor", "A node goes on with its actor without asking the others for later changes of it.";
    OneGeneration = "one-generation", "A node document never starts a new generation while its node runs.";
    HastyCheckpoint = "hasty-checkpoint", "A checkpoint does not wait for all members.";
    NoCheckpoint = "no-checkpoint", "The cluster document never starts a new generation.";
    NoRefutation = "no-refutation", "A node does not refute accusations.";
    StaleClaims = "stale-claims", "A node that starts again claims what no longer runs.";
    Chatter = "chatter", "Nodes with equal documents exchange version vectors all the time.";
    NoReplay = "no-replay", "A node does not send what a peer lacks.";
    RepeatedGeneration = "repeated-generation", "A node that was set back may repeat a generation of its document.";
    LateChangesLost = "late-changes-lost", "What was written in a generation after its checkpoint is ignored.";
    NewestSchema = "newest-schema", "The newest schema that some member knows is used.";
    NewestRules = "newest-rules", "The newest rules of placement that some node knows are used.";
    SameLamport = "same-lamport", "A new revision may have the number of an earlier one.";
    PortsTwice = "ports-twice", "Two instances on one node may be assigned the same host port.";
    CpuOvercommitted = "cpu-overcommitted", "The CPU of a node may be reserved twice.";
    UncheckedDisk = "unchecked-disk", "A node that starts does not check the signatures of what its disk holds.";
    EagerVoter = "eager-voter", "A voter grants a lease while another node has it.";
    UnwrittenVotes = "unwritten-votes", "A voter does not write to disk what it promises and grants.";
    SameEpoch = "same-epoch", "A node asks for a lease with the epoch of its last holder.";
    LongLease = "long-lease", "A holder relies on its lease for twice its time.";
    NoWatchdog = "no-watchdog", "The watchdog is told that leases do not end.";
    UnreadyVolume = "unready-volume", "An instance starts before the data of its volume is there.";
    DroppedCopy = "dropped-copy", "A node drops a copy of a volume before others have all of it.";
    OldSnapshot = "old-snapshot", "A node goes on with the oldest snapshot that it finds.";
}

/// There is no planted bug of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no planted bug {0:?}: see protocol/src/planted.rs")]
pub struct UnknownBug(String);

impl PlantedBug {
    /// Returns the bug of this name. Errors: there is none.
    pub fn parse(name: &str) -> Result<Self, UnknownBug> {
        let found = Self::ALL.iter().copied().find(|bug| bug.name() == name);
        found.ok_or_else(|| UnknownBug(name.to_owned()))
    }
}

#[cfg(debug_assertions)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<PlantedBug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in what this thread runs from now on, or removes it.
#[cfg(debug_assertions)]
pub fn plant(bug: Option<PlantedBug>) {
    PLANTED.set(bug);
}

/// Returns whether this bug is planted in what this thread runs.
#[cfg(debug_assertions)]
pub fn is_planted(bug: PlantedBug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Returns false: this build has no planted bugs.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn is_planted(_: PlantedBug) -> bool {
    false
}
