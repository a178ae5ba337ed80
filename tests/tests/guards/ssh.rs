//! Who is connected by SSH is not locked out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use detector_tests::{
    daemon::{Site, answer},
    process::{PATIENCE, wait_until},
    ssh::Sshd,
    stage::{Stage, Who},
};

use crate::{NET, WIDE, epoch, file};

/// Where sshd listens in the edge.
const SSHD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 10)), 2222);

/// A rule about everybody who comes over the link.
const DROP_ALL: &str = "\n[[rule]]\nname = \"slip\"\nsource = [\"198.18.0.0/24\"]\naction = \"drop\"\n";
const LIMIT_ALL: &str =
    "\n[[rule]]\nname = \"slip\"\nsource = [\"198.18.0.0/24\"]\naction = { limit = \"each\" }\n";

/// Every SYN over IPv4, and those of another stack.
const EVERY_SYN: &str = "syn:4:*:*:*:*:*:*:*";
const OTHER_SYN: &str = "syn:4:255:*:*:*:*:*:*";

/// A policy for the port of sshd, with defaults and the rest.
fn around_sshd(defaults: &str, rest: &str) -> String {
    format!(
        "version = 1\n[defaults]\n{defaults}\n[[service]]\nname = \"ssh\"\naddresses = [\"{}\"]\nports = [\"tcp/{}\"]\n\
         [profile.each]\n{WIDE}\n{rest}",
        SSHD.ip(),
        SSHD.port()
    )
}

#[test]
fn who_is_connected_by_ssh_does_not_lock_themselves_out() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let peer = NET.source(Who::Client);
    let site = Site::new(&stage.edge, &around_sshd("", ""))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let sshd = Sshd::start(&stage.edge, SSHD)?;
    let through_ssh = |file: &str, more: &str| {
        let line = site.line(&["apply", file])? + more;
        answer(&mut sshd.session(&stage.outside, peer, &line)?)
    };
    let before = epoch(&site)?;
    let drops = file(&site, "drops.toml", &around_sshd("", DROP_ALL))?;
    let limits = file(&site, "limits.toml", &around_sshd("", LIMIT_ALL))?;
    for (file, would) in
        [(&drops, "drop by slip at service ssh"), (&limits, "limit each by slip at service ssh")]
    {
        // As sudo does, which forgets the variable: the shell before it remembers.
        for (before, more) in [("env -i ", ""), ("", " --json")] {
            let line = before.to_owned() + &site.line(&["apply", file])? + more;
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
    let allowed = file(&site, "allowed.toml", &around_sshd(&allowed, DROP_ALL))?;
    assert_eq!(through_ssh(&allowed, "")?.0, 0, "a peer that is always allowed is not locked out");
    let (code, _, err) = through_ssh(&limits, "")?;
    assert!(code == 2 && err.contains("defaults.allow"), "{code}: {err}");
    assert_eq!(through_ssh(&limits, " --force")?.0, 0);
    assert_forced_for_a_moment(&site, &stage, &sshd, &site.line(&["apply", &drops])?)
}

/// Forced and on trial, a change locks the peer out until the kernel takes it back; then they get in again.
fn assert_forced_for_a_moment(site: &Site<'_>, stage: &Stage, sshd: &Sshd, line: &str) -> Result<()> {
    let peer = NET.source(Who::Client);
    let denied = site.reason("denied")?;
    let forced = format!("{line} --force --confirm 2s && echo forced");
    let (code, out, err) = answer(&mut sshd.session(&stage.outside, peer, &forced)?)?;
    assert!(code == 0 && out.contains("forced"), "{code}: {out}{err}");
    // What they were told needed no packet of theirs; the next session does.
    sshd.open(&stage.outside, peer)?.echo("back again")?;
    assert!(site.reason("denied")? > denied, "nobody was locked out meanwhile");
    let (_, history) = site.ask_json(&["history"])?;
    assert_eq!(history["versions"][0]["standing"], "taken_back", "{history}");
    Ok(())
}

/// A signal says nothing of who sent it, so everybody who is connected is asked about.
#[test]
fn a_reload_locks_out_nobody_who_is_connected() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let peer = NET.source(Who::Client);
    let site = Site::new(&stage.edge, &around_sshd("", ""))?;
    let mut daemon = site.start(&["edge0"], &[])?;
    let sshd = Sshd::start(&stage.edge, SSHD)?;
    let mut session = sshd.open(&stage.outside, peer)?;
    let before = epoch(&site)?;
    for (rest, would, refused) in
        [(DROP_ALL, "drop by slip at service ssh", 1), (LIMIT_ALL, "limit each by slip at service ssh", 2)]
    {
        site.write_policy(&around_sshd("", rest))?;
        assert_eq!(daemon.reload()?, (0, refused), "{}", daemon.log());
        let log = daemon.log();
        let told = log.lines().skip_while(|line| !line.contains("the old one stays"));
        let told = told.collect::<Vec<_>>().join("\n");
        for part in [&peer.to_string(), "SSH connection", would, "`allow` in [defaults]"] {
            assert!(told.contains(part), "{part:?} is missing in: {log}");
        }
        assert_eq!(epoch(&site)?, before, "the old policy stays");
        session.echo("still here")?;
    }
    let (_, audit) = site.ask_json(&["history", "--audit"])?;
    let entry = &audit["entries"][0];
    assert_eq!((&entry["origin"], &entry["action"]), (&"reload".into(), &"apply".into()), "{audit}");
    assert!(entry["result"].as_str().is_some_and(|result| result.contains("locks out")), "{audit}");

    // Nobody is there any more whom it would lock out.
    drop(session);
    site.write_policy(&around_sshd("", DROP_ALL))?;
    wait_until("the policy is taken", PATIENCE, || Ok((daemon.reload()?.0 == 1).then_some(())))?;
    assert_ne!(epoch(&site)?, before);
    Ok(())
}

