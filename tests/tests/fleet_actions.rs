//! Fleets are throttled by the daemon and by operators, and nothing that happens to the daemon changes that; one switch ends all of it.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use detector_tests::{
    daemon::{Site, answer, binary},
    process::{PATIENCE, wait_until},
    simulated,
    stage::{Stage, edge_interface, policy},
};
use detector_user::{
    fleets::Store,
    kernel::{fleets, mapped::Access, maps::Maps},
};
use serde_json::Value;

/// A policy with the service of the simulated days.
fn policy_of(mode: &str) -> String {
    let policy = policy("packets = \"10000/s\"").replace("\"edge\"", "\"api\"");
    format!("{policy}[fleets]\nmode = \"{mode}\"\ncollateral_max = \"1 %\"\n")
}

/// What the kernel does: for each fleet that it acts on its number, and how many members it charges.
fn in_kernel(site: &Site<'_>) -> Result<Vec<(u64, usize)>> {
    let directory = fs::read_dir(site.pins())?.filter_map(Result::ok).map(|entry| entry.path());
    let directory =
        directory.filter(|path| path.join("FLEETS").exists()).last().context("pins of a program")?;
    let maps = Maps::pinned(&directory, Access::Read)?;
    let acting = fleets::standing(&maps).into_iter().filter(|standing| standing.acts);
    acting.map(|standing| Ok((standing.fleet.id, fleets::members(&maps, standing.slot)?.len()))).collect()
}

/// Leaves what simulated days teach where the daemon finds it; what was found in them.
fn teach(site: &Site<'_>) -> Result<Value> {
    let recording = site.files().join("days.parquet");
    simulated::record(&recording)?;
    let directory = Store::directory(&site.state(), site.pins());
    fs::create_dir_all(&directory)?;
    let mut hunt = Command::new(binary()?);
    hunt.arg("hunt").arg(&recording).args(["--json", "--save-state"]).arg(directory.join("memory"));
    let (code, out, err) = answer(&mut hunt)?;
    ensure!(code == 0, "{code}: {err}");
    Ok(serde_json::from_str(&out)?)
}

/// What was decided about the only fleet.
fn action(site: &Site<'_>) -> Result<Value> {
    let told = site.ask_json(&["fleets"])?.1;
    Ok(told["actions"][0].clone())
}

/// Waits until that is so.
fn wait_for(site: &Site<'_>, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    wait_until(what, PATIENCE, || Ok(Some(action(site)?).filter(|action| is_so(action))))
        .with_context(|| format!("{:#?}", action(site)))
}

fn is_throttled(action: &Value) -> bool {
    !action["throttle"].is_null()
}

#[test]
fn a_fleet_is_suggested_ordered_adopted_stopped_and_left_alone() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy_of("suggest"))?;
    let found = teach(&site)?;
    let id = found["fleets"][0]["id"].as_str().context("a fleet")?.to_owned();
    let members = found["fleets"][0]["members"].as_array().map_or(0, Vec::len);
    assert!(members > 100, "{members} members");
    let target = format!("fleet:{id}");

    let mut daemon = site.start(&[&edge_interface(0)], &[])?;
    let suggested = wait_for(&site, "a suggestion", |action| action["step"] == "suggest")?;
    assert!(suggested["command"].as_str().is_some_and(|command| command.contains(&target)), "{suggested:#}");
    assert!(suggested["guards"].as_array().is_some_and(|guards| guards.len() > 10), "{suggested:#}");
    assert_eq!(in_kernel(&site)?, []);

    let order = ["throttle", &target, "--for", "10min", "--reason", "test"];
    let (code, out, err) = site.ask(&order)?;
    ensure!(code == 0 && out.contains("is throttled until"), "{code}: {out}{err}\n{:#}", action(&site)?);
    let number: u64 = id.parse()?;
    let acting = in_kernel(&site)?;
    let [(acted_on, charged)] = acting[..] else { panic!("{acting:?}") };
    assert_eq!(acted_on, number);
    assert!(charged > members * 8 / 10 && charged <= members, "{charged} of {members}, some are held out");
    let (_, screen, _) = site.ask(&["fleets", &id])?;
    for part in [
        "action: throttled: ",
        "members and ",
        " are held out",
        "to take it back: detector allow fleet:",
        "ok collateral",
    ] {
        assert!(screen.contains(part), "{part:?} in\n{screen}");
    }

    // Nothing ends with the daemon, and the next one takes over what there is.
    daemon.signal(libc::SIGKILL)?;
    drop(daemon);
    assert_eq!(in_kernel(&site)?, acting);
    let (code, _, err) = site.ask(&order)?;
    assert!(code == 1 && err.contains("no daemon runs"), "{code}: {err}");
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    wait_for(&site, "it knows what it does", is_throttled)?;
    assert_eq!(in_kernel(&site)?.len(), 1);

    // The switch needs no daemon to turn, and no daemon turns it back.
    let (code, _, err) = site.ask(&["fleets", "--stop", "--reason", "customers call"])?;
    assert!(code == 0 && in_kernel(&site)?.is_empty(), "{code}: {err}");
    let stopped = wait_for(&site, "it is stopped", |action| !is_throttled(action))?;
    assert!(stopped["says"].as_str().is_some_and(|says| says.contains("customers call")), "{stopped:#}");
    assert_eq!(in_kernel(&site)?, []);
    assert_eq!(site.ask(&["fleets", "--resume"])?.0, 0);
    wait_for(&site, "the order still stands", is_throttled)?;
    assert_eq!(in_kernel(&site)?.len(), 1);

    let (code, out, err) = site.ask(&["allow", &target, "--for", "1h", "--reason", "a partner"])?;
    assert!(code == 0 && out.contains("is left alone until"), "{code}: {out}{err}");
    assert_eq!(in_kernel(&site)?, []);
    let (code, _, err) = site.ask(&["block", &target, "--for", "1h", "--reason", "test"])?;
    assert!(code == 2 && err.contains("a fleet is not blocked"), "{code}: {err}");
    let (code, _, err) = site.ask(&["throttle", "fleet:99", "--for", "1h", "--reason", "test"])?;
    assert!(code == 2 && err.contains("there is no fleet"), "{code}: {err}");

    let audit = site.ask(&["history", "--audit"])?.1;
    for part in ["throttle", "allow", "stop", "resume", "release", &target] {
        assert!(audit.contains(part), "{part:?} in\n{audit}");
    }
    daemon.end(libc::SIGTERM)?;
    Ok(())
}

#[test]
fn under_mode_throttle_the_daemon_acts_by_itself_and_a_policy_that_says_off_ends_it() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy_of("throttle"))?;
    teach(&site)?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    wait_for(&site, "it is throttled", is_throttled)?;
    assert_eq!(in_kernel(&site)?.len(), 1);
    let drops = site.metrics()?;
    assert_eq!(drops.sum("detector_fleet_drops_total", &[("service", "api")]), 0, "nobody of it is here");
    site.write_policy(&policy_of("off"))?;
    let (code, _, err) = site.ask(&["apply", site.policy().to_str().context("a path of text")?])?;
    assert_eq!(code, 0, "{err}");
    wait_until("nobody is acted on", PATIENCE, || Ok(in_kernel(&site)?.is_empty().then_some(())))?;
    daemon.end(libc::SIGTERM)?;
    Ok(())
}
