//! Several runs in turn, and what they say together: other machines share this one's cores and caches, so one run says
//! nothing, and two programs are compared only where they ran side by side.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread::ScopedJoinHandle,
};

use anyhow::Result;

/// Tells a thread that runs until it is told to end; also when the one who tells panics.
pub(crate) struct SetAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a thread returned; its panic is passed on.
pub(crate) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Figures of one thing measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Keeps a figure.
    pub(crate) fn push(&mut self, value: f64) {
        let place = self.0.partition_point(|&kept| kept < value);
        self.0.insert(place, value);
    }

    /// The middle one; of two, the lower. 0 without any.
    pub(crate) fn median(&self) -> f64 {
        self.0.get(self.0.len().saturating_sub(1) / 2).copied().unwrap_or_default()
    }

    /// The least.
    pub(crate) fn min(&self) -> f64 {
        self.0.first().copied().unwrap_or_default()
    }

    /// The least and the greatest.
    pub(crate) fn range(&self) -> [f64; 2] {
        [self.min(), self.max()]
    }

    /// The greatest.
    pub(crate) fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }
}

/// Measures things in turn, A B C A B C …: `run` gets the number of the thing. The first turn warms up and is not kept.
pub(crate) fn in_turn(
    things: usize,
    rounds: usize,
    mut run: impl FnMut(usize) -> Result<f64>,
) -> Result<Vec<Samples>> {
    let mut samples = vec![Samples::default(); things];
    for round in 0..=rounds {
        for (thing, samples) in samples.iter_mut().enumerate() {
            let value = run(thing)?;
            if round > 0 {
                samples.push(value);
            }
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_told_by_their_middle_and_ends() {
        let mut samples = Samples::default();
        assert_eq!((samples.median(), samples.min(), samples.max()), (0.0, 0.0, 0.0));
        [3.0, 1.0, 2.0].into_iter().for_each(|value| samples.push(value));
        assert_eq!((samples.median(), samples.min(), samples.max()), (2.0, 1.0, 3.0));
        samples.push(0.5);
        assert_eq!(samples.median(), 1.0);
    }

    #[test]
    fn things_are_measured_in_turn_and_the_first_turn_is_not_kept() {
        let mut order = Vec::new();
        let samples = in_turn(2, 2, |thing| {
            order.push(thing);
            Ok(order.len() as f64)
        })
        .unwrap();
        assert_eq!(order, [0, 1, 0, 1, 0, 1]);
        assert_eq!((samples[0].min(), samples[1].max()), (3.0, 6.0));
    }
}
