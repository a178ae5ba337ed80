//! Means of runs and what they are within, and what most runs reach.

use std::fmt;

/// Deviations of a mean within which it is in 95 of 100 cases, for 2 to 20 runs: the quantile of Student's t at 97.5 % for one degree of freedom less
/// (Student 1908).
const DEVIATIONS: [f64; 19] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093,
];

/// A mean of several runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mean {
    pub(crate) mean: f64,
    /// The true mean is so near in 95 of 100 cases.
    pub(crate) within: f64,
}

impl Mean {
    /// `None`: of nothing.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        // Beyond the table it is a little too much.
        let deviations = DEVIATIONS[values.len().saturating_sub(2).min(DEVIATIONS.len() - 1)];
        Some(Self { mean, within: deviations * (variance / count).sqrt() })
    }
}

impl fmt::Display for Mean {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.2} ± {:.2}", self.mean * 100.0, self.within * 100.0)
    }
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
        assert_eq!(text(&[0.9, 1.0, 1.0, 0.9]).as_deref(), Some("95.00 ± 9.19"));
        assert_eq!(text(&[0.9]).as_deref(), Some("90.00 ± 0.00"));
        assert_eq!(text(&[]), None);
    }

    #[test]
    fn who_has_no_alarm_counts() {
        let times = [Some(15), None, Some(45), Some(30)];
        assert_eq!(
            [25, 50, 75, 90].map(|part| reached_by(part, &times)),
            [Some(15), Some(30), Some(45), None]
        );
        assert_eq!(reached_by(50, &[]), None);
    }
}
