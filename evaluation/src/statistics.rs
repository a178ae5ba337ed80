//! Means of runs, what most runs reach, and where both would be with other runs.

use std::fmt;

use rand_xoshiro::{
    SplitMix64,
    rand_core::{Rng as _, SeedableRng as _},
};

/// Samples of the runs, drawn with replacement, whose spread stands for that of other runs: the percentile bootstrap (Efron 1979). Shares
/// have an end at 1, which intervals around a mean would go beyond.
const SAMPLES: usize = 4000;

/// What 95 of 100 samples have is between these places.
const PLACES: [usize; 2] = [SAMPLES / 40, SAMPLES - 1 - SAMPLES / 40];

/// A mean of several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mean {
    pub(crate) mean: f64,
    /// The least and the most that it would be in 95 of 100 cases.
    pub(crate) within: [f64; 2],
}

impl Mean {
    /// `None`: of nothing.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let mut means = sampled(values, mean);
        if means.is_empty() {
            return None;
        }
        means.sort_by(f64::total_cmp);
        Some(Self { mean: mean(values), within: PLACES.map(|place| means[place]) })
    }

    /// In percent, with so many digits behind the point.
    pub(crate) fn percent(&self, digits: usize) -> String {
        let [least, most] = self.within.map(|share| share * 100.0);
        format!("{:.digits$} ({least:.digits$} – {most:.digits$})", self.mean * 100.0)
    }
}

impl fmt::Display for Mean {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.percent(2))
    }
}

/// What is said of each sample of some values, the same each time; nothing of no values.
fn sampled<V: Copy, T>(values: &[V], say: impl Fn(&[V]) -> T) -> Vec<T> {
    if values.is_empty() {
        return Vec::new();
    }
    let mut random = SplitMix64::seed_from_u64(1);
    let mut sample = || values[(random.next_u64() % values.len() as u64) as usize];
    (0..SAMPLES).map(|_| say(&values.iter().map(|_| sample()).collect::<Vec<_>>())).collect()
}

/// The least and the most that half of the runs would reach in 95 of 100 cases, as [`reached_by`] tells.
pub(crate) fn half_within(times: &[Option<u64>]) -> [Option<u64>; 2] {
    let mut halves = sampled(times, |times| reached_by(50, times).unwrap_or(u64::MAX));
    halves.sort_unstable();
    PLACES.map(|place| halves.get(place).copied().filter(|half| *half != u64::MAX))
}

/// What so many hundredths of the runs reach at least: of times to an alarm, of which `None` is never. `None`: fewer do.
pub(crate) fn reached_by(hundredths: usize, times: &[Option<u64>]) -> Option<u64> {
    let mut sorted: Vec<_> = times.iter().flatten().copied().collect();
    sorted.sort_unstable();
    let place = (times.len() * hundredths).div_ceil(100).checked_sub(1)?;
    sorted.get(place).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_have_what_they_are_within() {
        let text = |values: &[f64]| Mean::of(values).map(|mean| mean.to_string());
        assert_eq!(text(&[0.9, 1.0, 1.0, 0.9]).as_deref(), Some("95.00 (90.00 – 100.00)"));
        assert_eq!(text(&[0.9]).as_deref(), Some("90.00 (90.00 – 90.00)"));
        assert_eq!(text(&[]), None);
        // A mean of twenty coins is within 10 ± 4.5 of them in 95 of 100 cases (binomial distribution: 6 to 14).
        let coins: Vec<_> = (0..20).map(|number| f64::from(number % 2)).collect();
        let within = Mean::of(&coins).map(|mean| mean.within.map(|share| (share * 20.0).round()));
        assert_eq!(within, Some([6.0, 14.0]));
    }

    #[test]
    fn who_has_no_alarm_counts() {
        let times = [Some(15), None, Some(45), Some(30)];
        assert_eq!(
            [25, 50, 75, 90].map(|part| reached_by(part, &times)),
            [Some(15), Some(30), Some(45), None]
        );
        assert_eq!(reached_by(50, &[]), None);
        assert_eq!(half_within(&times), [Some(15), None]);
        assert_eq!(half_within(&[Some(15); 20]), [Some(15); 2]);
        assert_eq!(half_within(&[]), [None; 2]);
    }
}
