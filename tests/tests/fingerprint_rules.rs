//! Rules about fingerprints, in the policy and by hand: taken, listed, compared and taken back; over the API too.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use detector_tests::{
    api::Api,
    daemon::Site,
    stage::{Stage, policy},
};
use serde_json::{Value, json};

const JA4: &str = "t13d1516h2_8daaf6152771_*";
const SYN: &str = "4:64:*:*:*,*:*:*:*";

/// A policy with rules about fingerprints.
fn with_rules() -> String {
    policy("packets = \"1000000/s\"\nhandshakes = \"100/s\"")
        + &format!(
            "[profile.library]\nhandshakes = \"10/s\"\nconnections = \"5/s\"\n\
             [[rule]]\nname = \"stack\"\nsyn = \"{SYN}\"\naction.limit = \"library\"\n\
             [[rule]]\nname = \"library\"\nja4 = [\"{JA4}\", \"t12*_*_*\"]\nsyn = \"{SYN}\"\n\
             action = {{ limit = \"library\", shared = true }}\n"
        )
}

/// The answer to a command that is done.
fn done(site: &Site<'_>, arguments: &[&str]) -> Result<Value> {
    let (code, answer) = site.ask_json(arguments)?;
    ensure!(code == 0, "{arguments:?} exits with {code}: {answer}");
    Ok(answer)
}

#[test]
fn rules_of_a_policy_are_told_with_their_patterns_and_budgets() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy("packets = \"1000000/s\"\nhandshakes = \"100/s\""))?;
    let daemon = site.start(&["edge0"], &[])?;
    let path = site.files().join("rules.toml");
    fs::write(&path, with_rules()).context("writing a policy")?;
    let path = path.to_str().context("a path")?;

    let plan = done(&site, &["plan", path])?;
    let changes = plan["difference"]["changes"].as_array().context("changes")?;
    let rule = changes.iter().find(|change| change["kind"] == "rule" && change["name"] == "library");
    let attributes = &rule.context("the rule")?["attributes"];
    let after = |name: &str| {
        let mut all = attributes.as_array().into_iter().flatten();
        all.find(|attribute| attribute["name"] == name).map(|attribute| attribute["after"].clone())
    };
    assert_eq!(after("ja4"), Some(json!(format!("{JA4} t12*_*_*"))), "{attributes}");
    assert_eq!((after("syn"), after("action")), (Some(json!(SYN)), Some(json!("limit library shared"))));

    done(&site, &["apply", path])?;
    let rules = done(&site, &["rules"])?;
    assert_eq!(
        [&rules["rules"][0]["fingerprints"], &rules["rules"][1]["fingerprints"]],
        [&json!({ "syn": [SYN] }), &json!({ "ja4": [JA4, "t12*_*_*"], "syn": [SYN] })],
        "{rules}"
    );
    let shown = done(&site, &["show", "--effective"])?;
    let budgets = |number: usize| {
        let budgets = shown["rules"][number]["budgets"].as_array().into_iter().flatten();
        let told = budgets.map(|budget| format!("{} {}", budget["of"], budget["budget"]).replace('"', ""));
        told.collect::<Vec<_>>()
    };
    assert_eq!(
        (budgets(0), budgets(1)),
        (vec!["source connections".to_owned()], vec!["shared handshakes".to_owned()])
    );
    let (_, out, _) = site.ask(&["rules"])?;
    assert!(out.contains(&format!("syn:{SYN}")) && out.contains("limit library shared"), "{out}");
    // The same again is no change.
    assert_eq!(done(&site, &["plan", path])?["difference"]["changes"], json!([]));
    daemon.end(libc::SIGTERM)?;
    Ok(())
}

