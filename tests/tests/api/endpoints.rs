//! Every endpoint, asked as it should be.

use std::{fmt::Write as _, thread};

use anyhow::{Context as _, Result};
use detector_tests::{
    api::Api,
    daemon::Site,
    stage::{Net, Stage, Who, policy},
};
use serde_json::{Value, json};

use crate::{LIMIT, api, assert_filters, flood, request};

#[test]
fn reads_answer_what_the_commands_answer() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let _daemon = site.start(&["edge0"], &[])?;
    assert_filters(&stage, &site)?;
    stage.fence(0)?;
    let api = api(&site);
    let offender = Net::v4(0).source(Who::Offender).to_string();

    let (_, status) = site.status()?;
    let answer = api.get("/v1/status")?;
    assert_eq!((answer.status, &answer.body["services"]), (200, &status["services"]));
    assert_eq!(answer.body["policy"]["epoch"], status["policy"]["epoch"]);
    assert_eq!(api.get("/v1/rules")?.body, site.ask_json(&["rules"])?.1);
    let mut explained = api.get(&format!("/v1/explain/{offender}"))?.body;
    let (_, mut by_command) = site.ask_json(&["explain", &offender])?;
    // Time goes on between the two.
    for explained in [&mut explained, &mut by_command] {
        explained["services"][0]["seen"]["last_refusal"]["ago_ms"] = Value::Null;
    }
    assert_eq!(explained["services"][0]["seen"], by_command["services"][0]["seen"]);
    assert!(explained["services"][0]["seen"]["dropped"].as_u64() > Some(100), "{explained}");

    let sources = api.get("/v1/sources?rows=1")?.body;
    assert_eq!(sources["top"][0]["source"], Net::v4(0).prefix(Who::Offender));
    assert_eq!(sources["top"][0]["packets_per_s"], Value::Null);
    let running = flood(&stage)?;
    let sources = api.get("/v1/sources?rows=1&interval_s=1")?.body;
    assert!(sources["top"][0]["packets_per_s"].as_u64() > Some(0), "{sources}");
    running.stop()?;

    let names = api.get("/v1/policy")?.body;
    assert_eq!((&names["services"], &names["epoch"]), (&json!(["edge"]), &json!(1)), "{names}");
    assert_eq!(api.get("/v1/schema")?.body["title"], detector_user::policy::json_schema()["title"]);
    assert_eq!(api.get("/v1/version")?.body["version"], env!("CARGO_PKG_VERSION"));
    let document = api.get("/v1/openapi.json")?.body;
    assert_eq!(document, serde_json::to_value(detector_user::api::document())?);
    Ok(())
}

