//! Rendezvous (highest random weight) hashing, after Thaler and Ravishankar, 1998.

use sha2::{Digest as _, Sha256};

/// The weight of a combination, such as a key and a candidate: the candidate with the highest weight gets the key.
/// When a candidate leaves, only its keys move. The first 8 bytes of SHA-256 over the parts, each preceded by its
/// length, as a big-endian number: the same on every machine, and `["ab", "c"]` differs from `["a", "bc"]`.
pub fn rendezvous(parts: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(8).fold(0, |weight, &byte| (weight << 8) | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::rendezvous;

    #[test]
    fn weights_are_fixed_for_all_time() {
        assert_eq!(rendezvous(&[]), 0xe3b0_c442_98fc_1c14, "SHA-256 of nothing");
        assert_ne!(rendezvous(&["ab", "c"]), rendezvous(&["a", "bc"]));
        assert_ne!(rendezvous(&["a", "b"]), rendezvous(&["b", "a"]));
    }

    #[test]
    fn keys_spread_evenly_and_a_leaving_candidate_moves_only_its_own() {
        let best = |key: usize, of: u8| {
            (0..of)
                .max_by_key(|c| rendezvous(&[&key.to_string(), &c.to_string()]))
                .unwrap_or_default()
        };
        let mut held = [0_u32; 4];
        for key in 0..1000 {
            let with_four = best(key, 4);
            held[usize::from(with_four)] += 1;
            assert!(with_four == 3 || best(key, 3) == with_four);
        }
        assert!(held.iter().all(|&n| (200..300).contains(&n)), "{held:?}");
    }
}
