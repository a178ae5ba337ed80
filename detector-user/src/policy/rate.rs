//! Rates and sizes: decimals, units and periods, without rounding.

use super::model::Rate;
use super::spelling::{did_you_mean, meant};
use super::text::Issue;
use super::{BURST_BYTES_DEFAULT_MIN, BURST_BYTES_MIN, BYTES_PER_S_MAX, BYTES_PER_S_MIN, COUNT_PER_S_MAX};

const NS_PER_S: u64 = 1_000_000_000;

/// Digits of a number at most, and those after its point. With these, no product below leaves 128 bits: 10^15
/// times 10^12 (a unit) times 10^9 (a second) is 10^36 of 3·10^38, and a day of 8.64·10^13 ns times 8 bits times
/// 10^9 times the largest bound of 10^12 is 7·10^35.
const DIGITS_MAX: usize = 15;
const DECIMALS_MAX: usize = 9;

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    Packets,
    Bytes,
    Connections,
    Handshakes,
    NewSources,
}

impl Quantity {
    /// The field it is written in.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Connections => "connections",
            Self::Handshakes => "handshakes",
            Self::NewSources => "new_sources",
        }
    }

    /// The least burst it can have.
    pub(super) fn burst_min(self) -> u64 {
        if self == Self::Bytes { BURST_BYTES_MIN } else { 1 }
    }

    /// The least burst it has if none is written.
    pub(super) fn burst_default_min(self) -> u64 {
        if self == Self::Bytes { BURST_BYTES_DEFAULT_MIN } else { 1 }
    }

    /// A rate of it, for messages.
    pub(super) fn rate_expected(self) -> &'static str {
        match self {
            Self::Bytes => "a rate such as \"8MB/s\", \"500kB/s\", \"8MiB/s\" or \"100Mbit/s\"",
            Self::Packets | Self::Connections | Self::Handshakes | Self::NewSources => {
                "a rate such as \"2000/s\", \"1.5M/s\", \"100/min\", \"10/h\" or \"10/d\""
            }
        }
    }

    fn units(self) -> &'static [Unit] {
        if self == Self::Bytes { &BYTE_UNITS } else { &COUNT_UNITS }
    }

    /// The names of its units, also the empty one.
    pub(super) fn unit_names(self) -> impl Iterator<Item = &'static str> {
        self.units().iter().map(|(name, ..)| *name)
    }

    fn unit_expected(self) -> &'static str {
        match self {
            Self::Bytes => {
                "`B`, `kB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB`, `TiB`, `bit`, `kbit`, `Mbit`, `Gbit` or `Tbit`"
            }
            Self::Packets | Self::Connections | Self::Handshakes | Self::NewSources => {
                "a plain number, or one with `k`, `M` or `G`"
            }
        }
    }
}

