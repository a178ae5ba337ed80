//! How much of the traffic a change may drop.

use anyhow::Result;
use detector_tests::{
    daemon::Site,
    netns::{may_run, turn},
    stage::{MTU, Stage, Who, policy},
};

use crate::{NET, WIDE, epoch, file, rule, send_from_both, wait_for_look};

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
