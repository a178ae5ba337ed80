//! The capture that `generate` writes beside its rows: the real program, and who reads captures, find in it what the rows say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use detector_generator::{Family, Row, Scenario, Source, generate};
use detector_tests::{
    daemon::{answer, binary},
    rows::policy,
};
use detector_user::replay::replay;
use serde_json::Value;

/// A few thousand sources, of whom some become a fleet at ten o'clock.
const SCENARIO: &str =
    "name = \"captured\"\ndays = 1\nscale = 0.1\n[[fleet]]\nlevel = \"L3\"\nsources = 2000\nstart_h = 10\n";

const SEED: u64 = 3;

fn simulate(directory: &Path, more: &[&str]) -> Result<(String, Value)> {
    let scenario = directory.join("captured.toml");
    fs::write(&scenario, SCENARIO)?;
    let mut command = Command::new(Path::new(&binary()?).with_file_name("generate"));
    command.arg(&scenario).arg("--out").arg(directory).args(["--seed", &SEED.to_string()]).args(more);
    let (code, out, err) = answer(&mut command)?;
    ensure!(code == 0, "{code}: {out}{err}");
    let truth = fs::read_to_string(directory.join("truth.json"))?;
    Ok((out, serde_json::from_str(&truth)?))
}

/// The rows of the part that is captured, of connections over TCP.
fn rows(truth: &Value) -> Result<Vec<Row>> {
    let time = |name: &str| truth["capture"][name].as_u64().with_context(|| format!("{name} in {truth}"));
    let (start_s, end_s) = (time("start_s")?, time("end_s")?);
    let scenario = Scenario::from_toml(SCENARIO)?;
    let epochs = generate(&scenario, SEED).filter(|epoch| (start_s..end_s).contains(&epoch.time_s));
    Ok(epochs.flat_map(|epoch| epoch.rows).filter(|row| row.syn_key != 0).collect())
}

/// A source, as the program counts it.
fn source_of(address: &str) -> Result<String> {
    let address: std::net::SocketAddr = address.parse()?;
    Ok(match address.ip() {
        std::net::IpAddr::V4(address) => format!("{address}/32"),
        std::net::IpAddr::V6(address) => {
            let prefix = std::net::Ipv6Addr::from_bits(address.to_bits() >> 64 << 64);
            format!("{prefix}/64")
        }
    })
}

#[test]
fn a_capture_of_simulated_clients_has_the_sources_connections_and_fingerprints_of_its_rows() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (said, truth) = simulate(directory.path(), &[])?;
    let rows = rows(&truth)?;
    let capture = directory.path().join("packets.pcap");
    let mut connections: BTreeMap<String, u64> = BTreeMap::new();
    for row in &rows {
        *connections.entry(row.source.to_string()).or_default() += u64::from(row.connections);
    }
    connections.retain(|_, count| *count > 0);

    // By the loaded program, under a policy with the service's addresses.
    let services: Vec<_> =
        truth["capture"]["services"][0]["addresses"].as_array().into_iter().flatten().cloned().collect();
    let service =
        format!("version = 1\n[[service]]\nname = \"api\"\naddresses = {}\n", Value::from(services));
    let report = replay(&[&capture], &policy(&service), 50_000, |_| {})?;
    assert_eq!(report.services.keys().collect::<Vec<_>>(), ["api"]);
    assert_eq!(report.verdicts.drop, 0);
    assert_eq!(Some(report.packets), truth["capture"]["packets"].as_u64(), "{said}");
    let seen = report.sources.iter().map(|one| (one.source.to_string(), one.connections));
    let seen: BTreeMap<_, _> = seen.filter(|(_, connections)| *connections > 0).collect();
    assert_eq!(seen, connections);
    assert!(seen.len() > 300 && seen.keys().any(|source| source.ends_with("/64")), "{}", seen.len());

    // By who reads captures: the same handshakes, and as many fingerprints.
    let (code, out, err) = answer(Command::new(binary()?).arg("fingerprint").arg(&capture).arg("--json"))?;
    ensure!(code == 0, "{code}: {err}");
    let mut found: BTreeMap<String, BTreeMap<(String, String), u64>> = BTreeMap::new();
    for line in out.lines() {
        let flow: Value = serde_json::from_str(line)?;
        let text =
            |name: &str| flow[name].as_str().map(str::to_owned).with_context(|| format!("{name} in {flow}"));
        assert_eq!(flow["in_kernel"], true, "{flow}");
        let keys = (text("syn_key")?, text("tls_key")?);
        *found.entry(source_of(&text("source")?)?).or_default().entry(keys).or_default() += 1;
    }
    expect_fingerprints(&rows, &found);
    Ok(())
}

/// Clients with the same keys look the same, those with others look different, and each shakes hands as often as its rows say.
fn expect_fingerprints(rows: &[Row], found: &BTreeMap<String, BTreeMap<(String, String), u64>>) {
    type Client = (Family, u64, u64);
    let mut told: BTreeMap<Source, BTreeMap<Client, u64>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.handshakes > 0) {
        let client = (row.source.family, row.syn_key, row.tls_key);
        *told.entry(row.source).or_default().entry(client).or_default() += u64::from(row.handshakes);
    }
    assert_eq!(
        told.keys().map(ToString::to_string).collect::<BTreeSet<_>>(),
        found.keys().cloned().collect()
    );
    let (mut looks, mut clients) = (BTreeMap::new(), BTreeMap::new());
    for (source, told) in &told {
        let found = &found[&source.to_string()];
        let sorted = |counts: Vec<u64>| {
            let mut counts = counts;
            counts.sort_unstable();
            counts
        };
        let [told_counts, found_counts] =
            [told.values().copied().collect(), found.values().copied().collect()].map(sorted);
        assert_eq!(told_counts, found_counts, "{source}");
        if let ([(client, _)], [(look, _)]) =
            (&told.iter().collect::<Vec<_>>()[..], &found.iter().collect::<Vec<_>>()[..])
        {
            assert_eq!(*looks.entry(**client).or_insert_with(|| (*look).clone()), **look, "{source}");
            assert_eq!(*clients.entry((*look).clone()).or_insert(**client), **client, "{source}");
        }
    }
    assert!(looks.len() > 50, "{} kinds of clients", looks.len());
}

#[test]
fn what_has_too_many_packets_is_told_and_not_written() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let capture = directory.path().join("packets.pcap");
    let (said, truth) = simulate(directory.path(), &["--pcap-from-h", "0", "--pcap-minutes", "1440"])?;
    assert!(said.contains("no packets.pcap, since its 1440 minutes have more than 500000 packets"), "{said}");
    assert!(!capture.exists() && truth["capture"].is_null());
    let (said, _) = simulate(directory.path(), &["--pcap-minutes", "1"])?;
    assert!(said.contains("packets of 1 minutes in packets.pcap") && capture.exists(), "{said}");
    let (said, _) = simulate(directory.path(), &["--pcap-minutes", "0"])?;
    assert!(said.contains("no packets.pcap, as asked for") && !capture.exists(), "{said}");
    Ok(())
}
