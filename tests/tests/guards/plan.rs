//! What `plan` and `victims` tell of the traffic.

use std::fs;

use anyhow::{Context as _, Result, anyhow};
use detector_tests::{
    daemon::Site,
    process::{PATIENCE, wait_until},
    stage::{Stage, Who, policy},
};
use serde_json::Value;

use crate::{NET, WIDE, epoch, file, rule, send_from_both, sender, wait_for_look};

#[test]
fn plan_counts_what_was_sent() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let loaded = policy(WIDE);
    let site = Site::new(&stage.edge, &loaded)?;
    let _daemon = site.start(&["edge0"], &[])?;
    wait_for_look(&site)?;
    let (client, offender) = send_from_both(&stage, 40, 400)?;
    let new = loaded.replace("100000/s", "50000/s") + &rule("worst", Who::Offender, "action = \"drop\"");
    let new = file(&site, "new.toml", &new)?;
    let before = epoch(&site)?;
    let (code, plan) = site.ask_json(&["plan", &new])?;
    assert_eq!(code, 0, "{plan}");
    let impact = &plan["impact"];
    assert_eq!((&impact["sources"], &impact["sources_changed"]), (&2.into(), &2.into()), "{plan}");
    let moves = impact["moves"].as_array().ok_or_else(|| anyhow!("no moves: {plan}"))?;
    let moves: Vec<_> = moves
        .iter()
        .map(|change| (&change["from"], &change["to"], &change["sources"], &change["packets"]))
        .collect();
    let (each, one) = ("limit each".into(), 1.into());
    assert_eq!(
        moves,
        [(&each, &"drop by worst".into(), &one, &offender.into()), (&each, &each, &one, &client.into())],
        "{plan}"
    );
    let victims = impact["victims"].as_array().ok_or_else(|| anyhow!("no victims: {plan}"))?;
    assert_eq!((victims.len(), &victims[0]["source"]), (1, &NET.prefix(Who::Offender).into()), "{plan}");
    let window_s = impact["window_s"].as_f64().unwrap_or_default();
    let dropped = impact["newly_dropped_per_s"].as_f64().unwrap_or_default() * window_s;
    assert!((dropped - offender as f64).abs() < 0.5, "{dropped} of {offender} in {window_s} s: {plan}");
    let share = impact["newly_dropped_share"].as_f64().unwrap_or_default();
    let expected = offender as f64 / (client + offender) as f64;
    assert!((share - expected).abs() < 1e-6, "{share}, {expected} expected: {plan}");
    // Most of the packets would be dropped.
    assert_eq!(plan["refused"], true, "{plan}");
    let changes = plan["difference"]["changes"].as_array().ok_or_else(|| anyhow!("no changes: {plan}"))?;
    let names: Vec<_> = changes.iter().map(|change| (&change["change"], &change["name"])).collect();
    assert_eq!(names, [(&"changed".into(), &"each".into()), (&"added".into(), &"worst".into())], "{plan}");
    let budget = &changes[0]["attributes"][0];
    assert_eq!(
        (&budget["before"], &budget["after"]),
        (&"100000/s, burst 100000".into(), &"50000/s, burst 100000".into())
    );
    let (_, text, _) = site.ask(&["plan", &new])?;
    for part in [
        "+ rule worst: action: drop",
        "100000/s, burst 100000 → 50000/s",
        "1 sources would start to be dropped",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    assert_eq!(epoch(&site)?, before, "a plan changes nothing");
    let (code, same) = site.ask_json(&["plan", &site.policy().to_string_lossy()])?;
    assert_eq!((code, &same["refused"], &same["impact"]["starts"]), (0, &false.into(), &0.into()), "{same}");
    assert_eq!(same["difference"]["changes"], Value::Array(Vec::new()), "{same}");
    Ok(())
}

#[test]
fn plan_looks_for_itself_when_the_daemon_is_dead() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(WIDE))?;
    let daemon = site.start(&["edge0"], &[])?;
    wait_for_look(&site)?;
    daemon.end(libc::SIGKILL)?;
    let load = sender(&stage, Who::Offender, 200)?;
    // These came before, and are none of the last minute's.
    wait_until("packets are counted", PATIENCE, || {
        Ok((site.source(&NET.prefix(Who::Offender))?.packets > 200).then_some(()))
    })?;
    let new = policy(WIDE) + &rule("worst", Who::Offender, "action = \"drop\"");
    let new = file(&site, "new.toml", &new)?;
    let check = |arguments: &[&str]| -> Result<()> {
        let before = load.packets();
        let (code, plan) = site.ask_json(&[&["plan", &new], arguments].concat())?;
        // The sender counts a packet after it left.
        let sent = load.packets() - before + 2;
        assert_eq!(code, 0, "{plan}");
        let window_s = plan["impact"]["window_s"].as_f64().unwrap_or_default();
        let counted = plan["impact"]["moves"][0]["packets"].as_u64().unwrap_or_default();
        // A clock that is being adjusted runs a little fast or slow beside the one that waits.
        assert!((1.99..20.0).contains(&window_s), "{plan}");
        assert!((1..=sent).contains(&counted), "{counted} of {sent} sent meanwhile: {plan}");
        let rate = counted as f64 / window_s;
        assert!((150.0..250.0).contains(&rate), "{rate} a second, 200 were sent: {plan}");
        Ok(())
    };
    check(&["--sample", "3s"])?;
    // What it saw when it lived is gone, too.
    fs::remove_dir_all(site.run_directory()).context("removing what the daemon kept")?;
    check(&[])?;
    fs::create_dir(site.run_directory()).context("making a directory")?;
    fs::write(site.run_directory().join("traffic"), "something else").context("writing a file")?;
    check(&[])
}

#[test]
fn victims_of_a_shadow_rule_are_named() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let text = policy("packets = { rate = \"50/s\", burst = 50 }")
        + &rule("tried", Who::Offender, "action = \"drop\"\nmode = \"shadow\"");
    let site = Site::new(&stage.edge, &text)?;
    let _daemon = site.start(&["edge0"], &[])?;
    wait_for_look(&site)?;
    let (client, offender) = send_from_both(&stage, 200, 100)?;
    let (code, tried) = site.ask_json(&["victims", "--rule", "tried"])?;
    assert_eq!((code, &tried["sources"]), (0, &1.into()), "{tried}");
    let row = &tried["victims"][0];
    assert_eq!(
        (&row["source"], &row["class"], &row["packets"], &row["dropped"]),
        (&NET.prefix(Who::Offender).into(), &"drop by tried (shadow)".into(), &offender.into(), &0.into()),
        "{tried}"
    );
    let would = row["would_drop_per_s"].as_f64().unwrap_or_default();
    let sent = offender as f64 / tried["window_s"].as_f64().unwrap_or_default();
    assert!((would - sent).abs() < 0.01, "{would} of {sent} a second: {tried}");
    let (_, all) = site.ask_json(&["victims"])?;
    let dropped = site.source(&NET.prefix(Who::Client))?.dropped;
    let own = all["victims"].as_array().into_iter().flatten();
    let own: Vec<_> = own.filter(|row| row["source"] == NET.prefix(Who::Client)).collect();
    assert_eq!(own.len(), 1, "{all}");
    assert_eq!((&own[0]["dropped"], &own[0]["packets"]), (&dropped.into(), &client.into()), "{all}");
    assert!(dropped > 0 && own[0]["would_drop_per_s"] == 0.0, "{all}");
    let (code, _, err) = site.ask(&["victims", "--rule", "other"])?;
    assert!(code == 2 && err.contains("no rule \"other\""), "{code}: {err}");
    Ok(())
}
