//! How much of the traffic a change may drop.

use anyhow::Result;
use detector_tests::{
    daemon::Site,
    process::{PATIENCE, wait_until},
    stage::{Stage, Who, policy},
};

use crate::{NET, WIDE, epoch, file, rule, send_from_both, sender, wait_for_look};

#[test]
fn a_change_that_drops_too_much_is_refused_with_the_numbers() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(WIDE))?;
    // That speaks for the rules of its own policy about nearly everyone, and for nothing else.
    let mut daemon = site.start(&["edge0"], &["--force"])?;
    wait_for_look(&site)?;
    let sent = send_from_both(&stage, 100, 400)?;
    let text = policy(WIDE) + &rule("slip", Who::Client, "action = \"drop\"");
    let new = file(&site, "new.toml", &text)?;
    let before = epoch(&site)?;
    let (code, out, err) = site.ask(&["apply", &new])?;
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert_told(&err, sent, "limit each → drop by slip");
    let (code, failure) = site.ask_json(&["apply", &new])?;
    assert_eq!((code, &failure["exit_code"]), (2, &2.into()), "{failure}");
    assert_eq!(epoch(&site)?, before, "nothing changed in the kernel");

    site.write_policy(&text)?;
    assert_eq!(daemon.reload()?, (0, 1), "a reload is refused, too: {}", daemon.log());
    assert_told(&daemon.log(), sent, "limit each → drop by slip");
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

/// What it says of a change that would drop what the client sends.
#[track_caller]
fn assert_told(err: &str, (client, offender): (u64, u64), victim: &str) {
    let share = format!("{:.1} % of the packets", client as f64 / (client + offender) as f64 * 100.0);
    let victim = format!("{} at edge: {victim}", NET.prefix(Who::Client));
    for part in ["newly drops", &share, "at most 5.0 %", "1 sources start to be dropped", &victim, "--force"]
    {
        assert!(err.contains(part), "{part:?} is missing in: {err}");
    }
}

/// Sends from the client until packets of it are dropped, each of them.
fn assert_dropped(stage: &Stage, site: &Site<'_>) -> Result<()> {
    let before = site.source(&NET.prefix(Who::Client))?;
    let load = sender(stage, Who::Client, 100)?;
    wait_until("ten have left", PATIENCE, || Ok((load.packets() >= 10).then_some(())))?;
    let sent = load.stop()?;
    stage.fence(0)?;
    let after = site.source(&NET.prefix(Who::Client))?;
    assert_eq!(
        (after.packets - before.packets, after.dropped - before.dropped),
        (sent.packets, sent.packets),
        "{before:?}, {after:?}"
    );
    Ok(())
}

#[test]
fn a_rollback_that_drops_too_much_is_refused_with_the_numbers() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &(policy(WIDE) + &rule("slip", Who::Client, "action = \"drop\"")))?;
    // Whatever was forced before, by whomever.
    let _daemon = site.start(&["edge0"], &["--force"])?;
    let open = file(&site, "open.toml", &policy(WIDE))?;
    assert_eq!(site.ask(&["apply", &open])?.0, 0);
    wait_for_look(&site)?;
    let sent = send_from_both(&stage, 100, 400)?;
    let before = epoch(&site)?;
    for arguments in [&["rollback"][..], &["rollback", "1"]] {
        let (code, out, err) = site.ask(arguments)?;
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert_told(&err, sent, "limit each → drop by slip");
        assert_eq!(epoch(&site)?, before, "nothing changed in the kernel");
    }
    let (code, out, err) = site.ask(&["rollback", "--force"])?;
    assert!(code == 0 && out.contains("version 3 = version 1 again"), "{code}: {out}{err}");
    assert_dropped(&stage, &site)
}

#[test]
fn an_undo_that_drops_too_much_is_refused_with_the_numbers() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &(policy(WIDE) + &rule("slip", Who::Client, "action = \"drop\"")))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let client = NET.source(Who::Client).to_string();
    let (code, out, err) = site.ask(&["allow", &client, "--for", "1h", "--reason", "INC-4711: partner"])?;
    assert_eq!(code, 0, "{out}{err}");
    wait_for_look(&site)?;
    let sent = send_from_both(&stage, 100, 400)?;
    let before = epoch(&site)?;
    let (code, out, err) = site.ask(&["undo", "1"])?;
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("not undone: without the rules the policy"), "{err}");
    assert_told(&err, sent, "allow by incident 1 → drop by slip");
    assert_eq!(epoch(&site)?, before, "nothing changed in the kernel");
    let (_, rules) = site.ask_json(&["rules"])?;
    assert_eq!(rules["incidents"][0]["id"], 1, "{rules}");
    let (code, out, err) = site.ask(&["undo", "1", "--force"])?;
    assert!(code == 0 && out.contains("undone: 1"), "{code}: {out}{err}");
    assert_dropped(&stage, &site)
}

/// A rule stays when a trial is taken back, and so it is asked what it does beside the policy before, too.
#[test]
fn a_rule_is_asked_beside_the_policy_before_a_trial() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(WIDE))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let client = NET.source(Who::Client);
    let allowed = policy(WIDE).replacen(
        "version = 1\n",
        &format!("version = 1\n[defaults]\nallow = [\"{client}\"]\n"),
        1,
    );
    let trial = file(&site, "trial.toml", &allowed)?;
    let load = sender(&stage, Who::Client, 100)?;
    let prefix = format!("{client}/31");
    let block = ["block", &prefix, "--for", "1h", "--reason", "INC-4711: scraper", "--sample", "2s"];
    assert_eq!(site.ask(&["apply", &trial])?.0, 0);
    let (code, out, err) = site.ask(&block)?;
    assert_eq!(code, 0, "it is allowed: {out}{err}");
    assert_eq!(site.ask(&["undo", "1"])?.0, 0);
    assert_eq!(site.ask(&["apply", &site.policy().to_string_lossy(), "--force"])?.0, 0);
    assert_eq!(site.ask(&["apply", &trial, "--confirm", "1h"])?.0, 0);
    let (code, out, err) = site.ask(&block)?;
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("newly drops 100.0 %"), "{err}");
    load.stop()?;
    Ok(())
}
