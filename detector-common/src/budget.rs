//! Budgets: the generic cell rate algorithm (GCRA, ITU-T I.371) on one word of state.
//!
//! The state is the *theoretical arrival time* (TAT): when the last admitted packet would have arrived had everything
//! come at exactly the rate. A packet conforms when the TAT does not run ahead of now by more than the burst. A TAT in
//! the past is a full budget, so an idle budget needs no refill and an idle entry can be given away without loss.
//!
//! Times are in *ticks* of 1/16 ns: a rate of 100 M packets a second has 160 ticks a packet, so rounding the interval
//! to whole ticks errs by less than 0.4 %, at 1 M/s by less than 0.004 %. Times stay below 2^63, which the search for an
//! idle way relies on: 18 years of uptime.

use crate::{abi_struct, limits::SWAP_ATTEMPTS_MAX};

/// Ticks of a nanosecond, as a power of two.
pub const TICKS_PER_NS_LOG2: u32 = 4;

/// Ticks of a nanosecond.
pub const TICKS_PER_NS: u64 = 1 << TICKS_PER_NS_LOG2;

/// Fraction bits of the interval of a budget of bytes: one byte at 1 TB/s takes 0.016 ticks.
pub const BYTE_INTERVAL_FRACTION_BITS: u32 = 16;

/// Ticks of a time in nanoseconds; below 2^63 for 18 years of uptime.
#[inline(always)]
pub const fn ticks(ns: u64) -> u64 {
    ns << TICKS_PER_NS_LOG2
}

abi_struct! {
    /// What a budget gives: one unit an interval, and a burst of them at once.
    #[derive(Default)]
    pub struct Budget: 16 {
        /// Ticks between two units at the rate; for bytes with [`BYTE_INTERVAL_FRACTION_BITS`] fraction bits.
        /// 0: no budget, everything conforms.
        pub interval: u64,
        /// How far the TAT may run ahead of now, ticks: the burst times the interval.
        pub burst_ticks: u64,
    }
}

impl Budget {
    /// No limit.
    pub const UNLIMITED: Self = Self { interval: 0, burst_ticks: 0 };

    /// A budget of things counted one by one (packets, connections, new sources): `count` of them every `per_ns`
    /// nanoseconds, `burst` at once.
    ///
    /// The clock steps by `clock_tick_ns`, and everything that comes within a step comes at one time. A shorter burst than
    /// two steps, or than one unit and a step, could not reach the rate: it is raised. Saturates instead of overflowing.
    pub fn of_units(count: u64, per_ns: u64, burst: u64, clock_tick_ns: u64) -> Self {
        let interval = ((per_ns as u128 * TICKS_PER_NS as u128 + count as u128 / 2) / count.max(1) as u128)
            .clamp(1, u64::MAX as u128 >> 2) as u64;
        let burst_ticks = interval.saturating_mul(burst).min(BURST_TICKS_MAX);
        Self { interval, burst_ticks: burst_ticks.max(burst_ticks_min(interval, ticks(clock_tick_ns))) }
    }

    /// A budget of bytes: `count` bytes every `per_ns` nanoseconds, `burst` bytes at once. See [`Self::of_units`].
    pub fn of_bytes(count: u64, per_ns: u64, burst: u64, clock_tick_ns: u64) -> Self {
        let scaled = (per_ns as u128 * TICKS_PER_NS as u128) << BYTE_INTERVAL_FRACTION_BITS;
        let interval = (scaled / count.max(1) as u128).clamp(1, BYTE_INTERVAL_MAX as u128) as u64;
        let burst_ticks = (interval as u128 * burst as u128) >> BYTE_INTERVAL_FRACTION_BITS;
        let burst_ticks = burst_ticks.min(BURST_TICKS_MAX as u128) as u64;
        Self { interval, burst_ticks: burst_ticks.max(1).max(ticks(2 * clock_tick_ns)) }
    }

