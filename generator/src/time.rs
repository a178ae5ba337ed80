//! Time in a recording: seconds since it began, days of UTC, and when people are awake.

use std::ops::Range;

use crate::random::{Key, Weights};

pub(crate) const HOUR_S: u32 = 3_600;
pub(crate) const DAY_S: u32 = 24 * HOUR_S;

/// A span of time in which something goes on, seconds since the recording began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    pub(crate) start_s: f64,
    pub(crate) end_s: f64,
    /// How long it takes until all who take part do.
    pub(crate) ramp_s: f64,
}

impl Window {
    pub(crate) const ALWAYS: Self = Self { start_s: f64::NEG_INFINITY, end_s: f64::INFINITY, ramp_s: 0.0 };

    pub(crate) fn hours(start_h: f64, length_h: f64, ramp_h: f64) -> Self {
        let hour_s = f64::from(HOUR_S);
        Self { start_s: start_h * hour_s, end_s: (start_h + length_h) * hour_s, ramp_s: ramp_h * hour_s }
    }

    /// Whether who has that place in the order of those who join, from 0 to below 1, takes part then.
    pub(crate) fn has(&self, time_s: f64, place: f64) -> bool {
        time_s < self.end_s
            && (self.start_s == f64::NEG_INFINITY || time_s >= self.start_s + place * self.ramp_s)
    }

    /// Whether any of it is in this span.
    pub(crate) fn meets(&self, span: &Range<u32>) -> bool {
        self.start_s < f64::from(span.end) && self.end_s > f64::from(span.start)
    }
}

/// How activity is spread over the hours of a local day, and over the week.
#[derive(Clone, Debug)]
pub(crate) struct Rhythm {
    hours: Weights,
    weekend: f64,
}

impl Rhythm {
    /// People at home: evenings.
    pub(crate) fn evenings() -> Self {
        let hours = [
            2.5, 1.4, 0.8, 0.5, 0.4, 0.6, 1.3, 2.6, 3.6, 4.1, 4.4, 4.7, 5.0, 4.9, 4.7, 4.7, 5.0, 5.5, 6.1,
            6.8, 7.3, 7.2, 6.1, 4.3,
        ];
        Self { hours: Weights::new(hours), weekend: 1.12 }
    }

    /// People at work.
    pub(crate) fn office() -> Self {
        let hours = [
            0.1, 0.1, 0.1, 0.1, 0.1, 0.3, 1.0, 3.5, 8.5, 11.0, 11.5, 10.5, 7.0, 9.0, 10.5, 10.0, 8.5, 4.5,
            1.8, 0.9, 0.5, 0.3, 0.2, 0.1,
        ];
        Self { hours: Weights::new(hours), weekend: 0.12 }
    }

    /// Machines.
    pub(crate) fn flat() -> Self {
        Self { hours: Weights::new([1.0; 24]), weekend: 1.0 }
    }

    /// Activity of a day of the recording, which begins on a Monday, relative to a working day.
    pub(crate) const fn of_day(&self, day: u32) -> f64 {
        if day % 7 >= 5 { self.weekend } else { 1.0 }
    }

    /// Activity in an hour of the local day, on average 1.
    pub(crate) fn of_hour(&self, hour: usize) -> f64 {
        24.0 * self.hours.share(hour)
    }

    /// A second of the day, UTC, for somebody whose clock is that many hours ahead; from two numbers from 0 to below 1.
    pub(crate) fn second(&self, hour: f64, within: f64, ahead_h: i32) -> u32 {
        let local = self.hours.pick(hour) as i32;
        ((local - ahead_h).rem_euclid(24) as u32) * HOUR_S + (within * f64::from(HOUR_S)) as u32
    }
}

/// Hours that the clock of an entity is ahead of UTC: a node in Europe serves mostly its neighbours.
pub(crate) fn hours_ahead(of: Key) -> i32 {
    let unit = of.named("time zone").unit();
    match unit {
        _ if unit < 0.62 => 1,
        _ if unit < 0.80 => 0,
        _ if unit < 0.92 => 2,
        _ if unit < 0.96 => -5,
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_hours_are_those_of_utc_moved() {
        let rhythm = Rhythm { hours: Weights::new([1.0]), weekend: 1.0 };
        assert_eq!(rhythm.second(0.3, 0.0, 0), 0);
        assert_eq!(rhythm.second(0.3, 0.5, 1), 23 * HOUR_S + 1_800);
        assert_eq!(rhythm.second(0.3, 0.0, -5), 5 * HOUR_S);
    }

    #[test]
    fn a_window_takes_its_time_until_all_take_part() {
        let window = Window::hours(1.0, 2.0, 1.0);
        assert_eq!(
            [3_599.0, 3_600.0, 5_400.0, 10_799.0].map(|time| window.has(time, 0.5)),
            [false, false, true, true]
        );
        assert!(!window.has(10_800.0, 0.0) && Window::ALWAYS.has(0.0, 0.99));
        assert!(window.meets(&(0..3_601)) && !window.meets(&(0..3_600)) && !window.meets(&(10_800..10_801)));
    }
}
