//! Fleets, live: what the daemon sees is what a recorder sees, it survives whatever ends the daemon, and everybody is told the same.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use detector_fleets::observation::{Observation, Services};
use detector_tests::{
    api::Api,
    daemon::{Site, answer, binary},
    https::Https,
    process::{PATIENCE, wait_until},
    simulated,
    stage::{Net, Stage, Who, edge_interface, policy},
};
use detector_user::fleets::{Store, journal, saved};
use serde_json::Value;

const NET: Net = Net::v4(0);

/// Seconds that a client waits.
const PATIENCE_S: u32 = 2;

/// Epochs of a fifth of a second.
const FAST: [&str; 2] = ["--fleet-epoch", "200ms"];

/// What rows of a client say together: packets, connections, handshakes, exchanges.
type Sum = (u64, u32, u32, u32);

fn sums(rows: &[Observation], services: &Services) -> BTreeMap<(String, String, u64, u64), Sum> {
    let mut sums: BTreeMap<_, Sum> = BTreeMap::new();
    for row in rows {
        let service = services.name(row.kind.service).to_owned();
        let sum =
            sums.entry((service, row.source.to_string(), row.kind.syn_key, row.kind.tls_key)).or_default();
        sum.0 += row.packets;
        sum.1 += row.connections;
        sum.2 += row.handshakes;
        sum.3 += row.exchanges;
    }
    sums
}

/// Where the memory of a site's daemon is.
fn directory(site: &Site<'_>) -> PathBuf {
    Store::directory(&site.state(), site.pins())
}

/// All rows that were kept since the memory was saved last, and the services.
fn kept(site: &Site<'_>) -> Result<(Vec<Observation>, Services)> {
    let directory = directory(site);
    let (memory, digest) = saved::read(&directory.join("memory"))?.context("a memory")?;
    let (epochs, damage) = journal::read(&directory.join("epochs"), &digest)?;
    ensure!(damage.is_none(), "{damage:?}");
    let mut services = memory.services().clone();
    for name in epochs.iter().flat_map(|epoch| &epoch.names) {
        services.number(name);
    }
    Ok((epochs.into_iter().flat_map(|epoch| epoch.rows).collect(), services))
}

/// What detection says of itself.
fn told(site: &Site<'_>) -> Result<Value> {
    Ok(site.ask_json(&["fleets"])?.1)
}

/// Epochs that the daemon has seen since it started, by its API.
fn epochs(site: &Site<'_>) -> Result<u64> {
    let answer = Api::new(site.api()).get("/v1/fleets")?;
    answer.body["detection"]["epochs"].as_u64().with_context(|| format!("epochs in {}", answer.body))
}

/// Waits until epochs have passed that began later than now.
fn goes_on(site: &Site<'_>) -> Result<()> {
    let before = epochs(site)?;
    wait_until("epochs are over", PATIENCE, || Ok((epochs(site)? > before + 2).then_some(())))
}

