//! Randomness that belongs to what it is drawn for.
//!
//! A [`Key`] is derived from the seed by names and numbers (population, user, day …); a [`Stream`] begins at a key. So nothing that is
//! added to a scenario changes what is drawn for the rest of it, and who is idle has no state.

use rand_core::{Rng as _, SeedableRng as _};
use rand_distr::{Binomial, Distribution as _, Exp1, Gamma, Poisson, StandardNormal};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Key {
    /// The key of everything under a seed.
    pub(crate) const fn root(seed: u64) -> Self {
        Self(mix(seed ^ 0x6a09_e667_f3bc_c908))
    }

    /// The key of what has a name.
    pub(crate) const fn named(self, name: &str) -> Self {
        Self(mix(self.0 ^ hash(name)))
    }

    /// The key of what has a number.
    #[inline]
    pub(crate) const fn at(self, number: u64) -> Self {
        Self(mix(self.0 ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93)))
    }

    /// A number without a stream: the one property of an entity.
    #[inline]
    pub(crate) const fn bits(self) -> u64 {
        mix(self.0 ^ 0x3c6e_f372_fe94_f82b)
    }

    /// The same, from 0 to below 1.
    #[inline]
    pub(crate) fn unit(self) -> f64 {
        unit(self.bits())
    }

    #[inline]
    pub(crate) fn stream(self) -> Stream {
        Stream(Xoshiro256PlusPlus::seed_from_u64(self.0))
    }
}

/// The finalizer of SplitMix64 (Steele, Lea & Flood 2014), after its increment.
#[inline]
const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A 64-bit number for a name.
pub(crate) const fn hash(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut hash = bytes.len() as u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = mix(hash ^ bytes[at] as u64);
        at += 1;
    }
    hash
}

#[inline]
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// Draws, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Stream(Xoshiro256PlusPlus);

impl Stream {
    /// Another stream, which the rest of this one does not depend on.
    pub(crate) fn fork(&mut self) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(self.0.next_u64()))
    }

    /// From 0 to below 1.
    #[inline]
    pub(crate) fn unit(&mut self) -> f64 {
        unit(self.0.next_u64())
    }

    /// From 0 to below `end`; the bias is below `end` / 2^64.
    #[inline]
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(end)) >> 64) as u64
    }

    #[inline]
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    #[inline]
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    #[inline]
    pub(crate) fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.0)
    }

    /// Mean 1.
    #[inline]
    pub(crate) fn exponential(&mut self) -> f64 {
        Exp1.sample(&mut self.0)
    }

    #[inline]
    pub(crate) fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    /// A factor whose mean is 1.
    #[inline]
    pub(crate) fn factor(&mut self, sigma: f64) -> f64 {
        (sigma * self.normal() - sigma * sigma / 2.0).exp()
    }

    pub(crate) fn poisson(&mut self, mean: f64) -> u32 {
        // The distribution refuses only means that are not positive; of those nothing comes.
        Poisson::new(mean).map_or(0, |poisson| poisson.sample(&mut self.0) as u32)
    }

    /// How many of `trials` succeed.
    pub(crate) fn binomial(&mut self, trials: u32, probability: f64) -> u32 {
        if trials < 12 {
            return (0..trials).map(|_| u32::from(self.chance(probability))).sum();
        }
        // The distribution refuses only probabilities beyond 0 and 1.
        Binomial::new(u64::from(trials), probability.clamp(0.0, 1.0))
            .map_or(0, |binomial| binomial.sample(&mut self.0) as u32)
    }

    /// Gamma of that shape with mean 1: an interval of a renewal process whose coefficient of variation is 1 / √shape.
    pub(crate) fn interval(&mut self, shape: f64) -> f64 {
        // The distribution refuses only shapes that are not positive, which the ranges of the parameters exclude.
        Gamma::new(shape, 1.0 / shape).map_or(1.0, |gamma| gamma.sample(&mut self.0))
    }
}

/// Choices with weights, drawn by one number.
#[derive(Clone, Debug)]
pub(crate) struct Weights(Vec<f64>);

impl Weights {
    pub(crate) fn new(weights: impl IntoIterator<Item = f64>) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = weights
            .into_iter()
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|bound| *bound /= sum);
        Self(cumulative)
    }

    /// Zipf's law over `count` ranks.
    pub(crate) fn zipf(count: usize, exponent: f64) -> Self {
        Self::new((1..=count).map(|rank| (rank as f64).powf(-exponent)))
    }

    /// The share of a choice.
    pub(crate) fn share(&self, choice: usize) -> f64 {
        self.0[choice] - if choice == 0 { 0.0 } else { self.0[choice - 1] }
    }

    /// The choice of a number from 0 to below 1.
    #[inline]
    pub(crate) fn pick(&self, unit: f64) -> usize {
        self.0.partition_point(|bound| *bound <= unit).min(self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_names_and_numbers_apart() {
        let root = Key::root(1);
        let keys =
            [root, Key::root(2), root.named("a"), root.named("b"), root.at(0), root.at(1), root.at(1).at(0)];
        for (index, key) in keys.iter().enumerate() {
            assert!(keys[..index].iter().all(|other| other != key), "{index}");
        }
    }

    #[test]
    fn intervals_have_the_variation_that_was_asked_for() {
        let mut stream = Key::root(7).stream();
        for variation in [0.7_f64, 1.0, 4.3] {
            let draws: Vec<f64> = (0..400_000).map(|_| stream.interval(variation.powi(-2))).collect();
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64;
            assert!((mean - 1.0).abs() < 0.05, "{mean}");
            assert!((variance.sqrt() / mean / variation - 1.0).abs() < 0.05, "{variation}: {variance}");
        }
    }

    #[test]
    fn weights_are_kept() {
        let weights = Weights::new([1.0, 0.0, 3.0]);
        assert_eq!([0.0, 0.24, 0.26, 0.999].map(|unit| weights.pick(unit)), [0, 0, 2, 2]);
        let mut stream = Key::root(3).stream();
        let zipf = Weights::zipf(64, 1.0);
        let first = (0..100_000).filter(|_| zipf.pick(stream.unit()) == 0).count();
        assert!((20_000..22_200).contains(&first), "{first}");
    }

    #[test]
    fn counts_have_their_means() {
        let mut stream = Key::root(5).stream();
        let mean = |draws: Vec<u32>| f64::from(draws.iter().sum::<u32>()) / draws.len() as f64;
        assert!((mean((0..50_000).map(|_| stream.poisson(3.0)).collect()) - 3.0).abs() < 0.05);
        assert!((mean((0..50_000).map(|_| stream.binomial(40, 0.25)).collect()) - 10.0).abs() < 0.1);
        assert!((mean((0..50_000).map(|_| stream.binomial(4, 0.25)).collect()) - 1.0).abs() < 0.02);
        assert_eq!((stream.poisson(0.0), stream.binomial(0, 0.5)), (0, 0));
    }
}
