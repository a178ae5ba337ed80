//! Real clients on a real link: what they say first has one key in the kernel, one stable JA4, and the label of its software.

mod server;
mod software;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use detector_common::{fingerprint::Kind, hello::Transport};
use detector_tests::{
    capture::Recorder,
    daemon::{Site, answer, binary},
    process::{PATIENCE, wait_until},
    skip::skip,
    stage::{Net, Stage, edge_interface, outside_interface, policy},
};
use detector_user::{
    capture::Reader,
    fingerprint::{flows::follow, ja4},
    kernel::{
        mapped::Access,
        maps::Maps,
        pins::Pins,
        read::{Fingerprint, fingerprints},
    },
};
use serde_json::Value;
use server::Server;
use software::{Client, Place};

/// Connections that each client makes, at least.
const CONNECTIONS: usize = 10;

/// No client meets it.
const LIMIT: &str = "packets = { rate = \"100000/s\", burst = 100000 }";

#[test]
fn curl() -> Result<()> {
    meets_the_program(&software::CURL)
}

#[test]
fn openssl() -> Result<()> {
    meets_the_program(&software::OPENSSL)
}

#[test]
fn python() -> Result<()> {
    let mut client = software::PYTHON;
    if client.missing().is_none() {
        client.label = software::label_of_python()?;
    }
    meets_the_program(&client)
}

#[test]
fn go() -> Result<()> {
    meets_the_program(&software::GO)
}

#[test]
fn node() -> Result<()> {
    meets_the_program(&software::NODE)
}

#[test]
fn gnutls() -> Result<()> {
    meets_the_program(&software::GNUTLS)
}

#[test]
fn rustls() -> Result<()> {
    meets_the_program(&software::RUSTLS)
}

#[test]
fn chromium() -> Result<()> {
    meets_the_program(&software::CHROMIUM)
}

#[test]
fn chromium_over_quic() -> Result<()> {
    meets_the_program(&software::CHROMIUM_QUIC)
}

#[test]
fn aioquic() -> Result<()> {
    meets_the_program(&software::AIOQUIC)
}

/// A client connects, with the program on the link: capture and kernel tell the same of it.
fn meets_the_program(client: &Client) -> Result<()> {
    if let Some(missing) = client.missing() {
        return skip(&format!("{}: {missing}", client.name));
    }
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let address = Net::v4(0).service();
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let server = Server::start(&stage.edge, address, client.transport, site.files())?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    assert_eq!(site.status()?.1["interfaces"][0]["mode"], "native");
    let capture = site.files().join("link.pcap");

    let recorder = Recorder::start(&stage.outside, &outside_interface(0), &capture)?;
    let place = Place {
        namespace: &stage.outside,
        files: site.files(),
        server: address,
        certificate: server.https.certificate(),
        connections: CONNECTIONS,
    };
    (client.connect)(&place).with_context(|| format!("connecting with {}", client.name))?;
    stage.fence(0)?;
    recorder.stop()?;

    let seen = seen_in(&capture, client)?;
    match client.transport {
        Transport::Tcp => assert_counted(&site, &seen),
        Transport::Quic => assert_opened(&site, &seen, client.label),
    }
}

/// A client in a capture of the link.
struct Seen {
    /// The key of its ClientHellos.
    key: String,
    /// How many there are.
    flows: usize,
    /// The JA4s of these.
    variants: BTreeSet<String>,
}

/// Asserts what a capture has of a client: its flows and no others, with the JA4s, the key and the label that they should have.
fn seen_in(capture: &Path, client: &Client) -> Result<Seen> {
    let flows = flows(capture)?;
    assert!(flows.len() >= CONNECTIONS, "{flows:#?}");
    let expected = match client.transport {
        Transport::Tcp => ("tcp", true),
        Transport::Quic => ("quic", false),
    };
    for flow in &flows {
        let (transport, in_kernel) = (&flow["transport"], &flow["in_kernel"]);
        assert_eq!(
            (transport.as_str(), in_kernel.as_bool()),
            (Some(expected.0), Some(expected.1)),
            "{flow:#}"
        );
    }
    let told: Vec<_> = flows.iter().map(|flow| text(flow, "ja4")).collect::<Result<_>>()?;
    let hellos = hellos(capture)?;
    assert_eq!(told, hellos.ja4s, "told and computed");
    let (stable, variants) = (&hellos.stable, told.iter().cloned().collect::<BTreeSet<_>>());
    let keys = flows.iter().map(|flow| text(flow, "tls_key")).collect::<Result<BTreeSet<_>>>()?;
    println!("{}: {} flows, key {keys:?}, stable JA4 {stable:?} of {variants:?}", client.name, flows.len());
    assert_eq!((stable.len(), keys.len()), (1, 1));
    assert_eq!(variants.len() > 1, client.resumes);
    assert_eq!(hellos.orders.len() > variants.len(), client.shuffles, "{:?}", hellos.orders);
    for flow in &flows {
        assert_eq!(
            flow["label"], client.label,
            "{} says {stable:?}, which the table does not have, or has as something else. If its version is a new one, that is no \
             defect: add the stable JA4 to detector-user/src/fingerprint/labels.rs, which says how, with the version",
            client.name
        );
    }
    let key = keys.into_iter().next().context("one key")?;
    assert_is_of_no_other_software(client.label, &key);
    Ok(Seen { key, flows: flows.len(), variants })
}

/// What `detector fingerprint` tells of a capture.
fn flows(capture: &Path) -> Result<Vec<Value>> {
    let (code, out, err) = answer(Command::new(binary()?).args(["fingerprint", "--json"]).arg(capture))?;
    ensure!((code, err.as_str()) == (0, ""), "fingerprint exits with {code}: {out}{err}");
    out.lines().map(|line| serde_json::from_str(line).context("an object a line")).collect()
}

