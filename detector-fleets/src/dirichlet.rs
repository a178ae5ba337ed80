//! Counts over categories whose shares vary: the Dirichlet-multinomial, and how much they vary.
//!
//! What a population does is never a multinomial with fixed shares: releases, hours and places move them. The concentration κ says how
//! little they move: shares π vary as a Dirichlet with parameters κπ (Mosimann 1962; Minka 2000, "Estimating a Dirichlet distribution").

/// The log-likelihood of counts under a Dirichlet-multinomial, without the multinomial coefficient, which is the same for all
/// parameters. `alpha` gives the parameter of a category, above 0; `total` is their sum.
pub fn log_likelihood(counts: &[u32], total: f64, alpha: impl Fn(usize) -> f64) -> f64 {
    let sum: u32 = counts.iter().sum();
    let categories = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    let of_categories = categories.map(|(category, &count)| log_rising(alpha(category), count));
    of_categories.sum::<f64>() - log_rising(total, sum)
}

/// ln Γ(x + n) − ln Γ(x): the log of x (x + 1) … (x + n − 1).
pub fn log_rising(x: f64, n: u32) -> f64 {
    if n < 8 {
        // Exact, and where x is tiny the difference of two logarithms is not.
        return (0..n).map(|k| (x + f64::from(k)).ln()).sum();
    }
    libm::lgamma(x + f64::from(n)) - libm::lgamma(x)
}

/// The highest concentration that is told from "never varies".
pub const CONCENTRATION_MAX: f64 = 200.0;

/// The lowest one.
pub const CONCENTRATION_MIN: f64 = 0.5;

/// How concentrated the shares were of which counts are a sample, by their χ² against expected shares: for a
/// Dirichlet-multinomial its mean is (k − 1)(n + κ)/(1 + κ). `None`: fewer than two categories are expected in so many.
///
/// One sample says little; who has many takes a low quantile of what they say.
pub fn concentration(counts: &[u32], shares: &[f64]) -> Option<f64> {
    let n: f64 = counts.iter().copied().map(f64::from).sum();
    // Categories in which fewer than one is expected are one: else a single count there would decide.
    let (mut rare_share, mut rare_count, mut chi_squared, mut freedom) = (0.0, 0.0, 0.0, -1.0);
    let mut add = |share: f64, count: f64| {
        if share > 0.0 {
            let expected = n * share;
            chi_squared += (count - expected).powi(2) / expected;
            freedom += 1.0;
        }
    };
    for (&count, &share) in counts.iter().zip(shares) {
        if n * share < 1.0 {
            rare_share += share;
            rare_count += f64::from(count);
        } else {
            add(share, count.into());
        }
    }
    if n * rare_share >= 0.5 {
        add(rare_share, rare_count);
    }
    if freedom < 1.0 || n < 2.0 {
        return None;
    }
    let ratio = chi_squared / freedom;
    let kappa = if ratio <= 1.0 { CONCENTRATION_MAX } else { (n - ratio) / (ratio - 1.0) };
    Some(kappa.clamp(CONCENTRATION_MIN, CONCENTRATION_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn likelihoods_are_those_of_a_polya_urn() {
        // Draws 0, 1, 0 from an urn with 2 and 1: 2/3 · 1/4 · 3/5.
        let found = log_likelihood(&[2, 1], 3.0, |category| [2.0, 1.0][category]);
        assert!((found - (2.0 / 3.0 * 1.0 / 4.0 * 3.0 / 5.0_f64).ln()).abs() < 1e-12, "{found}");
        assert_eq!(log_likelihood(&[0, 0], 3.0, |_| 1.5), 0.0);
    }

    /// Shares drawn as a Dirichlet would, by a Pólya urn: `n` draws of it are one sample.
    fn urn(kappa: f64, shares: &[f64], n: u32, random: &mut impl FnMut() -> f64) -> Vec<u32> {
        let mut counts = vec![0; shares.len()];
        for drawn in 0..n {
            let mut place = random() * (kappa + f64::from(drawn));
            let chosen = shares.iter().zip(&counts).position(|(share, &count)| {
                place -= kappa * share + f64::from(count);
                place < 0.0
            });
            counts[chosen.unwrap_or(0)] += 1;
        }
        counts
    }

    /// Xorshift (Marsaglia 2003), for tests.
    fn uniform(mut state: u64) -> impl FnMut() -> f64 {
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    #[test]
    fn a_concentration_is_found_again() {
        let shares = [0.4, 0.25, 0.15, 0.1, 0.06, 0.03, 0.01];
        let mut random = uniform(0x9e37_79b9_7f4a_7c15);
        for kappa in [3.0, 30.0, 300.0] {
            let mut found: Vec<f64> = (0..301)
                .filter_map(|_| concentration(&urn(kappa, &shares, 400, &mut random), &shares))
                .collect();
            found.sort_by(f64::total_cmp);
            let median = found[found.len() / 2];
            assert!((kappa / 2.0..kappa * 2.5).contains(&median), "{median} for {kappa}");
        }
        let mut fixed: Vec<f64> =
            (0..301).filter_map(|_| concentration(&urn(1e9, &shares, 400, &mut random), &shares)).collect();
        fixed.sort_by(f64::total_cmp);
        assert!(fixed[30] > 100.0, "{} of shares that never vary", fixed[30]);
    }

    proptest! {
        #[test]
        fn products_and_gammas_agree(x in 0.001..1000.0_f64, n in 8..40_u32) {
            let product: f64 = (0..n).map(|k| (x + f64::from(k)).ln()).sum();
            prop_assert!((log_rising(x, n) - product).abs() < 1e-7 * product.abs().max(1.0));
        }

        /// Likelihoods of all outcomes sum to 1.
        #[test]
        fn likelihoods_are_probabilities(a in 0.05..5.0_f64, b in 0.05..5.0_f64, n in 1..12_u32) {
            let choose = |k: u32| (1..=k).map(|i| f64::from(n - k + i) / f64::from(i)).product::<f64>();
            let sum: f64 = (0..=n)
                .map(|k| choose(k) * log_likelihood(&[k, n - k], a + b, |category| [a, b][category]).exp())
                .sum();
            prop_assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        }

        #[test]
        fn concentrations_stay_in_their_bounds(counts in proptest::collection::vec(0..1000_u32, 2..20), seed in any::<u64>()) {
            let mut random = uniform(seed | 1);
            let weights: Vec<f64> = counts.iter().map(|_| random()).collect();
            let sum: f64 = weights.iter().sum();
            let shares: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
            if let Some(kappa) = concentration(&counts, &shares) {
                prop_assert!((CONCENTRATION_MIN..=CONCENTRATION_MAX).contains(&kappa));
            }
        }
    }
}
