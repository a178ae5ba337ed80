//! `detector top fingerprints`: who the clients are by what their software says first; from the pinned maps alone.

use detector_common::{
    budget::TICKS_PER_NS,
    fingerprint::{FIRST_BIN_NS_LOG2, Kind, TIME_BINS, ja4_text},
    initial::Shape,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::{EXIT_DONE, Failure, duration, print_json, print_line, table};
use crate::{
    cli::TopFingerprintsArgs,
    clock,
    fingerprint::labels,
    kernel::{
        mapped::Access,
        maps::Maps,
        pins::Pins,
        probe::probe,
        read::{self, Fingerprint, ReadError},
    },
    policy::compile::Manifest,
};

/// What a fingerprint is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = FingerprintKind)]
pub enum Of {
    /// A ClientHello over TCP.
    Tls,
    /// A SYN.
    Syn,
    /// A client's first packet over QUIC.
    Initial,
}

impl Of {
    const fn kind(self) -> Kind {
        match self {
            Self::Tls => Kind::Tls,
            Self::Syn => Kind::Syn,
            Self::Initial => Kind::Initial,
        }
    }
}

/// Which fingerprints to answer with.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Those of this service.
    pub service: Option<String>,
    /// Those of this kind.
    pub kind: Option<Of>,
    /// So many at most.
    pub rows: usize,
}

/// Handshakes whose time was in a part of a histogram.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = TimeBin)]
pub struct Bin {
    /// Where it begins, ns.
    pub from_ns: u64,
    /// Where it ends, ns; none: it does not.
    pub to_ns: Option<u64>,
    /// How many.
    pub count: u32,
}

/// A histogram of times.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Times {
    /// The median, as if the times of a part were spread evenly over it; none: no time is known.
    pub median_ns: Option<u64>,
    /// All parts; each is twice as long as the one before.
    pub bins: Vec<Bin>,
}

/// A fingerprint at a service. Its counters begin with its entry in the table.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TopFingerprint)]
pub struct Row {
    /// Its key, hexadecimal.
    pub key: String,
    /// `tls`, `syn` or `initial`.
    pub kind: &'static str,
    /// The JA4 of the last ClientHello that the daemon was sent of it, or opened; none: of a SYN, or none was yet.
    pub ja4: Option<String>,
    /// The JA4 without the extensions that come and go: one for each key. Of an Initial: that of the last client.
    pub stable_ja4: Option<String>,
    /// What software is known to have such a JA4.
    pub label: Option<&'static str>,
    /// The signature of a SYN, in the form of p0f.
    pub syn: Option<String>,
    /// The shape of an Initial: version, bytes of the connection ids of server and client, token (`-`, `short`, `long`), bytes of the
    /// datagram.
    pub initial: Option<String>,
    /// Of an Initial: distinct clients that had this shape, by their stable JA4, of those that the daemon opened.
    pub clients: u16,
    /// ClientHellos with this key that had another stable JA4: what is counted is of several clients.
    pub conflicts: u32,
    /// The service.
    pub service: String,
    /// SYNs that showed it, modulo 2^32; of a ClientHello 0.
    pub connections: u32,
    /// Handshakes that showed it, modulo 2^32.
    pub handshakes: u32,
    /// Packets of its connections while they were followed: until the handshake ended, of one in eight for up to 64. Of an Initial 0.
    pub packets: u64,
    /// Distinct sources that showed it, to 6.5 %.
    pub sources: u64,
    /// When it was seen last, seconds since the Unix epoch.
    pub last_seen_s: u64,
    /// From the SYN to the client's first answer: a round trip to where TCP ends.
    pub round_trip: Times,
    /// From that answer to the end of the ClientHello: with a proxy between, a round trip to the client behind it.
    pub hello_delay: Times,
    /// From the ClientHello to what the client says next.
    pub finish_delay: Times,
}

/// What `top fingerprints` answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fingerprints)]
pub struct Answer {
    /// Fingerprints of the service and kind that were asked for.
    pub fingerprints: usize,
    /// Those with the most handshakes.
    pub top: Vec<Row>,
}

