//! Random numbers that come again: a test prints its seed, and the seed gives the test back.

/// SplitMix64 (Steele, Lea & Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed that the environment variable `DETECTOR_TEST_SEED` asks for, else `default`; printed, so that a
    /// failure shows it.
    ///
    /// # Panics
    ///
    /// The variable is not a number.
    pub fn announced(default: u64) -> Self {
        let seed = match std::env::var("DETECTOR_TEST_SEED") {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("DETECTOR_TEST_SEED={text} is not a number")),
            Err(_) => default,
        };
        println!("seed: DETECTOR_TEST_SEED={seed}");
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// An index into something of a length that is not 0.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of several, of which there is at least one.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    /// Sixteen random bytes.
    pub fn bytes(&mut self) -> [u8; 16] {
        ((u128::from(self.bits()) << 64) | u128::from(self.bits())).to_be_bytes()
    }
}
