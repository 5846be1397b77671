//! The planted bugs, and the number of seeds within which each is found.

use vc_protocol::planted::PlantedBug;

/// Seeds, from 0 on, within which each planted bug must be found.
const LIMIT: u64 = 200;

/// Returns all planted bugs with the seeds, from 0 on, within which each must be found.
pub fn planted_bugs() -> Vec<(PlantedBug, u64)> {
    PlantedBug::ALL.iter().map(|&bug| (bug, LIMIT)).collect()
}
