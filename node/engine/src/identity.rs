//! Notices when another process writes this node's document: on a copy of its data directory, or before the directory was
//! set back to a backup.

use vc_crdt::GENERATION_NONCE_BITS;

/// Documents of other processes after which one must be running now: a directory that was set back meets one, or a few if
/// some peers lag behind.
const MAX_TAKEOVERS: u32 = 3;

/// What a document that this process did not write means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It is older than this process: go on after it.
    SetBack,
    /// Its author is running now, with the same identity.
    Duplicate,
}

/// The generations of this node's document.
#[derive(Debug)]
pub(crate) struct DocumentOwner {
    /// The one that was on the disk at the start.
    loaded: Option<u64>,
    /// The present one, as this process knows it.
    present: Option<u64>,
    takeovers: u32,
}

impl DocumentOwner {
    /// An owner that has written nothing since the start.
    pub(crate) fn new(loaded: Option<u64>) -> Self {
        Self { loaded, present: loaded, takeovers: 0 }
    }

    /// Notes that this process started a generation.
    pub(crate) fn wrote(&mut self, generation: Option<u64>) {
        self.present = generation;
    }

    /// Compares the generation in the documents with the last known one. `None`: this process wrote it.
    ///
    /// A copy learns soonest: the process that wrote the document which the copy started from answers the copy's generation
    /// with the next one.
    pub(crate) fn check(&mut self, generation: Option<u64>) -> Option<Finding> {
        if generation == self.present {
            return None;
        }
        let before = std::mem::replace(&mut self.present, generation);
        self.takeovers += 1;
        let count = |of: Option<u64>| of.map(|it| it >> GENERATION_NONCE_BITS);
        let run = |of: Option<u64>| of.map(|it| it & ((1 << GENERATION_NONCE_BITS) - 1));
        let answers = before != self.loaded && count(generation) == count(before).map(|it| it + 1);
        let is_original = run(generation) == run(self.loaded);
        if (answers && is_original) || self.takeovers >= MAX_TAKEOVERS {
            return Some(Finding::Duplicate);
        }
        Some(Finding::SetBack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(count: u64, run: u64) -> Option<u64> {
        Some(count << GENERATION_NONCE_BITS | run)
    }

    #[test]
    fn a_directory_that_was_set_back_goes_on_after_what_it_finds() {
        let mut owner = DocumentOwner::new(generation(3, 7));
        owner.wrote(generation(4, 9));
        assert_eq!(owner.check(generation(4, 9)), None);
        assert_eq!(owner.check(generation(8, 7)), Some(Finding::SetBack));
        owner.wrote(generation(9, 9));
        assert_eq!(owner.check(generation(9, 9)), None);
    }

    #[test]
    fn of_two_processes_on_copies_the_later_one_ends() {
        // The original runs as 7 and has written generation 3; the copy starts as 9.
        let (mut original, mut copy) =
            (DocumentOwner::new(generation(2, 5)), DocumentOwner::new(generation(3, 7)));
        original.wrote(generation(3, 7));
        copy.wrote(generation(4, 9));
        assert_eq!(original.check(generation(4, 9)), Some(Finding::SetBack));
        original.wrote(generation(5, 7));
        assert_eq!(copy.check(generation(5, 7)), Some(Finding::Duplicate));
        assert_eq!(original.check(generation(5, 7)), None);
    }

    #[test]
    fn of_two_copies_that_start_together_one_ends() {
        let (mut a, mut b) =
            (DocumentOwner::new(generation(3, 7)), DocumentOwner::new(generation(3, 7)));
        let mut count = 4;
        a.wrote(generation(count, 8));
        b.wrote(generation(count, 9));
        for _ in 0..5 {
            if a.check(generation(count, 9)) == Some(Finding::Duplicate) {
                return;
            }
            count += 1;
            a.wrote(generation(count, 8));
            if b.check(generation(count, 8)) == Some(Finding::Duplicate) {
                return;
            }
            count += 1;
            b.wrote(generation(count, 9));
        }
        panic!("both go on");
    }
}
