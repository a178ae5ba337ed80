//! Commands that change something take turns: who comes second waits for the first, and is told when that takes too long.

use std::{fs, process::Stdio};

use anyhow::{Context as _, Result};
use detector_tests::{
    daemon::Site,
    process::{PATIENCE, Running, wait_until},
    stage::{Net, Stage, Who, edge_interface, policy},
    traffic::{Pace, Sender},
};

const NET: Net = Net::v4(0);

/// A policy on trial, and a source that is seen.
fn on_trial<'a>(site: &Site<'a>, stage: &'a Stage) -> Result<()> {
    let from = (NET.source(Who::Client), 5555).into();
    let sender = Sender::start(&stage.outside, from, NET.service(), Pace::per_second(5))?;
    wait_until("the source is seen", PATIENCE, || {
        Ok((site.source(&NET.prefix(Who::Client))?.packets > 0).then_some(()))
    })?;
    sender.stop()?;
    let (code, out, err) = site.ask(&["apply", &site.policy().to_string_lossy(), "--confirm", "1h"])?;
    assert_eq!(code, 0, "{out}{err}");
    Ok(())
}

/// A block that first looks at the traffic for a time, with its turn taken.
fn looking(site: &Site<'_>, time: &str) -> Result<Running> {
    let block = ["block", "198.18.0.0/24", "--for", "1h", "--reason", "INC-4711", "--sample", time];
    let looking = Running::start(site.command(&block)?.stdout(Stdio::null()).stderr(Stdio::null()))?;
    // KIND ADVISORY TYPE PROCESS …
    let process = looking.id().to_string();
    wait_until("it has its turn", PATIENCE, || {
        let locks = fs::read_to_string("/proc/locks").context("reading /proc/locks")?;
        let mut holders = locks.lines().filter(|line| line.contains(" FLOCK "));
        Ok(holders.any(|line| line.split_whitespace().nth(4) == Some(&process)).then_some(()))
    })?;
    Ok(looking)
}

fn is_on_trial(site: &Site<'_>) -> Result<bool> {
    Ok(site.status()?.1["policy"]["confirm_in_s"].is_u64())
}

#[test]
fn a_confirmation_waits_for_who_looks_at_the_traffic() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy("packets = \"1000/s\""))?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    on_trial(&site, &stage)?;
    let mut looking = looking(&site, "4s")?;
    let (code, confirmed) = site.ask_json(&["confirm"])?;
    assert_eq!((code, &confirmed["confirmed"]), (0, &true.into()), "{confirmed}");
    assert!(looking.end(PATIENCE)?.success(), "the block is made, too");
    assert!(!is_on_trial(&site)?);
    let (_, audit) = site.ask_json(&["history", "--audit", "--limit", "2"])?;
    let actions = [0, 1].map(|place| &audit["entries"][place]["action"]);
    assert_eq!(actions, ["confirm", "block"], "one after the other: {audit}");
    Ok(())
}

#[test]
fn a_confirmation_that_waited_too_long_says_so_and_can_be_tried_again() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy("packets = \"1000/s\""))?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    on_trial(&site, &stage)?;
    let mut looking = looking(&site, "1min")?;
    let (code, out, err) = site.ask(&["confirm"])?;
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("is changing the policy") && err.contains("try again"), "{err}");
    assert!(looking.ended()?.is_none(), "it did not wait for the whole look");
    assert!(is_on_trial(&site)?, "nothing was confirmed");
    // A turn ends with who had it, however that ends.
    looking.signal(libc::SIGKILL)?;
    looking.end(PATIENCE)?;
    let (code, confirmed) = site.ask_json(&["confirm"])?;
    assert_eq!((code, &confirmed["confirmed"]), (0, &true.into()), "{confirmed}");
    assert!(!is_on_trial(&site)?);
    Ok(())
}
