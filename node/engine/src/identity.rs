//! Which of two processes with one identity stops. Notices when another process writes this node's document: on a copy of
//! its data directory, or before the directory was set back to a backup.

use vc_protocol::Millis;

/// Two processes whose run times differ by less were started together, such as by one boot: a run time is compared with
/// one that was stated a moment ago.
const SAME_START: Millis = 1000;

/// A process that runs with this node's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its random number, drawn at its start.
    pub number: u64,
    /// How long it has run.
    pub uptime: Millis,
}

impl Process {
    /// Returns whether this process is the one of two that has to stop: the younger one; of two that were started
    /// together, the one with the larger number.
    pub fn yields_to(self, other: Self) -> bool {
        if self.uptime.abs_diff(other.uptime) < SAME_START {
            self.number > other.number
        } else {
            self.uptime < other.uptime
        }
    }
}

/// How this process reacts to a document of this node that another process wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Continues with the next generation: the other process has ended, or started later and will stop.
    Succeed,
    /// Stops: the other process is running with the same identity, and has run longer.
    Duplicate,
}

/// The present generation of this node's document.
#[derive(Debug)]
pub(crate) struct DocumentOwner {
    /// As this process knows it.
    present: Option<u64>,
    /// Whether this process wrote it.
    wrote: bool,
    /// Number of times that another process replaced a document that this process wrote.
    replaced: u32,
}

impl DocumentOwner {
    /// An owner that has written nothing since the start; `loaded` is the generation on the disk.
    pub(crate) fn new(loaded: Option<u64>) -> Self {
        Self { present: loaded, wrote: false, replaced: 0 }
    }

    /// Notes that this process started a generation.
    pub(crate) fn wrote(&mut self, generation: Option<u64>) {
        (self.present, self.wrote) = (generation, true);
    }

    /// Compares the generation in the documents with the last known one; `None` if it is that. `theirs` is how long its
    /// author had run when it wrote it, `ours` how long this process has run.
    ///
    /// A process whose directory was set back while no other node could be asked meets one later document. A second one
    /// answers what this process wrote meanwhile, so its author runs.
    pub(crate) fn check(
        &mut self,
        generation: Option<u64>,
        theirs: Millis,
        ours: Millis,
    ) -> Option<Finding> {
        if generation == self.present {
            return None;
        }
        self.present = generation;
        self.replaced += u32::from(std::mem::take(&mut self.wrote));
        let is_duplicate = self.replaced >= 2 && theirs > ours;
        Some(if is_duplicate { Finding::Duplicate } else { Finding::Succeed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_of_two_processes_yields() {
        let process = |number, uptime| Process { number, uptime };
        let (old, young) = (process(9, 60_000), process(3, 500));
        assert!(young.yields_to(old) && !old.yields_to(young));
        // Each compares itself with what the other stated a moment ago.
        let (a, b) = (process(9, 700), process(3, 500));
        assert!(a.yields_to(b) && !b.yields_to(process(9, 650)));
    }

    #[test]
    fn a_directory_that_was_set_back_goes_on_after_what_it_finds() {
        let mut owner = DocumentOwner::new(Some(3));
        assert_eq!(owner.check(Some(6), 90_000, 10), Some(Finding::Succeed));
        assert_eq!(
            owner.check(Some(8), 90_000, 20),
            Some(Finding::Succeed),
            "a peer that was ahead"
        );
        owner.wrote(Some(9));
        assert_eq!(owner.check(Some(9), 30, 40), None);
        // It could ask no other node before it wrote.
        assert_eq!(owner.check(Some(12), 90_000, 50), Some(Finding::Succeed));
    }

    #[test]
    fn of_two_processes_on_copies_the_younger_one_ends() {
        let (mut old, mut young) = (DocumentOwner::new(Some(3)), DocumentOwner::new(Some(3)));
        old.wrote(Some(4));
        let mut generation = 4;
        for now in 1.. {
            generation += 1;
            young.wrote(Some(generation));
            assert_eq!(old.check(Some(generation), now, 1000 + now), Some(Finding::Succeed));
            generation += 1;
            old.wrote(Some(generation));
            match young.check(Some(generation), 1000 + now, now) {
                Some(Finding::Duplicate) => break,
                found => assert_eq!((found, now), (Some(Finding::Succeed), 1)),
            }
        }
    }
}
