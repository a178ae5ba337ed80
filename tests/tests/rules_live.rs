//! Budgets of handshakes and rules about fingerprints, on real clients of a real service.

use std::{net::IpAddr, process::Command};

use anyhow::{Context as _, Result, ensure};
use detector_tests::{
    capture::Tap,
    daemon::{Site, answer, binary},
    follower::Follower,
    https::Https,
    process::{PATIENCE, wait_until},
    stage::{Net, Stage, Who, edge_interface, policy},
};
use serde_json::{Value, json};

/// Seconds that a client waits.
const PATIENCE_S: u32 = 2;

/// What curl says when its time is over.
const TIMED_OUT: i32 = 28;

/// A service over TLS behind a daemon, and clients on the other side.
struct Scene<'s> {
    stage: &'s Stage,
    https: Https,
    site: Site<'s>,
}

const NET: Net = Net::v4(0);

impl<'s> Scene<'s> {
    fn new(stage: &'s Stage, policy: &str) -> Result<Self> {
        let https = Https::start(&stage.edge, &[NET.service(), Net::v6(0).service()])?;
        let site = Site::new(&stage.edge, policy)?;
        Ok(Self { stage, https, site })
    }

    /// Whether a request of curl is answered; else its time was over.
    fn curl(&self, net: Net, who: Who, hello: &[&str]) -> Result<bool> {
        let mut curl = self.https.curl(&self.stage.outside, net.source(who), net.service(), PATIENCE_S)?;
        match answer(curl.args(hello))? {
            (0, ..) => Ok(true),
            (TIMED_OUT, ..) => Ok(false),
            (code, _, err) => anyhow::bail!("curl {code}: {err}"),
        }
    }

    /// Whether a handshake of `openssl s_client` is answered.
    fn openssl(&self) -> Result<bool> {
        let mut client = self.stage.outside.command("timeout")?;
        client.args([&PATIENCE_S.to_string(), "openssl", "s_client", "-noservername", "-connect"]);
        Ok(answer(client.arg(NET.service().to_string()))?.0 == 0)
    }

    /// The answer to a command that is done.
    fn done(&self, arguments: &[&str]) -> Result<Value> {
        let (code, answer) = self.site.ask_json(arguments)?;
        ensure!(code == 0, "{arguments:?} exits with {code}: {answer}");
        Ok(answer)
    }

    /// Adds an incident rule for ten minutes; the rule.
    fn add(&self, arguments: &[&str]) -> Result<Value> {
        let asked = [arguments, &["--for", "10min", "--reason", "INC-4712"]].concat();
        // Its clients have done nothing so far that was refused.
        let (code, _, err) = self.site.ask(&asked)?;
        ensure!(code == 2 && err.contains("known-good sources") && err.contains("--force"), "{code}: {err}");
        let added = self.done(&[&asked[..], &["--force"]].concat())?;
        Ok(added["added"][0].clone())
    }

    /// What is told of a source at the service.
    fn explain(&self, source: IpAddr) -> Result<Value> {
        Ok(self.done(&["explain", &source.to_string()])?["services"][0].clone())
    }

    /// The names of all fingerprints of a kind, as soon as there are so many and all have one.
    fn names(&self, kind: &str, count: usize) -> Result<Vec<String>> {
        let field = if kind == "syn" { "syn" } else { "ja4" };
        wait_until("fingerprints have names", PATIENCE, || {
            let top = self.done(&["top", "fingerprints", "--kind", kind])?;
            let rows = top["top"].as_array().context("rows")?;
            let names: Vec<_> =
                rows.iter().filter_map(|row| row[field].as_str().map(str::to_owned)).collect();
            Ok((rows.len() == count && names.len() == count).then_some(names))
        })
    }

    /// Has curl try until it is refused and that is told.
    fn refused(&self, follower: &Follower, hello: &[&str], fields: &Value) -> Result<Value> {
        wait_until("a refusal is told", PATIENCE, || {
            ensure!(!self.curl(NET, Who::Client, hello)?, "curl is answered");
            let is_it = |event: &Value| {
                fields
                    .as_object()
                    .is_some_and(|fields| fields.iter().all(|(name, value)| event[name] == *value))
            };
            Ok(follower.events().into_iter().find(is_it))
        })
    }
}