#[test]
fn who_is_connected_does_not_roll_back_to_what_locks_them_out() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let peer = NET.source(Who::Client);
    let site = Site::new(&stage.edge, &around_sshd("", DROP_ALL))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let open = file(&site, "open.toml", &around_sshd("", ""))?;
    assert_eq!(site.ask(&["apply", &open])?.0, 0);
    let sshd = Sshd::start(&stage.edge, SSHD)?;
    let through_ssh = |line: &str| answer(&mut sshd.session(&stage.outside, peer, line)?);
    let before = epoch(&site)?;
    for arguments in [&["rollback"][..], &["rollback", "1"]] {
        let (code, out, err) = through_ssh(&site.line(arguments)?)?;
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        for part in [&peer.to_string(), "SSH connection", "drop by slip at service ssh", "--force"] {
            assert!(err.contains(part), "{part:?} is missing in: {err}");
        }
        assert_eq!(epoch(&site)?, before, "nothing changed in the kernel");
    }
    assert_forced_for_a_moment(&site, &stage, &sshd, &site.line(&["rollback"])?)
}

#[test]
fn who_is_connected_does_not_undo_what_lets_them_in() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let peer = NET.source(Who::Client);
    let site = Site::new(&stage.edge, &around_sshd("", DROP_ALL))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let allow = ["allow", &peer.to_string(), "--for", "1h", "--reason", "INC-4711: our own"];
    assert_eq!(site.ask(&allow)?.0, 0);
    let sshd = Sshd::start(&stage.edge, SSHD)?;
    let undo = site.line(&["undo", "1"])?;
    let (code, out, err) = answer(&mut sshd.session(&stage.outside, peer, &undo)?)?;
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    for part in
        ["not undone", &peer.to_string(), "SSH connection", "drop by slip at service ssh", "add --force"]
    {
        assert!(err.contains(part), "{part:?} is missing in: {err}");
    }
    let mut session = sshd.open(&stage.outside, peer)?;
    let (_, rules) = site.ask_json(&["rules"])?;
    assert_eq!(rules["incidents"][0]["id"], 1, "it is still there: {rules}");

    // Forced from elsewhere, it cuts the session: its packets are dropped.
    let denied = site.reason("denied")?;
    assert_eq!(site.ask(&["undo", "1", "--force"])?.0, 0);
    session.send("nobody hears this")?;
    wait_until("the session is cut", PATIENCE, || Ok((site.reason("denied")? > denied).then_some(())))?;
    Ok(())
}

