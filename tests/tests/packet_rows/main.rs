//! Packet rows: this frame, at this time, under this policy → this verdict, this reason, and everything that moved.
//!
//! Every text names all counters and entries that change (see [`detector_tests::rows`]). These tests read no files, so
//! that they can run in a kernel booted for them.

mod budgets;
mod frames;
mod ipv6;
mod parents;
mod rules;
mod services;
mod shadow;

use bytes::BytesMut;
use detector_tests::packet::{flags, tcp};

pub(crate) const SOURCE: &str = "10.1.2.3:4000";
pub(crate) const API: &str = "203.0.113.10:443";
pub(crate) const SOURCE_V6: &str = "[2001:db8:a:b::7]:4000";
pub(crate) const API_V6: &str = "[2001:db8::10]:443";

/// Two ports at an address, and the rest of it.
pub(crate) const POLICY: &str = r#"
    version = 1
    [[service]]
    name = "api"
    addresses = ["203.0.113.10", "2001:db8::10"]
    ports = ["tcp/443", "udp/443"]
    profile = "customer"
    [[service]]
    name = "rest"
    addresses = ["203.0.113.10", "2001:db8::10"]
    [profile.customer]
    packets = "1000/s"
    connections = "10/s"
"#;

pub(crate) const CONFORMING: &str =
    "pass conforming; api.conforming 1; source_created 1; 10.1.2.3/32@api packets 1";
pub(crate) const CONNECTION: &str = "pass conforming; api.conforming 1; source_created 1; followed 1; fingerprint_created 1; 10.1.2.3/32@api packets 1 connections 1";
pub(crate) const CONFORMING_V6: &str =
    "pass conforming; api.conforming 1; source_created 1; 2001:db8:a:b::/64@api packets 1";
pub(crate) const REST: &str =
    "pass unlimited; rest.unlimited 1; source_created 1; 10.1.2.3/32@rest packets 1";
pub(crate) const REST_V6: &str =
    "pass unlimited; rest.unlimited 1; source_created 1; 2001:db8:a:b::/64@rest packets 1";
pub(crate) const EXTENSIONS_V6: &str = "pass conforming; api.conforming 1; ipv6_extensions 1; source_created 1; \
                             2001:db8:a:b::/64@api packets 1";
pub(crate) const TRUNCATED: &str = "pass truncated; none.truncated 1";
pub(crate) const MALFORMED: &str = "pass malformed; none.malformed 1";
pub(crate) const NOT_IP: &str = "pass not_ip; none.not_ip 1";

/// The row of a new source: verdict and reason, and where it is counted.
pub(crate) fn first(verdict: &str, reason: &str, source: &str, service: &str) -> String {
    let dropped = if verdict == "drop" { " refused 1" } else { "" };
    format!(
        "{verdict} {reason}; {service}.{reason} 1; source_created 1; {source}@{service} packets 1{dropped}"
    )
}

pub(crate) fn ack_from(source: &str) -> BytesMut {
    let destination = if source.contains(':') { API_V6 } else { API };
    let source = if source.contains(':') { format!("[{source}]:4000") } else { format!("{source}:4000") };
    tcp(&source, destination, flags::ACK).frame()
}

/// A policy of one service whose profile is `customer`.
pub(crate) fn budget_policy(budgets: &str) -> String {
    format!(
        "version = 1\n[[service]]\nname = \"api\"\naddresses = [\"203.0.113.10\", \"2001:db8::10\"]\n\
         profile = \"customer\"\n{budgets}"
    )
}
