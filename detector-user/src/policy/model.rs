//! A checked policy, in the shape the daemon compiles it from.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::fleets::{FleetMode, FleetSettings};
use super::patterns::Patterns;

/// What packets are let through, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The mode of everything that does not name its own.
    pub mode: Mode,
    /// Sources that always pass, before anything else is asked.
    pub allow: Vec<IpNet>,
    /// Destinations, in the order of the file; at most [`SERVICES_MAX`](super::SERVICES_MAX).
    pub services: Vec<Service>,
    /// Budgets by name; at most [`PROFILES_MAX`](super::PROFILES_MAX).
    pub profiles: BTreeMap<String, Profile>,
    /// Exceptions by source or by fingerprint, in the order of the file; at most [`RULES_MAX`](super::RULES_MAX).
    pub rules: Vec<Rule>,
    /// What is done about fleets.
    pub fleets: FleetSettings,
}

/// Whether a decision to drop is carried out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Decide, count and drop.
    #[default]
    Enforce,
    /// Decide and count, drop nothing.
    Shadow,
    /// As `Enforce` for so many percent of the sources, 1 to 99, as `Shadow` for the others.
    Percent(u8),
}

impl Mode {
    /// Percent of the sources that a decision to drop is carried out for.
    pub const fn enforced_percent(self) -> u8 {
        match self {
            Self::Enforce => 100,
            Self::Shadow => 0,
            Self::Percent(percent) => percent,
        }
    }
}

/// A destination: packets to one of `addresses` on one of `ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Unique among services.
    pub name: String,
    /// Destination prefixes, at least one.
    pub addresses: Vec<IpNet>,
    /// What is asked of protocol and destination port, at least one; any of them suffices.
    pub ports: Vec<Ports>,
    /// The profile of every source without a rule; without one, packets are counted and not limited.
    pub profile: Option<String>,
    /// What is done about fleets at it, instead of what is at others.
    pub fleets: Option<FleetMode>,
}

/// A set of protocols and destination ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Every protocol.
    Any,
    /// Everything of one IP protocol, by its number.
    Protocol(u8),
    /// Destination ports of TCP or UDP.
    Range {
        /// 6 (TCP) or 17 (UDP).
        protocol: u8,
        /// The first port of the range.
        first: u16,
        /// The last port of the range, not below `first`.
        last: u16,
    },
}

impl Ports {
    /// The protocol and the first and last port, of 0 and 65535 where every port is meant; no protocol is every one.
    fn parts(self) -> (Option<u8>, u16, u16) {
        match self {
            Self::Any => (None, 0, u16::MAX),
            Self::Protocol(protocol) => (Some(protocol), 0, u16::MAX),
            Self::Range { protocol, first, last } => (Some(protocol), first, last),
        }
    }

    /// The packets that are in both sets, if there are some.
    pub fn shared(self, other: Self) -> Option<Self> {
        let (protocol, first, last) = self.parts();
        let (other_protocol, other_first, other_last) = other.parts();
        let same_protocol = protocol.is_none() || other_protocol.is_none() || protocol == other_protocol;
        let (first, last) = (first.max(other_first), last.min(other_last));
        if !same_protocol || first > last {
            return None;
        }
        Some(match protocol.or(other_protocol) {
            None => Self::Any,
            Some(protocol) if (first, last) == (0, u16::MAX) => Self::Protocol(protocol),
            Some(protocol) => Self::Range { protocol, first, last },
        })
    }
}

/// As written in a policy: `tcp/443`, `udp/8000-8010`, `protocol/47`, `*`.
impl fmt::Display for Ports {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |protocol| if protocol == 6 { "tcp" } else { "udp" };
        match *self {
            Self::Any => formatter.write_str("*"),
            Self::Protocol(protocol @ (6 | 17)) => formatter.write_str(name(protocol)),
            Self::Protocol(protocol) => write!(formatter, "protocol/{protocol}"),
            Self::Range { protocol, first, last } if first == last => {
                write!(formatter, "{}/{first}", name(protocol))
            }
            Self::Range { protocol, first, last } => write!(formatter, "{}/{first}-{last}", name(protocol)),
        }
    }
}

/// The budgets of one source, and of the prefixes around it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// Budgets of one source: an IPv4 address or an IPv6 /64.
    pub budgets: Budgets,
    /// Budgets shared by the sources of one prefix.
    pub parents: Parents,
}

impl Profile {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty() && self.parents.levels().into_iter().flatten().all(ParentBudgets::is_empty)
    }
}

/// What may be spent; nothing where a budget is absent means no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budgets {
    /// Packets.
    pub packets: Option<Budget>,
    /// Bytes of the frame from its Ethernet header, without the checksum after it.
    pub bytes: Option<Budget>,
    /// New connections.
    pub connections: Option<Budget>,
    /// Handshakes of TLS over TCP, and of QUIC; a prefix around sources has no such budget.
    #[serde(default)]
    pub handshakes: Option<Budget>,
}

