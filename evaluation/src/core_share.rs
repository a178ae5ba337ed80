//! How much of its core a thread gets while something is measured. A virtual machine's processor is often one of two threads of a core: what the other one
//! does, for whomever, takes up to half of it, which no clock of the machine shows.

use std::hint::black_box;

use rustix::time::{ClockId, clock_gettime};

/// Turns of a sample, which takes a tenth of a millisecond or so: short enough to fall between what others do.
const TURNS: u32 = 10_000;

/// Generators side by side: more operations that do not wait for each other than a core does at once.
const LANES: usize = 8;

/// Time that this thread was running, s.
pub(crate) fn running_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// How long some arithmetic took that needs no memory, s, each time.
#[derive(Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Takes one.
    pub(crate) fn take(&mut self) {
        let mut lanes: [u64; LANES] = black_box(std::array::from_fn(|lane| lane as u64 + 1));
        let began = running_s();
        for _ in 0..TURNS {
            // xorshift64 (Marsaglia 2003).
            for lane in &mut lanes {
                *lane ^= *lane << 13;
                *lane ^= *lane >> 7;
                *lane ^= *lane << 17;
            }
        }
        black_box(lanes);
        self.0.push(running_s() - began);
    }

    /// The part of its core that this thread got while they were taken, where one in a hundred of `all` is taken to have had the whole; without any 1.
    pub(crate) fn share(&self, all: &[&Self]) -> f64 {
        let mut times: Vec<_> = all.iter().flat_map(|samples| &samples.0).copied().collect();
        times.sort_by(f64::total_cmp);
        let (Some(whole), false) = (times.get(times.len() / 100), self.0.is_empty()) else { return 1.0 };
        (whole * self.0.len() as f64 / self.0.iter().sum::<f64>()).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_what_the_best_took_by_what_was_taken() {
        let [disturbed, quiet] = [Samples(vec![2.0, 4.0, 6.0]), Samples(vec![1.0; 200])];
        assert_eq!(disturbed.share(&[&disturbed, &quiet]), 0.25);
        assert_eq!(quiet.share(&[&disturbed, &quiet]), 1.0);
        assert_eq!(Samples::default().share(&[&quiet]), 1.0);
        let mut samples = Samples::default();
        samples.take();
        assert_eq!(samples.share(&[&samples]), 1.0);
    }
}
