//! How long a minute of detection is. Its windows, delays and memory are in units of its own: an epoch is a minute of it, however long
//! that takes outside.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::limits::{EPOCH_MS_MAX, EPOCH_MS_MIN};

/// Milliseconds of detection in an epoch.
const MINUTE_MS: u64 = 60_000;

/// Seconds of detection in an epoch.
pub const EPOCH_S: u32 = 60;

/// The length of an epoch outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    epoch_ms: u64,
}

impl Scale {
    /// One to one: an epoch is a minute.
    pub const MINUTE: Self = Self { epoch_ms: MINUTE_MS };

    /// Epochs of so many milliseconds, [`EPOCH_MS_MIN`] to [`EPOCH_MS_MAX`]; `None` of others.
    pub const fn of_ms(epoch_ms: u64) -> Option<Self> {
        if epoch_ms < EPOCH_MS_MIN || epoch_ms > EPOCH_MS_MAX {
            return None;
        }
        Some(Self { epoch_ms })
    }

    /// The length of an epoch outside.
    pub const fn epoch(self) -> Duration {
        Duration::from_millis(self.epoch_ms)
    }

    /// The time of detection, s, at a time outside, ms since the Unix epoch.
    pub fn inner_s(self, unix_ms: u64) -> u64 {
        scaled(unix_ms, MINUTE_MS, self.epoch_ms) / 1000
    }

    /// The time outside, ms since the Unix epoch, at a time of detection, s. It is the first one with this time, rounded up.
    pub fn unix_ms(self, inner_s: u64) -> u64 {
        let product = u128::from(inner_s) * 1000 * u128::from(self.epoch_ms);
        u64::try_from(product.div_ceil(u128::from(MINUTE_MS))).unwrap_or(u64::MAX)
    }

    /// The first whole second outside, since the Unix epoch, at which a time of detection is over.
    pub fn end_unix_s(self, inner_s: u64) -> u64 {
        self.unix_ms(inner_s).div_ceil(1000)
    }

    /// How long a time of detection is outside, s.
    pub fn outer_s(self, inner_s: u64) -> u64 {
        scaled(inner_s, self.epoch_ms, MINUTE_MS)
    }

    /// How long a time of detection is outside, ns; at least one.
    pub fn outer_ns(self, inner_ns: u64) -> u64 {
        scaled(inner_ns, self.epoch_ms, MINUTE_MS).max(1)
    }

    /// How long a time outside is in detection, ns; at least one.
    pub fn inner_ns(self, outer_ns: u64) -> u64 {
        scaled(outer_ns, MINUTE_MS, self.epoch_ms).max(1)
    }

    /// The same in seconds since the Unix epoch.
    pub fn unix_s(self, inner_s: u64) -> u64 {
        self.unix_ms(inner_s) / 1000
    }
}

impl Default for Scale {
    fn default() -> Self {
        Self::MINUTE
    }
}

fn scaled(number: u64, by: u64, of: u64) -> u64 {
    u64::try_from(u128::from(number) * u128::from(by) / u128::from(of)).unwrap_or(u64::MAX)
}

/// `60s`, `1s`, `250ms`.
impl fmt::Display for Scale {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch_ms {
            ms if ms.is_multiple_of(1000) => write!(formatter, "{}s", ms / 1000),
            ms => write!(formatter, "{ms}ms"),
        }
    }
}

impl FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a time from 100ms to 1h, like 60s or 250ms".to_owned();
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let (count, unit) = text.split_at(digits);
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "min" | "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(expected()),
        };
        let count: u64 = count.parse().map_err(|_| expected())?;
        count.checked_mul(unit_ms).and_then(Self::of_ms).ok_or_else(expected)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_read_as_they_are_written() {
        for (text, ms) in
            [("60s", 60_000), ("1min", 60_000), ("100ms", 100), ("1h", 3_600_000), ("250ms", 250)]
        {
            assert_eq!(text.parse(), Ok(Scale { epoch_ms: ms }));
        }
        assert_eq!(
            ["60s", "250ms"].map(|text| text.parse::<Scale>().map(|scale| scale.to_string())),
            [Ok("60s".to_owned()), Ok("250ms".to_owned())]
        );
        for wrong in ["", "60", "99ms", "61min", "1d", "s", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(wrong.parse::<Scale>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_epoch_of_a_second_makes_a_day_last_twenty_four_minutes() {
        let scale = Scale { epoch_ms: 1000 };
        let start_ms = 1_763_816_400_000;
        let start_s = scale.inner_s(start_ms);
        assert_eq!(scale.inner_s(start_ms + 24 * 60_000) - start_s, 86_400);
        assert_eq!(Scale::MINUTE.inner_s(start_ms), start_ms / 1000);
    }

    proptest! {
        #[test]
        fn a_time_comes_back(epoch_ms in EPOCH_MS_MIN..=EPOCH_MS_MAX, unix_ms in 0..4_000_000_000_000_u64) {
            let scale = Scale { epoch_ms };
            let inner_s = scale.inner_s(unix_ms);
            // A second of detection is a sixtieth of an epoch outside.
            let back_ms = scale.unix_ms(inner_s);
            prop_assert!(back_ms <= unix_ms && unix_ms - back_ms <= epoch_ms / 60 + 1, "{} {}", unix_ms, back_ms);
            prop_assert_eq!(scale.inner_s(back_ms), inner_s);
        }
    }
}
