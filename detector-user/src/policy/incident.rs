//! Incident rules: what responders add by hand beside the policy, without its file.
//!
//! They come before the rules of the policy, whatever the length of their prefixes, and after `defaults.allow`. A limit
//! of theirs never makes a source faster than the policy does: where the policy drops or is slower already, it stays in
//! force. Among themselves the most specific source prefix decides, and at equal prefixes the rule that came last. Those about fingerprints act on
//! handshakes, beside those about sources.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    BURST_BYTES_DEFAULT_MIN, Budget, Budgets, Matches, REASON_CHARS_MAX, REFILL_NS_MAX, Rate,
    rate::{self, Quantity},
    warnings::broad_bits,
};

/// The incident rules beside a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incidents {
    /// In the order in which they came.
    pub rules: Vec<Incident>,
}

/// One incident rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Its number, from 1; never given again while the program stays loaded.
    pub id: u64,
    /// What happens.
    pub action: IncidentAction,
    /// Whom it is about.
    #[serde(flatten)]
    pub matches: Matches,
    /// The service it is about; every service without one.
    pub service: Option<String>,
    /// When it ends, seconds since the Unix epoch; `None`: it stays until it is undone.
    pub until_s: Option<u64>,
    /// Why it is there.
    pub reason: String,
    /// Who added it.
    pub by: String,
    /// When, seconds since the Unix epoch.
    pub at_s: u64,
    /// Number of the counter of its drops.
    pub counter: u16,
}

/// What an incident rule does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentAction {
    /// Let everything through.
    Allow,
    /// Let nothing through.
    Block,
    /// Let no more through of each source than these budgets, and what the policy limits besides.
    Throttle(Budgets),
    /// Let no more handshakes or connections through than these budgets, of all clients together. Only of a rule about fingerprints.
    ThrottleShared(Budgets),
}

impl IncidentAction {
    /// The command that adds such a rule.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Block => "block",
            Self::Throttle(_) | Self::ThrottleShared(_) => "throttle",
        }
    }

    /// The budgets of a throttle.
    pub fn budgets(&self) -> Option<&Budgets> {
        match self {
            Self::Allow | Self::Block => None,
            Self::Throttle(budgets) | Self::ThrottleShared(budgets) => Some(budgets),
        }
    }

    /// Whether it is a throttle of all clients together.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::ThrottleShared(_))
    }
}

/// `allow`, `block`, or `throttle` with its rates.
impl fmt::Display for IncidentAction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())?;
        let Some(budgets) = self.budgets() else { return Ok(()) };
        let limits = [
            ("packets", budgets.packets),
            ("bytes", budgets.bytes),
            ("connections", budgets.connections),
            ("handshakes", budgets.handshakes),
        ];
        for (name, budget) in limits {
            if let Some(Budget { rate, burst }) = budget {
                write!(formatter, " {name} {rate} burst {burst}")?;
            }
        }
        if self.is_shared() {
            formatter.write_str(" shared")?;
        }
        Ok(())
    }
}

impl Incident {
    /// Whether it has ended by a time, seconds since the Unix epoch.
    pub fn has_ended(&self, now_unix_s: u64) -> bool {
        self.until_s.is_some_and(|until_s| until_s <= now_unix_s)
    }
}

/// Reads the budget of a throttle: a rate such as `100/s`, and a burst; without one, that of a policy's budget.
///
/// # Errors
///
/// What is wrong with the rate, or with the burst at this rate.
pub fn throttle_of_packets(rate: &str, burst: Option<u64>) -> Result<Budget, String> {
    throttle(rate, burst, Quantity::Packets)
}

/// As [`throttle_of_packets`], of connections.
///
/// # Errors
///
/// As there.
pub fn throttle_of_connections(rate: &str, burst: Option<u64>) -> Result<Budget, String> {
    throttle(rate, burst, Quantity::Connections)
}

/// As [`throttle_of_packets`], of TLS handshakes.
///
/// # Errors
///
/// As there.
pub fn throttle_of_handshakes(rate: &str, burst: Option<u64>) -> Result<Budget, String> {
    throttle(rate, burst, Quantity::Handshakes)
}

