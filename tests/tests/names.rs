//! Fingerprints of real TLS clients have the names that `detector fingerprint` gives them, and keep them.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Map, MapData, RingBuf};
use detector_common::{
    abi::ABI_VERSION,
    fingerprint::{Kind, Name, ja4_bytes, ja4_text},
};
use detector_tests::{
    api::Api,
    capture::Tap,
    daemon::{Site, answer, binary},
    follower::Follower,
    https::Https,
    process::{PATIENCE, run, wait_until},
    stage::{Net, Stage, Who, edge_interface, policy},
};
use detector_user::kernel::{
    mapped::Access,
    maps::Maps,
    names::{self as kernel_names, Standing},
    pins::Pins,
};
use serde_json::{Value, json};

/// Seconds that a request may take.
const PATIENCE_S: u32 = 10;

fn open() -> String {
    policy("packets = { rate = \"10000/s\" }")
}

/// A request of curl, which says what it is told of its ClientHello.
fn request(stage: &Stage, https: &Https, net: Net, hello: &[&str]) -> Result<()> {
    let mut curl = https.curl(&stage.outside, net.source(Who::Client), net.service(), PATIENCE_S)?;
    run(curl.args(hello)).map(drop)
}

/// A handshake of `openssl s_client`.
fn handshake(stage: &Stage, net: Net) -> Result<()> {
    let mut client = stage.outside.command("openssl")?;
    let (code, _, err) = answer(client.args([
        "s_client",
        "-noservername",
        "-alpn",
        "http/1.1",
        "-connect",
        &net.service().to_string(),
    ]))?;
    ensure!(code == 0, "{err}");
    Ok(())
}

/// The names of keys that `detector fingerprint` gives to a capture: of ClientHellos and of SYNs.
fn expected(tap: &Tap, files: &Path) -> Result<BTreeMap<String, String>> {
    let capture = files.join("clients.pcap");
    tap.write(&capture)?;
    let (code, out, err) = answer(Command::new(binary()?).arg("fingerprint").arg(&capture).arg("--json"))?;
    ensure!(code == 0, "{err}");
    let mut names = BTreeMap::new();
    for line in out.lines() {
        let flow: Value = serde_json::from_str(line)?;
        for (key, name) in [("tls_key", "ja4"), ("syn_key", "syn")] {
            let text =
                |field: &str| Ok::<_, anyhow::Error>(flow[field].as_str().context(out.clone())?.to_owned());
            names.insert(text(key)?, text(name)?);
        }
    }
    Ok(names)
}

fn rows(site: &Site<'_>, arguments: &[&str]) -> Result<Vec<Value>> {
    let (code, answer) = site.ask_json(&[&["top", "fingerprints"], arguments].concat())?;
    let rows = answer["top"].as_array().with_context(|| format!("it exits with {code}: {answer}"))?;
    Ok(rows.clone())
}

/// The names by key; `""`: none.
fn names(rows: &[Value]) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let name = |row: &Value| text(&row["ja4"]).or_else(|| text(&row["syn"])).unwrap_or_default();
    rows.iter().filter_map(|row| Some((text(&row["key"])?, name(row)))).collect()
}

/// Waits until these fingerprints have these names.
fn wait_for(site: &Site<'_>, expected: &BTreeMap<String, String>) -> Result<()> {
    let named = wait_until("fingerprints have names", PATIENCE, || {
        Ok((names(&rows(site, &[])?) == *expected).then_some(()))
    });
    named.with_context(|| format!("{:#?} instead of {expected:#?}", rows(site, &[]).map(|rows| names(&rows))))
}

