//! A deterministic random number generator: SplitMix64 (Steele, Lea, Flood 2014).

/// A stream of random numbers, repeatable by its seed.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Returns the stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bf0_3635)
    }

    /// Returns a random number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from `range`, both ends included.
    pub fn within(&mut self, range: (u64, u64)) -> u64 {
        range.0 + self.number() % (range.1 - range.0 + 1)
    }

    /// Returns a random index below `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.number() % len as u64).expect("less than a length")
    }

    /// Returns true with a probability of `times` per thousand.
    pub fn permille(&mut self, times: u64) -> bool {
        self.number() % 1000 < times
    }

    /// Returns a random element.
    pub fn pick<T: Copy>(&mut self, elements: &[T]) -> T {
        elements[self.index(elements.len())]
    }
}