/// A rule about SYNs acts on the next connection to every port of its service, also on that of who makes the rule.
#[test]
fn who_is_connected_does_not_lock_themselves_out_by_their_syn() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let peer = NET.source(Who::Client);
    let site = Site::new(&stage.edge, &around_sshd("", ""))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let sshd = Sshd::start(&stage.edge, SSHD)?;
    let how = ["--for", "1h", "--reason", "INC-4711: its stack"];
    let line = |arguments: &[&str]| site.line(&[arguments, &how].concat());
    let through_ssh = |line: &str| answer(&mut sshd.session(&stage.outside, peer, line)?);
    let refused = |line: &str, parts: &[&str]| -> Result<()> {
        let (code, out, err) = through_ssh(line)?;
        assert_eq!((code, out.as_str()), (2, ""), "{line}: {err}");
        for part in
            [&[peer.to_string().as_str(), "SSH connection", "at service ssh", "--force"], parts].concat()
        {
            assert!(err.contains(part), "{part:?} is missing in: {err}");
        }
        Ok(())
    };
    through_ssh("true")?;
    wait_until("its SYN has a name", PATIENCE, || {
        let (_, explained) = site.ask_json(&["explain", &peer.to_string()])?;
        let clients = explained["services"][0]["clients"].as_array().cloned().unwrap_or_default();
        Ok(clients.iter().any(|client| client["syn"].is_string()).then_some(()))
    })?;

    let before = epoch(&site)?;
    let block = ["block", EVERY_SYN];
    refused(&line(&block)?, &["drop by the rule on syn:4", "its SYN matches", "`detector allow`"])?;
    let throttle = ["throttle", EVERY_SYN, "--connections", "1000/s", "--shared"];
    refused(&line(&throttle)?, &["limit by the rule on syn:4", "its SYN matches"])?;
    let pattern = EVERY_SYN.trim_start_matches("syn:");
    let rule = format!("\n[[rule]]\nname = \"slip\"\nsyn = \"{pattern}\"\naction = \"drop\"\n");
    let drops = file(&site, "syn.toml", &around_sshd("", &rule))?;
    refused(&site.line(&["apply", &drops])?, &["drop by slip (its SYN matches)", "`allow` in [defaults]"])?;
    assert_eq!(epoch(&site)?, before, "nothing changed in the kernel");
    let (_, plan) = site.ask_json(&["plan", &drops])?;
    assert_eq!(plan["refusal"]["lockouts"], serde_json::json!([]), "another one's SYN: {plan}");

    // Another stack is none of its own; and a budget that is wide enough may be meant.
    let (code, _, err) = through_ssh(&line(&["block", OTHER_SYN])?)?;
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = through_ssh(&(line(&throttle)? + " --force"))?;
    assert_eq!(code, 0, "{err}");
    sshd.open(&stage.outside, peer)?.echo("slow enough")?;
    assert_eq!(site.ask(&["undo", "2"])?.0, 0);

    let allowed = file(&site, "allowed.toml", &around_sshd(&format!("allow = [\"{peer}\"]"), ""))?;
    assert_eq!(site.ask(&["apply", &allowed])?.0, 0);
    // The other guard knows no other client; this one has nothing to say.
    let (code, _, err) = through_ssh(&line(&block)?)?;
    assert!(code == 2 && err.contains("known-good") && !err.contains("locks out"), "{code}: {err}");
    assert_eq!(through_ssh(&(line(&block)? + " --force"))?.0, 0);
    sshd.open(&stage.outside, peer)?.echo("always allowed")?;
    Ok(())
}
