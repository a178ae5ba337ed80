//! The clients behind a source: what fingerprints it showed, and how far away they seem to be.

use std::collections::HashMap;

use detector_common::{
    address::Address,
    client::DELAY_BINS,
    fingerprint::{Kind, Name, ja4_text},
    table::Unit,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::{Failure, duration, table};
use crate::kernel::{
    maps::Maps,
    names,
    read::{self, Client},
};

/// A client of a source: a pair of fingerprints that it showed at a service.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClientOfSource)]
pub struct ClientRow {
    /// Key of its ClientHello, hexadecimal, over QUIC of the shape of its Initial; none: unknown.
    pub tls_key: Option<String>,
    /// The JA4 of the last ClientHello with this key that the daemon was sent.
    pub ja4: Option<String>,
    /// Key of its SYN, hexadecimal; none: unknown.
    pub syn_key: Option<String>,
    /// The signature of its SYN, in the form of p0f.
    pub syn: Option<String>,
    /// Connections that began with something else than a ClientHello, modulo 2^32.
    pub connections: u32,
    /// The rule about fingerprints that acts on it, if one does; `incident N` is an incident rule.
    pub rule: Option<String>,
    /// The number of the fleet whose budget of connections its handshakes are charged to by these fingerprints, if they are; a member's are
    /// charged as the source's. Whoever has the same fingerprints is charged with it.
    pub charged_as: Option<String>,
    /// Handshakes, modulo 2^32.
    pub handshakes: u32,
    /// Connections that were followed beyond their handshake, one in eight; modulo 2^32.
    pub followed: u32,
    /// Exchanges that these had, in their first 64 packets.
    pub exchanges: u32,
    /// Seconds since it was seen last.
    pub idle_s: u64,
    /// From the SYN to the client's first answer, milliseconds: the shortest of its handshakes, to a factor of two.
    pub round_trip_ms: Option<Range>,
    /// From that answer to the end of the ClientHello.
    pub hello_delay_ms: Option<Range>,
    /// From the ClientHello to what the client says next.
    pub finish_delay_ms: Option<Range>,
}

/// Where a time is, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
#[schema(as = MillisecondRange)]
pub struct Range {
    /// It is not shorter.
    pub from: f64,
    /// It is shorter than this; none: longer than all others.
    pub to: Option<f64>,
}

impl Range {
    /// That of the lowest bin that is not empty.
    fn lowest(bins: &[u16; DELAY_BINS]) -> Option<Self> {
        let bin = bins.iter().position(|&count| count > 0)?;
        let start = |bin: usize| ((1_u64 << (18 + bin)) as f64 / 1e4).round() / 100.0;
        Some(Self {
            from: if bin == 0 { 0.0 } else { start(bin) },
            to: (bin + 1 < DELAY_BINS).then(|| start(bin + 1)),
        })
    }
}

/// The names of fingerprints, by kind and key.
pub(super) struct Names(HashMap<(u8, u64), Name>);

impl Names {
    pub(super) fn of(maps: &Maps) -> Self {
        Self(names::all(maps).map(|name| ((name.kind, name.key), name)).collect())
    }

    fn find(&self, kind: Kind, key: u64) -> Option<&Name> {
        self.0.get(&(kind as u8, key))
    }
}

/// All clients of an address, by the number of the service.
pub(super) fn of_address(maps: &Maps, address: Address) -> Vec<Client> {
    let unit = Unit::of_source(address.family);
    let source = address.prefix(unit.length());
    read::clients(maps).filter(|client| client.source == source && client.unit == unit).collect()
}

/// The clients of a service, those seen last first. `acted_on_by` tells of the keys of a SYN and a ClientHello the rule about them, and the fleet that
/// they are charged to.
pub(super) fn rows(
    clients: &[Client],
    names: &Names,
    service: u16,
    now_ns: u64,
    acted_on_by: impl Fn((u64, u64)) -> Result<(Option<String>, Option<String>), Failure>,
) -> Result<Vec<ClientRow>, Failure> {
    let mut clients: Vec<_> = clients.iter().filter(|client| client.service == service).collect();
    clients.sort_by_key(|client| std::cmp::Reverse(client.last_ns));
    let key = |key: u64| (key != 0).then(|| format!("{key:016x}"));
    let row = |client: &&Client| {
        let counts = &client.counts;
        let tls = [Kind::Tls, Kind::Initial].into_iter().find_map(|kind| names.find(kind, counts.tls_key));
        let ja4 = tls.and_then(|name| ja4_text(&name.ja4));
        let (rule, charged_as) = acted_on_by((counts.syn_key, counts.tls_key))?;
        Ok(ClientRow {
            tls_key: key(counts.tls_key),
            ja4: ja4.map(str::to_owned),
            syn_key: key(counts.syn_key),
            syn: names.find(Kind::Syn, counts.syn_key).map(|name| name.syn.to_string()),
            connections: client.connections,
            rule,
            charged_as,
            handshakes: client.handshakes,
            followed: counts.followed,
            exchanges: counts.exchanges,
            idle_s: now_ns.saturating_sub(client.last_ns) / 1_000_000_000,
            round_trip_ms: Range::lowest(&counts.round_trip),
            hello_delay_ms: Range::lowest(&counts.hello_delay),
            finish_delay_ms: Range::lowest(&counts.finish_delay),
        })
    };
    clients.iter().map(row).collect()
}

/// The clients as a table.
pub(super) fn text(rows: &[ClientRow]) -> String {
    let name = |name: &Option<String>, key: &Option<String>| {
        name.as_ref().or(key.as_ref()).map_or("-", String::as_str).to_owned()
    };
    let range = |range: Option<Range>| match range {
        None => "-".to_owned(),
        Some(Range { from, to: Some(to) }) => format!("{from} to {to} ms"),
        Some(Range { from, to: None }) => format!("> {from} ms"),
    };
    let rows = rows.iter().map(|row| {
        vec![
            name(&row.ja4, &row.tls_key),
            name(&row.syn, &row.syn_key),
            row.rule.clone().unwrap_or_else(|| "-".to_owned()),
            row.charged_as.clone().unwrap_or_else(|| "-".to_owned()),
            row.handshakes.to_string(),
            format!("{} ago", duration(row.idle_s)),
            range(row.round_trip_ms),
            range(row.hello_delay_ms),
            range(row.finish_delay_ms),
        ]
    });
    let header = [
        "CLIENT",
        "SYN",
        "RULE",
        "FLEET",
        "HANDSHAKES",
        "LAST SEEN",
        "ROUND TRIP",
        "HELLO DELAY",
        "FINISH DELAY",
    ];
    table(&header, &[4, 5, 6, 7, 8], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_time_says_how_far_a_client_is() {
        let told = |bin: usize| {
            let mut bins = [0; DELAY_BINS];
            bins[bin] = 1;
            bins[DELAY_BINS - 1] += 1;
            let Range { from, to } = Range::lowest(&bins).expect("a time");
            (from, to)
        };
        assert_eq!(told(0), (0.0, Some(0.52)));
        assert_eq!(told(1), (0.52, Some(1.05)));
        assert_eq!(told(DELAY_BINS - 1), (536.87, None));
        assert_eq!(Range::lowest(&[0; DELAY_BINS]), None);
    }
}
