//! Rendezvous (highest random weight) hashing, after Thaler and Ravishankar, 1998.

use sha2::{Digest as _, Sha256};

/// Returns the weight of a combination, such as a key and a candidate: the candidate with the highest weight gets the
/// key, and when a candidate leaves, only its keys move.
///
/// The weight is the first 8 bytes, big endian, of SHA-256 over the parts, each preceded by its length as 8 bytes: equal
/// on every node, and different for `["ab", "c"]` and `["a", "bc"]`.
pub fn rendezvous(parts: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(8).fold(0, |weight, &byte| (weight << 8) | u64::from(byte))
}

/// Combines two hashes into a weight with the finaliser of SplitMix64 (Steele, Lea and Flood, 2014). A new deployment
/// compares every service with every node; this takes 2 ns where SHA-256 takes hundreds.
pub(crate) fn combine(key: u64, candidate: u64) -> u64 {
    let mut mixed = key.wrapping_add(candidate.rotate_left(32));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::{combine, rendezvous};

    #[test]
    fn weights_are_stable() {
        assert_eq!(rendezvous(&[]), 0xe3b0_c442_98fc_1c14, "SHA-256 of nothing");
        assert_ne!(rendezvous(&["ab", "c"]), rendezvous(&["a", "bc"]));
        assert_ne!(rendezvous(&["a", "b"]), rendezvous(&["b", "a"]));
    }

    #[test]
    fn keys_spread_evenly_and_a_removed_candidate_moves_only_its_own_keys() {
        let whole = |key: &str, candidate: &str| rendezvous(&[key, candidate]);
        let parts =
            |key: &str, candidate: &str| combine(rendezvous(&[key]), rendezvous(&[candidate]));
        for weight in [&whole as &dyn Fn(&str, &str) -> u64, &parts] {
            let best = |key: &str, of: u8| {
                (0..of).max_by_key(|c| weight(key, &c.to_string())).unwrap_or_default()
            };
            let mut held = [0_u32; 4];
            for key in 0..1000 {
                let with_four = best(&key.to_string(), 4);
                held[usize::from(with_four)] += 1;
                assert!(with_four == 3 || best(&key.to_string(), 3) == with_four);
            }
            assert!(held.iter().all(|&n| (200..300).contains(&n)), "{held:?}");
        }
    }
}
