//! Fleets are throttled by the daemon and by operators, and nothing that happens to the daemon changes that; one switch ends all of it.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Context as _, Result, ensure};
use detector_common::fleet::FleetMember;
use detector_fleets::source::Source;
use detector_tests::{
    api::Api,
    daemon::{Site, answer, binary},
    process::{PATIENCE, wait_until},
    simulated,
    stage::{Stage, edge_interface, policy},
};
use detector_user::{
    fleets::Store,
    kernel::{fleets, mapped::Access, maps::Maps},
};
use serde_json::{Value, json};

/// A policy with the service of the simulated days.
fn policy_of(mode: &str) -> String {
    let policy = policy("packets = \"10000/s\"").replace("\"edge\"", "\"api\"");
    format!("{policy}[fleets]\nmode = \"{mode}\"\ncollateral_max = \"1 %\"\n")
}

fn maps(site: &Site<'_>) -> Result<Maps> {
    let directory = fs::read_dir(site.pins())?.filter_map(Result::ok).map(|entry| entry.path());
    let directory =
        directory.filter(|path| path.join("FLEETS").exists()).last().context("pins of a program")?;
    Ok(Maps::pinned(&directory, Access::Read)?)
}

/// What the kernel does: for each fleet that it acts on its number, and how many members it charges.
fn in_kernel(site: &Site<'_>) -> Result<Vec<(u64, usize)>> {
    let maps = maps(site)?;
    let acting = fleets::standing(&maps).into_iter().filter(|standing| standing.acts);
    acting.map(|standing| Ok((standing.fleet.id, fleets::members(&maps, standing.slot)?.len()))).collect()
}