/// Shows the top fingerprints.
pub fn fingerprints(args: &TopFingerprintsArgs) -> Result<u8, Failure> {
    probe()?;
    let maps = Maps::pinned(&Pins::new(&args.read.pins).loaded()?, Access::Read)?;
    let wanted = Wanted { service: args.service.clone(), kind: args.kind, rows: args.rows };
    let answer = answer(&maps, &wanted)?;
    if args.read.json {
        print_json(&answer)?;
    } else {
        print_line(&text(&answer, clock::unix_s()));
    }
    Ok(EXIT_DONE)
}

/// The fingerprints with the most handshakes.
///
/// # Errors
///
/// The maps cannot be read, or the policy has no such service.
pub fn answer(maps: &Maps, wanted: &Wanted) -> Result<Answer, Failure> {
    let manifest =
        read::consistently(maps, |active| Ok::<_, ReadError>(active.manifest()?.unwrap_or_default()))?;
    let number = wanted.service.as_ref().map(|name| number_of(&manifest, name)).transpose()?;
    let is_wanted = |known: &Fingerprint| {
        number.is_none_or(|number| known.service == number)
            && wanted.kind.is_none_or(|of| known.kind == of.kind())
    };
    let now_ns = read::now(maps) / TICKS_PER_NS;
    let mut known: Vec<_> = read::fingerprints(maps).filter(is_wanted).collect();
    known.sort_by_key(|known| (std::cmp::Reverse(known.handshakes), known.key, known.service));
    let top = known.iter().take(wanted.rows).map(|known| row(known, &manifest, now_ns));
    Ok(Answer { fingerprints: known.len(), top: top.collect() })
}

fn number_of(manifest: &Manifest, name: &str) -> Result<u16, Failure> {
    manifest.services.get(name).copied().ok_or_else(|| {
        let names: Vec<_> = manifest.services.keys().map(String::as_str).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Failure::invalid(format_args!("the policy has no service {name:?}: it has {known}"))
    })
}

fn row(known: &Fingerprint, manifest: &Manifest, now_ns: u64) -> Row {
    let name = known.name.as_ref();
    let of_hello = name.filter(|_| known.kind != Kind::Syn);
    let stable_ja4 = of_hello.and_then(|name| ja4_text(&name.stable_ja4));
    let idle_s = now_ns.saturating_sub(known.last_ns) / 1_000_000_000;
    Row {
        key: format!("{:016x}", known.key),
        kind: known.kind.name(),
        ja4: of_hello.and_then(|name| ja4_text(&name.ja4)).map(str::to_owned),
        stable_ja4: stable_ja4.map(str::to_owned),
        label: stable_ja4.and_then(labels::label),
        syn: name.filter(|_| known.kind == Kind::Syn).map(|name| name.syn.to_string()),
        initial: Some(known.key)
            .filter(|_| known.kind == Kind::Initial)
            .and_then(Shape::of_key)
            .map(|shape| shape.to_string()),
        clients: name.map_or(0, |name| name.clients),
        conflicts: name.map_or(0, |name| name.conflicts),
        service: manifest.service_name(known.service).to_owned(),
        connections: known.connections,
        handshakes: known.handshakes,
        packets: known.packets,
        sources: known.sources,
        last_seen_s: clock::unix_s().saturating_sub(idle_s),
        round_trip: times(&known.round_trip),
        hello_delay: times(&known.hello_delay),
        finish_delay: times(&known.finish_delay),
    }
}

fn times(counts: &[u32; TIME_BINS]) -> Times {
    let start = |bin: usize| if bin == 0 { 0 } else { 1_u64 << (FIRST_BIN_NS_LOG2 as usize + bin) };
    let bins = counts.iter().enumerate().map(|(bin, &count)| Bin {
        from_ns: start(bin),
        to_ns: (bin + 1 < TIME_BINS).then(|| start(bin + 1)),
        count,
    });
    let bins: Vec<_> = bins.collect();
    Times { median_ns: median_ns(&bins), bins }
}

