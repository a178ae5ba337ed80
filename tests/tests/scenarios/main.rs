//! Scenarios under the virtual clock: what the limiter promises, exact to the packet, against models that share no
//! code with it.

mod clock;
mod cpus;
mod ends;
mod events;
mod exact;
mod full;
mod incidents;
mod parents;
mod policy;
mod takeover;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;
use detector_tests::{
    packet::{flags, tcp},
    rows::{SECOND, START_NS},
};

pub(crate) const API: &str = "203.0.113.10:443";
pub(crate) const API_V6: &str = "[2001:db8::10]:443";

/// A policy of one service, `api`, whose profile is `customer`.
pub(crate) fn policy_of(profile: &str) -> String {
    format!(
        "version = 1\n[[service]]\nname = \"api\"\naddresses = [\"203.0.113.10\", \"2001:db8::10\"]\n\
         profile = \"customer\"\n[profile.customer]\n{profile}\n"
    )
}

/// A token bucket in whole numbers: exact for every rate, and no relative of the algorithm under test.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    count: u128,
    per_ns: u128,
    /// Units that it holds at most.
    burst: u128,
    /// What is in it, in units times `per_ns`.
    level: u128,
    last_ns: u128,
}

impl Bucket {
    /// `count` units every `per_ns`, `burst` at once; full.
    pub(crate) fn new(count: u64, per_ns: u64, burst: u64) -> Self {
        let (count, per_ns, burst) = (count.into(), per_ns.into(), burst.into());
        Self { count, per_ns, burst, level: burst * per_ns, last_ns: START_NS.into() }
    }

    /// Units a second.
    pub(crate) fn a_second(count: u64, burst: u64) -> Self {
        Self::new(count, SECOND, burst)
    }

    fn refill(&mut self, now_ns: u64) {
        let now_ns = u128::from(now_ns);
        let given = (now_ns - self.last_ns) * self.count;
        self.level = (self.level + given).min(self.burst * self.per_ns);
        self.last_ns = now_ns;
    }

    /// Whether so many units are in it. More than it can hold are there when it is full.
    pub(crate) fn has(&mut self, now_ns: u64, units: u64) -> bool {
        self.refill(now_ns);
        self.level >= self.cost(units)
    }

    /// Takes what is in it.
    pub(crate) fn charge(&mut self, units: u64) {
        self.level -= self.cost(units);
    }

    /// Takes so many units if they are in it.
    pub(crate) fn take(&mut self, now_ns: u64, units: u64) -> bool {
        let has = self.has(now_ns, units);
        if has {
            self.charge(units);
        }
        has
    }

    /// Whether nothing is missing.
    pub(crate) fn is_full(&mut self, now_ns: u64) -> bool {
        self.refill(now_ns);
        self.level == self.burst * self.per_ns
    }

    fn cost(&self, units: u64) -> u128 {
        u128::from(units).min(self.burst) * self.per_ns
    }
}

/// A source of IPv4, by number.
pub(crate) fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

/// A source of IPv6, by number: each its own /64, all in one /48 below 65,536.
pub(crate) fn v6(number: u32) -> IpAddr {
    Ipv6Addr::from_bits(0x2001_0db8_000a_0000_0000_0000_0000_0007 + (u128::from(number) << 64)).into()
}

/// A segment from a source to the service.
pub(crate) fn segment(source: IpAddr, flags: u8) -> BytesMut {
    sized(source, flags, 0)
}

/// A segment of a frame of so many bytes, or as many as its headers need.
pub(crate) fn sized(source: IpAddr, flags: u8, bytes: usize) -> BytesMut {
    let (any, destination, headers) = match source {
        IpAddr::V4(_) => ("10.0.0.0:4000", API, 54),
        IpAddr::V6(_) => ("[2001:db8:a::]:4000", API_V6, 74),
    };
    tcp(any, destination, flags).from(source).payload(bytes.saturating_sub(headers)).frame()
}

/// A segment without flags that matter.
pub(crate) fn ack(source: IpAddr) -> BytesMut {
    segment(source, flags::ACK)
}
