//! A responder's rules by the command line, on real traffic, with and without a daemon.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use detector_tests::{
    daemon::Site,
    process::{PATIENCE, wait_until},
    stage::{Net, Stage, Who, edge_interface, outside_interface, policy},
    traffic::{Flood, Pace, Receiver, Sender},
};
use serde_json::{Value, json};

/// A limit that the traffic here does not reach.
fn wide() -> String {
    policy("packets = \"1000000/s\"")
}

fn dropped(site: &Site<'_>) -> Result<Vec<u64>> {
    let (_, rules) = site.ask_json(&["rules"])?;
    let incidents = rules["incidents"].as_array().context("incident rules")?;
    incidents.iter().map(|rule| rule["dropped"].as_u64().context("a number")).collect()
}

/// The offender's datagrams, so many a second.
fn flood(stage: &Stage, net: Net, per_second: u32) -> Result<Flood> {
    let frame = net.flow(Who::Offender).datagram();
    Flood::start(&stage.outside, &outside_interface(0), frame, Pace::per_second(per_second))
}

/// Evenly spaced datagrams of the client.
fn client(stage: &Stage, net: Net, per_second: u32) -> Result<Sender> {
    let from = SocketAddr::new(net.source(Who::Client), 5555);
    Sender::start(&stage.outside, from, net.service(), Pace::per_second(per_second))
}

/// The answer to a command that is done.
fn done(site: &Site<'_>, arguments: &[&str]) -> Result<Value> {
    let (code, answer) = site.ask_json(arguments)?;
    ensure!(code == 0, "{arguments:?} exits with {code}: {answer}");
    Ok(answer)
}

#[test]
fn a_block_outlives_daemons_and_policies_until_it_is_undone() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let site = Site::new(&stage.edge, &wide())?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    let receiver = Receiver::start(&stage.edge, net.service())?;
    let offender = net.source(Who::Offender);
    let (sender, flood) = (client(&stage, net, 2000)?, flood(&stage, net, 20_000)?);
    receiver.wait_for(offender, 1000)?;

    let target = offender.to_string();
    let block = ["block", &target, "--for", "1h", "--reason", "INC-4711: stuffing"];
    let answer = done(&site, &block)?;
    assert_eq!(answer["added"][0]["id"], 1, "{answer}");
    let grows = |what: &str, by: u64| {
        let before = dropped(&site)?.first().copied().unwrap_or(0);
        wait_until(what, PATIENCE, || {
            Ok((dropped(&site)?.first().copied().unwrap_or(0) >= before + by).then_some(()))
        })
    };
    grows("the block drops", 1000)?;
    let passed = receiver.from(offender);
    let explained = done(&site, &["explain", &target])?;
    let service = &explained["services"][0];
    assert_eq!(
        (&service["action"], &service["rule"], &service["reason"]),
        (&"drop".into(), &"incident 1".into(), &"INC-4711: stuffing".into()),
        "{explained}"
    );

    daemon.end(libc::SIGKILL)?;
    grows("it drops without a daemon", 1000)?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    grows("it drops under the next daemon", 1000)?;
    site.write_policy(&(wide() + "# another text\n"))?;
    let path = site.policy();
    let (code, out, err) = site.ask(&["apply", path.to_str().context("a path")?])?;
    assert_eq!(code, 0, "{out}{err}");
    grows("it drops beside another policy", 1000)?;
    assert_eq!(receiver.from(offender), passed, "nothing passed meanwhile");

    let (code, out, err) = site.ask(&["undo", "7"])?;
    assert_eq!(code, 2, "{out}{err}");
    assert!(err.contains("no incident rule has the number 7: there are 1"), "{err}");
    let answer = done(&site, &["undo", "1"])?;
    assert!(answer["undone"][0]["dropped"].as_u64() >= Some(4000), "{answer}");
    receiver.wait_for(offender, passed + 1000)?;
    assert!(dropped(&site)?.is_empty());

    flood.stop()?;
    let sent = sender.stop()?;
    stage.fence(0)?;
    assert_eq!(receiver.from(net.source(Who::Client)), sent.packets, "the other source lost nothing");
    daemon.end(libc::SIGTERM)?;
    Ok(())
}

