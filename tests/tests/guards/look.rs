//! Looking at the traffic before a change: who has not yet looked does, and keeps nobody from the policy meanwhile.

use std::{fs, process::Stdio, thread};

use anyhow::{Context as _, Result, anyhow};
use detector_common::limits::INCIDENT_RULES_MAX;
use detector_tests::{
    api::Api,
    daemon::Site,
    process::{PATIENCE, Running, wait_until},
    stage::{Stage, Who, policy},
};
use serde_json::json;

use crate::{NET, WIDE, epoch, file, rule, sender};

#[test]
fn a_daemon_without_a_look_takes_one() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(WIDE))?;
    // Nothing can be kept there.
    fs::write(site.run_directory(), "").context("making a file")?;
    let mut daemon = site.start(&["edge0"], &[])?;
    let senders = (sender(&stage, Who::Client, 100)?, sender(&stage, Who::Offender, 400)?);
    wait_until("packets are counted", PATIENCE, || {
        Ok((site.source(&NET.prefix(Who::Client))?.packets > 0).then_some(()))
    })?;
    let before = epoch(&site)?;
    let text = policy(WIDE) + &rule("slip", Who::Client, "action = \"drop\"");
    let api = Api::new(site.api());
    let refused = api.post("/v1/apply", Some(&json!({ "text": text })))?;
    let said = refused.body["error"].to_string();
    assert!(refused.status == 422 && said.contains("newly drops"), "{}: {said}", refused.status);
    site.write_policy(&text)?;
    assert_eq!(daemon.reload()?, (0, 1), "{}", daemon.log());
    for part in ["the change waits 2 s to look at the traffic", "newly drops"] {
        assert!(daemon.log().contains(part), "{part:?} is missing in: {}", daemon.log());
    }
    assert_eq!(epoch(&site)?, before, "nothing changed in the kernel");
    senders.0.stop()?;
    senders.1.stop()?;
    Ok(())
}

#[test]
fn who_samples_keeps_nobody_from_the_policy() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(WIDE))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let senders = (sender(&stage, Who::Client, 100)?, sender(&stage, Who::Offender, 400)?);
    wait_until("packets are counted", PATIENCE, || {
        Ok((site.source(&NET.prefix(Who::Client))?.packets > 0).then_some(()))
    })?;
    let text = policy(WIDE) + &rule("slip", Who::Client, "action = \"drop\"");
    let new = file(&site, "new.toml", &text)?;
    let (asked, made, meanwhile) = thread::scope(|scope| -> Result<_> {
        let asked = scope.spawn(|| site.ask(&["apply", &new, "--sample", "8s"]));
        let (mut made, mut meanwhile) = (0, 0);
        while !asked.is_finished() && made < INCIDENT_RULES_MAX {
            let (code, out, err) =
                site.ask(&["block", "203.0.113.9", "--for", "1h", "--reason", "meanwhile"])?;
            assert_eq!(code, 0, "{out}{err}");
            made += 1;
            meanwhile += usize::from(!asked.is_finished());
        }
        Ok((asked.join().map_err(|_| anyhow!("the thread of apply panicked"))?, made, meanwhile))
    })?;
    let (code, _, err) = asked?;
    assert!(code == 2 && err.contains("newly drops"), "{code}: {err}");
    // One may have come before it; of those that wait for it, one ends after it.
    assert!(meanwhile >= 2, "{made} changes, {meanwhile} of them while it looked");
    let (_, rules) = site.ask_json(&["rules"])?;
    assert_eq!(rules["incidents"].as_array().map(Vec::len), Some(made), "{rules}");
    senders.0.stop()?;
    senders.1.stop()?;
    Ok(())
}

/// A command that looks at the traffic for ten seconds, and has begun to; what it prints on standard error is in the file.
fn looking(site: &Site<'_>, arguments: &[&str]) -> Result<(Running, std::path::PathBuf)> {
    let printed = site.files().join("looking.log");
    let file = fs::File::create(&printed).context("making a file")?;
    let look = [arguments, &["--sample", "10s", "--max-drop", "100%"]].concat();
    let mut looking = Running::start(site.command(&look)?.stdout(Stdio::null()).stderr(file))?;
    wait_until("it looks at the traffic", PATIENCE, || Ok(looking.is_asleep()?.then_some(())))?;
    Ok((looking, printed))
}

#[test]
fn a_rollback_does_not_go_back_from_what_was_applied_meanwhile() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &(policy(WIDE) + &rule("slip", Who::Client, "action = \"drop\"")))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let load = sender(&stage, Who::Client, 100)?;
    wait_until("packets are counted", PATIENCE, || {
        Ok((site.source(&NET.prefix(Who::Client))?.packets > 0).then_some(()))
    })?;
    assert_eq!(site.ask(&["apply", &file(&site, "open.toml", &policy(WIDE))?])?.0, 0);
    let (mut rollback, printed) = looking(&site, &["rollback"])?;
    let mend = policy(WIDE).replace("100000/s", "90000/s");
    assert_eq!(site.ask(&["apply", &file(&site, "mend.toml", &mend)?, "--force"])?.0, 0);
    let mended = epoch(&site)?;
    assert_eq!(rollback.end(PATIENCE)?.code(), Some(1));
    let said = fs::read_to_string(printed).context("what it said")?;
    assert!(said.contains("another policy was applied meanwhile, version 3"), "{said}");
    assert_eq!(epoch(&site)?, mended, "the mend is in force");
    load.stop()?;
    Ok(())
}

#[test]
fn a_change_goes_into_the_program_that_is_loaded_when_it_is_made() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(WIDE))?;
    let daemon = site.start(&["edge0"], &[])?;
    let load = sender(&stage, Who::Client, 100)?;
    wait_until("packets are counted", PATIENCE, || {
        Ok((site.source(&NET.prefix(Who::Client))?.packets > 0).then_some(()))
    })?;
    let slip = file(&site, "slip.toml", &(policy(WIDE) + &rule("slip", Who::Client, "action = \"drop\"")))?;
    let (mut apply, printed) = looking(&site, &["apply", &slip])?;
    daemon.end(libc::SIGTERM)?;
    let _daemon = site.start(&["edge0"], &[])?;
    let status = apply.end(PATIENCE)?;
    assert!(status.success(), "{}", fs::read_to_string(printed)?);
    let (_, rules) = site.ask_json(&["rules"])?;
    assert_eq!(rules["rules"][0]["name"], "slip", "{rules}");
    load.stop()?;
    Ok(())
}