/// What the client rows of a source say of the rule about each JA4.
fn rules_of_clients(explained: &Value) -> Vec<(String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let clients = explained["clients"].as_array().into_iter().flatten();
    clients.filter_map(|client| Some((text(&client["ja4"])?, text(&client["rule"])))).collect()
}

fn open() -> String {
    policy("packets = \"10000/s\"")
}

#[test]
fn handshakes_beyond_their_budget_are_dropped_and_told() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let scene = Scene::new(&stage, &policy("handshakes = { rate = \"1/h\", burst = 3 }"))?;
    let daemon = scene.site.start(&[&edge_interface(0)], &[])?;
    let follower = Follower::start(&scene.site, &["--json", "--kind", "drop"])?;
    for _ in 0..3 {
        assert!(scene.curl(NET, Who::Client, &[])?);
    }
    let client = NET.source(Who::Client);
    let event = scene.refused(&follower, &[], &json!({ "reason": "handshakes", "source": client }))?;
    assert_eq!(
        (&event["service"], &event["destination_port"], &event["shadow"], &event["rule"]),
        (&json!("edge"), &json!(443), &json!(false), &Value::Null)
    );
    assert!(event["bytes"].as_u64() > Some(200), "the end of a ClientHello, not a SYN: {event}");
    assert!(!scene.openssl()?, "the budget is that of the source");
    assert!(scene.curl(NET, Who::Offender, &[])? && scene.curl(Net::v6(0), Who::Client, &[])?, "others pass");

    let dropped = scene.site.reason("handshakes")?;
    assert!(dropped > 0);
    let labels = [("service", "edge"), ("verdict", "drop"), ("reason", "handshakes")];
    assert!(scene.site.metrics()?.sum("detector_packets_total", &labels) >= dropped);
    let explained = scene.explain(client)?;
    assert_eq!(explained["seen"]["last_refusal"]["reason"], "handshakes", "{explained:#}");
    let budget = &explained["budgets"][0];
    assert_eq!((&budget["budget"], &budget["burst"]), (&json!("handshakes"), &json!(3.0)), "{explained:#}");
    assert!(budget["left"].as_f64() < Some(1.0), "{budget}");
    let (_, text, _) = scene.site.ask(&["explain", &client.to_string()])?;
    assert!(text.contains("ago, handshakes") && text.contains("BUDGET"), "{text}");
    daemon.end(libc::SIGTERM)?;
    Ok(())
}

#[test]
fn a_block_of_a_ja4_stops_that_client_alone_until_it_is_undone() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let scene = Scene::new(&stage, &open())?;
    let daemon = scene.site.start(&[&edge_interface(0)], &[])?;
    let follower = Follower::start(&scene.site, &["--json"])?;
    let people = Follower::start(&scene.site, &["--kind", "drop"])?;
    assert!(scene.curl(NET, Who::Client, &[])?);
    let ja4 = scene.names("tls", 1)?.remove(0);
    assert!(scene.openssl()?);

    let target = format!("ja4:{ja4}");
    let rule = scene.add(&["block", &target])?;
    assert_eq!((&rule["id"], &rule["targets"]), (&json!(1), &json!([target])));
    assert!(!scene.curl(NET, Who::Client, &[])? && !scene.curl(NET, Who::Offender, &[])?);
    assert!(scene.openssl()?, "another client");
    assert!(!scene.curl(Net::v6(0), Who::Client, &[])?, "from wherever it comes");

    follower.expect(&json!({ "kind": "incident_added", "id": 1, "action": "block", "target": target }))?;
    let drop = json!({ "kind": "drop", "reason": "fingerprint", "rule": "incident 1", "shadow": false });
    scene.refused(&follower, &[], &drop)?;
    wait_until("people read of a drop", PATIENCE, || {
        Ok(people.text().contains("service edge: fingerprint by rule incident 1").then_some(()))
    })?;
    let rules = scene.done(&["rules"])?;
    assert_eq!(rules["incidents"][0]["targets"], json!([target]), "{rules}");
    assert!(rules["incidents"][0]["dropped"].as_u64() >= Some(4), "{rules}");
    assert!(scene.site.reason("fingerprint")? >= 4);
    let explained = scene.explain(NET.source(Who::Client))?;
    assert_eq!(explained["seen"]["last_refusal"]["reason"], "fingerprint", "{explained:#}");
    let mut clients = rules_of_clients(&explained);
    clients.sort_by_key(|(known, _)| *known != ja4);
    assert_eq!(clients.len(), 2, "{explained:#}");
    assert_eq!(clients[0], (ja4.clone(), Some("incident 1".to_owned())));
    assert_eq!(clients[1].1, None, "{explained:#}");

    scene.done(&["undo", "1"])?;
    assert!(scene.curl(NET, Who::Client, &[])? && scene.curl(NET, Who::Offender, &[])?);
    follower.expect(&json!({ "kind": "incident_undone", "id": 1 }))?;
    assert!(
        rules_of_clients(&scene.explain(NET.source(Who::Client))?).iter().all(|(_, rule)| rule.is_none())
    );
    daemon.end(libc::SIGTERM)?;
    Ok(())
}