/// A unit's name, and what it stands for as a fraction: one bit is 1/8 of a byte.
type Unit = (&'static str, u64, u64);

const COUNT_UNITS: [Unit; 4] = [("", 1, 1), ("k", 1_000, 1), ("M", 1_000_000, 1), ("G", 1_000_000_000, 1)];

const BYTE_UNITS: [Unit; 14] = [
    ("B", 1, 1),
    ("kB", 1_000, 1),
    ("MB", 1_000_000, 1),
    ("GB", 1_000_000_000, 1),
    ("TB", 1_000_000_000_000, 1),
    ("KiB", 1 << 10, 1),
    ("MiB", 1 << 20, 1),
    ("GiB", 1 << 30, 1),
    ("TiB", 1 << 40, 1),
    ("bit", 1, 8),
    ("kbit", 1_000, 8),
    ("Mbit", 1_000_000, 8),
    ("Gbit", 1_000_000_000, 8),
    ("Tbit", 1_000_000_000_000, 8),
];

const PERIODS: [(&str, u64); 4] =
    [("s", NS_PER_S), ("min", 60 * NS_PER_S), ("h", 3_600 * NS_PER_S), ("d", 86_400 * NS_PER_S)];

/// Reads a rate and keeps it within the bounds of its quantity.
pub(super) fn parse(text: &str, quantity: Quantity) -> Result<Rate, Issue> {
    read(text, quantity).map_err(|issue| {
        let help = meant(other_spellings(text), |candidate| read(candidate, quantity));
        issue.better_help(help)
    })
}

/// What other tools write for a rate, as it is written here.
fn other_spellings(text: &str) -> Vec<String> {
    let plain = text.trim().replace(" per ", "/").replace([',', '_'], "");
    // `2000pps/s` and `1Gbps/s` say the second twice.
    let once = plain.strip_suffix("/s").unwrap_or(&plain);
    let endings = [("pps", "/s"), ("cps", "/s"), ("bps", "bit/s"), ("Bps", "B/s")];
    let of_endings =
        endings.iter().filter_map(|(ending, here)| Some(once.strip_suffix(ending)?.to_owned() + here));
    let of_period = plain
        .split_once('/')
        .and_then(|(amount, period)| Some(format!("{amount}/{}", period_meant(period.trim())?)));
    of_endings.chain(of_period).chain([plain.clone() + "/s"]).collect()
}

fn read(text: &str, quantity: Quantity) -> Result<Rate, Issue> {
    let Some((amount_text, period_text)) = text.split_once('/') else {
        return Err(Issue::new("not a rate", quantity.rate_expected()));
    };
    let amount = amount(amount_text, quantity)?;
    let period_text = period_text.trim();
    let Some((_, period_ns)) = PERIODS.iter().find(|(name, _)| *name == period_text) else {
        return Err(Issue::new("unknown period of a rate", "`s`, `min`, `h` or `d` after the slash"));
    };

    let (count, per_ns) = amount.every(u128::from(*period_ns));
    within_bounds(count, per_ns, quantity)?;
    match (u64::try_from(count), u64::try_from(per_ns)) {
        (Ok(count), Ok(per_ns)) => Ok(Rate { count, per_ns }),
        _ => Err(Issue::new("rate too fine to be kept exactly", "fewer decimals, or a shorter period")),
    }
}

/// Reads a size in whole bytes.
pub(super) fn parse_bytes(text: &str) -> Result<u64, Issue> {
    let amount = amount(text, Quantity::Bytes)?;
    if !amount.count.is_multiple_of(amount.parts) {
        return Err(Issue::new("not a whole number of bytes", "a size such as \"16MB\" or \"64KiB\""));
    }
    u64::try_from(amount.count / amount.parts)
        .map_err(|_| Issue::new("size out of range", format!("at most {} bytes", u64::MAX)))
}

fn within_bounds(count: u128, per_ns: u128, quantity: Quantity) -> Result<(), Issue> {
    if count == 0 {
        return Err(Issue::new("rate of zero", "a rate above zero")
            .help("to let nothing through, use a rule with action = \"drop\"".to_owned()));
    }
    let count_in_s = count * u128::from(NS_PER_S);
    let is_bytes = quantity == Quantity::Bytes;
    let per_s_max = if is_bytes { BYTES_PER_S_MAX } else { COUNT_PER_S_MAX };
    if count_in_s > u128::from(per_s_max) * per_ns {
        let expected = if is_bytes { "at most 1TB/s" } else { "at most 1G/s" };
        return Err(Issue::new("rate out of range", expected));
    }
    if is_bytes && count_in_s < u128::from(BYTES_PER_S_MIN) * per_ns {
        return Err(Issue::new("rate out of range", format!("at least {BYTES_PER_S_MIN}B/s")));
    }
    Ok(())
}

fn period_meant(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => Some("s"),
        "m" | "min" | "mins" | "minute" | "minutes" => Some("min"),
        "h" | "hr" | "hour" | "hours" => Some("h"),
        "d" | "day" | "days" => Some("d"),
        _ => None,
    }
}

/// An exact amount, `count` / `parts`.
struct Amount {
    count: u128,
    parts: u128,
}

impl Amount {
    /// The amount in every `period_ns` as a whole count and its time: the period itself where the count is whole.
    fn every(self, period_ns: u128) -> (u128, u128) {
        if self.count.is_multiple_of(self.parts) {
            return (self.count / self.parts, period_ns);
        }
        let per_ns = period_ns * self.parts;
        let divisor = greatest_common_divisor(self.count, per_ns);
        (self.count / divisor, per_ns / divisor)
    }
}

/// Both above zero.
fn greatest_common_divisor(mut left: u128, mut right: u128) -> u128 {
    while right > 0 {
        (left, right) = (right, left % right);
    }
    left
}