/// As [`throttle_of_packets`], of bytes: a rate such as `1MB/s`.
///
/// # Errors
///
/// As there.
pub fn throttle_of_bytes(rate: &str) -> Result<Budget, String> {
    throttle(rate, None, Quantity::Bytes)
}

fn throttle(rate: &str, burst: Option<u64>, quantity: Quantity) -> Result<Budget, String> {
    let rate = rate::parse(rate, quantity).map_err(|issue| issue.one_line())?;
    let default_min = if quantity == Quantity::Bytes { BURST_BYTES_DEFAULT_MIN } else { 1 };
    let burst = burst.unwrap_or_else(|| rate.over_ns_ceil(NS_PER_S).max(default_min));
    let fill_ns = u128::from(burst) * u128::from(rate.per_ns) / u128::from(rate.count.max(1));
    if burst == 0 {
        return Err("a burst of 0 would pass nothing: expected at least 1".to_owned());
    }
    if fill_ns > u128::from(REFILL_NS_MAX) {
        return Err(format!(
            "a burst of {burst} takes more than 30 days to fill at this rate: expected a smaller one"
        ));
    }
    Ok(Budget { rate, burst })
}

const NS_PER_S: u64 = 1_000_000_000;

/// Reads a reason.
///
/// # Errors
///
/// It is empty, longer than that of a policy's rule may be, or not on one line.
pub fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_plain = !text.is_empty() && !text.chars().any(char::is_control);
    if !is_plain || text.chars().count() > REASON_CHARS_MAX {
        return Err(format!(
            "expected 1 to {REASON_CHARS_MAX} characters on one line, for who reads it later"
        ));
    }
    Ok(text.to_owned())
}

/// Whether a prefix is so wide that who means it has to insist: as in a policy, shorter than /8, in IPv6 than /19.
pub fn is_broad(target: IpNet) -> bool {
    target.prefix_len() < broad_bits(target)
}

/// As a policy says it, in the shortest period that leaves the count whole: `100/s`, `10/h`.
impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let periods =
            [("s", NS_PER_S), ("min", 60 * NS_PER_S), ("h", 3_600 * NS_PER_S), ("d", 86_400 * NS_PER_S)];
        let whole = |period_ns: u64| {
            let count = u128::from(self.count) * u128::from(period_ns);
            count.is_multiple_of(u128::from(self.per_ns)).then(|| count / u128::from(self.per_ns))
        };
        match periods.iter().find_map(|&(name, period_ns)| Some((whole(period_ns)?, name))) {
            Some((count, name)) => write!(formatter, "{count}/{name}"),
            None => write!(formatter, "{}/{} ns", self.count, self.per_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_told_as_they_are_written() {
        for text in ["100/s", "10/h", "3/d", "1500000/s", "7/min"] {
            assert_eq!(rate::parse(text, Quantity::Packets).unwrap().to_string(), text);
        }
        assert_eq!(rate::parse("8MB/s", Quantity::Bytes).unwrap().to_string(), "8000000/s");
    }

    #[test]
    fn a_throttle_without_a_burst_has_a_second_of_its_rate() {
        assert_eq!(throttle_of_packets("100/s", None).unwrap().burst, 100);
        assert_eq!(throttle_of_packets("10/h", None).unwrap().burst, 1);
        assert_eq!(throttle_of_packets("10/h", Some(5)).unwrap().burst, 5);
        assert_eq!(throttle_of_bytes("1kB/s").unwrap().burst, BURST_BYTES_DEFAULT_MIN);
    }

    #[test]
    fn what_is_no_throttle_is_refused_with_what_was_expected() {
        for (rate, burst) in [("100", None), ("fast", None), ("100/s", Some(0)), ("1/d", Some(1000))] {
            let error = throttle_of_packets(rate, burst).unwrap_err();
            assert!(error.contains("expected"), "{error}");
        }
    }
}