    /// Whether there is a budget at all.
    #[inline(always)]
    pub const fn is_limited(&self) -> bool {
        self.interval != 0
    }

    /// Whether it gives no more than another one of its kind: neither over time nor at once, the latter to the unit, of
    /// bytes to a kilobyte.
    #[inline(always)]
    pub const fn is_within(&self, other: &Self) -> bool {
        if other.interval == 0 {
            return true;
        }
        self.interval >= other.interval
            && self.burst_ticks / self.interval <= other.burst_ticks / other.interval
    }

    /// The slower of two budgets of one kind with the smaller burst of both. `least_ticks`: the burst that the clock needs at
    /// an interval.
    pub fn tightest(self, other: Self, least_ticks: impl Fn(u64) -> u64) -> Self {
        if self.interval == 0 || other.interval == 0 {
            return if self.interval == 0 { other } else { self };
        }
        let interval = if self.interval > other.interval { self.interval } else { other.interval };
        // As many units as before, at the slower rate.
        let burst =
            |budget: Self| (budget.burst_ticks as u128 * interval as u128 / budget.interval as u128) as u64;
        let (one, two) = (burst(self), burst(other));
        let burst_ticks = if one < two { one } else { two };
        let least = least_ticks(interval);
        Self { interval, burst_ticks: if burst_ticks < least { least } else { burst_ticks } }
    }

    /// Cost of one unit, ticks.
    #[inline(always)]
    pub const fn unit_cost(&self) -> u64 {
        self.interval
    }

    /// Cost of so many bytes, ticks. At most the burst, so that a full budget admits a frame of any length.
    #[inline(always)]
    pub const fn bytes_cost(&self, bytes: u32) -> u64 {
        let cost = (self.interval * bytes as u64) >> BYTE_INTERVAL_FRACTION_BITS;
        if cost < self.burst_ticks { cost } else { self.burst_ticks }
    }
}

/// The shortest burst with which one unit an interval is reached, under a clock that steps.
#[inline(always)]
pub const fn burst_ticks_min(interval: u64, step: u64) -> u64 {
    if interval > step { interval.saturating_add(step) } else { 2 * step }
}

/// Longest burst, ticks: 90 days. Keeps `now + burst` far from overflow.
pub const BURST_TICKS_MAX: u64 = 90 * 24 * 3600 * 1_000_000_000 * TICKS_PER_NS;

/// Largest interval of a byte, so that 2^17 bytes of it do not overflow: 8,192 s × 2^-17 a byte, some 16 bytes a second.
pub const BYTE_INTERVAL_MAX: u64 = u64::MAX >> 18;

/// A packet came too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Ticks until the same packet would conform.
    pub ticks: u64,
}

/// Charges `cost` to a budget whose state is `tat`, at time `now`: the new state, or how long to wait.
///
/// All in ticks; `cost` ≤ `burst`. Another CPU may have read a later clock, so `tat` may be ahead of any bound known
/// here: times are only compared and added, never subtracted without asking.
///
/// Bound: over any interval of length t that starts with an idle budget, the admitted costs sum to at most
/// `burst + t` (property test below).
#[inline(always)]
pub const fn take(tat: u64, now: u64, cost: u64, burst: u64) -> Result<u64, Wait> {
    let start = if tat > now { tat } else { now };
    let new = start + cost;
    let latest = now + burst;
    if new > latest {
        return Err(Wait { ticks: new - latest });
    }
    Ok(new)
}

/// Ticks of budget left at `now`: the burst when idle, 0 when spent.
#[inline(always)]
pub const fn left(tat: u64, now: u64, burst: u64) -> u64 {
    if tat <= now { burst } else { burst.saturating_sub(tat - now) }
}

/// A word that several CPUs read and change at once. Every operation is atomic; those that change it are full barriers.
pub trait Word {
    /// Reads it.
    fn load(&self) -> u64;

