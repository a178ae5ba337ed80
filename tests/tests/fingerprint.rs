//! `detector fingerprint`: every client flow of captures, with its JA4.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use detector_common::hello::Transport;
use detector_tests::{
    daemon::{answer, binary},
    packet::{Packet, ether_type, flags, protocol, tcp},
};
use detector_user::{capture::Reader, fingerprint::flows::follow, fingerprint::ja4};
use serde_json::Value;
use tempfile::TempDir;

/// Flows by JA4, by capture.
type Expected = BTreeMap<String, BTreeMap<String, u64>>;

/// The captures beside the repository and what they are to show, where there are any.
fn shared_captures() -> Result<Option<(PathBuf, Expected)>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pcaps");
    let list = directory.join("ja4.csv");
    if !list.exists() {
        println!("skipped: captures of other tools: there is no {}", list.display());
        return Ok(None);
    }
    let text = fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    let mut expected = Expected::new();
    for line in text.lines().skip(1) {
        let [file, ja4, flows] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
        expected.entry(file.to_owned()).or_default().insert(ja4.to_owned(), flows.parse()?);
    }
    Ok(Some((directory, expected)))
}

fn said(arguments: &[&str], directory: &Path) -> Result<(i32, String, String)> {
    answer(Command::new(binary()?).arg("fingerprint").args(arguments).current_dir(directory))
}

/// The flows that it tells as JSON.
fn flows(arguments: &[&str], directory: &Path) -> Result<Vec<Value>> {
    let (code, out, err) = said(&[arguments, &["--json"]].concat(), directory)?;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    out.lines().map(|line| serde_json::from_str(line).context("an object a line")).collect()
}

#[test]
fn captures_of_other_tools_have_their_fingerprints() -> Result<()> {
    let Some((directory, expected)) = shared_captures()? else { return Ok(()) };
    assert!(expected.len() >= 16, "{expected:?}");
    let mut keys = BTreeMap::new();
    for (capture, expected) in &expected {
        let mut found = BTreeMap::new();
        for flow in flows(&[capture], &directory)? {
            assert_eq!(flow["capture"], capture.as_str());
            let ja4 = flow["ja4"].as_str().context("a JA4")?.to_owned();
            let key = flow["tls_key"].as_str().context("a key")?.to_owned();
            // All of them come in order over TCP, some in pieces; QUIC is opened in user space only.
            assert_eq!(flow["in_kernel"], flow["transport"] == "tcp", "{capture}: {flow}");
            *found.entry(ja4.clone()).or_default() += 1_u64;
            keys.entry(key).or_insert_with(BTreeSet::new).insert(ja4);
        }
        assert_eq!(&found, expected, "{capture}");
    }
    let all_ja4s: BTreeSet<_> = keys.values().flatten().collect();
    assert_eq!(keys.len(), all_ja4s.len(), "one key for each JA4: {keys:?}");
    assert!(keys.values().all(|ja4s| ja4s.len() == 1), "{keys:?}");
    // All at once, each with its own name.
    let names: Vec<_> = expected.keys().map(String::as_str).collect();
    let all = flows(&names, &directory)?;
    assert_eq!(all.len() as u64, expected.values().flat_map(BTreeMap::values).sum::<u64>());
    Ok(())
}

/// Another implementation says the same of every ClientHello, unless it is wrong by the text.
#[test]
fn another_implementation_agrees() -> Result<()> {
    let Some((directory, expected)) = shared_captures()? else { return Ok(()) };
    let mut compared = 0;
    for capture in expected.keys() {
        let mut reader = Reader::open(&directory.join(capture))?;
        let mut messages = Vec::new();
        follow(&mut reader, |flow| messages.extend(flow.hello))?;
        for message in messages {
            let record = [&[22, 3, 1][..], &u16::try_from(message.len())?.to_be_bytes(), &message].concat();
            let other =
                huginn_net_tls::parse_tls_client_hello_ja4(&record).context("a JA4 of another kind")?;
            let own = ja4(&message, Transport::Tcp)?.to_string();
            compared += 1;
            match WRONG.iter().find(|(name, ..)| name == capture) {
                None => assert_eq!(other, own, "{capture}"),
                Some((_, theirs, ours, why)) => {
                    assert_eq!((&other[8..10], &own[8..10]), (*theirs, *ours), "{why}")
                }
            }
        }
    }
    println!("{compared} ClientHellos compared");
    assert!(compared >= 18);
    Ok(())
}

