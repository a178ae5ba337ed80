//! The OpenAPI document, by programs that know nothing else: requests made from its schema, and a client made from it.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use detector_tests::{
    daemon::{Site, answer},
    netns::{may_run, turn},
    python::program,
    stage::{MTU, Stage, policy},
};

use crate::{
    LIMIT, api, assert_filters,
    tls::{ADDRESS, Files, token},
};

/// Requests from the schema, valid and not, for each endpoint: every answer is one that the document names, and looks
/// like it. Two things are left out: following events does not end, and a text that the schema takes is no policy yet.
#[test]
fn every_answer_is_as_the_document_says() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let stage = Stage::new(1, MTU)?;
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let files = Files::make(&site)?;
    let (secret, line) = token(&site, "schemathesis", "operator")?;
    files.write(&[&line], 0o600)?;
    let _daemon = site.start(&["edge0"], &files.arguments())?;
    let mut schemathesis = stage.edge.command(program("schemathesis")?)?;
    schemathesis
        .current_dir(site.files())
        .args(["run", &format!("https://{ADDRESS}/v1/openapi.json"), "--tls-verify", &files.certificate])
        .args(["--header", &format!("Authorization: Bearer {secret}")])
        .args(["--exclude-path", "/v1/events", "--exclude-checks", "positive_data_acceptance"])
        .args(["--max-examples", "30", "--seed", "1", "--generation-database", "none", "--no-color"]);
    let (code, out, err) = answer(&mut schemathesis)?;
    println!("{out}");
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("20 selected / 21 total"), "every endpoint: {out}");
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
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let stage = Stage::new(1, MTU)?;
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