impl Budgets {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Budgets of the prefixes around a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parents {
    /// The IPv4 /24.
    pub v4_24: Option<ParentBudgets>,
    /// The IPv6 /56.
    pub v6_56: Option<ParentBudgets>,
    /// The IPv6 /48.
    pub v6_48: Option<ParentBudgets>,
}

impl Parents {
    /// The /24, the /56 and the /48.
    pub fn levels(&self) -> [Option<&ParentBudgets>; 3] {
        [self.v4_24.as_ref(), self.v6_56.as_ref(), self.v6_48.as_ref()]
    }
}

/// What the sources of one prefix may spend together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParentBudgets {
    /// Packets, bytes and connections.
    pub budgets: Budgets,
    /// Sources of this prefix that were not known before.
    pub new_sources: Option<Budget>,
}

impl ParentBudgets {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A rate, and how much may be spent at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// What is given back over time.
    pub rate: Rate,
    /// Packets, bytes, connections or sources, at least 1; for bytes at least
    /// [`BURST_BYTES_MIN`](super::BURST_BYTES_MIN). It fills from empty within
    /// [`REFILL_NS_MAX`](super::REFILL_NS_MAX).
    pub burst: u64,
}

/// `count` packets, bytes, connections or sources every `per_ns`, exactly as written.
///
/// Between above 0 and [`COUNT_PER_S_MAX`](super::COUNT_PER_S_MAX) per second; for bytes between
/// [`BYTES_PER_S_MIN`](super::BYTES_PER_S_MIN) and [`BYTES_PER_S_MAX`](super::BYTES_PER_S_MAX).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Packets, bytes, connections or sources, at least 1.
    pub count: u64,
    /// Nanoseconds, at least 1. The period as written, unless the count would not be whole then.
    pub per_ns: u64,
}

impl Rate {
    /// What `span_ns` gives back, rounded up. Saturates.
    pub fn over_ns_ceil(self, span_ns: u64) -> u64 {
        let given = (u128::from(self.count) * u128::from(span_ns)).div_ceil(u128::from(self.per_ns.max(1)));
        u64::try_from(given).unwrap_or(u64::MAX)
    }
}

/// What happens to packets from some prefixes, or to handshakes of some clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Unique among rules.
    pub name: String,
    /// The service it is about; every service without one.
    pub service: Option<String>,
    /// Whom it is about.
    pub matches: Matches,
    /// What happens.
    pub action: Action,
    /// Its own mode, instead of the policy's.
    pub mode: Option<Mode>,
    /// When it ends, seconds since the Unix epoch; from then on it decides about nothing.
    pub until_s: Option<u64>,
    /// Why it is there, for people; at most [`REASON_CHARS_MAX`](super::REASON_CHARS_MAX) characters.
    pub reason: Option<String>,
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matches {
    /// Source prefixes, at least one: packets from them.
    Sources(Vec<IpNet>),
    /// Fingerprints, at least one pattern: handshakes of clients that have them.
    Fingerprints(Patterns),
}

impl Matches {
    /// Its source prefixes; none of a rule about fingerprints.
    pub fn sources(&self) -> &[IpNet] {
        match self {
            Self::Sources(sources) => sources,
            Self::Fingerprints(_) => &[],
        }
    }

    /// How many prefixes there are, or patterns; patterns of both kinds are one.
    pub fn count(&self) -> usize {
        match self {
            Self::Sources(sources) => sources.len(),
            Self::Fingerprints(patterns) => patterns.targets().len(),
        }
    }

    /// The first so many of them, as targets of an incident rule.
    pub fn targets(&self, most: usize) -> Vec<String> {
        match self {
            Self::Sources(sources) => sources.iter().take(most).map(ToString::to_string).collect(),
            Self::Fingerprints(patterns) => patterns.targets().into_iter().take(most).collect(),
        }
    }

    /// Its patterns; nothing of a rule about sources.
    pub fn patterns(&self) -> Option<&Patterns> {
        match self {
            Self::Sources(_) => None,
            Self::Fingerprints(patterns) => Some(patterns),
        }
    }
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Let everything through.
    Allow,
    /// Let nothing through.
    Drop,
    /// Let through of each source what the profile of this name affords.
    Limit(String),
    /// Let through what it affords of all clients of the rule together. Only of a rule about fingerprints.
    LimitShared(String),
}

impl Action {
    /// Its place in the order of deciding about the same: allow, drop, limit.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Allow => 0,
            Self::Drop => 1,
            Self::Limit(_) | Self::LimitShared(_) => 2,
        }
    }

    /// Whether it is a limit of all clients together.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::LimitShared(_))
    }

    /// The profile that it limits by.
    pub fn profile(&self) -> Option<&str> {
        match self {
            Self::Allow | Self::Drop => None,
            Self::Limit(profile) | Self::LimitShared(profile) => Some(profile),
        }
    }
}
