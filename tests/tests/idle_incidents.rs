//! Incident rules about a service that the policy has no more: said wherever the policy is changed and the rules are listed.

use std::fs;

use anyhow::{Context as _, Result};
use detector_tests::{
    daemon::Site,
    stage::{Stage, policy},
};
use serde_json::json;

#[test]
fn a_rule_without_its_service_is_told() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let loaded = policy("packets = \"1000000/s\"");
    let site = Site::new(&stage.edge, &loaded)?;
    let mut daemon = site.start(&["edge0"], &[])?;
    let block = ["block", "203.0.113.9", "--for", "1h", "--reason", "INC-1"];
    for service in [&["--service", "edge"][..], &[]] {
        let (code, added) = site.ask_json(&[&block, service].concat())?;
        assert_eq!((code, &added["added"][0]["note"]), (0, &json!(null)), "{added}");
    }
    let note = "service edge is not in the policy: has no effect";
    let idle = json!([{ "id": 1, "service": "edge" }]);
    let renamed = site.files().join("renamed.toml");
    let text = loaded.replace("name = \"edge\"", "name = \"shop\"");
    fs::write(&renamed, &text).context("writing a policy")?;
    let renamed = renamed.to_str().context("a path")?;
    let same = site.policy();
    let same = same.to_str().context("a path")?;

    let (code, plan) = site.ask_json(&["plan", renamed])?;
    assert_eq!((code, &plan["idle_incidents"]), (0, &idle), "{plan}");
    let (_, out, _) = site.ask(&["plan", renamed])?;
    assert!(out.contains(&format!("incident rule 1: {note}; `detector undo 1`")), "{out}");
    let (_, plan) = site.ask_json(&["plan", same])?;
    assert_eq!(plan["idle_incidents"], json!([]), "{plan}");
    let (_, out, _) = site.ask(&["rules"])?;
    assert!(!out.contains("no effect"), "{out}");

    let (code, applied) = site.ask_json(&["apply", renamed])?;
    assert_eq!((code, &applied["idle_incidents"]), (0, &idle), "{applied}");
    let (_, rules) = site.ask_json(&["rules"])?;
    let notes: Vec<_> = (0..2).map(|number| &rules["incidents"][number]["note"]).collect();
    assert_eq!(notes, [&json!(note), &json!(null)], "{rules}");
    let (_, out, _) = site.ask(&["rules"])?;
    assert!(out.contains(&format!("incident rule 1: {note}")) && !out.contains("rule 2:"), "{out}");
    let (_, shown) = site.ask_json(&["show", "--effective"])?;
    assert_eq!(shown["incidents"][0]["note"], note, "{shown}");

    // Going back, it has its effect again.
    let (code, out, err) = site.ask(&["apply", same])?;
    assert!(code == 0 && !out.contains("no effect"), "{code}: {out}{err}");
    let (_, rules) = site.ask_json(&["rules"])?;
    assert_eq!(rules["incidents"][0]["note"], json!(null), "{rules}");
    let (code, out, err) = site.ask(&["apply", renamed])?;
    assert!(code == 0 && out.contains(&format!("incident rule 1: {note}")), "{code}: {out}{err}");

    site.write_policy(&text)?;
    assert_eq!(daemon.reload()?, (1, 0), "{}", daemon.log());
    assert!(daemon.log().contains(&format!("incident rule 1: {note}")), "{}", daemon.log());
    Ok(())
}