#[test]
fn a_shared_throttle_is_one_budget_of_all_sources() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let scene = Scene::new(&stage, &open())?;
    let daemon = scene.site.start(&[&edge_interface(0)], &[])?;
    assert!(scene.curl(NET, Who::Client, &[])?);
    let target = format!("ja4:{}", scene.names("tls", 1)?[0]);
    let throttle = ["throttle", &target, "--handshakes", "2/min", "--burst", "2", "--shared"];
    let rule = scene.add(&throttle)?;
    assert_eq!(rule["action"], "throttle handshakes 2/min burst 2 shared");
    assert!(scene.curl(NET, Who::Client, &[])? && scene.curl(NET, Who::Offender, &[])?);
    assert!(!scene.curl(NET, Who::Client, &[])? && !scene.curl(NET, Who::Offender, &[])?, "a third");
    assert!(scene.openssl()?, "another client");
    assert!(scene.site.reason("fingerprint_budget")? >= 2);
    assert!(scene.done(&["rules"])?["incidents"][0]["dropped"].as_u64() >= Some(2));
    daemon.end(libc::SIGTERM)?;
    Ok(())
}

#[test]
fn a_rule_of_the_policy_finds_clients_that_come_later_and_outlives_the_daemon() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let rule = "[[rule]]\nname = \"old-tls\"\nja4 = \"t12*_*_*\"\naction = \"drop\"\n";
    let scene = Scene::new(&stage, &(open() + rule))?;
    let daemon = scene.site.start(&[&edge_interface(0)], &[])?;
    let old = ["--tls-max", "1.2"];
    let is_refused = |hello: &[&str]| {
        wait_until("the rule has found the client", PATIENCE, || {
            Ok((!scene.curl(NET, Who::Client, hello)?).then_some(()))
        })
    };
    is_refused(&old)?;
    assert!(scene.curl(NET, Who::Client, &[])?, "TLS 1.3");
    let rules = scene.done(&["rules"])?;
    assert!(rules["rules"][0]["dropped"].as_u64() > Some(0), "{rules}");
    let clients = rules_of_clients(&scene.explain(NET.source(Who::Client))?);
    let told = |version: &str| {
        let mut of_version = clients.iter().filter(|(ja4, _)| ja4.starts_with(version));
        of_version.next().and_then(|(_, rule)| rule.clone())
    };
    assert_eq!((told("t12"), told("t13")), (Some("old-tls".to_owned()), None), "{clients:?}");

    daemon.end(libc::SIGKILL)?;
    assert!(!scene.curl(NET, Who::Client, &old)?, "without a daemon");
    assert!(scene.curl(NET, Who::Client, &[])?);
    // One that comes while there is none passes, until the next daemon has given it a name.
    let other = ["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"];
    assert!(scene.curl(NET, Who::Client, &other)?);
    let daemon = scene.site.start(&[&edge_interface(0)], &[])?;
    assert!(!scene.curl(NET, Who::Client, &old)?, "under the next daemon");
    is_refused(&other)?;
    let follower = Follower::start(&scene.site, &["--json", "--kind", "drop"])?;
    scene.refused(&follower, &old, &json!({ "reason": "fingerprint", "rule": "old-tls" }))?;
    daemon.end(libc::SIGTERM)?;
    Ok(())
}