/// The members that the kernel charges, of those that the daemon tells of the only fleet.
fn charged(site: &Site<'_>) -> Result<BTreeSet<Source>> {
    let maps = maps(site)?;
    let mut charged = BTreeSet::new();
    let told = site.ask_json(&["fleets"])?.1;
    let members = told["fleets"][0]["members"].as_array().context("members")?;
    for standing in fleets::standing(&maps) {
        let keys = fleets::members(&maps, standing.slot)?;
        for member in members.iter().filter_map(Value::as_str) {
            let source: Source = member.parse().ok().with_context(|| format!("{member:?} is no source"))?;
            let key = fleets::entry_key(source, u16::try_from(standing.fleet.service)?);
            if keys.contains(&FleetMember::from(key)) {
                charged.insert(source);
            }
        }
    }
    Ok(charged)
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
        "to take it back: detector undo fleet:",
        "ok collateral",
    ] {
        assert!(screen.contains(part), "{part:?} in\n{screen}");
    }
    let told = action(&site)?;
    let (throttle, shared) = (&told["throttle"], told["left_out"]["shared"].as_u64().context("shared")?);
    let held_out = members - charged - usize::try_from(shared)?;
    assert_eq!(
        (&throttle["members"], &throttle["held_out"]),
        (&json!(charged), &json!(held_out)),
        "{throttle:#}"
    );

    // Who calls is told by the kernel whether it is throttled, and how it gets out.
    let one = self::charged(&site)?.first().context("a member that is charged")?.to_string();
    let address = one.split('/').next().unwrap_or_default();
    let explained = site.ask_json(&["explain", address])?.1;
    let as_fleet = &explained["services"][0]["charged_as"];
    assert_eq!(as_fleet["fleet"], json!(id), "{explained:#}");
    let (until_s, told_s) = (as_fleet["until_s"].as_u64(), throttle["until_s"].as_u64().context("an end")?);
    assert!(until_s.is_some_and(|until_s| until_s.abs_diff(told_s) <= 2), "{until_s:?} for {told_s}");
    let screen = site.ask(&["explain", address])?.1;
    assert!(screen.contains(&format!("charged as one of fleet {id}")), "{screen}");
    let stranger = site.ask_json(&["explain", "192.0.2.77"])?.1;
    assert_eq!(stranger["services"][0]["charged_as"], Value::Null, "{stranger:#}");

    // What is answered is what is in force by this order, not by the one before.
    let faster = ["throttle", &target, "--rate", "7/s", "--for", "10min", "--reason", "test"];
    let (code, answer) = site.ask_json(&faster)?;
    let packets = &answer["actions"][0]["throttle"]["packets"];
    assert!(
        code == 0 && packets.as_str().is_some_and(|rate| rate.starts_with("7/s, ")),
        "{code}: {answer:#}"
    );
    assert_eq!(in_kernel(&site)?, acting);

    // Nothing ends with the daemon, and the next one takes over what there is.
    daemon.signal(libc::SIGKILL)?;
    drop(daemon);
    assert_eq!(in_kernel(&site)?, acting);
    let (code, _, err) = site.ask(&order)?;
    assert!(code == 1 && err.contains("no daemon runs"), "{code}: {err}");
    // Nor is one needed to let it go, or to have it decided anew.
    let (code, out, err) = site.ask(&["allow", &target, "--for", "10min", "--reason", "test"])?;
    assert!(code == 0 && out.contains("is left alone until"), "{code}: {out}{err}");
    assert_eq!(in_kernel(&site)?, []);
    let (code, out, err) = site.ask(&["undo", &target])?;
    assert!(code == 0 && out.contains("the next one decides anew"), "{code}: {out}{err}");
    let mut daemon = site.start(&[&edge_interface(0)], &[])?;
    wait_for(&site, "a suggestion", |action| action["step"] == "suggest")?;
    assert_eq!(in_kernel(&site)?, []);
    let (code, _, err) = site.ask(&order)?;
    ensure!(code == 0, "{code}: {err}");
    daemon.signal(libc::SIGKILL)?;
    drop(daemon);
    assert_eq!(in_kernel(&site)?.len(), 1);
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    wait_for(&site, "it knows what it does", is_throttled)?;
    assert_eq!(in_kernel(&site)?.len(), 1);

    // The switch is with the pins: it holds also for a daemon whose history is elsewhere.
    let elsewhere = site.files().join("elsewhere");
    let elsewhere = elsewhere.to_str().context("a path of text")?;
    let (code, _, err) = site.ask(&["fleets", "--stop", "--reason", "which state?", "--state", elsewhere])?;
    assert!(code == 0 && in_kernel(&site)?.is_empty(), "{code}: {err}");
    let stopped = wait_for(&site, "it is stopped", |action| !is_throttled(action))?;
    assert!(stopped["says"].as_str().is_some_and(|says| says.contains("beside the pins")), "{stopped:#}");
    for question in ["fleets", "status"] {
        let (_, screen, _) = site.ask(&[question])?;
        assert!(screen.contains("all actions are stopped by somebody"), "{screen}");
    }
    assert_eq!(site.metrics()?.sum("detector_fleet_actions_stopped", &[]), 1);
    let refused = site.ask(&["throttle", &target, "--for", "1h", "--reason", "test"])?;
    assert!(refused.0 == 2 && refused.2.contains("are stopped by"), "{refused:?}");
    assert_eq!(site.ask(&["fleets", "--resume"])?.0, 0);
    wait_for(&site, "the order still stands", is_throttled)?;
    assert_eq!(site.metrics()?.sum("detector_fleet_actions_stopped", &[]), 0);

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
    let (code, out, err) = site.ask(&["undo", &target])?;
    assert!(code == 0 && out.contains("suggested: the policy has"), "{code}: {out}{err}");
    let (code, _, err) = site.ask(&["undo", &target])?;
    assert!(code == 2 && err.contains("there is no order about fleet"), "{code}: {err}");
    assert_eq!(in_kernel(&site)?, []);
    let (code, _, err) = site.ask(&["block", &target, "--for", "1h", "--reason", "test"])?;
    assert!(code == 2 && err.contains("a fleet is not blocked"), "{code}: {err}");
    let (code, _, err) = site.ask(&["throttle", "fleet:99", "--for", "1h", "--reason", "test"])?;
    assert!(code == 2 && err.contains("there is no fleet"), "{code}: {err}");

    let audit = site.ask(&["history", "--audit"])?.1;
    for part in ["throttle", "allow", "undo", "stop", "resume", "release", &target] {
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
    let (hook, told) = (site.files().join("hook"), site.files().join("told"));
    fs::write(&hook, format!("#!/bin/sh\ncat >> {0}; echo >> {0}\n", told.display()))?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    let hook = hook.to_str().context("a path of text")?;
    let daemon = site.start(&[&edge_interface(0)], &["--hook", hook])?;
    wait_for(&site, "it is throttled", is_throttled)?;
    assert_eq!(in_kernel(&site)?.len(), 1);
    let is_told = |news: &str| {
        let text = fs::read_to_string(&told).unwrap_or_default();
        text.contains(&format!("\"news\":\"{news}\""))
    };
    wait_until("the hook is told", PATIENCE, || Ok(is_told("throttled").then_some(())))?;
    assert!(!is_told("released"), "it is in force");
    let drops = site.metrics()?;
    let of_service: &[_] = &[("service", "api")];
    assert!(drops.has("detector_fleet_drops_total", of_service));
    assert_eq!(drops.sum("detector_fleet_drops_total", of_service), 0, "nobody of it is here");
    site.write_policy(&policy_of("off"))?;
    let (code, _, err) = site.ask(&["apply", site.policy().to_str().context("a path of text")?])?;
    assert_eq!(code, 0, "{err}");
    wait_until("nobody is acted on", PATIENCE, || Ok(in_kernel(&site)?.is_empty().then_some(())))?;
    wait_until("the hook is told", PATIENCE, || Ok(is_told("released").then_some(())))?;
    daemon.end(libc::SIGTERM)?;
    Ok(())
}

