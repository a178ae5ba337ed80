//! Replay of captures: sums add up, and the same input gives the same output.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Command,
};

use bytes::{BufMut as _, BytesMut};
use detector_common::verdict::{Reason, Verdict};
use detector_tests::{
    daemon::{answer, binary},
    hello::Hello,
    packet::{ether_type, ethernet, flags, icmpv6, tcp, udp},
    random::Random,
    rows::{SECOND, policy},
};
use detector_user::{
    commands::{EXIT_DONE, EXIT_INVALID, EXIT_UNEXPECTED, Failure},
    policy::Policy,
    replay::{Report, replay},
};
use tempfile::TempDir;

/// A capture's frame and its time, ns since 1970.
type Timed = (u64, BytesMut);

const START_NS: u64 = 1_700_000_000 * SECOND;

/// Sources that the tables are sized for.
const SOURCES: u32 = 10_000;

/// Limits that the captures below exceed.
const STRICT: &str = r#"
    version = 1
    [defaults]
    allow = ["10.0.0.9"]
    [[service]]
    name = "api"
    addresses = ["203.0.113.10", "2001:db8::10"]
    ports = ["tcp/443"]
    profile = "customer"
    [[service]]
    name = "rest"
    addresses = ["203.0.113.0/24", "2001:db8::/64"]
    [[service]]
    name = "idle"
    addresses = ["192.0.2.1"]
    [profile.customer]
    packets = { rate = "50/s", burst = 10 }
    connections = { rate = "10/s", burst = 5 }
    [[rule]]
    name = "bad"
    source = ["10.0.0.8"]
    action = "drop"
    [[rule]]
    name = "tried-out"
    source = ["10.0.0.7"]
    action = "drop"
    mode = "shadow"
"#;

/// Everything is one service without a limit.
const OPEN: &str = "version = 1\n[[service]]\nname = \"all\"\naddresses = [\"0.0.0.0/0\", \"::/0\"]\n";

/// A nanosecond pcap file of Ethernet frames.
fn write_pcap(path: &Path, frames: &[Timed]) {
    let mut file = BytesMut::new();
    file.put_u32_le(0xa1b2_3c4d); // nanoseconds, little endian
    file.put_u16_le(2);
    file.put_u16_le(4);
    file.put_u64_le(0); // time zone, accuracy
    file.put_u32_le(65_549); // snap length
    file.put_u32_le(1); // Ethernet
    for (time_ns, frame) in frames {
        file.put_u32_le((time_ns / SECOND) as u32);
        file.put_u32_le((time_ns % SECOND) as u32);
        file.put_u32_le(frame.len() as u32);
        file.put_u32_le(frame.len() as u32);
        file.put_slice(frame);
    }
    fs::write(path, file).expect("a capture in a temporary directory");
}

/// Traffic of a dozen sources for a few seconds, each frame at its own time.
fn traffic(seed: u64) -> Vec<Timed> {
    let mut random = Random::new(seed);
    let mut time_ns = START_NS;
    (0..3000)
        .map(|_| {
            time_ns += 1 + random.below(SECOND / 500);
            (time_ns, frame(&mut random))
        })
        .collect()
}

fn frame(random: &mut Random) -> BytesMut {
    let source = IpAddr::V4(Ipv4Addr::new(10, 0, 0, random.below(10) as u8));
    let flags = if random.once_in(3) { flags::SYN } else { flags::ACK };
    match random.below(20) {
        0 => ethernet(ether_type::ARP, &[0; 46]),
        1 => icmpv6("fe80::1", "ff02::1", 134).hop_limit(255).frame(),
        2 => udp("10.0.0.1:53", "203.0.113.99:53").payload(random.index(500)).frame(),
        3 => tcp("10.0.0.2:1", "198.51.100.1:443", flags).frame(),
        4 => tcp("10.0.0.3:1", "203.0.113.10:443", flags).fragment(185, false).payload(40).frame(),
        5..9 => tcp("[2001:db8:a::1]:4000", "[2001:db8::10]:443", flags).payload(random.index(1400)).frame(),
        9 => tcp("10.0.0.4:1", "203.0.113.10:443", flags).cut_transport(2).frame(),
        _ => tcp("10.0.0.0:4000", "203.0.113.10:443", flags).from(source).payload(random.index(1400)).frame(),
    }
}

