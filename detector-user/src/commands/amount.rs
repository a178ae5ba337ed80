//! Rates and bursts of the kernel's budgets, as people write them in a policy.

use detector_common::budget::{BYTE_INTERVAL_FRACTION_BITS, Budget, TICKS_PER_NS};
use serde::Serialize;
use utoipa::ToSchema;

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Packets, connections or sources.
    Units,
    /// Bytes.
    Bytes,
}

/// A budget for people and for programs.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Amount {
    /// As in a policy: `2000/s`, `8MB/s`, `10/min`.
    pub rate: String,
    /// As in a policy: `4000`, `64kB`.
    pub burst: String,
    /// Packets, bytes, connections or sources a second.
    pub per_second: f64,
    /// As many at once.
    pub at_once: u64,
}

const TICKS_PER_S: f64 = 1e9 * TICKS_PER_NS as f64;

/// Periods that a rate may be written in, seconds.
const PERIODS: [(&str, f64); 4] = [("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0)];

/// Digits that a rate is written with at most.
const DIGITS_MAX: i32 = 12;

impl Amount {
    /// Of a budget; `None`: it is unlimited. The kernel has the time of one unit, rounded: of all rates that are rounded to
    /// it, this is the one with the fewest digits, in the first period in which that is a whole number.
    pub fn of(budget: &Budget, quantity: Quantity) -> Option<Self> {
        if !budget.is_limited() {
            return None;
        }
        let fraction = match quantity {
            Quantity::Units => 1.0,
            Quantity::Bytes => f64::from(1_u32 << BYTE_INTERVAL_FRACTION_BITS),
        };
        let interval_ticks = budget.interval as f64 / fraction;
        let rate = |seconds: f64| {
            let exact = TICKS_PER_S / interval_ticks * seconds;
            let is_same =
                |rate: &f64| (TICKS_PER_S * seconds * fraction / rate - budget.interval as f64).abs() < 1.0;
            (1..=DIGITS_MAX).map(|digits| significant(exact, digits)).find(is_same).unwrap_or(exact)
        };
        let rates = PERIODS.map(|(name, seconds)| (name, seconds, rate(seconds)));
        let is_whole = |(_, _, rate): &(&str, f64, f64)| *rate >= 1.0 && rate.fract() == 0.0;
        let (name, seconds, rate) = rates.into_iter().find(is_whole).unwrap_or(rates[0]);
        let at_once = (budget.burst_ticks as f64 / interval_ticks).round() as u64;
        Some(Self {
            rate: format!("{}/{name}", scaled(rate, quantity)),
            burst: scaled(at_once as f64, quantity),
            per_second: rate / seconds,
            at_once,
        })
    }
}

/// A number with so many digits.
fn significant(number: f64, digits: i32) -> f64 {
    let exponent = number.log10().floor() as i32 - (digits - 1);
    // Powers of ten above one are exact, those below are not.
    let scale = 10_f64.powi(exponent.abs());
    if exponent >= 0 { (number / scale).round() * scale } else { (number * scale).round() / scale }
}

/// Bytes with the largest unit of which three decimals suffice.
fn scaled(number: f64, quantity: Quantity) -> String {
    if quantity == Quantity::Units {
        return number.to_string();
    }
    let units = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let fits = |&(_, unit): &(&str, f64)| number >= unit && (number * 1e3 / unit).fract() == 0.0;
    match units.into_iter().find(fits) {
        Some((name, unit)) => format!("{}{name}", number / unit),
        None => format!("{number}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK_NS: u64 = 4_000_000;

    #[test]
    fn budgets_are_told_as_they_were_written() {
        let units = |count, per_s: u64, burst| {
            let budget = Budget::of_units(count, per_s * 1_000_000_000, burst, TICK_NS);
            let amount = Amount::of(&budget, Quantity::Units).unwrap();
            format!("{} {}", amount.rate, amount.burst)
        };
        assert_eq!(units(2000, 1, 4000), "2000/s 4000");
        assert_eq!(units(123_456, 1, 500_000), "123456/s 500000");
        assert_eq!(units(100, 60, 100), "100/min 100");
        assert_eq!(units(125, 1, 125), "125/s 125");
        assert_eq!(units(10, 3600, 20), "10/h 20");
        assert_eq!(units(3, 86_400, 3), "3/d 3");
        let bytes = |count, burst| {
            let budget = Budget::of_bytes(count, 1_000_000_000, burst, TICK_NS);
            let amount = Amount::of(&budget, Quantity::Bytes).unwrap();
            format!("{} {}", amount.rate, amount.burst)
        };
        assert_eq!(bytes(8_000_000, 8_000_000), "8MB/s 8MB");
        assert_eq!(bytes(1_500_000, 65_536), "1.5MB/s 65.536kB");
        assert_eq!(bytes(1_000_000_000_000, 32_000_000_000), "1TB/s 32GB");
        assert_eq!(bytes(64, 1514), "64B/s 1.514kB");
        assert_eq!(Amount::of(&Budget::UNLIMITED, Quantity::Units), None);
    }
}