/// Reads a decimal and its unit; blanks around them do not matter.
fn amount(text: &str, quantity: Quantity) -> Result<Amount, Issue> {
    let text = text.trim();
    let number_end = text.find(|character: char| !character.is_ascii_digit() && character != '.');
    let (number, unit_text) = text.split_at(number_end.unwrap_or(text.len()));
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || decimals.is_empty() || decimals.contains('.') {
        return Err(Issue::new("not a number with a unit", quantity.rate_expected()));
    }

    let unit_text = unit_text.trim();
    let Some((_, multiplier, divisor)) = quantity.units().iter().find(|(name, ..)| *name == unit_text) else {
        let wrong = if unit_text.is_empty() { "number without a unit" } else { "unknown unit" };
        let names = quantity.units().iter().map(|(name, ..)| *name).filter(|name| !name.is_empty());
        // `Mb` may be meant as either, and a guess would be wrong by a factor of eight.
        let help = match quantity {
            Quantity::Bytes => Some("bytes end in `B`, bits in `bit`".to_owned()),
            _ => did_you_mean(unit_text, names),
        };
        return Err(Issue::new(wrong, quantity.unit_expected()).help(help));
    };

    let decimals = decimals.trim_end_matches('0');
    let digits = format!("{}{decimals}", whole.trim_start_matches('0'));
    if digits.len() > DIGITS_MAX || decimals.len() > DECIMALS_MAX {
        let expected = format!("at most {DIGITS_MAX} digits, {DECIMALS_MAX} of them after the point");
        return Err(Issue::new("number with too many digits", expected));
    }
    // Without any digit left it is zero; anything else is digits alone and few enough.
    let digits: u128 = digits.parse().unwrap_or_default();
    let parts = decimals.bytes().fold(1, |parts: u128, _| parts * 10);
    Ok(Amount { count: digits * u128::from(*multiplier), parts: parts * u128::from(*divisor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str, quantity: Quantity) -> Rate {
        parse(text, quantity).unwrap()
    }

    #[test]
    fn counts() {
        let every = |count, per_ns| Rate { count, per_ns };
        assert_eq!(rate("2000/s", Quantity::Packets), every(2_000, NS_PER_S));
        assert_eq!(rate("100/min", Quantity::Connections), every(100, 60 * NS_PER_S));
        assert_eq!(rate("10/h", Quantity::NewSources), every(10, 3_600 * NS_PER_S));
        assert_eq!(rate("10/d", Quantity::Packets), every(10, 86_400 * NS_PER_S));
        assert_eq!(rate("50k/s", Quantity::Packets), every(50_000, NS_PER_S));
        assert_eq!(rate("1.5M/s", Quantity::Packets), every(1_500_000, NS_PER_S));
        assert_eq!(rate("1G/s", Quantity::Packets), every(1_000_000_000, NS_PER_S));
        assert_eq!(rate("1.50 / s", Quantity::Packets), every(3, 2 * NS_PER_S));
        assert_eq!(rate("0.001/s", Quantity::Packets), every(1, 1_000 * NS_PER_S));
    }

    #[test]
    fn bytes() {
        let per_s = |text| {
            let rate = rate(text, Quantity::Bytes);
            assert_eq!(rate.per_ns, NS_PER_S, "{text}");
            rate.count
        };
        assert_eq!(per_s("8MB/s"), 8_000_000);
        assert_eq!(per_s("8 MiB/s"), 8 << 20);
        assert_eq!(per_s("500kB/s"), 500_000);
        assert_eq!(per_s("0.5KiB/s"), 512);
        assert_eq!(per_s("100Mbit/s"), 12_500_000);
        assert_eq!(per_s("1TB/s"), 1_000_000_000_000);
        assert_eq!(per_s("64B/s"), 64);
        assert_eq!(per_s("512bit/s"), 64);
        assert_eq!(rate("513bit/s", Quantity::Bytes), Rate { count: 513, per_ns: 8 * NS_PER_S });
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "/",
            "/s",
            "5",
            "5/",
            "5/m",
            "5/S",
            "5/ms",
            "k/s",
            ".5/s",
            "5./s",
            "1.2.3/s",
            "-5/s",
            "+5/s",
            "1e3/s",
            "1_000/s",
            "5K/s",
            "5kB/s",
            "5 5/s",
            "0/s",
            "0.0/s",
            "1.000000001G/s",
            "1.0000000001k/s",
            "5/s/s",
            "1234567890123456/s",
            "99999999999999999999999999999999999999999/s",
            "0.000000001/d",
        ] {
            assert!(parse(text, Quantity::Packets).is_err(), "{text}");
        }
        for text in ["500/s", "8mb/s", "8Kb/s", "63.9B/s", "511bit/s", "1.1TB/s", "8.1Tbit/s", "0B/s"] {
            assert!(parse(text, Quantity::Bytes).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("16MB"), Ok(16_000_000));
        assert_eq!(parse_bytes("1.5KiB"), Ok(1_536));
        assert_eq!(parse_bytes("8bit"), Ok(1));
        for text in ["16", "16M", "0.3B", "7bit", "16MB/s", "999999999999999TiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