fn median_ns(bins: &[Bin]) -> Option<u64> {
    let half = bins.iter().map(|bin| u64::from(bin.count)).sum::<u64>() as f64 / 2.0;
    let mut before = 0.0;
    for bin in bins.iter().filter(|bin| bin.count > 0) {
        let count = f64::from(bin.count);
        if before + count >= half {
            let length = bin.to_ns.map_or(0, |to_ns| to_ns - bin.from_ns) as f64;
            return Some(bin.from_ns + (length * (half - before) / count).round() as u64);
        }
        before += count;
    }
    None
}

/// Longer than all other parts of a histogram.
const LONGEST_NS: u64 = 1 << (FIRST_BIN_NS_LOG2 + TIME_BINS as u32 - 1);

fn time_text(ns: Option<u64>) -> String {
    const US: u64 = 1_000;
    const MS: u64 = 1_000 * US;
    let Some(ns) = ns else { return "-".to_owned() };
    match ns {
        0..MS => format!("≈ {} µs", ns / US),
        ns if ns < 10 * MS => format!("≈ {:.1} ms", ns as f64 / MS as f64),
        ns if ns < 1_000 * MS => format!("≈ {} ms", ns / MS),
        LONGEST_NS.. => format!("> {:.1} s", LONGEST_NS as f64 / (1_000 * MS) as f64),
        ns => format!("≈ {:.1} s", ns as f64 / (1_000 * MS) as f64),
    }
}

fn name_text(row: &Row) -> String {
    let parts = [&row.initial, &row.ja4, &row.syn].into_iter().flatten();
    let name = parts.map(String::as_str).collect::<Vec<_>>().join(" ");
    match (row.clients, row.conflicts) {
        _ if name.is_empty() => "-".to_owned(),
        (0 | 1, 0) => name,
        (clients, 0) => format!("{name} and {} more", clients - 1),
        (_, conflicts) => format!("{name} and others ({conflicts} conflicts)"),
    }
}

fn text(answer: &Answer, now_s: u64) -> String {
    let header = [
        "KEY",
        "KIND",
        "JA4, SYN OR INITIAL",
        "SERVICE",
        "SYNS",
        "HANDSHAKES",
        "SOURCES",
        "LAST SEEN",
        "ROUND TRIP",
        "HELLO DELAY",
    ];
    let rows = answer.top.iter().map(|row| {
        vec![
            row.key.clone(),
            row.kind.to_owned(),
            name_text(row),
            row.service.clone(),
            row.connections.to_string(),
            row.handshakes.to_string(),
            row.sources.to_string(),
            format!("{} ago", duration(now_s.saturating_sub(row.last_seen_s))),
            time_text(row.round_trip.median_ns),
            time_text(row.hello_delay.median_ns),
        ]
    });
    format!(
        "{} fingerprints known; times are medians\n\n{}",
        answer.fingerprints,
        table(&header, &[4, 5, 6, 7, 8, 9], rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use detector_common::fingerprint::time_bin;

    #[test]
    fn parts_of_histograms_are_where_times_are_counted() {
        let all = times(&[1; TIME_BINS]).bins;
        for (number, bin) in all.iter().enumerate() {
            assert_eq!(time_bin(bin.from_ns), number as u32);
            let last_ns = bin.to_ns.map_or(u64::MAX, |to_ns| to_ns - 1);
            assert_eq!(time_bin(last_ns), number as u32);
        }
        assert_eq!(all.last().map(|bin| bin.from_ns), Some(LONGEST_NS));
    }

    #[test]
    fn medians_are_within_their_part() {
        let told = |counts: &[(usize, u32)]| {
            let mut bins = [0; TIME_BINS];
            counts.iter().for_each(|&(bin, count)| bins[bin] = count);
            time_text(times(&bins).median_ns)
        };
        assert_eq!(told(&[]), "-");
        assert_eq!(told(&[(0, 1)]), "≈ 65 µs");
        assert_eq!(told(&[(0, 1), (1, 1)]), "≈ 131 µs", "between the two");
        assert_eq!(told(&[(5, 10)]), "≈ 3.1 ms");
        assert_eq!(told(&[(3, 1), (9, 98), (14, 1)]), "≈ 50 ms");
        assert_eq!(told(&[(14, 3)]), "≈ 1.6 s");
        assert_eq!(told(&[(1, 2), (15, 3)]), "> 2.1 s");
    }
}
