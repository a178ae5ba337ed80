//! What `plan` foretells, who `apply` does not lock out, and how much it does not drop: with real senders and a real
//! SSH session.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, anyhow};
use detector_tests::{
    daemon::{Site, answer},
    netns::{may_run, turn},
    process::{PATIENCE, wait_until},
    ssh::Sshd,
    stage::{MTU, Net, Stage, Who, policy},
    traffic::{Pace, Sender},
};
use serde_json::Value;

/// Never reached in these tests.
const WIDE: &str = "packets = { rate = \"100000/s\", burst = 100000 }";

const NET: Net = Net::v4(0);

/// A rule about a source.
fn rule(name: &str, who: Who, rest: &str) -> String {
    format!("\n[[rule]]\nname = \"{name}\"\nsource = [\"{}\"]\n{rest}\n", NET.source(who))
}

/// Writes a policy beside that of the daemon; its path.
fn file(site: &Site<'_>, name: &str, text: &str) -> Result<String> {
    let path = site.files().join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path.to_string_lossy().into_owned())
}

fn sender(stage: &Stage, who: Who, per_second: u32) -> Result<Sender> {
    let from = SocketAddr::new(NET.source(who), 0);
    Sender::start(&stage.outside, from, NET.service(), Pace::per_second(per_second))
}

/// Waits until the daemon has had its first look.
fn wait_for_look(site: &Site<'_>) -> Result<()> {
    let look = site.run_directory().join("traffic");
    wait_until("the daemon looks at the traffic", PATIENCE, || Ok(look.exists().then_some(())))
}

/// Sends from both for longer than a window has to be; how many left of each.
fn send_from_both(stage: &Stage, client: u32, offender: u32) -> Result<(u64, u64)> {
    let senders = (sender(stage, Who::Client, client)?, sender(stage, Who::Offender, offender)?);
    let enough = u64::from(client) * 5 / 2;
    wait_until("both have sent", PATIENCE, || Ok((senders.0.packets() >= enough).then_some(())))?;
    Ok((senders.0.stop()?.packets, senders.1.stop()?.packets))
}

fn epoch(site: &Site<'_>) -> Result<Value> {
    Ok(site.status()?.1["policy"].clone())
}

#[test]
fn plan_counts_what_was_sent() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let stage = Stage::new(1, MTU)?;
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
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let stage = Stage::new(1, MTU)?;
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
        assert!((2.0..20.0).contains(&window_s), "{plan}");
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
fn a_change_that_drops_too_much_is_refused_with_the_numbers() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let stage = Stage::new(1, MTU)?;
    let site = Site::new(&stage.edge, &policy(WIDE))?;
    let mut daemon = site.start(&["edge0"], &[])?;
    wait_for_look(&site)?;
    let (client, offender) = send_from_both(&stage, 100, 400)?;
    let text = policy(WIDE) + &rule("slip", Who::Client, "action = \"drop\"");
    let new = file(&site, "new.toml", &text)?;
    let before = epoch(&site)?;
    let (code, out, err) = site.ask(&["apply", &new])?;
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    let share = format!("{:.1} % of the packets", client as f64 / (client + offender) as f64 * 100.0);
    let victim = format!("{} at edge: limit each → drop by slip", NET.prefix(Who::Client));
    for part in ["newly drops", &share, "at most 5.0 %", "1 sources start to be dropped", &victim, "--force"]
    {
        assert!(err.contains(part), "{part:?} is missing in: {err}");
    }
    let (code, failure) = site.ask_json(&["apply", &new])?;
    assert_eq!((code, &failure["exit_code"]), (2, &2.into()), "{failure}");
    assert_eq!(epoch(&site)?, before, "nothing changed in the kernel");

    site.write_policy(&text)?;
    assert_eq!(daemon.reload()?, (0, 1), "a reload is refused, too: {}", daemon.log());
    assert!(daemon.log().contains("newly drops") && daemon.log().contains(&share), "{}", daemon.log());
    assert_eq!(epoch(&site)?, before);

    let shadow = text.replace("action = \"drop\"", "action = \"drop\"\nmode = \"shadow\"");
    let shadow = file(&site, "shadow.toml", &shadow)?;
    assert_eq!(site.ask(&["apply", &shadow])?.0, 0, "shadow drops nothing");
    assert_eq!(site.ask(&["apply", &new, "--max-drop", "90%"])?.0, 0);
    assert_eq!(site.ask(&["apply", &shadow])?.0, 0);
    assert_eq!(site.ask(&["apply", &new])?.0, 2);
    assert_eq!(site.ask(&["apply", &new, "--force"])?.0, 0);
    assert_ne!(epoch(&site)?, before);
    // Once in force it is no news.
    assert_eq!(daemon.reload()?, (1, 1), "{}", daemon.log());
    Ok(())
}