#[test]
fn real_clients_have_the_names_that_their_capture_has() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let (net, other) = (Net::v4(0), Net::v6(0));
    let https = Https::start(&stage.edge, &[net.service(), other.service()])?;
    let site = Site::new(&stage.edge, &open())?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    let tap = Tap::start(&stage.outside)?;
    request(&stage, &https, net, &[])?;
    request(&stage, &https, net, &[])?;
    request(&stage, &https, other, &["--tls-max", "1.2"])?;
    handshake(&stage, net)?;
    let expected = expected(&tap, site.files())?;
    // Three ClientHellos, and a SYN of each family.
    assert_eq!(expected.len(), 5, "{expected:#?}");
    wait_for(&site, &expected)?;

    let top = rows(&site, &[])?;
    for row in &top {
        assert_eq!((row["service"].as_str(), row["conflicts"].as_u64()), (Some("edge"), Some(0)), "{row}");
        let counted = |times: &str| -> u64 {
            let bins = row[times]["bins"].as_array().expect("bins");
            bins.iter().map(|bin| bin["count"].as_u64().expect("a count")).sum()
        };
        assert_eq!(row["handshakes"].as_u64(), Some(counted("round_trip")), "{row}");
        assert_eq!(counted("round_trip"), counted("hello_delay"), "{row}");
        assert!(row["round_trip"]["median_ns"].as_u64() > Some(0), "{row}");
        assert_eq!(row["sources"].as_u64(), Some(1), "{row}");
    }
    let handshakes: Vec<_> = top.iter().map(|row| row["handshakes"].as_u64().expect("a count")).collect();
    assert!(handshakes.is_sorted_by(|one, next| one >= next), "{handshakes:?}");
    assert_eq!(handshakes.iter().sum::<u64>(), 8, "of each connection a SYN and a ClientHello");
    assert!(rows(&site, &["--kind", "syn"])?.iter().all(|row| row["kind"] == "syn" && row["ja4"].is_null()));
    assert_eq!(rows(&site, &["--kind", "tls", "--service", "edge"])?.len(), 3);
    assert_eq!(rows(&site, &["--rows", "1"])?, top[..1]);
    let (code, _, err) = site.ask(&["top", "fingerprints", "--service", "nowhere"])?;
    assert!(code == 2 && err.contains("it has edge"), "{code}: {err}");
    let (code, text, _) = site.ask(&["top", "fingerprints"])?;
    assert!(code == 0 && expected.values().all(|name| text.contains(name)), "{text}");
    let api = Api::new(site.api());
    let answer = api.get("/v1/fingerprints?kind=tls&service=edge&rows=2")?.body;
    assert_eq!((answer["fingerprints"].as_u64(), answer["top"].as_array().map(Vec::len)), (Some(3), Some(2)));
    assert_eq!(api.get("/v1/fingerprints?rows=4097")?.status, 422);
    assert_eq!(api.get("/v1/fingerprints?kind=quic")?.status, 400);

    // The two clients of the IPv4 source, by what they are called: curl twice, OpenSSL once.
    let (_, explained) = site.ask_json(&["explain", &net.source(Who::Client).to_string()])?;
    let clients = explained["services"][0]["clients"].as_array().context("clients")?;
    let mut seen: Vec<_> = clients.iter().filter_map(|client| client["handshakes"].as_u64()).collect();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2], "{clients:#?}");
    for client in clients {
        for (key, name) in [("tls_key", "ja4"), ("syn_key", "syn")] {
            let text = |field: &str| client[field].as_str().expect("a text").to_owned();
            assert_eq!(expected.get(&text(key)), Some(&text(name)), "{client:#}");
        }
        for times in ["round_trip_ms", "hello_delay_ms"] {
            assert!(client[times]["from"].is_number(), "{client:#}");
        }
    }
    let (_, text, _) = site.ask(&["explain", &net.source(Who::Client).to_string()])?;
    assert!(clients.iter().all(|client| text.contains(client["ja4"].as_str().expect("a text"))), "{text}");

    let metrics = site.metrics()?;
    assert_eq!(metrics.sum("detector_fingerprints", &[]), 5);
    assert_eq!(metrics.sum("detector_handshake_events_total", &[("event", "hello_read")]), 4);
    assert_eq!(metrics.sum("detector_fingerprint_events_total", &[("result", "told")]), 3);
    assert!(metrics.sum("detector_exemplars_total", &[("result", "named")]) >= 5);
    assert_eq!(metrics.sum("detector_exemplars_total", &[("result", "torn")]), 0);
    assert_eq!(site.status()?.1["handshakes"]["hello_read"].as_u64(), Some(4));
    Ok(())
}

#[test]
fn a_new_fingerprint_is_told_where_events_are_followed() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let https = Https::start(&stage.edge, &[net.service()])?;
    let site = Site::new(&stage.edge, &open())?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    let follower = Follower::start(&site, &["--json", "--kind", "fingerprint", "--service", "edge"])?;
    // Clients that nobody has seen, until one comes after somebody follows.
    let mut ciphers =
        ["", ":AES128-SHA", ":AES256-SHA", ":AES128-GCM-SHA256", ":AES256-GCM-SHA384"].into_iter();
    let event = wait_until("a fingerprint is told", PATIENCE, || {
        if let Some(event) = follower.events().into_iter().next() {
            return Ok(Some(event));
        }
        if let Some(more) = ciphers.next() {
            let list = format!("ECDHE-ECDSA-AES128-GCM-SHA256{more}");
            request(&stage, &https, net, &["--tls-max", "1.2", "--ciphers", &list])?;
        }
        Ok(None)
    })?;
    let known = rows(&site, &["--kind", "tls"])?;
    let row = known.iter().find(|row| row["key"] == event["key"]).with_context(|| event.to_string())?;
    assert_eq!((&event["ja4"], &event["stable_ja4"]), (&row["ja4"], &row["stable_ja4"]));
    assert_eq!((event["kind"].as_str(), event["service"].as_str()), (Some("fingerprint"), Some("edge")));
    Ok(())
}