/// Captures, the part of the JA4 for application protocols that the other implementation gives, ours, and why.
const WRONG: &[(&str, &str, &str, &str)] = &[(
    "foxio-tls-non-ascii-alpn.pcapng",
    "00",
    "bd",
    "a protocol that is no letters is told by its hexadecimal digits; the other one leaves out what is no UTF-8",
)];

/// A microsecond pcap file of Ethernet frames.
fn write_capture(path: &Path, frames: &[Vec<u8>]) -> Result<()> {
    let mut file = [[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0], [0; 8], [0, 0, 4, 0, 1, 0, 0, 0]].concat();
    for (second, frame) in (0_u32..).zip(frames) {
        let length = u32::try_from(frame.len())?.to_le_bytes();
        file.extend([second.to_le_bytes(), [0; 4], length, length].concat());
        file.extend(frame);
    }
    fs::write(path, file).context("writing a capture")
}

/// A ClientHello in a record: TLS 1.2, two cipher suites, an empty name of the server.
fn hello() -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 4, 0x13, 1, 0x13, 2, 1, 0, 0, 4, 0, 0, 0, 0]].concat();
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    [&[22, 3, 1, 0, message.len() as u8][..], &message].concat()
}

/// The frame of a segment.
fn segment(source: &str, destination: &str, flags: u8, sequence: u32, payload: &[u8]) -> Vec<u8> {
    carrying(tcp(source, destination, flags), sequence, payload)
}

/// A frame of TCP with what the builder leaves out.
fn carrying(packet: Packet, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = packet.payload(payload.len()).frame().to_vec();
    let start = frame.len() - payload.len();
    frame[start..].copy_from_slice(payload);
    frame[start - 16..start - 12].copy_from_slice(&sequence.to_be_bytes());
    frame
}

const V4: (&str, &str) = ("192.0.2.1:51234", "192.0.2.2:443");
const V6: (&str, &str) = ("[2001:db8::1]:51234", "[2001:db8::2]:8443");
const JA4: &str = "t12d020100_62ed6f6ca7ad_000000000000";

fn write_captures(directory: &Path) -> Result<()> {
    let first = [
        segment(V4.0, V4.1, flags::SYN, 0, &[]),
        segment(V4.0, V4.1, flags::ACK, 1, &hello()[..40]),
        segment("192.0.2.9:1", "192.0.2.2:80", flags::SYN, 0, &[]),
        segment(V4.0, V4.1, flags::ACK, 41, &hello()[40..]),
    ];
    write_capture(&directory.join("a.pcap"), &first)?;
    let second = [segment(V6.0, V6.1, flags::ACK, 9, &hello())];
    write_capture(&directory.join("b.pcap"), &second)
}

#[test]
fn json_has_an_object_a_line_with_all_keys() -> Result<()> {
    let directory = TempDir::new()?;
    write_captures(directory.path())?;
    let all = flows(&["a.pcap", "b.pcap"], directory.path())?;
    let keys = "capture source destination transport ja4 ja4_raw syn syn_key tls_key in_kernel label";
    for flow in &all {
        let found: Vec<_> = flow.as_object().context("an object")?.keys().map(String::as_str).collect();
        assert_eq!(found.join(" "), keys);
        assert_eq!((&flow["transport"], &flow["ja4"]), (&"tcp".into(), &JA4.into()));
        assert_eq!(flow["ja4_raw"], "t12d020100_1301,1302_");
    }
    let ends = |flow: &Value| [&flow["capture"], &flow["source"], &flow["destination"]].map(Value::clone);
    let expected = [["a.pcap", V4.0, V4.1], ["b.pcap", V6.0, V6.1]];
    assert_eq!(all.iter().map(ends).collect::<Vec<_>>(), expected.map(|ends| ends.map(Value::from)));

    let all = flows(&["a.pcap", "--all"], directory.path())?;
    assert_eq!(all.len(), 2);
    assert_eq!(
        (&all[1]["source"], &all[1]["ja4"], &all[1]["ja4_raw"]),
        (&"192.0.2.9:1".into(), &Value::Null, &Value::Null)
    );
    Ok(())
}

