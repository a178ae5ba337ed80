//! The OpenAPI document, by programs that know nothing else: requests made from its schema, and a client made from it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use detector_tests::{
    daemon::{Site, answer},
    python::program,
    stage::{Stage, policy},
};

use crate::{
    LIMIT, api, assert_filters,
    tls::{ADDRESS, Files, token},
};

/// Endpoints that change something. Each row is asked by another caller, since one may ask for so many changes and no more. With who
/// reads they are six, since one address may have eight connections, and who asks may open the next one before the last is closed.
const CHANGES: [&[&str]; 5] = [
    &["apply"],
    &["incidents"],
    &["confirm", "rollback"],
    &["undo"],
    &["fleets/orders", "fleets/undo", "fleets/stop", "fleets/resume", "hints", "hints/{id}"],
];

/// Requests from the schema, valid and not, for each endpoint: every answer is one that the document names, and looks
/// like it. Two things are left out: following events and members does not end, and a text that the schema takes is no policy yet.
#[test]
fn every_answer_is_as_the_document_says() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let files = Files::make(&site)?;
    let callers = (0..=CHANGES.len()).map(|number| format!("caller{number}"));
    let tokens = callers.map(|name| token(&site, &name, "operator")).collect::<Result<Vec<_>>>()?;
    files.write(&tokens.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>(), 0o600)?;
    let _daemon = site.start(&["edge0"], &files.arguments())?;
    let schemathesis = |secret: &str, arguments: &[&str]| -> Result<Command> {
        let mut command = stage.edge.command(program("schemathesis")?)?;
        command
            .current_dir(site.files())
            .args(["run", &format!("https://{ADDRESS}/v1/openapi.json"), "--tls-verify", &files.certificate])
            .args(["--header", &format!("Authorization: Bearer {secret}")])
            .args(["--exclude-checks", "positive_data_acceptance", "--request-timeout", "60"])
            .args(["--seed", "1", "--generation-database", "none", "--no-color"])
            .args(arguments);
        Ok(command)
    };
    let mut parts = Vec::new();
    let others = format!(
        "^/v1/(events|fleets/members|{})$",
        CHANGES.concat().join("|").replace('{', "\\{").replace('}', "\\}")
    );
    parts.push(schemathesis(&tokens[0].0, &["--max-examples", "30", "--exclude-path-regex", &others])?);
    for (names, (secret, _)) in CHANGES.iter().zip(&tokens[1..]) {
        let mut part = schemathesis(secret, &["--max-examples", "10", "--rate-limit", "1/s"])?;
        // Each boundary of each field takes minutes where changes may come once a second; what is drawn at random has to do.
        if names.iter().any(|name| name.starts_with("fleets") || name.starts_with("hints")) {
            part.args(["--phases", "examples,fuzzing"]);
        }
        for name in *names {
            part.args(["--include-path", &format!("/v1/{name}")]);
        }
        parts.push(part);
    }
    let answers = std::thread::scope(|scope| {
        let parts: Vec<_> = parts.iter_mut().map(|part| scope.spawn(|| answer(part))).collect();
        parts.into_iter().map(|part| part.join().expect("it does not panic")).collect::<Result<Vec<_>>>()
    })?;
    let mut selected = 0;
    for (code, out, err) in &answers {
        println!("{out}");
        assert_eq!(*code, 0, "{out}{err}");
        assert!(!out.contains("429 Too Many Requests"), "what is behind that was not reached: {out}");
        let count = out.split("Operations:").nth(1).and_then(|rest| rest.split_whitespace().next());
        let count: usize = count.context("how many were selected")?.parse()?;
        selected += count;
        assert!(out.contains("selected / 33 total"), "{out}");
    }
    assert_eq!(selected, 31, "every endpoint but those that are followed");
    undo_all(&site)?;
    assert_filters(&stage, &site)
}

/// Whatever was blocked and throttled at random.
fn undo_all(site: &Site<'_>) -> Result<()> {
    let (_, rules) = site.ask_json(&["rules"])?;
    let ids =
        rules["incidents"].as_array().context("incident rules")?.iter().map(|rule| rule["id"].to_string());
    let ids: Vec<_> = ids.collect();
    if !ids.is_empty() {
        let arguments: Vec<_> = ["undo"].into_iter().chain(ids.iter().map(String::as_str)).collect();
        let (code, out, err) = site.ask(&arguments)?;
        assert_eq!(code, 0, "{out}{err}");
    }
    Ok(())
}

#[test]
fn a_generated_client_can_use_it() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let document = site.files().join("openapi.json");
    fs::write(&document, api(&site).get("/v1/openapi.json")?.body.to_string())
        .context("writing the document")?;
    let mut generate = stage.edge.command(program("openapi-python-client")?)?;
    generate
        .args(["generate", "--meta", "none", "--path"])
        .arg(&document)
        .arg("--output-path")
        .arg(site.files().join("detector_client"));
    let (code, out, err) = answer(&mut generate)?;
    assert_eq!(code, 0, "{out}{err}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/client.py");
    let mut python = stage.edge.command(program("python")?)?;
    python.env("PYTHONPATH", site.files()).arg(script).arg(site.api()).arg(site.policy());
    let (code, out, err) = answer(&mut python)?;
    assert_eq!((code, out.trim()), (0, "done"), "{err}");
    Ok(())
}