fn replayed(captures: &[impl AsRef<Path>], policy: &Policy) -> Report {
    // SAFETY: no precondition.
    let user = unsafe { libc::geteuid() };
    assert_eq!(user, 0, "these tests load a program into the kernel: run them as root");
    replay(captures, policy, SOURCES, |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

/// A connection whose ClientHello comes at a time: its frames.
fn connection(port: u16, time_ns: u64) -> Vec<Timed> {
    let (from, to) = (format!("10.0.0.1:{port}"), "203.0.113.10:443");
    let segment = |flags: u8, sequence: u32| tcp(&from, to, flags).sequence(sequence);
    let hello = Hello::browser(200).stream();
    let frames = [segment(flags::SYN, 1), segment(flags::ACK, 2), segment(flags::ACK, 2).content(&hello)];
    frames.iter().map(|packet| (time_ns, packet.frame())).collect()
}

#[test]
fn a_rule_about_fingerprints_acts_from_the_second_handshake_and_ends_in_time() {
    let directory = TempDir::new().expect("a directory");
    let capture = directory.path().join("clients.pcap");
    // 2023-11-14T22:13:20Z, and so many seconds later.
    let frames: Vec<_> = [(1, 0), (2, 1), (3, 8), (4, 12)]
        .iter()
        .flat_map(|&(port, after_s)| connection(port, START_NS + after_s * SECOND))
        .collect();
    write_pcap(&capture, &frames);
    let rule = |name: &str, body: &str| format!("[[rule]]\nname = \"{name}\"\nja4 = {body}\n");
    let wide = rule("wide", "\"t13*_*_*\"\naction = \"drop\"");
    let reasons = |rules: &str| {
        let report = replayed(&[&capture], &policy(&format!("{OPEN}{rules}")));
        assert_sums(&report);
        report.reasons.get("fingerprint").copied().unwrap_or_default()
    };
    assert_eq!(reasons(&wide), 3, "the first one gives the name");
    let narrow = rule("narrow", "\"t13d0506h2_*_*\"\naction = \"allow\"\nuntil = 2023-11-14T22:13:30Z");
    assert_eq!(reasons(&(narrow + &wide)), 1, "the last one, after the end of the other rule");
}

/// Whatever was replayed, the parts of a report sum to the whole.
#[track_caller]
fn assert_sums(report: &Report) {
    let judged = report.verdicts.pass + report.verdicts.drop;
    assert_eq!(report.packets, judged, "packets = passed + dropped");
    assert_eq!(report.packets, report.reasons.values().sum::<u64>(), "packets = sum of reasons");
    let verdict = |name: &str| {
        let reason = Reason::ALL.iter().find(|reason| reason.name() == name).expect("a reason");
        reason.verdict()
    };
    let refused: u64 =
        report.reasons.iter().filter(|(name, _)| verdict(name) == Verdict::Drop).map(|(_, n)| n).sum();
    assert_eq!(refused, report.verdicts.drop + report.shadow, "reasons to drop = dropped + shadowed");
    let shadowed: u64 = report.sources.iter().map(|source| source.would_drop).sum();
    assert_eq!(shadowed, report.shadow, "shadowed = sum of the sources that would be dropped");
    let mut of_services = BTreeMap::new();
    for source in &report.sources {
        let (pass, drop) = of_services.entry(source.service.clone()).or_insert((0, 0));
        *pass += source.pass;
        *drop += source.drop;
        assert!(source.bytes >= 14 * (source.pass + source.drop), "{source:?}");
        assert!(source.connections <= source.pass + source.drop, "{source:?}");
        assert!(source.would_drop <= source.pass, "{source:?}");
    }
    for (name, verdicts) in &report.services {
        let (pass, drop) = of_services.remove(name).unwrap_or_default();
        assert_eq!((verdicts.pass, verdicts.drop), (pass, drop), "service {name} = sum of its sources");
    }
    assert!(of_services.is_empty(), "sources of services that the report lacks: {of_services:?}");
    let packets = |index: usize| report.sources[index].pass + report.sources[index].drop;
    assert!(
        (1..report.sources.len()).all(|index| packets(index - 1) >= packets(index)),
        "most packets first"
    );
}

#[test]
fn a_report_of_made_traffic_adds_up_and_comes_again() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("made.pcap");
    let frames = traffic(1);
    write_pcap(&path, &frames);
    let policy = policy(STRICT);
    let report = replayed(&[&path], &policy);
    assert_sums(&report);
    assert_eq!(report.packets, frames.len() as u64);
    assert_eq!(report.services.keys().collect::<Vec<_>>(), ["api", "idle", "rest"]);
    for reason in ["allowed", "denied", "packets", "connections", "conforming", "not_ip", "malformed"] {
        assert!(report.reasons.contains_key(reason), "{reason}: {:?}", report.reasons);
    }
    assert!(report.shadow > 0 && report.verdicts.drop > 0, "{report:?}");
    let json = |report: &Report| serde_json::to_string(report).expect("JSON");
    assert_eq!(json(&report), json(&replayed(&[&path], &policy)), "the same capture again");
}

/// Eleven packets at once of a budget of ten, and one more when the capture's clock says so.
#[test]
fn the_clock_is_the_capture_s() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("clock.pcap");
    let ack = tcp("10.0.0.1:4000", "203.0.113.10:443", flags::ACK).of_length(100).frame();
    let mut frames = vec![(START_NS, ack.clone()); 11];
    frames.push((START_NS + SECOND / 50 - 1, ack.clone()));
    frames.push((START_NS + SECOND / 50, ack));
    write_pcap(&path, &frames);
    let report = replayed(&[&path], &policy(STRICT));
    assert_eq!((report.verdicts.pass, report.verdicts.drop), (11, 2));
    assert_eq!(report.reasons, BTreeMap::from([("conforming", 11), ("packets", 2)]));
    let source = &report.sources[0];
    assert_eq!((source.source.to_string().as_str(), source.service.as_str()), ("10.0.0.1/32", "api"));
    assert_eq!((source.pass, source.drop, source.bytes, source.connections), (11, 2, 1300, 0));
    assert_eq!(report.sources.len(), 1);
}