/// Tags, options, extension headers and padding before and behind what is looked at.
#[test]
fn headers_of_all_kinds_are_read_through() -> Result<()> {
    let directory = TempDir::new()?;
    let (v4, v6) = (|| tcp(V4.0, V4.1, flags::ACK), || tcp(V6.0, V6.1, flags::ACK));
    let packets: [&dyn Fn() -> Packet; 7] = [
        &v4,
        &|| v4().tag(ether_type::VLAN),
        &|| v4().tag(ether_type::QINQ).tag(ether_type::VLAN).options(8),
        &v6,
        &|| v6().tag(ether_type::VLAN),
        &|| v6().extension(protocol::DESTINATION_OPTIONS, 16).authentication(16),
        &|| v6().extension(protocol::HOP_BY_HOP, 8).fragment(0, false),
    ];
    for (number, packet) in packets.iter().enumerate() {
        let mut tail = carrying(packet(), 41, &hello()[40..]);
        tail.extend([0xee; 9]);
        let frames = [carrying(packet(), 1, &hello()[..40]), tail];
        write_capture(&directory.path().join("a.pcap"), &frames)?;
        let found = flows(&["a.pcap"], directory.path())?;
        let found: Vec<_> = found.iter().map(|flow| flow["ja4"].as_str()).collect();
        assert_eq!(found, [Some(JA4)], "headers {number}");
    }
    Ok(())
}

#[test]
fn people_get_a_table() -> Result<()> {
    let directory = TempDir::new()?;
    write_captures(directory.path())?;
    let (code, out, _) = said(&["b.pcap"], directory.path())?;
    assert_eq!(code, 0);
    let words: Vec<Vec<_>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        words,
        [vec!["SOURCE", "DESTINATION", "JA4", "SYN", "LABEL"], vec![V6.0, V6.1, JA4, "-", "-"]]
    );
    let (_, out, _) = said(&["a.pcap", "b.pcap", "--all"], directory.path())?;
    assert!(out.trim_start().starts_with("CAPTURE"), "{out}");
    assert_eq!(out.lines().count(), 4, "{out}");
    write_capture(&directory.path().join("c.pcap"), &[])?;
    let (code, out, _) = said(&["c.pcap"], directory.path())?;
    assert!(code == 0 && out.contains("--all lists other TCP flows"), "{out}");
    Ok(())
}

#[test]
fn what_cannot_be_read_is_told_as_replay_tells_it() -> Result<()> {
    let directory = TempDir::new()?;
    write_captures(directory.path())?;
    let whole = fs::read(directory.path().join("a.pcap"))?;
    fs::write(directory.path().join("cut.pcap"), &whole[..whole.len() - 1])?;
    fs::write(directory.path().join("text"), "no capture")?;
    let rows = [
        ("nosuch.pcap", "there is no such file"),
        ("text", "magic number"),
        ("cut.pcap", "the file ends in the middle"),
    ];
    for (name, part) in rows {
        let (code, out, err) = said(&["a.pcap", name], directory.path())?;
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.contains(part) && err.contains(name), "{err}");
        let (code, out, _) = said(&[name, "--json"], directory.path())?;
        let failure: Value = serde_json::from_str(&out)?;
        assert_eq!((code, &failure["exit_code"]), (2, &2.into()));
        assert!(failure["error"].as_str().is_some_and(|error| error.contains(part)), "{failure}");
    }
    Ok(())
}