#[test]
fn changes_are_made_and_logged_with_who_made_them() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let daemon = site.start(&["edge0"], &[])?;
    let api = api(&site);

    let checked = api.post("/v1/check", Some(&request()))?;
    assert_eq!((checked.status, &checked.body["valid"]), (200, &json!(true)), "{}", checked.body);
    let wrong = api.post("/v1/check", Some(&json!({ "text": "version = 2\n", "name": "mine" })))?;
    assert_eq!((wrong.status, &wrong.body["valid"]), (200, &json!(false)));
    assert_eq!(
        (&wrong.body["errors"][0]["file"], &wrong.body["errors"][0]["line"]),
        (&json!("mine"), &json!(1))
    );
    assert_eq!(site.status()?.1["policy"]["epoch"], 1, "check changes nothing");

    let with_rule = policy(LIMIT)
        + "[[rule]]\nname = \"partner\"\nsource_file = \"partner.txt\"\naction = \"drop\"\nreason = \"x\"\n";
    let files = json!({ "partner.txt": "198.51.100.0/24\n203.0.113.7\n" });
    let trial = json!({ "text": with_rule, "source_files": files, "confirm_s": 3600, "reason": "a wave" });
    let applied = api.post("/v1/apply", Some(&trial))?;
    assert_eq!((applied.status, &applied.body["source_prefixes"]), (200, &json!(2)), "{}", applied.body);
    assert_eq!(api.get("/v1/rules")?.body["rules"][0]["name"], "partner");
    let second = api.post("/v1/apply", Some(&request()))?;
    assert_eq!((second.status, &second.body["exit_code"]), (409, &json!(1)), "{}", second.body);
    let back = api.post("/v1/rollback", Some(&json!({ "reason": "enough" })))?;
    assert_eq!((back.status, &back.body["taken_back"], &back.body["version"]), (200, &json!(2), &json!(1)));
    assert_eq!(api.get("/v1/rules")?.body["rules"], json!([]));

    assert_eq!(api.post("/v1/apply", Some(&trial))?.status, 200);
    let confirmed = api.post("/v1/confirm", None)?;
    assert_eq!((confirmed.status, &confirmed.body["confirmed"]), (200, &json!(true)));
    assert_eq!(api.post("/v1/confirm", None)?.status, 409, "once");
    // The file is not read from this machine, though it is there.
    let missing = json!({ "text": with_rule.replace("partner.txt", "/etc/hostname") });
    let refused = api.post("/v1/apply", Some(&missing))?;
    assert_eq!((refused.status, &refused.body["exit_code"]), (422, &json!(2)));
    assert!(
        refused.body["diagnostics"][0]["message"].to_string().contains("it was not sent"),
        "{}",
        refused.body
    );

    // An incident rule changes what packets are judged by, not the policy.
    let block = json!({ "action": "block", "targets": ["198.51.100.7", "198.51.100.9"], "for_s": 60, "reason": "INC-1" });
    assert_eq!(api.post("/v1/incidents", Some(&block))?.status, 200);
    let metrics = site.metrics()?;
    let rules = (
        metrics.sum("detector_incident_rules", &[]),
        metrics.0.contains("detector_incident_drops_total{id=\"1\",action=\"block\"} 0"),
    );
    assert_eq!(rules, (1, true), "{}", metrics.0);
    let epoch = site.status()?.1["policy"]["epoch"].as_u64();
    assert_eq!(Some(metrics.sum("detector_policy_generation", &[])), epoch);
    let audit = api.get("/v1/audit?limit=2")?.body;
    let refused = &audit["entries"][1];
    assert_eq!(
        (&refused["action"], &refused["origin"], &refused["target"]),
        (&json!("apply"), &json!("api"), &json!("api.toml")),
        "{audit}"
    );
    assert!(refused["result"].to_string().contains("it was not sent"), "{audit}");

    let log = daemon.log();
    let line = |part: &str| {
        log.lines().find(|line| line.contains(part)).with_context(|| format!("no {part}: {log}"))
    };
    let change = line("reason=\"a wave\"")?;
    assert!(line("change=block")?.contains("target=\"198.51.100.7/32 and 1 more\""), "{log}");
    for part in [
        "change=apply",
        "target=\"api.toml\"",
        "root (uid 0)",
        "from=\"process ",
        "before=1",
        "after=2",
        "role=\"operator\"",
    ] {
        assert!(change.contains(part), "{part}: {change}");
    }
    assert!(line("change=rollback")?.contains("before=2"));
    assert!(line("refused over the API change=confirm")?.contains("nothing waits"));
    Ok(())
}

#[test]
fn others_are_answered_while_a_million_prefixes_are_applied() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let mut prefixes = String::new();
    for number in 0..1_000_000_u32 {
        // Every other /32, so that none is merged with its neighbour.
        let address = std::net::Ipv4Addr::from(0x0b00_0000 + 2 * number);
        writeln!(prefixes, "{address}").context("writing to a text")?;
    }
    let text = policy(LIMIT) + "[[rule]]\nname = \"many\"\nsource_file = \"many\"\naction = \"drop\"\n";
    let body = json!({ "text": text, "source_files": { "many": prefixes } });
    let api = api(&site);
    let applying = {
        let api: Api = api.clone();
        thread::spawn(move || api.post("/v1/apply", Some(&body)))
    };
    let mut answers = 0;
    while !applying.is_finished() {
        assert_eq!(api.get("/v1/version")?.status, 200);
        assert!(site.metrics()?.0.ends_with("# EOF\n"));
        answers += 1;
    }
    let applied = applying.join().expect("the thread ends")?;
    assert_eq!(
        (applied.status, &applied.body["source_prefixes"]),
        (200, &json!(1_000_000)),
        "{}",
        applied.body
    );
    println!("{answers} answers meanwhile");
    assert!(answers > 5, "{answers} answers while a million prefixes were applied");
    Ok(())
}