#[test]
fn a_rule_ends_in_the_kernel_with_the_daemon_dead() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v6(0);
    let site = Site::new(&stage.edge, &wide())?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    let receiver = Receiver::start(&stage.edge, net.service())?;
    let offender = net.source(Who::Offender);
    let flood = flood(&stage, net, 10_000)?;
    receiver.wait_for(offender, 1000)?;
    let target = net.prefix(Who::Offender);
    done(&site, &["block", &target, "--for", "5s", "--reason", "for a moment"])?;
    daemon.end(libc::SIGKILL)?;
    wait_until("the block drops", PATIENCE, || Ok((dropped(&site)?[0] >= 1000).then_some(())))?;
    let passed = receiver.from(offender);
    receiver.wait_for(offender, passed + 5000)?;
    // Nobody is there to let it go; it is listed as ended, and has dropped its last packet.
    let (_, rules) = site.ask_json(&["rules"])?;
    assert_eq!(rules["incidents"][0]["ends_in_s"], 0, "{rules}");
    let last = dropped(&site)?;
    receiver.wait_for(offender, passed + 10_000)?;
    assert_eq!(dropped(&site)?, last);
    // A daemon lets it go.
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    wait_until("the daemon lets it go", PATIENCE, || Ok(dropped(&site)?.is_empty().then_some(())))?;
    wait_until("the log says so", PATIENCE, || {
        Ok(daemon.log().contains("an incident rule has ended").then_some(()))
    })?;
    flood.stop()?;
    daemon.end(libc::SIGTERM)?;
    Ok(())
}

/// SIGTERM removes all maps; the rules are in the history.
#[test]
fn rules_come_back_when_the_program_is_loaded_anew_unless_they_have_ended() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let site = Site::new(&stage.edge, &wide())?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    let offender = net.source(Who::Offender).to_string();
    let block = |target: &str, time: &[&str]| {
        let answer = done(&site, &[&["block", target, "--reason", "INC-4711"], time].concat())?;
        answer["added"][0]["id"].as_u64().context("a number")
    };
    assert_eq!(block("203.0.113.200", &["--for", "1s"])?, 1);
    assert_eq!(block(&offender, &["--permanent"])?, 2);
    daemon.end(libc::SIGTERM)?;
    assert!(!site.is_pinned());
    wait_until("the first rule is past", PATIENCE, || {
        let (_, audit) = site.ask_json(&["history", "--audit"])?;
        let entry =
            audit["entries"].as_array().context("entries")?.iter().find(|entry| entry["action"] == "block");
        let added = entry.and_then(|entry| entry["time_s"].as_u64()).context("a block")?;
        Ok((detector_user::clock::unix_s() > added + 1).then_some(()))
    })?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    assert!(daemon.log().contains("an incident rule is in force again"), "{}", daemon.log());
    let (_, rules) = site.ask_json(&["rules"])?;
    assert_eq!(rules["incidents"].as_array().map(Vec::len), Some(1), "{rules}");
    assert_eq!(
        (&rules["incidents"][0]["id"], &rules["incidents"][0]["ends_in_s"]),
        (&2.into(), &().into()),
        "{rules}"
    );
    let flood = flood(&stage, net, 10_000)?;
    wait_until("the block drops", PATIENCE, || Ok((dropped(&site)?[0] >= 1000).then_some(())))?;
    flood.stop()?;
    assert_eq!(block("203.0.113.201", &["--for", "1h"])?, 3, "no number is given twice");
    // What was undone does not come back.
    done(&site, &["undo", "2", "3"])?;
    daemon.end(libc::SIGTERM)?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    assert!(dropped(&site)?.is_empty());
    daemon.end(libc::SIGTERM)?;
    Ok(())
}

#[test]
fn a_throttle_cuts_every_source_of_its_prefix_by_itself() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let site = Site::new(&stage.edge, &wide())?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    // Before the first packet, so that all of them count.
    let prefix = net.prefix(Who::Offender).replace("/32", "");
    let throttle =
        ["throttle", &prefix, "--rate", "500/s", "--burst", "50", "--permanent", "--reason", "slow"];
    let answer = done(&site, &throttle)?;
    assert_eq!(answer["added"][0]["action"], "throttle packets 500/s burst 50");
    let receiver = Receiver::start(&stage.edge, net.service())?;
    let offender = net.source(Who::Offender);
    let (sender, flood) = (client(&stage, net, 3000)?, flood(&stage, net, 20_000)?);
    receiver.wait_for(offender, 1500)?;
    flood.stop()?;
    let sent = sender.stop()?;
    stage.fence(0)?;
    receiver.assert_cut(offender, site.source(&net.prefix(Who::Offender))?.passed(), 50, 500)?;
    assert_eq!(receiver.from(net.source(Who::Client)), sent.packets);
    daemon.end(libc::SIGTERM)?;
    Ok(())
}