#[test]
fn captures_are_one_stream_in_any_order() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    let frames = traffic(2);
    write_pcap(&path("whole"), &frames);
    let names = ["a", "b", "c"];
    for (part, name) in names.iter().enumerate() {
        let frames: Vec<_> = frames.iter().skip(part).step_by(names.len()).cloned().collect();
        write_pcap(&path(name), &frames);
    }
    let policy = policy(STRICT);
    let whole = replayed(&[path("whole")], &policy);
    for order in [["a", "b", "c"], ["c", "a", "b"], ["b", "c", "a"]] {
        assert_eq!(replayed(&order.map(path), &policy), whole, "{order:?}");
    }
}

/// The clock of the budgets ends after 18 years: further on, a time would be in the past of a full budget.
#[test]
fn a_capture_of_decades_is_refused_with_its_packet() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("zero.pcap");
    let ack = tcp("10.0.0.1:4000", "203.0.113.10:443", flags::ACK).frame();
    write_pcap(&path, &[(0, ack.clone()), (0, ack.clone()), (START_NS, ack.clone()), (START_NS + 1, ack)]);
    let error = replay(&[&path], &policy(STRICT), SOURCES, |_| {}).expect_err("53 years");
    let said = error.to_string();
    for part in ["zero.pcap: packet 3 is 53 years after the first", "at most 18", "editcap IN OUT 1"] {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
    assert_eq!(Failure::from(error).code, EXIT_INVALID);
}