#[test]
fn a_customer_by_a_hint_is_taken_out_of_an_action_in_force() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy_of("throttle"))?;
    teach(&site)?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    let before = wait_for(&site, "it is throttled", is_throttled)?;
    assert!(before["throttle"]["keys"].as_u64() > Some(0), "{before:#}");
    let api = Api::new(site.api());
    let all = charged(&site)?;
    let customer = *all.first().context("a member that is charged")?;
    let said = json!({
        "label": "customer",
        "sources": [customer.to_string()],
        "service": "api",
        "for_s": 600,
        "by": "billing",
        "reason": "account 7",
    });
    let kept = api.post("/v1/hints", Some(&said))?;
    assert_eq!((kept.status, &kept.body["unrecorded"]), (200, &Value::Null), "{}", kept.body);
    assert_eq!(
        api.post("/v1/hints", Some(&said))?.body["ids"],
        kept.body["ids"],
        "said again it is the same hint"
    );
    let is_told = |action: &Value| action["left_out"]["customers"] == 1;
    let told = wait_for(&site, "the customer is left out", is_told)?;
    assert_eq!(
        (&told["throttle"]["keys"], &told["throttle"]["until_s"]),
        (&json!(0), &before["throttle"]["until_s"]),
        "{told:#}"
    );
    let mut others = all.clone();
    others.remove(&customer);
    assert_eq!(charged(&site)?, others);
    let (_, screen, _) = site.ask(&["fleets", told["fleet"].as_str().context("its number")?])?;
    for part in ["left out of an action: 1 customers", "are customers by hints"] {
        assert!(screen.contains(part), "{part:?} in\n{screen}");
    }

    let address = customer.to_string();
    let listed =
        api.get(&format!("/v1/hints?source={}", address.split('/').next().unwrap_or_default()))?.body;
    let hint = &listed["hints"][0];
    assert_eq!(
        (&listed["count"], &hint["prefix"], &hint["by"], &hint["label"]),
        (&json!(1), &json!(address), &json!("billing"), &json!("customer")),
        "{listed:#}"
    );
    for (wrong, says) in [
        (
            json!({ "label": "customer", "sources": ["192.0.2.1"], "service": "web", "for_s": 60 }),
            "no service",
        ),
        (json!({ "label": "abuse", "sources": ["192.0.0.0/16"], "for_s": 60 }), "at least 24 bits"),
        (json!({ "label": "abuse", "sources": [], "for_s": 60 }), "1 to 100000"),
        (json!({ "label": "abuse", "sources": ["192.0.2.1"], "for_s": 0 }), "`for_s` is from 1"),
    ] {
        let refused = api.post("/v1/hints", Some(&wrong))?;
        assert!(refused.status == 422 && refused.body["error"].to_string().contains(says), "{refused:?}");
    }
    let path = format!("/v1/hints/{}", hint["id"]);
    let gone = api.delete(&path)?;
    assert_eq!((gone.status, &gone.body["hint"]["reason"]), (200, &json!("account 7")), "{}", gone.body);
    assert_eq!(api.delete(&path)?.status, 422, "it has gone");
    wait_until("who is no customer any more is charged again", PATIENCE, || {
        Ok((charged(&site)? == all).then_some(()))
    })?;
    // Who is allowed is left out, too, for as long as that holds.
    let one = address.split('/').next().unwrap_or_default();
    let (code, rule) = site.ask_json(&["allow", one, "--for", "10min", "--reason", "a partner"])?;
    assert_eq!(code, 0, "{rule:#}");
    wait_until("who is allowed is charged no more", PATIENCE, || {
        Ok((charged(&site)? == others).then_some(()))
    })?;
    wait_for(&site, "and that is told", |action| action["left_out"]["allowed"] == 1)?;
    let number = rule["added"][0]["id"].to_string();
    let (code, _, err) = site.ask(&["undo", &number])?;
    assert_eq!(code, 0, "{err}");
    wait_until("and is charged again", PATIENCE, || Ok((charged(&site)? == all).then_some(())))?;
    let audit = api.get("/v1/audit?limit=20")?.body.to_string();
    for part in ["\"hint\"", "\"unhint\"", "billing", "no service", &format!("\"{address}\"")] {
        assert!(audit.contains(part), "{part} in {audit}");
    }
    daemon.end(libc::SIGTERM)?;
    Ok(())
}

