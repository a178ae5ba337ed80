//! Datagrams on a real link, and what the daemon makes of them.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use detector_common::{fingerprint::Kind, hello::Transport};
use detector_tests::{
    api::Api,
    daemon::Site,
    follower::Follower,
    hello::Hello,
    process::{PATIENCE, wait_until},
    stage::{Net, Stage, Who, edge_interface, policy},
};
use detector_user::{
    fingerprint::ja4,
    kernel::{
        mapped::Access,
        maps::Maps,
        names::ask_again,
        pins::Pins,
        read::{Fingerprint, fingerprints},
    },
};
use serde_json::Value;

use crate::{crypto, initial};

const LIMIT: &str = "packets = { rate = \"10000/s\" }";

/// A ClientHello with a key share of so many bytes, and with as many ciphers more.
fn message(share_bytes: usize, ciphers: u16) -> Vec<u8> {
    let mut hello = Hello::browser(share_bytes);
    hello.ciphers.extend(0xc100..0xc100 + ciphers);
    hello.message()
}

fn name_of(message: &[u8]) -> Result<String> {
    Ok(ja4(message, Transport::Quic)?.to_string())
}

/// The datagrams of a ClientHello, of so many bytes each.
fn datagrams(message: &[u8], bytes: usize) -> Vec<Vec<u8>> {
    let pieces = message.chunks(1000).enumerate();
    let datagram = |(number, piece)| {
        let mut frames = crypto(1000 * number, piece);
        frames.resize(bytes - crate::OVERHEAD, 0);
        initial(number as u64).sealed(&frames)
    };
    pieces.map(datagram).collect()
}

/// Sends datagrams from a port of its own.
fn send(stage: &Stage, net: Net, datagrams: &[Vec<u8>]) -> Result<()> {
    stage.outside.within(|| {
        let source: IpAddr = net.source(Who::Client);
        let socket = UdpSocket::bind((source, 0)).context("binding a port")?;
        socket.connect(net.service()).context("connecting")?;
        for datagram in datagrams {
            match socket.send(datagram) {
                // Nobody listens there, as the datagram before has shown.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    socket.send(datagram).context("sending again")?;
                }
                sent => {
                    sent.context("sending")?;
                }
            }
        }
        Ok(())
    })?
}

fn rows(site: &Site<'_>) -> Result<Vec<Value>> {
    let (code, answer) = site.ask_json(&["top", "fingerprints", "--kind", "initial"])?;
    ensure!(code == 0, "top exits with {code}: {answer}");
    answer["top"].as_array().cloned().with_context(|| answer.to_string())
}

/// Waits until the shape of datagrams of so many bytes has a name.
fn named(site: &Site<'_>, bytes: usize, name: &str) -> Result<Value> {
    let shape = format!("1:8,0:-:{bytes}");
    wait_until("the shape has its name", PATIENCE, || {
        Ok(rows(site)?.into_iter().find(|row| row["initial"] == shape && row["ja4"] == name))
    })
    .with_context(|| format!("{shape} is not {name}: {:#?}", rows(site)))
}

/// Has the program send datagrams of all shapes again.
fn ask(site: &Site<'_>) -> Result<()> {
    let maps = Maps::pinned(&Pins::new(site.pins()).loaded()?, Access::Write)?;
    let of_quic = |known: &Fingerprint| known.kind == Kind::Initial;
    fingerprints(&maps).filter(of_quic).for_each(|known| ask_again(&maps, known.number));
    Ok(())
}

