//! What became of everybody's exchanges since the decision.

use std::collections::BTreeMap;

use detector_fleets::source::Source;
use detector_generator::packets::Outcome;

use crate::source_of;

/// Exchanges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Exchanges {
    pub(crate) all: u64,
    /// All of whose packets passed in the end.
    pub(crate) done: u64,
    /// Of which, or of the handshake before which, a packet was dropped.
    pub(crate) hurt: u64,
}

impl Exchanges {
    fn add(&mut self, other: &Self) {
        self.all += other.all;
        self.done += other.done;
        self.hurt += other.hurt;
    }

    /// The share that was not made.
    pub(crate) fn cut(&self) -> f64 {
        1.0 - self.done as f64 / self.all.max(1) as f64
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Ledger {
    of_sources: BTreeMap<Source, Exchanges>,
}

impl Ledger {
    pub(crate) fn take(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            let sum = self.of_sources.entry(source_of(outcome.source)).or_default();
            sum.all += 1;
            sum.done += u64::from(outcome.is_done);
            sum.hurt += u64::from(outcome.is_hurt);
        }
    }

    /// The exchanges of some sources, and how many of those made any.
    pub(crate) fn of(&self, is_one: impl Fn(&Source) -> bool) -> (Exchanges, usize) {
        let mut sum = Exchanges::default();
        let own = self.of_sources.iter().filter(|(source, _)| is_one(source));
        let count = own.map(|(_, exchanges)| sum.add(exchanges)).count();
        (sum, count)
    }

    /// The sources that lost most of those, for who looks into it.
    pub(crate) fn worst(&self, is_one: impl Fn(&Source) -> bool) -> Vec<(Source, Exchanges)> {
        let own = self.of_sources.iter().filter(|(source, exchanges)| is_one(source) && exchanges.hurt > 0);
        let mut worst: Vec<_> = own.map(|(source, exchanges)| (*source, *exchanges)).collect();
        worst.sort_by_key(|(_, exchanges)| std::cmp::Reverse(exchanges.hurt));
        worst.truncate(5);
        worst
    }
}
