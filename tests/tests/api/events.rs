//! `detector events`: what happens is told as it happens.

use std::{
    net::Ipv4Addr,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use detector_common::limits::WAYS;
use detector_tests::{
    daemon::{Site, answer},
    follower::Follower,
    netns::may_run,
    process::{PATIENCE, wait_until},
    stage::{MTU, Net, Stage, Who, edge_interface, outside_interface, policy},
    traffic::{Flood, Pace},
};
use serde_json::{Value, json};

use crate::{LIMIT, api, flood};

/// A policy with a rule that ends so many seconds from now.
fn ending(seconds: u64) -> Result<String> {
    let until = SystemTime::now() + Duration::from_secs(seconds);
    let until = until.duration_since(SystemTime::UNIX_EPOCH).context("a clock after 1970")?.as_secs();
    let day = detector_tests::process::run(std::process::Command::new("date").args([
        "-u",
        "-d",
        &format!("@{until}"),
        "+%Y-%m-%dT%H:%M:%SZ",
    ]))?;
    let rule = "[[rule]]\nname = \"INC-1\"\nsource = [\"203.0.113.0/24\"]\naction = \"drop\"\n";
    Ok(format!("{}{rule}until = {}\n", policy(LIMIT), day.trim()))
}

#[test]
fn what_happens_is_told_as_it_happens() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let mut daemon = site.start(&["edge0"], &[])?;
    let all = Follower::start(&site, &["--json"])?;
    let reloads = Follower::start(&site, &["--kind", "reload,rule_ended", "--json"])?;
    let others = Follower::start(&site, &["--kind", "drop", "--service", "other", "--json"])?;
    let people = Follower::start(&site, &[])?;
    // They follow when the first drop is told; nothing else that is looked for happens before.
    let load = flood(&stage)?;
    let drop =
        all.expect(&json!({ "kind": "drop", "service": "edge", "reason": "packets", "shadow": false }))?;
    assert_eq!((&drop["destination_port"], &drop["protocol"]), (&json!(443), &json!(17)), "{drop}");
    wait_until("people read of a drop", PATIENCE, || Ok(people.text().contains("Z drop ").then_some(())))?;
    load.stop()?;

    daemon.reload()?;
    reloads.expect(&json!({ "kind": "reload", "applied": true }))?;
    all.expect(&json!({ "kind": "policy_applied", "epoch": 2, "confirm_in_s": null }))?;
    site.write_policy("version = 3\n")?;
    daemon.reload()?;
    let failed = reloads.expect(&json!({ "kind": "reload", "applied": false }))?;
    assert!(failed["error"].to_string().contains("version"), "{failed}");

    let file = site.policy().to_string_lossy().into_owned();
    site.write_policy(&ending(5)?)?;
    assert_eq!(site.ask(&["apply", &file, "--confirm", "1h"])?.0, 0);
    all.expect(&json!({ "kind": "policy_applied", "epoch": 3 }))?;
    assert_eq!(api(&site).post("/v1/rollback", Some(&serde_json::json!({})))?.status, 200);
    all.expect(&json!({ "kind": "trial_ended", "confirmed": false, "epoch": 2 }))?;
    site.write_policy(&ending(5)?)?;
    assert_eq!(site.ask(&["apply", &file, "--confirm", "1h"])?.0, 0);
    all.expect(&json!({ "kind": "policy_applied", "epoch": 4 }))?;
    assert_eq!(site.ask(&["confirm"])?.0, 0);
    all.expect(&json!({ "kind": "trial_ended", "confirmed": true, "epoch": 4 }))?;
    reloads.expect(&json!({ "kind": "rule_ended", "rule": "INC-1" }))?;

    stage.edge.ip(&format!("link delete {}", edge_interface(0)))?;
    all.expect(&json!({ "kind": "degraded", "what": "interface_lost", "subject": "edge0" }))?;
    let kinds: Vec<_> = reloads.events().iter().map(|event| event["kind"].clone()).collect();
    assert_eq!(kinds, [json!("reload"), json!("reload"), json!("rule_ended")]);
    assert!(others.events().is_empty(), "{}", others.text());

    daemon.end(libc::SIGTERM)?;
    for mut follower in [all, people] {
        let status = follower.process.end(PATIENCE)?;
        assert_eq!(status.code(), Some(1), "{}", follower.text());
        assert!(follower.text().contains("the daemon ended"), "{}", follower.text());
    }
    Ok(())
}

/// A table for one source, which is limiting four: `status` and events say so, and that it is over.
#[test]
fn a_table_that_is_too_small_is_told() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let _daemon = site.start(&["edge0"], &["--sources", "1"])?;
    let all = Follower::start(&site, &["--kind", "degraded,recovered", "--json"])?;
    // The smallest table has one set, which is planned for half as many sources as it has ways.
    let frames = (0..3 * WAYS as u8 / 4).map(|number| {
        let mut flow = Net::v4(0).flow(Who::Client);
        flow.from.set_ip(Ipv4Addr::new(198, 18, 0, number).into());
        flow.datagram()
    });
    let floods = frames
        .map(|frame| Flood::start(&stage.outside, &outside_interface(0), frame, Pace::per_second(2000)));
    let floods = floods.collect::<Result<Vec<_>>>()?;
    let full = json!({ "kind": "degraded", "what": "table_full", "subject": "sources" });
    let told = all.expect(&full)?;
    assert!(told["reason"].as_str().is_some_and(|reason| reason.contains("more --sources")), "{told}");
    let (code, status) = site.status()?;
    assert_eq!(code, 11, "{status}");
    assert_eq!(status["degraded"], json!([told["reason"]]), "{status}");
    for flood in floods {
        flood.stop()?;
    }
    all.expect(&json!({ "kind": "recovered", "what": "table_full", "subject": "sources" }))?;
    assert_eq!(site.status()?.0, 0);
    Ok(())
}

#[test]
fn without_a_daemon_it_says_what_to_do() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let stage = Stage::new(1, MTU)?;
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let mut command = site.detector(&["events", "--api"])?;
    command.arg(site.api());
    let (code, _, err) = answer(&mut command)?;
    assert!(code == 1 && err.contains("no daemon answers") && err.contains("detector run"), "{code}: {err}");
    let (code, out, _) = answer(command.arg("--json"))?;
    let failure: Value = serde_json::from_str(&out).context("JSON")?;
    assert_eq!((code, &failure["exit_code"]), (1, &json!(1)));
    Ok(())
}