#[test]
fn victims_of_a_shadow_rule_are_named() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let stage = Stage::new(1, MTU)?;
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

/// A policy for the port of sshd, with defaults and the rest.
fn around_sshd(sshd: SocketAddr, defaults: &str, rest: &str) -> String {
    format!(
        "version = 1\n[defaults]\n{defaults}\n[[service]]\nname = \"ssh\"\naddresses = [\"{}\"]\nports = [\"tcp/{}\"]\n\
         [profile.each]\n{WIDE}\n{rest}",
        sshd.ip(),
        sshd.port()
    )
}

/// `detector apply` as a command line for a shell.
fn apply_line(site: &Site<'_>, file: &str, more: &str) -> Result<String> {
    let binary = detector_tests::daemon::binary()?;
    let quoted = |path: &Path| format!("'{}'", path.display());
    Ok(format!(
        "{} apply {} --pins {} --run-dir {} {more}",
        quoted(&binary.canonicalize().context("finding the binary")?),
        quoted(Path::new(file)),
        quoted(site.pins()),
        quoted(&site.run_directory()),
    ))
}

#[test]
fn who_is_connected_by_ssh_does_not_lock_themselves_out() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let stage = Stage::new(1, MTU)?;
    let address = SocketAddr::new(NET.service().ip(), 2222);
    let peer = NET.source(Who::Client);
    let site = Site::new(&stage.edge, &around_sshd(address, "", ""))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let sshd = Sshd::start(&stage.edge, address)?;
    let through_ssh = |file: &str, more: &str| {
        answer(&mut sshd.session(&stage.outside, peer, &apply_line(&site, file, more)?)?)
    };
    let before = epoch(&site)?;
    let drop_all = "\n[[rule]]\nname = \"slip\"\nsource = [\"198.18.0.0/24\"]\naction = \"drop\"\n";
    let limit_all =
        "\n[[rule]]\nname = \"slip\"\nsource = [\"198.18.0.0/24\"]\naction = { limit = \"each\" }\n";
    let drops = file(&site, "drops.toml", &around_sshd(address, "", drop_all))?;
    let limits = file(&site, "limits.toml", &around_sshd(address, "", limit_all))?;
    for (file, would) in
        [(&drops, "drop by slip at service ssh"), (&limits, "limit each by slip at service ssh")]
    {
        // As sudo does, which forgets the variable: the shell before it remembers.
        for (before, more) in [("env -i ", ""), ("", "--json")] {
            let line = before.to_owned() + &apply_line(&site, file, more)?;
            let (code, out, err) = answer(&mut sshd.session(&stage.outside, peer, &line)?)?;
            let said = out + &err;
            assert_eq!(code, 2, "{said}");
            for part in [&peer.to_string(), "SSH connection", would, "`allow` in [defaults]", "--force"] {
                assert!(said.contains(part), "{part:?} is missing in: {said}");
            }
        }
    }
    assert_eq!(epoch(&site)?, before, "nothing changed in the kernel");

    // Another one's slip is none of ours: a plan from elsewhere does not speak of the peer.
    let (_, plan) = site.ask_json(&["plan", &drops])?;
    let locked_out = plan["refusal"]["lockouts"].to_string();
    assert!(!locked_out.contains(&peer.to_string()), "{plan}");

    let allowed = format!("allow = [\"{peer}\"]");
    let allowed = file(&site, "allowed.toml", &around_sshd(address, &allowed, drop_all))?;
    assert_eq!(through_ssh(&allowed, "")?.0, 0, "a peer that is always allowed is not locked out");
    let (code, _, err) = through_ssh(&limits, "")?;
    assert!(code == 2 && err.contains("defaults.allow"), "{code}: {err}");
    assert_eq!(through_ssh(&limits, "--force")?.0, 0);
    // Forced, it locks out, until the kernel takes it back: the session waits and goes on.
    let (code, out, err) = through_ssh(&drops, "--force --confirm 2s && echo \"still here\"")?;
    assert!(code == 0 && out.contains("still here"), "{code}: {out}{err}");
    Ok(())
}
