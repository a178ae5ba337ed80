//! Hook and webhook: told of what matters, once, and no reason for anything else to wait.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    sync::mpsc,
};

use anyhow::{Context as _, Result};
use detector_tests::{
    daemon::Site,
    https::Https,
    process::{PATIENCE, wait_until},
    stage::{Net, Stage, policy},
};
use serde_json::{Value, json};

use crate::{LIMIT, api, assert_filters, request};

fn script(site: &Site<'_>, text: &str) -> Result<String> {
    let path = site.files().join("hook");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).context("writing a hook")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).context("making it a program")?;
    Ok(path.to_string_lossy().into_owned())
}

fn told(site: &Site<'_>, target: &str, result: &str) -> Result<u64> {
    Ok(site.metrics()?.sum("detector_notices_total", &[("target", target), ("result", result)]))
}

#[test]
fn a_hook_gets_kind_and_event() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let out = site.files().join("told");
    // What it prints goes nowhere; what it writes is in the order of the events.
    let hook = script(&site, &format!("echo noise; event=$(cat); echo \"$1 $event\" >> {}", out.display()))?;
    let daemon = site.start(&["edge0"], &["--hook", &hook])?;
    let trial = json!({ "text": policy(LIMIT), "confirm_s": 600 });
    for (path, body) in [
        ("/v1/apply", Some(&trial)),
        ("/v1/rollback", Some(&serde_json::json!({}))),
        ("/v1/apply", Some(&request())),
    ] {
        let before = fs::read_to_string(&out).unwrap_or_default().len();
        assert_eq!(api(&site).post(path, body)?.status, 200);
        wait_until("the hook is told", PATIENCE, || {
            Ok(fs::read_to_string(&out).ok().filter(|text| text.len() > before))
        })?;
    }
    let text = fs::read_to_string(&out).context("what the hook was told")?;
    let mut kinds = Vec::new();
    for line in text.lines() {
        let (kind, event) = line.split_once(' ').context("kind and event")?;
        let event: Value = serde_json::from_str(event).with_context(|| line.to_owned())?;
        assert_eq!(event["kind"], kind);
        kinds.push(kind.to_owned());
    }
    assert_eq!(kinds, ["policy_applied", "trial_ended", "policy_applied"], "{}", daemon.log());
    assert!(!daemon.log().contains("noise"));
    wait_until("they are counted", PATIENCE, || Ok((told(&site, "hook", "told")? == 3).then_some(())))?;

    let (code, said) =
        Site::new(&stage.outside, &policy(LIMIT))?.refused(&["out0"], &["--hook", "/no/such"])?;
    assert!(code == 2 && said.contains("--hook"), "{code}: {said}");
    Ok(())
}

#[test]
fn a_hook_that_hangs_is_killed_with_what_it_started() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let ids = site.files().join("ids");
    let hook = script(&site, &format!("sleep 600 & echo $$ $! > {}; wait", ids.display()))?;
    let daemon = site.start(&["edge0"], &["--hook", &hook, "--hook-patience-ms", "500"])?;
    assert_eq!(api(&site).post("/v1/apply", Some(&request()))?.status, 200);
    assert_filters(&stage, &site)?;
    wait_until("the hook is given up", PATIENCE, || Ok((told(&site, "hook", "failed")? == 1).then_some(())))?;
    assert!(daemon.log().contains("was killed"), "{}", daemon.log());
    let ids = fs::read_to_string(&ids).context("the processes of the hook")?;
    for id in ids.split_whitespace() {
        let id: u32 = id.parse().context("a process number")?;
        // A process that nobody has waited for yet is dead all the same.
        wait_until("it is gone", PATIENCE, || {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            Ok((status.is_empty() || status.contains("State:\tZ")).then_some(()))
        })?;
    }
    Ok(())
}

/// Reads a request, answers with a status, and gives its body.
fn serve(stream: TcpStream, status: &str) -> Result<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).context("reading a head")?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().context("a length")?;
        }
        if line.trim().is_empty() {
            break;
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).context("reading a body")?;
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    reader.into_inner().write_all(answer.as_bytes()).context("answering")?;
    Ok((head, serde_json::from_slice(&body).context("JSON")?))
}

#[test]
fn a_webhook_is_tried_until_it_takes_the_event() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let listener = stage.edge.within(|| TcpListener::bind("127.0.0.1:8099"))?.context("listening")?;
    let _daemon = site.start(&["edge0"], &["--webhook", "http://127.0.0.1:8099/in?key=1"])?;
    let (sender, requests) = mpsc::channel();
    let server = std::thread::spawn(move || -> Result<()> {
        for status in ["500 Internal Server Error", "204 No Content"] {
            let (stream, _) = listener.accept().context("accepting")?;
            sender.send(serve(stream, status)?).context("passing a request on")?;
        }
        Ok(())
    });
    assert_eq!(api(&site).post("/v1/apply", Some(&request()))?.status, 200);
    let first = requests.recv_timeout(PATIENCE).context("the first attempt")?;
    let second = requests.recv_timeout(PATIENCE).context("the second attempt")?;
    server.join().expect("the server ends")?;
    assert_eq!(first, second);
    let (head, event) = first;
    assert!(head.starts_with("POST /in?key=1 HTTP/1.1\r\n"), "{head}");
    assert_eq!((&event["kind"], &event["epoch"]), (&json!("policy_applied"), &json!(2)));
    wait_until("it is counted", PATIENCE, || Ok((told(&site, "webhook", "told")? == 1).then_some(())))?;
    assert_eq!(told(&site, "webhook", "failed")?, 0);
    Ok(())
}

#[test]
fn a_webhook_over_tls_checks_the_certificate() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let service = Net::v4(0).service();
    let https = Https::start(&stage.edge, &[service])?;
    let url = format!("https://{service}/");
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let mut command = site.run_command(&["edge0"], &["--webhook", &url])?;
    let daemon = site.start_with(command.env("SSL_CERT_FILE", https.certificate()))?;
    assert_eq!(api(&site).post("/v1/apply", Some(&request()))?.status, 200);
    wait_until("it is told", PATIENCE, || Ok((told(&site, "webhook", "told")? == 1).then_some(())))?;

    // The machine's own roots do not know that certificate: no event is sent to whoever holds it.
    daemon.end(libc::SIGTERM)?;
    let untrusting = site.start(&["edge0"], &["--webhook", &url])?;
    assert_eq!(api(&site).post("/v1/apply", Some(&request()))?.status, 200);
    wait_until("it is given up", PATIENCE, || Ok((told(&site, "webhook", "failed")? == 1).then_some(())))?;
    assert!(untrusting.log().contains("no TLS with"), "{}", untrusting.log());
    assert_eq!(told(&site, "webhook", "told")?, 0);
    Ok(())
}