#[test]
fn orders_and_the_switch_over_the_api_do_what_the_commands_do() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy_of("suggest"))?;
    let found = teach(&site)?;
    let id: u64 = found["fleets"][0]["id"].as_str().context("a fleet")?.parse()?;
    let daemon = site.start(&[&edge_interface(0)], &[])?;
    wait_for(&site, "a suggestion", |action| action["step"] == "suggest")?;
    let api = Api::new(site.api());
    let post = |path: &str, body: Value| api.post(&format!("/v1/fleets/{path}"), Some(&body));

    let slow =
        json!({ "action": "throttle", "fleets": [id], "for_s": 600, "reason": "INC-1", "rate": "7/s" });
    let done = post("orders", slow)?;
    let packets = done.body["actions"][0]["throttle"]["packets"].to_string();
    assert!(done.status == 200 && packets.contains("7/s, "), "{}", done.body);
    assert_eq!(in_kernel(&site)?.len(), 1, "it is done when it is answered");
    let orders = api.get("/v1/fleets/orders")?.body;
    let order = &orders["orders"][0];
    assert_eq!(
        (&orders["stopped"], &order["id"], &order["fleet"], &order["by"], &order["wanted"]),
        (
            &Value::Null,
            &done.body["orders"][0],
            &json!(id.to_string()),
            &json!("root"),
            &json!("throttle packets 7/s burst 7")
        ),
        "{orders:#}"
    );

    let stopped = post("stop", json!({ "reason": "customers call" }))?;
    assert_eq!((stopped.status, &stopped.body["stopped"]), (200, &json!(true)), "{}", stopped.body);
    assert_eq!(in_kernel(&site)?, [], "at once");
    assert_eq!(api.get("/v1/fleets/orders")?.body["stopped"]["reason"], "customers call");
    let while_stopped = json!({ "action": "throttle", "fleets": [id], "for_s": 600, "reason": "INC-2" });
    let refused = post("orders", while_stopped)?;
    let error = refused.body["error"].to_string();
    assert!(refused.status == 422 && error.contains("stopped by root: customers call"), "{refused:?}");
    assert_eq!(post("resume", json!({}))?.status, 200);
    wait_for(&site, "the order stands", is_throttled)?;

    let undone = post("undo", json!({ "fleets": [id], "reason": "enough" }))?;
    assert_eq!((undone.status, &undone.body["orders"]), (200, &json!([])), "{}", undone.body);
    assert_eq!(in_kernel(&site)?, [], "it is done when it is answered");
    let left =
        post("orders", json!({ "action": "allow", "fleets": [id], "for_s": 600, "reason": "a partner" }))?;
    assert_eq!((left.status, &left.body["actions"][0]["step"]), (200, &json!("nothing")), "{}", left.body);
    for (path, wrong, says) in [
        ("undo", json!({ "fleets": [id, 99] }), "no order about fleet 99"),
        (
            "orders",
            json!({ "action": "allow", "fleets": [99], "for_s": 600, "reason": "x" }),
            "there is no fleet",
        ),
        (
            "orders",
            json!({ "action": "allow", "fleets": [id], "for_s": 600, "reason": "x", "rate": "1/s" }),
            "only a throttle",
        ),
        ("orders", json!({ "action": "allow", "fleets": [], "for_s": 600, "reason": "x" }), "1 to 256"),
    ] {
        let refused = post(path, wrong)?;
        assert!(
            refused.status == 422 && refused.body["error"].to_string().contains(says),
            "{says}: {refused:?}"
        );
    }
    assert_eq!(
        api.get("/v1/fleets/orders")?.body["orders"].as_array().map(Vec::len),
        Some(1),
        "nothing else"
    );
    let audit = api.get("/v1/audit?limit=30")?.body;
    let entries = audit["entries"].as_array().context("entries")?;
    let by_api = entries.iter().filter(|entry| entry["origin"] == "api" && entry["result"] == "done");
    let actions: Vec<_> = by_api.filter_map(|entry| entry["action"].as_str()).collect();
    assert_eq!(actions, ["allow", "undo", "resume", "throttle", "stop", "throttle"], "{audit:#}");
    daemon.end(libc::SIGTERM)?;
    Ok(())
}
