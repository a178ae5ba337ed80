//! Commands that change something take turns: who comes second waits for the first, and is told when that takes too long.

use std::process::Stdio;

use anyhow::Result;
use detector_tests::{
    daemon::Site,
    process::{PATIENCE, Running, wait_until},
    stage::{Stage, edge_interface, policy},
};
use detector_user::kernel::pins::Pins;

fn apply_on_trial(site: &Site<'_>) -> Result<()> {
    let (code, out, err) = site.ask(&["apply", &site.policy().to_string_lossy(), "--confirm", "1h"])?;
    assert_eq!(code, 0, "{out}{err}");
    assert!(is_on_trial(site)?);
    Ok(())
}

fn is_on_trial(site: &Site<'_>) -> Result<bool> {
    Ok(site.status()?.1["policy"]["confirm_in_s"].is_u64())
}

#[test]
fn a_confirmation_waits_for_its_turn() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy("packets = \"1000/s\""))?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    apply_on_trial(&site)?;
    let turn = Pins::new(site.pins()).lock_policy()?;
    let mut confirm =
        Running::start(site.command(&["confirm"])?.stdout(Stdio::null()).stderr(Stdio::null()))?;
    wait_until("it waits", PATIENCE, || Ok(confirm.is_asleep()?.then_some(())))?;
    assert!(is_on_trial(&site)?);
    drop(turn);
    assert!(confirm.end(PATIENCE)?.success());
    assert!(!is_on_trial(&site)?);
    Ok(())
}

#[test]
fn a_confirmation_that_waited_too_long_says_so_and_can_be_tried_again() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy("packets = \"1000/s\""))?;
    let _daemon = site.start(&[&edge_interface(0)], &[])?;
    apply_on_trial(&site)?;
    let turn = Pins::new(site.pins()).lock_policy()?;
    let (code, out, err) = site.ask(&["confirm"])?;
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("is changing the policy") && err.contains("try again"), "{err}");
    assert!(is_on_trial(&site)?, "nothing was confirmed");
    drop(turn);
    let (code, confirmed) = site.ask_json(&["confirm"])?;
    assert_eq!((code, &confirmed["confirmed"]), (0, &true.into()), "{confirmed}");
    assert!(!is_on_trial(&site)?);
    Ok(())
}