/// What the policy allows less of than the throttle stays so; what the throttle allows less of, too.
#[test]
fn a_throttle_leaves_what_is_tighter_already() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let site = Site::new(
        &stage.edge,
        &policy("packets = { rate = \"200/s\", burst = 50 }\nconnections = { rate = \"50/s\", burst = 50 }"),
    )?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    let offender = net.source(Who::Offender);
    let target = offender.to_string();
    let throttle = ["throttle", &target, "--rate", "5000/s", "--burst", "5000", "--connections", "5/s"];
    let answer = done(&site, &[&throttle[..], &["--permanent", "--reason", "slow"]].concat())?;
    assert_eq!(answer["warnings"], json!([]), "{answer}");
    let receiver = Receiver::start(&stage.edge, net.service())?;
    let flood = flood(&stage, net, 20_000)?;
    receiver.wait_for(offender, 1000)?;
    flood.stop()?;
    stage.fence(0)?;
    receiver.assert_cut(offender, site.source(&net.prefix(Who::Offender))?.passed(), 50, 200)?;
    let service = &done(&site, &["explain", &target])?["services"][0];
    let budgets = service["budgets"].as_array().context("budgets")?;
    let budgets: Vec<_> =
        budgets.iter().map(|budget| (&budget["budget"], &budget["per_second"], &budget["burst"])).collect();
    assert_eq!(
        (&service["rule"], budgets),
        (
            &json!("incident 1"),
            vec![
                (&json!("packets"), &json!(200.0), &json!(50.0)),
                (&json!("connections"), &json!(5.0), &json!(5.0))
            ]
        ),
        "{service}"
    );
    Ok(())
}

#[test]
fn what_would_hurt_nearly_everyone_or_nobody_is_refused_with_what_to_do() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let allow = "[defaults]\nallow = [\"192.0.2.0/28\"]\n";
    let site =
        Site::new(&stage.edge, &wide().replacen("version = 1\n", &format!("version = 1\n{allow}"), 1))?;
    let why = ["--for", "30min", "--reason", "test"];
    let ask = |command: &[&str]| site.ask(&[command, &why].concat());
    let (code, _, err) = ask(&["block", "198.51.100.7"])?;
    assert_eq!(code, 1, "nothing is loaded: {err}");
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    let refused = [
        (ask(&["block", "0.0.0.0/1"])?, "nearly everyone"),
        (ask(&["allow", "2000::/3"])?, "nearly everyone"),
        (ask(&["block", "192.0.2.1"])?, "defaults.allow"),
        (ask(&["block", "198.51.100.7", "--service", "nosuch"])?, "it has edge"),
        (ask(&["throttle", "198.51.100.7"])?, "--rate"),
        (ask(&["throttle", "198.51.100.7", "--rate", "fast"])?, "2000/s"),
        (ask(&["block", "198.51.100.7/24"])?, "198.51.100.0/24"),
        (ask(&["block"])?, "TARGET"),
        (site.ask(&["block", "198.51.100.7", "--reason", "test"])?, "--for"),
        (site.ask(&["block", "198.51.100.7", "--permanent"])?, "--reason"),
        (site.ask(&["block", "198.51.100.7", "--for", "0s", "--reason", "x"])?, "30min"),
    ];
    for ((code, out, err), word) in refused {
        assert_eq!(code, 2, "{out}{err}");
        assert!(err.contains(word), "{word}: {err}");
    }
    assert!(dropped(&site)?.is_empty(), "none was added");
    let (code, out, err) = ask(&["block", "0.0.0.0/1", "--force"])?;
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains("nearly everyone"), "{err}");
    let list = site.files().join("targets.txt");
    std::fs::write(&list, "# a fleet\n198.51.100.7\n\n198.51.100.0/24 # all of it\n2001:db8::/48\n")?;
    let list = list.to_str().context("a path")?;
    let answer = done(&site, &[&["throttle", "--targets", list, "--rate", "1/s"], &why[..]].concat())?;
    assert_eq!(answer["added"][0]["target_count"], 3, "{answer}");
    daemon.end(libc::SIGTERM)?;
    Ok(())
}