    /// Puts `new` in place of `expected`.
    ///
    /// # Errors
    ///
    /// The word that was there, if it was another.
    fn swap(&self, expected: u64, new: u64) -> Result<(), u64>;

    /// Adds, wrapping; the word that was there.
    fn add(&self, amount: u64) -> u64;
}

/// What a state may be ahead of its budget's own bound before the rest is taken for the debt of an earlier policy.
const FOREIGN_DEBT_TICKS: u64 = ticks(1_000_000_000);

/// Whether a cost conforms; nothing is charged.
///
/// A state that is further ahead than this budget could ever bring it is an earlier policy's debt: it counts as spent, no
/// more. A second of slack, since other CPUs may have read a later clock.
///
/// # Errors
///
/// It does not conform.
#[inline(always)]
pub fn ask(tat: &impl Word, budget: &Budget, cost: u64, now: u64) -> Result<(), Wait> {
    if !budget.is_limited() {
        return Ok(());
    }
    let seen = tat.load();
    match take(seen, now, cost, budget.burst_ticks) {
        Ok(_) => Ok(()),
        Err(wait) => {
            if wait.ticks > cost + FOREIGN_DEBT_TICKS {
                // A lost swap leaves it to the next packet.
                let _ = tat.swap(seen, now + budget.burst_ticks);
            }
            Err(wait)
        }
    }
}

/// Charges a cost if it conforms.
///
/// Compare-and-swap; after [`SWAP_ATTEMPTS_MAX`] lost races, which `contended` is told, an addition that is taken back
/// when it went too far. The addition does not raise a state that lies in the past to now, but a state that other CPUs
/// just moved does not.
///
/// # Errors
///
/// It does not conform.
#[inline(always)]
pub fn charge(
    tat: &impl Word,
    budget: &Budget,
    cost: u64,
    now: u64,
    contended: impl FnOnce(),
) -> Result<(), Wait> {
    if !budget.is_limited() {
        return Ok(());
    }
    let mut seen = tat.load();
    for _ in 0..SWAP_ATTEMPTS_MAX {
        let new = take(seen, now, cost, budget.burst_ticks)?;
        match tat.swap(seen, new) {
            Ok(()) => return Ok(()),
            Err(other) => seen = other,
        }
    }
    contended();
    let before = tat.add(cost);
    take(before, now, cost, budget.burst_ticks).map(drop).inspect_err(|_| {
        tat.add(cost.wrapping_neg());
    })
}