#[test]
fn what_is_seen_live_is_what_is_recorded_and_a_kill_loses_nothing_that_was_seen() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let https = Https::start(&stage.edge, &[NET.service()])?;
    let site = Site::new(&stage.edge, &policy("packets = \"10000/s\""))?;
    let mut daemon = site.start(&[&edge_interface(0)], &FAST)?;
    let [client, offender] = [Who::Client, Who::Offender].map(|who| NET.source(who));
    let curl = |source| -> Result<()> {
        let (code, _, err) = answer(&mut https.curl(&stage.outside, source, NET.service(), PATIENCE_S)?)?;
        ensure!(code == 0, "curl {code}: {err}");
        Ok(())
    };
    goes_on(&site)?;
    for source in [client, client, offender] {
        curl(source)?;
    }
    goes_on(&site)?;
    daemon.signal(libc::SIGKILL)?;
    drop(daemon);
    let (rows, services) = kept(&site)?;
    let seen = sums(&rows, &services);
    let of = |source: std::net::IpAddr, seen: &BTreeMap<(String, String, u64, u64), Sum>| {
        let source = format!("{source}/32");
        let own = seen.iter().filter(|((_, of, ..), _)| *of == source);
        own.fold((0, 0, 0), |sum, (_, one)| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2))
    };
    let packets =
        |source: std::net::IpAddr| Ok::<_, anyhow::Error>(site.source(&format!("{source}/32"))?.packets);
    assert_eq!(of(client, &seen), (packets(client)?, 2, 2), "{seen:#?}");
    assert_eq!(of(offender, &seen), (packets(offender)?, 1, 1), "{seen:#?}");
    assert!(
        seen.keys().all(|(service, _, syn, tls)| service == "edge" && *syn != 0 && *tls != 0),
        "{seen:#?}"
    );

    // Dead it is told with what there was; what comes meanwhile is nobody's, and no spike afterwards.
    let (code, out, err) = site.ask(&["fleets"])?;
    assert!(code == 0 && err.contains("no daemon runs") && out.contains("no fleets"), "{code}: {out}{err}");
    curl(client)?;
    let daemon = site.start(&[&edge_interface(0)], &FAST)?;
    goes_on(&site)?;
    assert!(daemon.log().contains("goes on with what was learned before"), "{}", daemon.log());
    curl(offender)?;
    goes_on(&site)?;
    let rows_told = told(&site)?;
    daemon.end(libc::SIGTERM)?;
    let (after, services) = kept(&site)?;
    let after = sums(&after, &services);
    assert_eq!(of(client, &after), (0, 0, 0), "it did nothing that a daemon saw: {after:#?}");
    let (_, connections, handshakes) = of(offender, &after);
    assert_eq!((connections, handshakes), (1, 1), "{after:#?}");
    assert_eq!(rows_told["epoch"], "200ms", "{rows_told}");
    Ok(())
}

#[test]
fn a_policy_may_say_that_nobody_looks_and_a_damaged_memory_is_kept_aside() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let off = policy("packets = \"10000/s\"") + "[fleets]\nmode = \"off\"\n";
    let site = Site::new(&stage.edge, &off)?;
    let daemon = site.start(&[&edge_interface(0)], &FAST)?;
    let state = || Ok::<_, anyhow::Error>(site.status()?.1["fleets"]["state"].clone());
    wait_until("nobody looks", PATIENCE, || Ok((state()? == "off").then_some(())))?;
    site.write_policy(&policy("packets = \"10000/s\""))?;
    let (code, _, err) = site.ask(&["apply", site.policy().to_str().context("a path of text")?])?;
    assert_eq!(code, 0, "{err}");
    wait_until("it learns", PATIENCE, || {
        let told = Api::new(site.api()).get("/v1/status")?;
        Ok((told.body["fleets"]["state"] == "learning").then_some(()))
    })?;
    assert_eq!(site.metrics()?.sum("detector_fleet_detection", &[("state", "learning")]), 1);
    daemon.end(libc::SIGTERM)?;
    let memory = directory(&site).join("memory");
    let mut bytes = fs::read(&memory)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&memory, &bytes)?;
    let daemon = site.start(&[&edge_interface(0)], &FAST)?;
    goes_on(&site)?;
    assert!(daemon.log().contains("its checksum is wrong"), "{}", daemon.log());
    assert_eq!(fs::read(memory.with_extension("refused"))?, bytes);
    daemon.end(libc::SIGTERM)?;
    Ok(())
}

