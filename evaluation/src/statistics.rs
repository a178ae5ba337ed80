//! Means of runs, what most runs reach, and where both would be with other runs.

use std::fmt;

use rand_xoshiro::{
    SplitMix64,
    rand_core::{Rng as _, SeedableRng as _},
};

/// Samples of the runs, drawn with replacement, whose spread stands for that of other runs: the percentile bootstrap (Efron 1979). Shares
/// have an end at 1, which intervals around a mean would go beyond.
const SAMPLES: usize = 4000;

/// Of fewer runs the samples say too little of others.
const RUNS_MIN: usize = 10;

/// What 95 of 100 samples have is between these places.
const PLACES: [usize; 2] = [SAMPLES / 40, SAMPLES - 1 - SAMPLES / 40];

/// A mean of several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mean {
    pub(crate) mean: f64,
    /// The least and the most that it would be in 95 of 100 cases; `None`: there are fewer than [`RUNS_MIN`] runs.
    pub(crate) within: Option<[f64; 2]>,
}

impl Mean {
    /// `None`: of nothing.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let within = sampled(values, mean).map(|mut means| {
            means.sort_by(f64::total_cmp);
            PLACES.map(|place| means[place])
        });
        Some(Self { mean: mean(values), within })
    }

    /// In percent, with so many digits behind the point.
    pub(crate) fn percent(&self, digits: usize) -> String {
        let mean = format!("{:.digits$}", self.mean * 100.0);
        let Some(within) = self.within else { return mean };
        let [least, most] = within.map(|share| share * 100.0);
        format!("{mean} ({least:.digits$} – {most:.digits$})")
    }
}

impl fmt::Display for Mean {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.percent(2))
    }
}

/// What is said of each sample of some values, the same each time; `None`: of fewer than [`RUNS_MIN`].
fn sampled<V: Copy, T>(values: &[V], say: impl Fn(&[V]) -> T) -> Option<Vec<T>> {
    if values.len() < RUNS_MIN {
        return None;
    }
    let mut random = SplitMix64::seed_from_u64(1);
    let mut sample = || values[(random.next_u64() % values.len() as u64) as usize];
    Some((0..SAMPLES).map(|_| say(&values.iter().map(|_| sample()).collect::<Vec<_>>())).collect())
}

/// The least and the most that half of the runs would reach in 95 of 100 cases, each as [`reached_by`] tells. `None`: there are fewer than
/// [`RUNS_MIN`].
pub(crate) fn half_within(times: &[Option<u64>]) -> Option<[Option<u64>; 2]> {
    let mut halves = sampled(times, |times| reached_by(50, times).unwrap_or(u64::MAX))?;
    halves.sort_unstable();
    Some(PLACES.map(|place| Some(halves[place]).filter(|half| *half != u64::MAX)))
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
        assert_eq!(text(&[0.9; 10]).as_deref(), Some("90.00 (90.00 – 90.00)"));
        assert_eq!(text(&[0.9, 1.0, 1.0, 0.9]).as_deref(), Some("95.00"), "too few");
        assert_eq!(text(&[]), None);
        // Of twenty coins 6 to 14 show heads in 95 of 100 cases (binomial distribution).
        let coins: Vec<_> = (0..20).map(|number| f64::from(number % 2)).collect();
        let within = Mean::of(&coins).and_then(|mean| mean.within);
        let within = within.map(|within| within.map(|share| (share * 20.0).round()));
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
        assert_eq!(half_within(&times.repeat(3)), Some([Some(15), Some(45)]));
        assert_eq!(half_within(&[Some(15), None].repeat(6)), Some([Some(15), None]));
        assert_eq!(half_within(&[Some(15); 20]), Some([Some(15); 2]));
        assert_eq!(half_within(&times), None, "too few");
    }
}