/// Notes when an entry was last used, where no budget does. Says nothing of budgets: the time is not ahead.
#[inline(always)]
pub fn stamp(tat: &impl Word, now: u64) {
    let seen = tat.load();
    if seen < now {
        // Lost only to somebody who dated it too.
        let _ = tat.swap(seen, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A word that another CPU changes before each of the next swaps.
    struct Contended {
        word: Cell<u64>,
        /// What the other CPU charges before each swap, as long as there is something.
        others: Cell<Vec<u64>>,
    }

    impl Word for Contended {
        fn load(&self) -> u64 {
            self.word.get()
        }

        fn swap(&self, expected: u64, new: u64) -> Result<(), u64> {
            let mut others = self.others.take();
            if let Some(cost) = others.pop() {
                self.word.set(self.word.get() + cost);
            }
            self.others.set(others);
            let seen = self.word.get();
            if seen != expected {
                return Err(seen);
            }
            self.word.set(new);
            Ok(())
        }

        fn add(&self, amount: u64) -> u64 {
            let before = self.word.get();
            self.word.set(before.wrapping_add(amount));
            before
        }
    }

    /// Ten units at once, one interval each.
    const INTERVAL: u64 = 1000;
    const TEN: Budget = Budget { interval: INTERVAL, burst_ticks: 10 * INTERVAL };

    /// Charges one unit while others charge theirs: whether it conformed, the state after, whether it was contended.
    fn charge_among(spent: u64, others: &[u64]) -> (bool, u64, bool) {
        let now = ticks(1_000_000);
        let word = Contended { word: Cell::new(now + spent), others: Cell::new(others.to_vec()) };
        let mut contended = false;
        let charged = charge(&word, &TEN, INTERVAL, now, || contended = true);
        (charged.is_ok(), word.load() - now, contended)
    }

    #[test]
    fn a_lost_race_is_run_again() {
        assert_eq!(charge_among(0, &[]), (true, INTERVAL, false));
        assert_eq!(charge_among(0, &[INTERVAL; 3]), (true, 4 * INTERVAL, false));
        // The race was for the last unit.
        assert_eq!(charge_among(9 * INTERVAL, &[INTERVAL]), (false, 10 * INTERVAL, false));
    }

    #[test]
    fn after_four_lost_races_an_addition_keeps_the_limit() {
        assert_eq!(charge_among(0, &[INTERVAL; 4]), (true, 5 * INTERVAL, true));
        assert_eq!(charge_among(5 * INTERVAL, &[INTERVAL; 4]), (true, 10 * INTERVAL, true));
        // It went too far and is taken back.
        assert_eq!(charge_among(6 * INTERVAL, &[INTERVAL; 4]), (false, 10 * INTERVAL, true));
    }

    #[test]
    fn a_stamp_never_goes_back_and_loses_no_charge() {
        let stamped = |word: u64, others: &[u64]| {
            let word = Contended { word: Cell::new(word), others: Cell::new(others.to_vec()) };
            stamp(&word, 500);
            word.load()
        };
        assert_eq!(stamped(0, &[]), 500);
        assert_eq!(stamped(700, &[]), 700);
        assert_eq!(stamped(100, &[900]), 1000, "what was charged meanwhile stays");
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_flood_gets_burst_plus_rate_times_time() {
        let budget = Budget::of_units(100, SECOND, 100, 0);
        let mut tat = 0;
        let mut admitted = 0;
        let start = 3600 * SECOND;
        for packet in 0..10 * 100_000_u64 {
            let now = ticks(start + packet * 10_000);
            if let Ok(new) = take(tat, now, budget.unit_cost(), budget.burst_ticks) {
                tat = new;
                admitted += 1;
            }
        }
        // The last packet comes 10 µs before second 10, so the 1,100th is still to come.
        assert_eq!(admitted, 100 + 100 * 10 - 1);
    }

    #[test]
    fn a_coarse_clock_reaches_the_rate() {
        const TICK_NS: u64 = 4_000_000;
        for per_second in [50, 100, 120, 249, 251, 333, 1000, 100_000] {
            let budget = Budget::of_units(per_second, SECOND, 1, TICK_NS);
            let mut tat = 0;
            let mut admitted = 0_u64;
            for packet in 0..10 * 200_000_u64 {
                let ns = 3600 * SECOND + packet * 5_000;
                let now = ticks(ns / TICK_NS * TICK_NS);
                if let Ok(new) = take(tat, now, budget.unit_cost(), budget.burst_ticks) {
                    tat = new;
                    admitted += 1;
                }
            }
            let steps = 2 * per_second * TICK_NS / SECOND + 2;
            assert!(admitted.abs_diff(10 * per_second) <= steps, "{admitted} in 10 s at {per_second}/s");
        }
    }

    #[test]
    fn time_from_another_cpu_may_be_ahead() {
        // 5 s ahead of this CPU's clock with a burst of 1 s: refused, not wrapped around.
        let now = ticks(100 * SECOND);
        assert_eq!(
            take(now + ticks(5 * SECOND), now, 16, ticks(SECOND)),
            Err(Wait { ticks: ticks(4 * SECOND) + 16 })
        );
    }

    #[test]
    fn a_frame_larger_than_the_burst_passes_a_full_budget() {
        let budget = Budget::of_bytes(1000, SECOND, 1514, 0);
        let cost = budget.bytes_cost(65_549);
        assert_eq!(take(0, ticks(SECOND), cost, budget.burst_ticks), Ok(ticks(SECOND) + budget.burst_ticks));
    }

    #[test]
    fn extremes_do_not_overflow() {
        for (count, per_ns) in [(1, u64::MAX), (u64::MAX, 1), (1, 1), (0, 0), (u64::MAX, u64::MAX)] {
            for burst in [0, 1, u64::MAX] {
                for tick in [0, 10_000_000] {
                    let units = Budget::of_units(count, per_ns, burst, tick);
                    let bytes = Budget::of_bytes(count, per_ns, burst, tick);
                    assert!(units.is_limited() && bytes.is_limited());
                    assert!(bytes.bytes_cost(1 << 17) <= bytes.burst_ticks);
                    // 30 years of uptime.
                    let now = ticks(30 * 365 * 24 * 3600 * SECOND);
                    let _ = take(now, now, bytes.bytes_cost(1 << 17), bytes.burst_ticks);
                }
            }
        }
    }

    /// The budget as its definition says, on numbers that cannot overflow: a queue of exact fractions.
    fn model(arrivals: &[(u64, u32)], interval: u64, burst: u64) -> Vec<bool> {
        let mut tat: i128 = i128::MIN;
        arrivals
            .iter()
            .map(|&(now, units)| {
                let start = tat.max(now as i128);
                let conforms = start + (interval as i128) * (units as i128) <= now as i128 + burst as i128;
                if conforms {
                    tat = start + interval as i128 * units as i128;
                }
                conforms
            })
            .collect()
    }

    proptest! {
        #[test]
        fn equals_the_model_on_big_integers(
            count in 1_u64..=1_000_000_000,
            period in prop::sample::select(std::vec![SECOND, 60 * SECOND, 3600 * SECOND]),
            burst in 1_u64..=100_000,
            gaps in prop::collection::vec(0_u64..=3 * SECOND, 1..200),
        ) {
            let budget = Budget::of_units(count, period, burst, 0);
            let mut now = ticks(3600 * SECOND);
            let arrivals: Vec<_> = gaps.iter().map(|gap| { now += ticks(gap % (2 * period / count + 2)); (now, 1) }).collect();
            let expected = model(&arrivals, budget.interval, budget.burst_ticks);
            let mut tat = 0;
            for (&(now, _), conforms) in arrivals.iter().zip(expected) {
                let taken = take(tat, now, budget.unit_cost(), budget.burst_ticks);
                prop_assert_eq!(taken.is_ok(), conforms);
                if let Ok(new) = taken { tat = new; }
            }
        }

        #[test]
        fn never_more_than_burst_and_rate(
            count in 1_u64..=10_000_000,
            burst in 1_u64..=1000,
            gaps in prop::collection::vec(0_u64..=1_000_000, 1..500),
        ) {
            let budget = Budget::of_units(count, SECOND, burst, 0);
            let start = ticks(3600 * SECOND);
            let (mut now, mut tat, mut admitted) = (start, 0, 0_u128);
            for gap in gaps {
                now += ticks(gap);
                if let Ok(new) = take(tat, now, budget.unit_cost(), budget.burst_ticks) { tat = new; admitted += 1; }
                prop_assert!(admitted * budget.interval as u128 <= (budget.burst_ticks + (now - start)) as u128);
            }
        }

        #[test]
        fn waiting_as_told_conforms(tat in 0_u64..1 << 62, now in 0_u64..1 << 62, cost in 0_u64..1 << 40, extra in 0_u64..1 << 40) {
            let burst = cost + extra;
            if let Err(Wait { ticks }) = take(tat, now, cost, burst) {
                prop_assert!(take(tat, now + ticks, cost, burst).is_ok());
                prop_assert!(take(tat, now + ticks - 1, cost, burst).is_err());
            }
        }
    }
}
