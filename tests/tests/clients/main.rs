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
    daemon::{Site, answer, binary},
    process::{PATIENCE, wait_until},
    recorder::Recorder,
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
fn aioquic() -> Result<()> {
    meets_the_program(&software::AIOQUIC)
}

/// A client connects, with the program on the link: capture and kernel tell the same of it.
fn meets_the_program(client: &Client) -> Result<()> {
    if let Some(missing) = client.missing() {
        println!("skipped: {}: {missing}", client.name);
        return Ok(());
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

    let flows = flows(&capture)?;
    assert!(flows.len() >= CONNECTIONS, "{flows:#?}");
    let (transport, in_kernel) = match client.transport {
        Transport::Tcp => ("tcp", true),
        Transport::Quic => ("quic", false),
    };
    for flow in &flows {
        assert_eq!(
            (&flow["transport"], &flow["in_kernel"]),
            (&transport.into(), &in_kernel.into()),
            "{flow:#}"
        );
    }
    let told: Vec<_> = flows.iter().map(|flow| text(flow, "ja4")).collect::<Result<_>>()?;
    let hellos = hellos(&capture)?;
    assert_eq!(told, hellos.ja4s, "told and computed");
    let (stable, variants) = (&hellos.stable, told.iter().collect::<BTreeSet<_>>());
    let mut keys = flows.iter().map(|flow| text(flow, "tls_key")).collect::<Result<Vec<_>>>()?;
    keys.sort();
    keys.dedup();
    println!("{}: {} flows, keys {keys:?}, stable JA4 {stable:?} of {variants:?}", client.name, flows.len());
    assert_eq!((stable.len(), keys.len()), (1, 1));
    assert_eq!(variants.len() > 1, client.resumes);
    assert_eq!(hellos.orders.len() > variants.len(), client.shuffles, "{:?}", hellos.orders);
    let key = &keys[0];
    is_of_no_other_software(client.label, key);
    for flow in &flows {
        assert_eq!(
            flow["label"], client.label,
            "{} says {stable:?}, which is not in the table, or as something else. If its version is a new one, that is no defect: add \
             the stable JA4 to detector-user/src/fingerprint/labels.rs, which says how, and the version",
            client.name
        );
    }

    let counted = counted(&site, if in_kernel { flows.len() } else { 0 })?;
    let kernel: Vec<_> =
        counted.iter().map(|seen| (format!("{:016x}", seen.key), seen.handshakes as usize)).collect();
    if !in_kernel {
        assert!(kernel.is_empty(), "QUIC is not looked into: {kernel:?}");
        return Ok(());
    }
    assert_eq!(kernel, [(key.clone(), flows.len())]);
    assert_eq!((counted[0].sources, counted[0].variants.count_ones() as usize), (1, variants.len()));
    Ok(())
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

/// What the program on the link counted of ClientHellos, when it counted so many handshakes.
fn counted(site: &Site, handshakes: usize) -> Result<Vec<Fingerprint>> {
    let maps = Maps::pinned(&Pins::new(site.pins()).loaded()?, Access::Read)?;
    let read = || fingerprints(&maps).filter(|known| known.kind == Kind::Tls).collect::<Vec<_>>();
    let what = format!("{handshakes} handshakes are counted");
    wait_until(&what, PATIENCE, || {
        let known = read();
        let counted: u32 = known.iter().map(|known| known.handshakes).sum();
        Ok((counted as usize >= handshakes).then_some(known))
    })
    .with_context(|| format!("counted are {:?}", read()))
}

/// Asserts that a key is not that of other software of this run.
fn is_of_no_other_software(label: &'static str, key: &str) {
    static OWNERS: Mutex<BTreeMap<String, &str>> = Mutex::new(BTreeMap::new());
    let mut owners = OWNERS.lock().unwrap_or_else(PoisonError::into_inner);
    let owner = *owners.entry(key.to_owned()).or_insert(label);
    assert_eq!(owner, label, "one key, {key}");
}
