//! Who changes something over the API does not lock themselves out, nor who has an SSH session meanwhile.

use std::{
    io::Read as _,
    net::{SocketAddr, TcpStream},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow};
use detector_tests::{
    daemon::{Site, answer},
    netns::{may_run, turn},
    process::{PATIENCE, Running, wait_until},
    ssh::Sshd,
    stage::{MTU, Net, Stage, Who},
};
use serde_json::{Value, json};

use crate::{
    LIMIT, api,
    tls::{Files, token},
};

const NET: Net = Net::v4(0);

/// A policy for a TCP port of the edge, with more.
fn around(port: u16, rest: &str) -> String {
    let address = NET.service().ip();
    format!(
        "version = 1\n[[service]]\nname = \"management\"\naddresses = [\"{address}\"]\nports = [\"tcp/{port}\"]\n\
         [profile.each]\n{LIMIT}\n{rest}"
    )
}

/// A rule about both sources of the stage.
fn rule(action: &str) -> String {
    format!("[[rule]]\nname = \"slip\"\nsource = [\"198.18.0.0/24\"]\naction = {action}\n")
}

/// What curl answers from an address outside, over TLS: the status and the body.
fn ask(stage: &Stage, files: &Files, secret: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
    let from = NET.source(Who::Client).to_string();
    let mut curl: Command = stage.outside.command("curl")?;
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--interface", &from]);
    curl.args(["--cacert", &files.certificate, "--write-out", "\n%{http_code}"]);
    curl.args(["--header", &format!("Authorization: Bearer {secret}"), "--json", &body.to_string()]);
    curl.arg(format!("https://{}:9443{path}", NET.service().ip()));
    let (_, out, err) = answer(&mut curl)?;
    let (body, status) = out.rsplit_once('\n').with_context(|| format!("curl prints {out:?}, {err:?}"))?;
    let body = serde_json::from_str(body).with_context(|| format!("JSON: {body:?}, {err:?}"))?;
    Ok((status.parse().context("a status")?, body))
}

#[test]
fn who_asks_over_tls_is_not_locked_out() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let stage = Stage::new(1, MTU)?;
    let site = Site::new(&stage.edge, &around(9443, ""))?;
    let files = Files::make(&site)?;
    let (operator, line) = token(&site, "ci", "operator")?;
    files.write(&[&line], 0o600)?;
    let listener = format!("{}:9443", NET.service().ip());
    let _daemon = site.start(&["edge0"], &files.arguments_at(&listener))?;
    let ask = |path: &str, body: &Value| ask(&stage, &files, &operator, path, body);
    let epoch = || -> Result<Value> { Ok(site.status()?.1["policy"]["epoch"].clone()) };
    let client = NET.source(Who::Client);

    let before = epoch()?;
    for (action, would) in [("\"drop\"", "drop by slip"), ("{ limit = \"each\" }", "limit each by slip")] {
        let change = json!({ "text": around(9443, &rule(action)) });
        let (status, refused) = ask("/v1/apply", &change)?;
        let said = refused["error"].to_string();
        assert_eq!(status, 422, "{said}");
        let who = format!("{client}, this API client (its connection to {listener}): {would}");
        assert!(said.contains(&who) && said.contains("force"), "{said}");
        let (status, plan) = ask("/v1/plan", &change)?;
        let lockouts = plan["refusal"]["lockouts"].as_array().ok_or_else(|| anyhow!("{plan}"))?;
        let who: Vec<_> = lockouts.iter().map(|lockout| &lockout["who"]).collect();
        assert_eq!((status, who), (200, vec![&json!(client.to_string())]), "{plan}");
    }
    let block =
        |target: String| json!({ "action": "block", "targets": [target], "for_s": 600, "reason": "slip" });
    let (status, refused) = ask("/v1/incidents", &block(client.to_string()))?;
    assert_eq!(status, 422, "{refused}");
    assert!(refused["error"].to_string().contains("this API client"), "{refused}");
    for (pattern, of) in [("syn:4:*:*:*:*:*:*:*", "its SYN"), ("ja4:t*_*_*", "its ClientHello")] {
        let (status, refused) = ask("/v1/incidents", &block(pattern.to_owned()))?;
        let said = refused["error"].to_string();
        assert_eq!(status, 422, "{said}");
        assert!(said.contains("this API client") && said.contains(of), "{said}");
    }
    assert_eq!(epoch()?, before, "nothing changed in the kernel");

    // Somebody else is no client of this request, whether asked from here or over the socket.
    let (status, done) = ask("/v1/incidents", &block(NET.source(Who::Offender).to_string()))?;
    assert_eq!(status, 200, "{done}");
    let done = api(&site).post("/v1/incidents", Some(&block(client.to_string())))?;
    assert_eq!(done.status, 200, "{}", done.body);
    Ok(())
}

#[test]
fn over_the_socket_every_ssh_session_is_guarded() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let stage = Stage::new(1, MTU)?;
    let address = SocketAddr::new(NET.service().ip(), 2222);
    let site = Site::new(&stage.edge, &around(2222, ""))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let sshd = Sshd::start(&stage.edge, address)?;
    // From where connections come that are bound to no address.
    let stranger = NET.source(Who::Client);
    let admin = NET.source(Who::Offender);
    let marker = site.files().join("session");
    let line = format!("touch {0} && while [ -e {0} ]; do sleep 0.1; done", marker.display());
    let _session = Running::start(&mut sshd.session(&stage.outside, admin, &line)?)?;
    wait_until("there is a session", PATIENCE, || Ok(marker.exists().then_some(())))?;
    // Whoever has only connected, and has a process of its own there since it has answered, may be blocked.
    let mut connection = stage.outside.within(|| TcpStream::connect(address))?.context("connecting")?;
    connection.set_read_timeout(Some(PATIENCE)).context("bounding the time to read")?;
    connection.read_exact(&mut [0; 4]).context("reading the name of sshd")?;

    let block = |target: String| {
        let body = json!({ "action": "block", "targets": [target], "for_s": 600, "reason": "slip" });
        api(&site).post("/v1/incidents", Some(&body))
    };
    let refused = block(admin.to_string())?;
    let said = refused.body["error"].to_string();
    assert_eq!(refused.status, 422, "{said}");
    assert!(said.contains(&admin.to_string()) && said.contains("SSH connection"), "{said}");
    assert!(!said.contains(&stranger.to_string()), "{said}");
    let done = block(stranger.to_string())?;
    assert_eq!(done.status, 200, "{}", done.body);
    drop(connection);
    Ok(())
}
