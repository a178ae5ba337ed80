//! Keyed hashes.
//!
//! The seed is drawn at load and never shown, so nobody outside can choose addresses that meet in one set. The rounds
//! are those of the SplitMix64 finaliser (Steele, Lea & Flood 2014) with secret multipliers, three multiplications in
//! all: a cryptographic hash would cost more than the memory access it leads to.

use crate::abi_struct;

abi_struct! {
    /// The secret of the source tables. `multipliers` are odd.
    #[derive(Default)]
    pub struct Seed: 32 {
        /// Added to the two words of a key.
        pub offsets: [u64; 2],
        /// Multipliers of the two rounds; odd, so that each round is a bijection.
        pub multipliers: [u64; 2],
    }
}

impl Seed {
    /// A seed from random words.
    pub const fn new(random: [u64; 4]) -> Self {
        Self { offsets: [random[0], random[1]], multipliers: [random[2] | 1, random[3] | 1] }
    }
}

/// The hash of two words under a seed; every bit of the result depends on every bit of the words.
#[inline(always)]
pub const fn keyed(seed: &Seed, first: u64, second: u64) -> u64 {
    let mut hash = first ^ seed.offsets[0];
    hash = (hash ^ (hash >> 32)).wrapping_mul(seed.multipliers[0]);
    hash = (hash ^ (hash >> 29)).wrapping_add(second ^ seed.offsets[1]);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(seed.multipliers[1]);
    hash ^ (hash >> 32)
}

/// A place in `0..count` from the upper half of a hash (Lemire's multiply-shift: no division, any count).
#[inline(always)]
pub const fn place(hash: u64, count: u32) -> u32 {
    (((hash >> 32) * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    /// Pearson's statistic of `keys` hashed into 1024 places; expected 1023, deviation √2046 ≈ 45.
    fn chi_square(seed: &Seed, keys: impl Iterator<Item = (u64, u64)>) -> f64 {
        let mut counts = vec![0_u32; 1024];
        let mut total = 0_u32;
        for (first, second) in keys {
            counts[place(keyed(seed, first, second), 1024) as usize] += 1;
            total += 1;
        }
        let expected = f64::from(total) / 1024.0;
        counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
    }

    #[test]
    fn regular_addresses_spread_like_random_ones() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ (state >> 33)
        };
        for _ in 0..20 {
            let seed = Seed::new([random(), random(), random(), random()]);
            let neighbours = (0..262_144_u64).map(|i| ((0x0a00_0000 + i) << 32, 0x8001));
            let subnets = (0..262_144_u64).map(|i| (0x2001_0db8_0000_0000 + i, 0x9001));
            let strided = (0..262_144_u64).map(|i| (i << 40 | (i & 0xff) << 32, 0x8001));
            let services = (0..262_144_u64).map(|i| ((i >> 4) << 32, 0x8000 | (i & 15)));
            for statistic in [
                chi_square(&seed, neighbours),
                chi_square(&seed, subnets),
                chi_square(&seed, strided),
                chi_square(&seed, services),
            ] {
                // Six deviations on either side: one false alarm in 10^7 runs of this test.
                assert!((750.0..1300.0).contains(&statistic), "{statistic} with {seed:?}");
            }
        }
    }

    #[test]
    fn places_stay_inside() {
        for count in [1, 2, 3, 1000, u32::MAX] {
            assert_eq!(place(0, count), 0);
            assert_eq!(place(u64::MAX, count), count - 1);
        }
    }
}