#[test]
fn incident_rules_take_patterns_as_targets() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &with_rules())?;
    let daemon = site.start(&["edge0"], &[])?;
    let (ja4, pair) = (format!("ja4:{JA4}"), format!("ja4:t12*_*_*+syn:{SYN}"));
    let how = ["--for", "1h", "--reason", "INC-4712"];

    let throttle = ["throttle", &ja4, "--handshakes", "20/s", "--shared"];
    let added = done(&site, &[&throttle[..], &how].concat())?;
    let rule = &added["added"][0];
    assert_eq!(
        (&rule["action"], &rule["targets"], &rule["target_count"]),
        (&json!("throttle handshakes 20/s burst 20 shared"), &json!([ja4]), &json!(1)),
        "{added}"
    );
    let added = done(&site, &[&["block", &pair, "--service", "edge"][..], &how].concat())?;
    assert_eq!(added["added"][0]["targets"], json!([pair]), "{added}");
    let file = site.files().join("targets");
    fs::write(&file, "ja4:q13*_*_* # QUIC\nja4:t10*_*_*\n").context("writing targets")?;
    let file = file.to_str().context("a path")?;
    let added = done(&site, &[&["allow", "--targets", file][..], &how].concat())?;
    assert_eq!(added["added"][0]["target_count"], 2, "{added}");
    let warning = added["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.starts_with("ja4:q13*_*_* has no effect"), "{added}");

    // They stay through another policy and another daemon.
    site.write_policy(&(with_rules() + "# another text\n"))?;
    let policy = site.policy();
    done(&site, &["apply", policy.to_str().context("a path")?])?;
    daemon.end(libc::SIGTERM)?;
    let daemon = site.start(&["edge0"], &[])?;
    let rules = done(&site, &["rules"])?;
    let targets: Vec<_> = (0..3).map(|number| &rules["incidents"][number]["targets"][0]).collect();
    assert_eq!(targets, [&json!(ja4), &json!(pair), &json!("ja4:q13*_*_*")], "{rules}");
    let (_, history) = site.ask_json(&["history", "--audit"])?;
    assert!(history.to_string().contains(&ja4), "{history}");

    for (arguments, said) in [
        (&["block", &ja4, "192.0.2.1"][..], "both sources and fingerprints"),
        (&["block", &ja4, "syn:4:*:*:*:*:*:*:*"], "join them as ja4:PATTERN+syn:PATTERN"),
        (&["throttle", &ja4, "--rate", "5/s"], "`rate` does not limit fingerprints"),
        (&["throttle", &ja4, "--connections", "5/s"], "by `handshakes`"),
        (&["throttle", "syn:4:*:*:*:*:*:*:*", "--handshakes", "5/s"], "by `connections`"),
        (&["throttle", "192.0.2.1", "--bytes", "5kB/s", "--burst", "5"], "the rate that it belongs to"),
        (&["throttle", "192.0.2.1", "--rate", "5/s", "--shared"], "sources share no budget"),
        (&["block", "ja4:T13D1516H2_8DAAF6152771_*"], "did you mean \"t13d1516h2_8daaf6152771_*\"?"),
        (&["block", "ja4:*_*_*"], "a pattern of every JA4"),
    ] {
        let (code, out, err) = site.ask(&[arguments, &how].concat())?;
        assert!(code == 2 && err.contains(said), "{arguments:?}: {code} {out}{err}");
    }

    let api = Api::new(site.api());
    let request = |targets: Value, shared: bool| {
        let request = json!({
            "action": "throttle", "targets": targets, "connections": "3/s", "shared": shared, "for_s": 60, "reason": "INC-4713",
        });
        api.post("/v1/incidents", Some(&request))
    };
    let answer = request(json!(["syn:6:*:*:*:*:*:*:*"]), true)?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["added"][0]["action"], "throttle connections 3/s burst 3 shared");
    for (targets, said) in [
        (json!(["192.0.2.1"]), "sources share no budget"),
        (json!(["ja4:t13*_*_*"]), "by `handshakes`"),
        (json!(["syn:6:*:*:*:*:*:*:*", "::1"]), "both sources and fingerprints"),
    ] {
        let answer = request(targets, true)?;
        assert!(answer.status == 422 && answer.body.to_string().contains(said), "{}", answer.body);
    }

    done(&site, &["undo", "1", "2", "3", "4"])?;
    assert_eq!(done(&site, &["rules"])?["incidents"], json!([]));
    daemon.end(libc::SIGTERM)?;
    Ok(())
}