/// A key that somebody else makes up: the daemon keeps the name, and says which rules act on it no more.
#[test]
fn a_conflict_is_told_with_the_rules_that_it_disarms() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let https = Https::start(&stage.edge, &[net.service()])?;
    let rule = "[[rule]]\nname = \"library\"\nja4 = \"t13*_*_*\"\nmode = \"shadow\"\naction = \"drop\"\n";
    let site = Site::new(&stage.edge, &format!("{}{rule}", open()))?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    let follower =
        Follower::start(&site, &["--json", "--kind", "fingerprint_conflict", "--service", "edge"])?;
    request(&stage, &https, net, &[])?;
    let named = || -> Result<Option<Value>> {
        Ok(rows(&site, &["--kind", "tls"])?.into_iter().find(|row| row["stable_ja4"].is_string()))
    };
    wait_until("the client has a name", PATIENCE, named)?;
    // Nobody here makes up a ClientHello with the key of another: so the key is named after someone else, as if that one had come
    // first, and the client is asked for again.
    let maps = Maps::pinned(&Pins::new(site.pins()).loaded()?, Access::Write)?;
    let of_client = |standing: &Standing| standing.name.kind == Kind::Tls as u8;
    let client = kernel_names::standing(&maps).find(of_client).context("no client")?;
    let other = "t13d9999h2_aaaaaaaaaaaa_bbbbbbbbbbbb";
    let name = Name { stable_ja4: ja4_bytes(other), ja4: ja4_bytes(other), ..client.name };
    kernel_names::write(&maps, client.number, &name);
    kernel_names::ask_again(&maps, client.number);
    let event = wait_until("the conflict is told", PATIENCE, || {
        request(&stage, &https, net, &[])?;
        Ok(follower.events().into_iter().next())
    })?;
    assert_eq!(
        (event["stable_ja4"].as_str(), &event["rules"]),
        (Some(other), &json!(["library"])),
        "{event}"
    );
    assert_eq!(event["other_stable_ja4"].as_str(), ja4_text(&client.name.stable_ja4), "{event}");
    let row = named()?.context("a name")?;
    assert_eq!((row["stable_ja4"].as_str(), row["conflicts"].as_u64()), (Some(other), Some(1)), "{row}");
    let log = daemon.log();
    assert!(["library", "`syn:`", "detector explain"].iter().all(|part| log.contains(part)), "{log}");
    Ok(())
}

/// Takes exemplars away, as if there had been no room for them.
fn lose_exemplars(site: &Site<'_>) -> Result<()> {
    let pin = site.pins().join(format!("abi-{ABI_VERSION}")).join("EXEMPLARS");
    let mut ring = RingBuf::try_from(Map::from_map_data(MapData::from_pin(&pin)?)?)?;
    let mut lost = 0;
    while ring.next().is_some() {
        lost += 1;
    }
    ensure!(lost > 0, "there were none");
    Ok(())
}

#[test]
fn names_stay_without_a_daemon_and_what_came_meanwhile_gets_them() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let https = Https::start(&stage.edge, &[net.service()])?;
    let site = Site::new(&stage.edge, &open())?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    let tap = Tap::start(&stage.outside)?;
    request(&stage, &https, net, &[])?;
    let mut all = expected(&tap, site.files())?;
    wait_for(&site, &all)?;

    // What it was sent while there was no daemon, the next one reads.
    daemon.end(libc::SIGKILL)?;
    wait_for(&site, &all)?;
    let without_names = |all: &BTreeMap<String, String>| -> Result<usize> {
        Ok(names(&rows(&site, &[])?)
            .iter()
            .filter(|(key, name)| name.is_empty() && !all.contains_key(*key))
            .count())
    };
    request(&stage, &https, net, &["--tls-max", "1.2"])?;
    assert_eq!(without_names(&all)?, 1);
    all.extend(expected(&tap, site.files())?);
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    wait_for(&site, &all)?;

    // What was lost is asked for again.
    daemon.end(libc::SIGKILL)?;
    let hello = ["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"];
    request(&stage, &https, net, &hello)?;
    lose_exemplars(&site)?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    assert_eq!(without_names(&all)?, 1);
    all.extend(expected(&tap, site.files())?);
    wait_until("the lost fingerprint is seen again", PATIENCE, || {
        request(&stage, &https, net, &hello)?;
        Ok((names(&rows(&site, &[])?) == all).then_some(()))
    })?;
    assert_eq!(
        site.metrics()?.sum("detector_fingerprint_events_total", &[("result", "told")]),
        1,
        "only it is new"
    );
    Ok(())
}