#[test]
fn what_a_recording_taught_a_daemon_knows_and_all_are_told_the_same() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy("packets = \"10000/s\""))?;
    let recording = site.files().join("days.parquet");
    simulated::record(&recording)?;
    fs::create_dir_all(directory(&site))?;
    let memory = directory(&site).join("memory");
    let (code, out, err) = answer(
        Command::new(binary()?).arg("hunt").arg(&recording).args(["--json", "--save-state"]).arg(&memory),
    )?;
    assert_eq!(code, 0, "{err}");
    let hunted: Value = serde_json::from_str(&out)?;
    let fleet = &hunted["fleets"][0];
    let members = fleet["members"].as_array().context("members")?;
    assert!(members.len() > 100, "{fleet}");

    let feed = site.files().join("feed.csv");
    let daemon =
        site.start(&[&edge_interface(0)], &["--fleet-feed", feed.to_str().context("a path of text")?])?;
    let api = Api::new(site.api());
    wait_until("the fleet is told", PATIENCE, || {
        Ok((api.get("/v1/fleets")?.body["fleets"] != serde_json::json!([])).then_some(()))
    })?;
    let id = fleet["id"].as_str().context("an id")?;
    // Between two epochs nothing changes.
    let Answers { listed, by_api, one, lines, csv, members: own_count } = loop {
        let before = epochs(&site)?;
        let answers = Answers::of(&site, &api, id, &feed)?;
        if epochs(&site)? == before {
            break answers;
        }
    };
    // A number may lose its last bit where it is read from a file and written again.
    let of_fleet = |told: &Value| {
        let fleet = &told["fleets"][0];
        (fleet["members"].clone(), fleet["evidence"][1]["says"].clone(), fleet["last_alarm"].clone())
    };
    assert_eq!(of_fleet(&listed), of_fleet(&by_api));
    let known = &listed["fleets"][0];
    assert_eq!((&known["id"], &known["service"]), (&fleet["id"], &fleet["service"]));
    let own = known["members"].as_array().context("members")?;
    assert!(own.len() > 100, "{known}");
    assert_eq!((&one["members"], &one["is_past"]), (&known["members"], &Value::Bool(false)));
    assert_eq!(api.get("/v1/fleets/99")?.status, 422);
    let followed: Vec<_> = lines
        .iter()
        .filter(|line| line["confidence"] == "member")
        .map(|line| line["source"].clone())
        .collect();
    assert_eq!(&followed, own, "in their order");
    assert_eq!(csv.lines().filter(|line| line.contains(",member,")).count(), own.len(), "{csv}");

    let member = own[0].as_str().and_then(|source| source.split('/').next()).context("an address")?;
    let explained = site.ask_json(&["explain", member])?.1;
    assert_eq!(
        (&explained["fleets"][0]["id"], &explained["fleets"][0]["confidence"]),
        (&known["id"], &"member".into())
    );
    let (_, screen, _) = site.ask(&["fleets", id])?;
    for part in ["could it be", "of a million connections of users", "homogeneity: ", "size: ", "ends: "] {
        assert!(screen.contains(part), "{part:?} in\n{screen}");
    }
    assert_eq!(own_count, own.len() as u64, "the metric");
    daemon.end(libc::SIGTERM)?;
    // The history knows it when all else is gone, as it was when the last epoch ended.
    fs::remove_dir_all(directory(&site))?;
    let (code, past) = site.ask_json(&["fleets", id])?;
    assert_eq!(
        (code, &past["is_past"], &past["service"]),
        (0, &Value::Bool(true), &one["service"]),
        "{past}"
    );
    assert!(past["member_count"].as_u64() > Some(100), "{past}");
    let families = |told: &Value| -> Vec<Value> {
        told["evidence"].as_array().into_iter().flatten().map(|evidence| evidence["family"].clone()).collect()
    };
    assert_eq!(families(&past), families(&one));
    let (code, _, err) = site.ask(&["fleets", "99"])?;
    assert!(code == 2 && err.contains("there is no fleet"), "{code}: {err}");
    Ok(())
}

/// What is told of a fleet in all ways.
struct Answers {
    listed: Value,
    by_api: Value,
    one: Value,
    lines: Vec<Value>,
    csv: String,
    members: u64,
}

impl Answers {
    fn of(site: &Site<'_>, api: &Api, id: &str, feed: &Path) -> Result<Self> {
        Ok(Self {
            listed: told(site)?,
            by_api: api.get("/v1/fleets")?.body,
            one: api.get(&format!("/v1/fleets/{id}"))?.body,
            lines: stream(api, "/v1/fleets/members?once=true")?,
            csv: fs::read_to_string(feed)?,
            members: site.metrics()?.sum("detector_fleet_members", &[("confidence", "member")]),
        })
    }
}

/// The objects of an answer with one a line.
fn stream(api: &Api, path: &str) -> Result<Vec<Value>> {
    use std::io::{Read as _, Write as _};
    let mut connection = api.connect()?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    connection.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").context("a body")?;
    body.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}