#[test]
fn a_shape_has_the_names_of_its_clients() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    let (net, other) = (Net::v4(0), Net::v6(0));
    let [one, two] = [message(1500, 0), message(1500, 1)];
    send(&stage, net, &datagrams(&one, 1250))?;
    let row = named(&site, 1250, &name_of(&one)?)?;
    assert_eq!((row["clients"].as_u64(), row["service"].as_str()), (Some(1), Some("edge")), "{row:#}");
    assert_eq!((row["kind"].as_str(), row["label"].as_str()), (Some("initial"), None), "{row:#}");
    assert_eq!((row["handshakes"].as_u64(), row["sources"].as_u64()), (Some(1), Some(1)), "{row:#}");

    // Another client of the same shape, which the program sends when it is asked.
    ask(&site)?;
    send(&stage, other, &datagrams(&two, 1250))?;
    let row = named(&site, 1250, &name_of(&two)?)?;
    assert_eq!((row["clients"].as_u64(), row["handshakes"].as_u64()), (Some(2), Some(2)), "{row:#}");
    assert_eq!(row["sources"].as_u64(), Some(2), "{row:#}");
    let (code, text, _) = site.ask(&["top", "fingerprints"])?;
    assert!(code == 0 && text.contains(&format!("1:8,0:-:1250 {} and 1 more", name_of(&two)?)), "{text}");
    let answer = Api::new(site.api()).get("/v1/fingerprints?kind=initial")?.body;
    assert_eq!(answer["fingerprints"], 1, "{answer:#}");
    // When it was seen last is reckoned anew, in seconds.
    for field in
        ["key", "kind", "initial", "ja4", "stable_ja4", "clients", "handshakes", "sources", "service"]
    {
        assert_eq!(answer["top"][0][field], row[field], "{field}");
    }

    // Without a daemon the names stay, and the next one is sent what came meanwhile.
    daemon.end(libc::SIGKILL)?;
    assert_eq!(rows(&site)?.len(), 1);
    send(&stage, net, &datagrams(&one, 1300))?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    named(&site, 1300, &name_of(&one)?)?;
    let row = named(&site, 1250, &name_of(&two)?)?;
    assert_eq!(row["clients"].as_u64(), Some(2), "{row:#}");
    let metrics = site.metrics()?;
    assert_eq!(metrics.sum("detector_initials_total", &[("result", "opened")]), 1, "of this daemon");
    assert_eq!(metrics.sum("detector_exemplars_total", &[("result", "torn")]), 0);
    assert_eq!(metrics.sum("detector_handshake_events_total", &[("event", "initial_read")]), 3);
    Ok(())
}

#[test]
fn what_does_not_open_or_is_not_whole_is_told() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    let net = Net::v4(0);
    let mut garbage = datagrams(&message(300, 0), 1250);
    garbage[0][40..].fill(0x5a);
    send(&stage, net, &garbage)?;
    send(&stage, net, &datagrams(&message(1500, 0), 1260)[1..])?;
    wait_until("both are given up", PATIENCE, || {
        let metrics = site.metrics()?;
        let of = |result| metrics.sum("detector_initials_total", &[("result", result)]);
        Ok(([of("opened"), of("incomplete"), of("unopened")] == [0, 1, 1]).then_some(()))
    })?;
    assert!(rows(&site)?.iter().all(|row| row["ja4"].is_null() && row["clients"] == 0));
    // What has no name is asked for again.
    wait_until("the shape is named", PATIENCE, || {
        send(&stage, net, &datagrams(&message(1500, 0), 1260))?;
        Ok(rows(&site)?
            .iter()
            .any(|row| row["initial"] == "1:8,0:-:1260" && row["ja4"].is_string())
            .then_some(()))
    })?;
    Ok(())
}

#[test]
fn a_new_client_is_told_where_events_are_followed() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    let follower = Follower::start(&site, &["--json", "--kind", "fingerprint", "--service", "edge"])?;
    let message = message(1500, 0);
    // Shapes that nobody has seen, until one comes after somebody follows.
    let mut sizes = 1200..1450;
    let event = wait_until("a client is told", PATIENCE, || {
        if let Some(event) = follower.events().into_iter().next() {
            return Ok(Some(event));
        }
        let size = sizes.next().context("no shape is left")?;
        send(&stage, Net::v4(0), &datagrams(&message, size))?;
        Ok(None)
    })?;
    assert_eq!((event["transport"].as_str(), event["label"].as_str()), (Some("quic"), None), "{event}");
    assert_eq!(event["ja4"], name_of(&message)?);
    assert!(rows(&site)?.iter().any(|row| row["key"] == event["key"]), "{event}");
    Ok(())
}