fn text(flow: &Value, name: &str) -> Result<String> {
    Ok(flow[name].as_str().with_context(|| format!("no {name}: {flow:#}"))?.to_owned())
}

/// The ClientHellos of a capture.
struct Hellos {
    /// The JA4 of each, on which another implementation agrees.
    ja4s: Vec<String>,
    /// The stable ones of these.
    stable: BTreeSet<String>,
    /// The lists as they were sent.
    orders: BTreeSet<String>,
}

fn hellos(capture: &Path) -> Result<Hellos> {
    let mut hellos = Vec::new();
    let mut reader = Reader::open(capture)?;
    follow(&mut reader, |flow| {
        hellos.extend(flow.hello.map(|hello| (flow.number, hello, flow.transport)));
    })?;
    hellos.sort_by_key(|(number, ..)| *number);
    let mut found = Hellos { ja4s: Vec::new(), stable: BTreeSet::new(), orders: BTreeSet::new() };
    for (_, hello, transport) in hellos {
        let record = [&[22, 3, 1][..], &u16::try_from(hello.len())?.to_be_bytes(), &hello].concat();
        let other = huginn_net_tls::parse_tls_client_hello_ja4(&record).context("a JA4 of another kind")?;
        // The other implementation knows no QUIC.
        assert_eq!(ja4(&hello, Transport::Tcp)?.to_string(), other, "another implementation");
        let own = ja4(&hello, transport)?;
        found.ja4s.push(own.to_string());
        found.stable.insert(own.stable().to_string());
        found.orders.insert(own.raw_original());
    }
    Ok(found)
}

/// Asserts that the program on the link counted what a capture of the link has.
fn assert_counted(site: &Site, seen: &Seen) -> Result<()> {
    let counted = counted(site, Kind::Tls, seen)?;
    let [counted] = &counted[..] else { panic!("several in the kernel: {counted:?}") };
    assert_eq!(
        (format!("{:016x}", counted.key), counted.handshakes as usize),
        (seen.key.clone(), seen.flows)
    );
    assert_eq!((counted.sources, counted.variants.count_ones() as usize), (1, seen.variants.len()));
    Ok(())
}

/// Asserts that the program on the link counted each connection of a capture of it once, and that the daemon was sent what it needs
/// to call them what the capture does.
fn assert_opened(site: &Site, seen: &Seen, label: &str) -> Result<()> {
    let counted = counted(site, Kind::Initial, seen)?;
    let handshakes: u32 = counted.iter().map(|known| known.handshakes).sum();
    assert_eq!(handshakes as usize, seen.flows, "{counted:?}");
    assert_eq!(fingerprints_of(site, Kind::Tls)?, [], "the program does not look into QUIC");
    let rows = || {
        let (code, answer) = site.ask_json(&["top", "fingerprints", "--kind", "initial"])?;
        ensure!(code == 0, "top exits with {code}: {answer}");
        answer["top"].as_array().cloned().with_context(|| answer.to_string())
    };
    let named = wait_until("the daemon has opened one connection of each shape", PATIENCE, || {
        let rows = rows()?;
        Ok(rows.iter().all(|row| row["ja4"].is_string()).then_some(rows))
    })
    .with_context(|| format!("{:?}", rows()))?;
    assert_eq!(named.len(), counted.len());
    for row in &named {
        println!("{}: {} handshakes, {}", text(row, "initial")?, row["handshakes"], text(row, "ja4")?);
        assert!(seen.variants.contains(&text(row, "ja4")?), "{row:#}");
        assert_eq!((row["label"].as_str(), row["clients"].as_u64()), (Some(label), Some(1)), "{row:#}");
        assert_eq!(row["sources"], 1, "{row:#}");
    }
    let metrics = site.metrics()?;
    let of_result = |result| metrics.sum("detector_initials_total", &[("result", result)]);
    assert!(of_result("opened") >= named.len() as u64);
    assert_eq!(of_result("unopened"), 0);
    assert_eq!(metrics.sum("detector_fingerprint_events_total", &[("result", "told")]), named.len() as u64);
    Ok(())
}

/// Waits until as many fingerprints of a kind are counted as a capture has.
fn counted(site: &Site, kind: Kind, seen: &Seen) -> Result<Vec<Fingerprint>> {
    let what = format!("{} handshakes are counted", seen.flows);
    wait_until(&what, PATIENCE, || {
        let known = fingerprints_of(site, kind)?;
        let handshakes: u32 = known.iter().map(|known| known.handshakes).sum();
        Ok((handshakes as usize >= seen.flows).then_some(known))
    })
    .with_context(|| format!("counted are {:?}", fingerprints_of(site, kind)))
}

/// The fingerprints of a kind that the program on the link counted.
fn fingerprints_of(site: &Site, kind: Kind) -> Result<Vec<Fingerprint>> {
    let maps = Maps::pinned(&Pins::new(site.pins()).loaded()?, Access::Read)?;
    Ok(fingerprints(&maps).filter(|known| known.kind == kind).collect())
}

/// Asserts that a key is not that of other software of this run.
fn assert_is_of_no_other_software(label: &'static str, key: &str) {
    static OWNERS: Mutex<BTreeMap<String, &str>> = Mutex::new(BTreeMap::new());
    let mut owners = OWNERS.lock().unwrap_or_else(PoisonError::into_inner);
    let owner = *owners.entry(key.to_owned()).or_insert(label);
    assert_eq!(owner, label, "one key, {key}");
}
