//! The kinds of faults. A run has some of them: a seed that leaves most out goes deeper into the others than one that has all
//! (Groce et al., "Swarm testing", 2012).

use std::fmt;

use clap::ValueEnum;

/// A kind of fault, or of what operators do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// Mutations of operators, several at a time.
    Operators,
    /// A process dies, at once or between two of its next outputs.
    KillProcess,
    /// A process announces a restart and ends a little later.
    Restart,
    /// A host loses power.
    KillHost,
    /// All processes die at once.
    KillAll,
    /// The links between some nodes and the rest are cut.
    Partition,
    /// Messages from one node to another are dropped.
    CutOneWay,
    /// A container runtime stops answering for a while.
    Runtime,
    /// A process stalls for a while.
    Stall,
    /// The next write to a disk fails.
    FailedWrite,
    /// Every write to a disk fails for a while.
    ReadOnlyDisk,
    /// A host dies while it writes: the write is kept whole, or rolled back.
    TornWrite,
    /// A disk confirms writes that it then loses with the power of its host.
    LyingDisk,
    /// A data directory is set back to a copy from earlier.
    Backup,
    /// A wall clock is set by up to an hour, either way.
    WallClock,
    /// A monotonic clock stands still for a while.
    ClockPause,
    /// Monotonic clocks are up to a tenth too fast or too slow.
    Drift,
    /// A process takes long for each of its events, for a while.
    SlowNode,
    /// Another node joins.
    Join,
    /// A node is removed from the cluster, and turned off.
    Leave,
    /// Nodes run two versions of vc-node; some change theirs.
    Versions,
    /// Messages are lost.
    Loss,
    /// Messages are delivered twice.
    Duplication,
    /// Messages overtake others.
    Reordering,
    /// Containers exit, fail to start or become unhealthy.
    Containers,
    /// Operators deploy services whose slots run under leases.
    Exclusive,
    /// Operators deploy a service with a volume, and move it; its instances write all the time.
    Volumes,
    /// Operators say which nodes are to be voters.
    Voters,
    /// While a process is down, a bit flips in what its disk holds.
    FlippedBit,
    /// Operators deploy a version that fails on every node, and the links between some nodes and the rest are cut meanwhile.
    FailingUpdate,
}

impl Kind {
    /// Returns all kinds, in groups: what a seed draws of one does not depend on those after it. New kinds of workloads and faults
    /// go into a new group, so that the seeds of `seeds.txt` mean what they meant.
    pub fn groups() -> [&'static [Self]; 3] {
        let (first, later) = Self::value_variants().split_at(Self::Exclusive as usize);
        let (second, third) = later.split_at(Self::FailingUpdate as usize - first.len());
        [first, second, third]
    }

    /// Returns how often events of this kind are drawn, relative to others; 0 for what lasts the whole run.
    pub fn weight(self) -> u64 {
        match self {
            Self::Operators => 10,
            Self::KillProcess => 3,
            Self::Exclusive | Self::Volumes => 4,
            Self::Drift | Self::Loss | Self::Duplication | Self::Reordering | Self::Containers => 0,
            _ => 2,
        }
    }

    /// Returns whether a node may lose what it acknowledged, because its disk does not keep its promise.
    pub fn loses_writes(self) -> bool {
        matches!(self, Self::LyingDisk | Self::Backup | Self::FlippedBit)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}
