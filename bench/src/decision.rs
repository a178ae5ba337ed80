//! Nanoseconds of one packet through one program, by `BPF_PROG_TEST_RUN`; sources are drawn at random inside the measured
//! loop, and the draw is part of every figure.

use anyhow::Result;
use bytes::BytesMut;
use detector_common::limits::SOURCES_DEFAULT;
use detector_tests::packet::{ether_type, flags, tcp, udp};

use crate::{drive::Driver, report::Decision, sampling::in_turn, say, subject::Subject};

/// The product, as the report names it.
pub(crate) const DETECTOR: &str = "detector";

/// The product as if nobody followed handshakes, as the report names it.
pub(crate) const WITHOUT_HANDSHAKES: &str = "detector without handshakes";

/// References, by the names of their programs.
const REFERENCES: [&str; 6] = ["empty", "array_read", "array_wait", "table_wait", "array_add", "lru"];

/// Sources that most parts of the report are about.
const SOURCES: u32 = 1 << 20;

/// What frames are called, whether they are IPv6, and one of them.
type Traffic = (&'static str, bool, BytesMut);

/// All kinds.
fn traffic() -> [Traffic; 5] {
    let v4 = |flags| tcp("10.0.0.1:4000", "203.0.113.10:443", flags);
    let v6 = tcp("[2001:db8:a:b::7]:4000", "[2001:db8::10]:443", flags::ACK);
    [
        ("udp4", false, udp("10.0.0.1:4000", "203.0.113.10:443").frame()),
        ("tcp4 data", false, v4(flags::ACK).payload(1000).frame()),
        ("tcp4 syn", false, v4(flags::SYN).frame()),
        // The size of a browser's, with post-quantum key share, but no ClientHello: outside of a handshake.
        ("tcp4 client hello", false, v4(flags::ACK).payload(1446).frame()),
        ("tcp6 in a vlan", true, v6.tag(ether_type::VLAN).frame()),
    ]
}

/// A service with budgets that nobody exceeds, and so many source prefixes in a rule.
pub(crate) fn policy(rules: u32) -> String {
    let mut text =
        "version = 1\n[[service]]\nname = \"api\"\naddresses = [\"203.0.113.10\", \"2001:db8::10\"]\n\
         ports = [\"tcp/443\", \"udp/443\"]\nprofile = \"customer\"\n[profile.customer]\npackets = \"1G/s\"\n\
         bytes = \"1TB/s\"\nconnections = \"1G/s\"\n"
            .to_owned();
    if rules > 0 {
        // Apart in 224.0.0.0/4, where one in a thousand sources at most meets one of them.
        let prefixes: Vec<_> = (0..rules)
            .map(|n| format!("\"{}\"", std::net::Ipv4Addr::from(0xe000_0000 + (n << 4) % 0x1000_0000)))
            .collect();
        text +=
            &format!("[[rule]]\nname = \"many\"\nsource = [{}]\naction = \"drop\"\n", prefixes.join(", "));
    }
    text
}

/// Measures all programs by number of sources, the product by kind of traffic and number of rules.
pub(crate) fn measure(quick: bool) -> Result<Vec<Decision>> {
    let mut decisions = Vec::new();
    let [udp4, others @ ..] = traffic();
    let sizes: &[u32] = if quick { &[1, 1024, SOURCES] } else { &[1, 1024, 65_536, SOURCES, 4 << 20] };
    for &sources in sizes {
        say(format_args!("decision, {sources} sources"));
        decisions.extend(compare(&udp4, sources, &[0], &REFERENCES, quick)?);
    }
    for traffic in &others {
        say(format_args!("decision, {}", traffic.0));
        decisions.extend(compare(traffic, SOURCES, &[0], &["empty", "array_read", "lru"], quick)?);
    }
    for (traffic, sources) in [(&udp4, 1), (&others[0], 1), (&others[0], 1024), (&others[0], SOURCES)] {
        say(format_args!("decision, {} outside of handshakes, {sources} sources", traffic.0));
        let both = [(DETECTOR, 0, true), (WITHOUT_HANDSHAKES, 0, false)];
        let both = compare_subjects(traffic, sources, &both, &[], quick)?;
        // The first one is there already, from another run.
        decisions.extend(
            both.into_iter().map(|row| Decision { traffic: format!("{} beside", row.traffic), ..row }),
        );
    }
    let rules: &[u32] = if quick { &[10, 10_000] } else { &[10, 10_000, 1_000_000] };
    say("decision, by number of rules");
    decisions.extend(compare(&udp4, SOURCES, rules, &[], quick)?);
    Ok(decisions)
}

/// The product under policies of so many rules, and references, in turn.
fn compare(
    traffic: &Traffic,
    sources: u32,
    rules: &[u32],
    references: &[&str],
    quick: bool,
) -> Result<Vec<Decision>> {
    let subjects: Vec<_> = rules.iter().map(|&rules| (DETECTOR, rules, true)).collect();
    compare_subjects(traffic, sources, &subjects, references, quick)
}

/// The product in forms of a name, a number of rules and whether handshakes are followed, and references, in turn.
fn compare_subjects(
    (name, is_ipv6, frame): &Traffic,
    sources: u32,
    forms: &[(&'static str, u32, bool)],
    references: &[&str],
    quick: bool,
) -> Result<Vec<Decision>> {
    let mut driver = Driver::new(sources, *is_ipv6)?;
    let mut subjects = forms
        .iter()
        .map(|&(_, rules, follows)| Subject::worn(sources.max(SOURCES_DEFAULT), follows, &policy(rules)))
        .collect::<Result<Vec<_>>>()?;
    // With and without handshakes differ by a few nanoseconds of hundreds, which nine rounds do not tell from chance.
    let is_close = forms.iter().any(|(name, ..)| *name == WITHOUT_HANDSHAKES);
    let rounds = match (quick, is_close) {
        (true, _) => 3,
        (false, false) => 9,
        (false, true) => 27,
    };
    let packets = (2 * sources).max(2_000_000);
    let (things, mut calls) = (subjects.len() + references.len(), 0_u64);
    let samples = in_turn(things, rounds, |thing| {
        match subjects.get_mut(thing) {
            Some(subject) => driver.put(&subject.program()?)?,
            None => driver.put_reference(references[thing - forms.len()])?,
        }
        calls += 1;
        // Every program gets the packets of its round.
        driver.run(frame, packets, calls.div_ceil(things as u64))
    })?;
    let programs =
        forms.iter().map(|&(name, rules, _)| (name, rules)).chain(references.iter().map(|&name| (name, 0)));
    let decision = |((program, rules), samples): ((&str, u32), crate::sampling::Samples)| Decision {
        program: program.to_owned(),
        traffic: (*name).to_owned(),
        sources,
        rules,
        ns_median: samples.median(),
        ns_min: samples.min(),
        ns_max: samples.max(),
    };
    Ok(programs.zip(samples).map(decision).collect())
}