#[test]
fn a_capture_of_real_clients_is_replayed_under_a_rule() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let scene = Scene::new(&stage, &open())?;
    let tap = Tap::start(&stage.outside)?;
    for who in [Who::Client, Who::Offender, Who::Client] {
        assert!(scene.curl(NET, who, &[])?);
    }
    assert!(scene.openssl()? && scene.openssl()?);
    let capture = scene.site.files().join("clients.pcap");
    tap.write(&capture)?;
    let capture = capture.to_str().context("a path")?;
    let (_, flows, err) = answer(Command::new(binary()?).args(["fingerprint", capture, "--json"]))?;
    let first: Value = serde_json::from_str(flows.lines().next().context(err)?)?;
    let ja4 = first["ja4"].as_str().context(flows.clone())?;
    let is_curl = |line: &&str| line.contains(ja4);
    assert_eq!((flows.lines().count(), flows.lines().filter(is_curl).count()), (5, 3), "{flows}");

    let replayed = |action: &str| -> Result<Value> {
        let rule = format!("[[rule]]\nname = \"curl\"\nja4 = \"{ja4}\"\naction = \"{action}\"\n");
        scene.site.write_policy(&(open() + &rule))?;
        let policy = scene.site.policy();
        let policy = policy.to_str().context("a path")?;
        let (code, out, err) =
            answer(Command::new(binary()?).args(["replay", capture, "--policy", policy, "--json"]))?;
        ensure!(code == 0, "{code}: {err}");
        Ok(serde_json::from_str(&out)?)
    };
    // The first handshake gives the fingerprint its name, here as in life; the next two are dropped where their ClientHello ends.
    let report = replayed("drop")?;
    assert_eq!(
        (&report["reasons"]["fingerprint"], &report["verdicts"]["drop"]),
        (&json!(2), &json!(2)),
        "{report}"
    );
    let dropped: Vec<_> =
        report["sources"].as_array().context("sources")?.iter().map(|row| &row["drop"]).collect();
    assert_eq!(dropped, [&json!(1), &json!(1)], "{report}");
    assert_eq!(replayed("allow")?["verdicts"]["drop"], json!(0));
    Ok(())
}

#[test]
fn a_block_of_a_syn_stops_every_client_of_that_system() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let scene = Scene::new(&stage, &open())?;
    let daemon = scene.site.start(&[&edge_interface(0)], &[])?;
    assert!(scene.curl(NET, Who::Client, &[])? && scene.openssl()?);
    let target = format!("syn:{}", scene.names("syn", 1)?[0]);
    let rule = scene.add(&["block", &target])?;
    assert_eq!(rule["targets"], json!([target]));
    assert!(
        !scene.curl(NET, Who::Client, &[])? && !scene.curl(NET, Who::Offender, &[])? && !scene.openssl()?
    );
    // Their SYNs over IPv6 say something else.
    assert!(scene.curl(Net::v6(0), Who::Client, &[])?);
    let source = scene.site.source(&NET.prefix(Who::Offender))?;
    assert!(source.packets > 0 && source.dropped == source.packets, "not one SYN: {source:?}");
    let clients = rules_of_clients(&scene.explain(NET.source(Who::Client))?);
    assert_eq!(clients.len(), 2, "{clients:?}");
    assert!(clients.iter().all(|(_, rule)| rule.as_deref() == Some("incident 1")), "{clients:?}");
    scene.done(&["undo", "1"])?;
    assert!(scene.curl(NET, Who::Client, &[])? && scene.openssl()?);
    daemon.end(libc::SIGTERM)?;
    Ok(())
}