/// What should pass is given as prefixes; a part of an IPv6 source stands for the source.
#[test]
fn a_prefix_that_should_pass_and_does_not_fails_the_replay() {
    let directory = TempDir::new().expect("a temporary directory");
    let (capture, file, list) = (
        directory.path().join("a.pcap"),
        directory.path().join("policy.toml"),
        directory.path().join("list"),
    );
    let ack = |from: &str, to: &str| tcp(from, to, flags::ACK).of_length(100).frame();
    let mut frames = vec![(START_NS, ack("10.0.0.1:4000", "203.0.113.10:443"))];
    frames.extend(vec![(START_NS, ack("10.0.0.2:4000", "203.0.113.10:443")); 12]);
    frames.extend(vec![(START_NS, ack("[2001:db8:a::1]:4000", "[2001:db8::10]:443")); 12]);
    frames.push((START_NS, ack("10.0.0.7:4000", "203.0.113.10:443")));
    write_pcap(&capture, &frames);
    fs::write(&file, STRICT).expect("a policy");
    let said = |prefixes: &str, more: &[&str]| {
        fs::write(&list, prefixes).expect("a list");
        let mut command = Command::new(binary().expect("the binary is built"));
        command.arg("replay").arg(&capture).arg("--policy").arg(&file).args(["--sources", "1000"]);
        let (code, out, _) = answer(command.arg("--expect-pass").arg(&list).args(more)).expect("it ends");
        (code as u8, out)
    };
    let replay = |prefixes: &str| {
        let (code, out) = said(prefixes, &["--json"]);
        (code, serde_json::from_str::<serde_json::Value>(&out).expect("JSON"))
    };
    let limited = |report: &serde_json::Value| -> Vec<String> {
        let limited = report["expected"]["limited"].as_array().expect("a list");
        limited.iter().map(|source| source["source"].as_str().expect("a prefix").to_owned()).collect()
    };

    let (code, report) = replay("10.0.0.1 # a customer\n");
    assert_eq!((code, limited(&report)), (EXIT_DONE, vec![]), "{report}");
    let (code, report) = replay("10.0.0.0/31\n10.0.0.2/31\n");
    assert_eq!((code, limited(&report)), (EXIT_UNEXPECTED, vec!["10.0.0.2/32".to_owned()]), "{report}");
    assert_eq!(report["expected"]["unseen"], serde_json::json!([]), "they are one prefix, 10.0.0.0/30");
    let (code, report) = replay("2001:db8:a::77\n2001:db8:a::99\n198.51.100.0/24\n");
    assert_eq!((code, limited(&report)), (EXIT_UNEXPECTED, vec!["2001:db8:a::/64".to_owned()]), "{report}");
    assert_eq!(report["expected"]["unseen"], serde_json::json!(["198.51.100.0/24"]));

    // What only mode `shadow` lets pass would be limited without it.
    let (code, report) = replay("10.0.0.7\n");
    assert_eq!((code, limited(&report)), (EXIT_UNEXPECTED, vec!["10.0.0.7/32".to_owned()]), "{report}");
    let source = &report["expected"]["limited"][0];
    assert_eq!([&source["pass"], &source["drop"], &source["would_drop"]], [1, 0, 1], "{source}");
    let (_, text) = said("10.0.0.7\n", &[]);
    assert!(text.contains("of --expect-pass these are limited") && text.contains("WOULD DROP"), "{text}");

    // Nothing is no success.
    let (code, report) = replay("198.51.100.0/24\n");
    assert_eq!((code, limited(&report)), (EXIT_UNEXPECTED, vec![]), "{report}");
    assert_eq!(report["expected"]["seen"], 0);
    let (code, text) = said("198.51.100.0/24\n", &[]);
    assert!(
        code == EXIT_UNEXPECTED && text.contains("nothing of --expect-pass is in the captures"),
        "{text}"
    );
    let (code, report) = replay("# nobody yet\n\n");
    let error = report["error"].as_str().expect("a message");
    assert!(code == EXIT_INVALID && error.contains("list: found no address or prefix"), "{code}: {error}");

    let (code, report) = replay("10.0.0.300\n");
    assert_eq!(code, EXIT_INVALID, "{report}");
    let error = report["error"].as_str().expect("a message");
    assert!(error.contains("list:1: ") && error.contains("10.0.0.300"), "{error}");
}

/// An empty capture is a report of nothing, in which every service has its line.
#[test]
fn a_capture_without_packets() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("empty.pcap");
    write_pcap(&path, &[]);
    let report = replayed(&[&path], &policy(STRICT));
    assert_sums(&report);
    assert_eq!((report.packets, report.services.len(), report.sources.len()), (0, 3, 0));
}

/// The captures beside the repository, where there are any.
fn shared_captures() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps");
    let Ok(entries) = fs::read_dir(&directory) else {
        println!("skipped: captures of other tools: there is no directory {}", directory.display());
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("a directory entry").path());
    let is_capture = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng");
    let mut captures: Vec<_> = paths.filter(is_capture).collect();
    captures.sort();
    captures
}

#[test]
fn captures_of_other_tools_replay() {
    let captures = shared_captures();
    let strict = policy(&OPEN.replace(
        "[\"0.0.0.0/0\", \"::/0\"]\n",
        "[\"0.0.0.0/0\", \"::/0\"]\nprofile = \"p\"\n[profile.p]\npackets = { rate = \"1/s\", burst = 4 }\n",
    ));
    let (mut packets, mut dropped) = (0, 0);
    for capture in &captures {
        let open = replayed(&[capture], &policy(OPEN));
        assert_sums(&open);
        assert_eq!(open.verdicts.drop, 0, "{}: no limit, no drop", capture.display());
        assert!(open.packets > 0 && open.services["all"].pass > 0, "{}: {open:?}", capture.display());
        let report = replayed(&[capture], &strict);
        assert_sums(&report);
        assert_eq!(report, replayed(&[capture], &strict), "{} again", capture.display());
        assert_eq!(report.packets, open.packets);
        println!("{}: {:?}", capture.display(), report.reasons);
        packets += report.packets;
        dropped += report.verdicts.drop;
    }
    if captures.is_empty() {
        return;
    }
    assert!(dropped > 0, "nothing was over a limit of four packets");
    let together = replayed(&captures, &policy(OPEN));
    assert_sums(&together);
    assert_eq!(together.packets, packets);
    let backwards: Vec<_> = captures.iter().rev().collect();
    assert_eq!(replayed(&backwards, &policy(OPEN)), together, "the order of the files is no matter");
}
