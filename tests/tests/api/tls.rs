//! The API over TCP: with TLS and a token, or not at all.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use anyhow::{Context as _, Result};
use detector_tests::{
    daemon::{Site, answer},
    netns::Namespace,
    process::{PATIENCE, run, wait_until},
    stage::{Net, Stage, Who, policy},
};
use detector_user::api::limits::{CONNECTIONS_OF_ADDRESS_MAX, STRANGER_TIME_MAX};
use serde_json::Value;

use crate::LIMIT;

pub(crate) const ADDRESS: &str = "127.0.0.1:9443";

/// The files of the listener, in the directory of a site.
pub(crate) struct Files {
    pub(crate) certificate: String,
    key: String,
    tokens: String,
}

impl Files {
    pub(crate) fn make(site: &Site<'_>) -> Result<Self> {
        run(Command::new("openssl")
            .current_dir(site.files())
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args([
                "-days",
                "2",
                "-subj",
                "/CN=detector",
                "-addext",
                "subjectAltName=IP:127.0.0.1,IP:198.18.0.10",
            ])
            .args(["-keyout", "key.pem", "-out", "certificate.pem"]))?;
        let path = |name: &str| site.files().join(name).to_string_lossy().into_owned();
        Ok(Self { certificate: path("certificate.pem"), key: path("key.pem"), tokens: path("tokens") })
    }

    pub(crate) fn arguments(&self) -> [&str; 8] {
        self.arguments_at(ADDRESS)
    }

    /// The arguments of a listener at an address that the certificate names.
    pub(crate) fn arguments_at<'a>(&'a self, address: &'a str) -> [&'a str; 8] {
        let Self { certificate, key, tokens } = self;
        ["--api-listen", address, "--api-cert", certificate, "--api-key", key, "--api-tokens", tokens]
    }

    pub(crate) fn write(&self, lines: &[&str], mode: u32) -> Result<()> {
        fs::write(&self.tokens, lines.join("\n")).context("writing tokens")?;
        fs::set_permissions(&self.tokens, fs::Permissions::from_mode(mode)).context("closing them")
    }

    /// The status that curl gets with a token and more arguments; 0: no answer.
    fn status(&self, stage: &Stage, token: &str, arguments: &[&str]) -> Result<u16> {
        self.status_from(&stage.edge, token, arguments)
    }

    fn status_from(&self, namespace: &Namespace, token: &str, arguments: &[&str]) -> Result<u16> {
        let mut curl = namespace.command("curl")?;
        curl.args(["--silent", "--noproxy", "*", "--output", "/dev/null", "--write-out", "%{http_code}"]);
        curl.args(["--max-time", "60", "--cacert", &self.certificate]).args(arguments);
        if !token.is_empty() {
            curl.args(["--header", &format!("Authorization: Bearer {token}")]);
        }
        let (_, out, err) = answer(&mut curl)?;
        out.parse().with_context(|| format!("curl prints {out:?}, {err:?}"))
    }
}

/// A new token and its line.
pub(crate) fn token(site: &Site<'_>, name: &str, role: &str) -> Result<(String, String)> {
    let (code, out, err) = answer(&mut site.detector(&["token", name, "--role", role, "--json"])?)?;
    let made: Value = serde_json::from_str(&out).with_context(|| format!("{code}: {out}{err}"))?;
    let field =
        |name: &str| made[name].as_str().map(str::to_owned).with_context(|| format!("no {name}: {made}"));
    Ok((field("token")?, field("line")?))
}

const STATUS: &str = "https://127.0.0.1:9443/v1/status";
const CONFIRM: &str = "https://127.0.0.1:9443/v1/confirm";

#[test]
fn over_tcp_a_token_says_who_asks() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let files = Files::make(&site)?;
    let (viewer, viewer_line) = token(&site, "grafana", "viewer")?;
    let (operator, operator_line) = token(&site, "ci", "operator")?;
    assert!(viewer != operator && viewer.len() == 64);
    files.write(&["# who", &viewer_line, &operator_line], 0o600)?;
    let mut daemon = site.start(&["edge0"], &files.arguments())?;
    let status = |token: &str, arguments: &[&str]| files.status(&stage, token, arguments);

    assert_eq!(status(&viewer, &[STATUS])?, 200);
    assert_eq!(status(&viewer, &["--request", "POST", CONFIRM])?, 403);
    assert_eq!(status(&operator, &["--request", "POST", CONFIRM])?, 409, "nothing waits");
    for wrong in ["", "x", &viewer[1..], &viewer_line[viewer_line.len() - 64..], &format!("{viewer}0")] {
        assert_eq!(status(wrong, &[STATUS])?, 401, "{wrong:?}");
        assert_eq!(status(wrong, &["https://127.0.0.1:9443/v1/nothing"])?, 401, "{wrong:?}");
    }
    assert_eq!(status(&viewer, &["--tlsv1.2", "--tls-max", "1.2", STATUS])?, 200);
    assert_eq!(status(&viewer, &["--tlsv1.3", STATUS])?, 200);
    assert_eq!(status(&viewer, &["--tls-max", "1.1", STATUS])?, 0, "too old");
    assert_eq!(status(&viewer, &["http://127.0.0.1:9443/v1/status"])?, 0, "no TLS, no answer");
    let log = daemon.log();
    let refused =
        log.lines().find(|line| line.contains("token grafana")).context("a refused change is logged")?;
    assert!(refused.contains("change=confirm") && refused.contains("from=\"127.0.0.1:"), "{refused}");
    for secret in [&viewer, &operator] {
        assert!(!log.contains(secret.as_str()), "no token is in the log");
    }

    // A file that cannot be used changes nothing; one without a token ends what it could do.
    files.write(&["viewer"], 0o600)?;
    daemon.reload()?;
    assert_eq!(status(&viewer, &[STATUS])?, 200);
    files.write(&[&operator_line], 0o600)?;
    daemon.reload()?;
    wait_until("the token is known no more", PATIENCE, || {
        Ok((status(&viewer, &[STATUS])? == 401).then_some(()))
    })?;
    assert_eq!(status(&operator, &[STATUS])?, 200);
    Ok(())
}

#[test]
fn a_renewed_certificate_is_served_after_a_reload() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let first = Files::make(&site)?;
    let (viewer, line) = token(&site, "grafana", "viewer")?;
    first.write(&[&line], 0o600)?;
    let old = site.files().join("old.pem");
    let old_key = site.files().join("old.key");
    fs::copy(&first.certificate, &old).context("keeping the certificate")?;
    fs::copy(&first.key, &old_key).context("keeping the key")?;
    let mut daemon = site.start(&["edge0"], &first.arguments())?;
    let with = |certificate: &str| {
        let certificate = certificate.to_owned();
        let files = Files { certificate, key: String::new(), tokens: String::new() };
        files.status(&stage, &viewer, &[STATUS])
    };
    let old = old.to_string_lossy();
    assert_eq!(with(&old)?, 200);

    let new = Files::make(&site)?;
    assert_eq!((with(&old)?, with(&new.certificate)?), (200, 0), "not before it is told");
    daemon.reload()?;
    assert_eq!((with(&old)?, with(&new.certificate)?), (0, 200));

    // The key of another certificate, and none.
    fs::copy(&old_key, &new.key).context("mixing up the keys")?;
    daemon.reload()?;
    assert_eq!(with(&new.certificate)?, 200);
    fs::write(&new.key, "no key").context("spoiling the key")?;
    daemon.reload()?;
    assert_eq!(with(&new.certificate)?, 200);
    let log = daemon.log();
    let errors: Vec<_> =
        log.lines().filter(|line| line.contains("the old certificate of the API stays")).collect();
    assert_eq!(errors.len(), 2, "{log}");
    assert!(errors[0].contains("ERROR") && errors[0].contains("reload again"), "{log}");
    Ok(())
}

#[test]
fn who_sends_nothing_keeps_nobody_out() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let net = Net::v4(0);
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let files = Files::make(&site)?;
    let (viewer, line) = token(&site, "grafana", "viewer")?;
    files.write(&[&line], 0o600)?;
    let listener = SocketAddr::new(net.service().ip(), 9443);
    let address = listener.to_string();
    // Whoever is known may take an hour for the head of a request: nothing but the bound of strangers closes what is idle.
    let patient = [&files.arguments_at(&address)[..], &["--api-patience-ms", "3600000"]].concat();
    let _daemon = site.start(&["edge0"], &patient)?;
    let url = format!("https://{listener}/v1/status");
    let from = |who: Who| {
        let from = net.source(who).to_string();
        files.status_from(&stage.outside, &viewer, &["--interface", &from, &url])
    };
    assert_eq!(from(Who::Client)?, 200);

    // These come from the first address of the stage.
    let connect = || TcpStream::connect(listener);
    let idle = stage.outside.within(|| (0..100).map(|_| connect()).collect::<Result<Vec<_>, _>>())?;
    let mut idle = idle.context("connecting a hundred times")?;
    assert_eq!(from(Who::Offender)?, 200, "another address has places of its own");
    let open = |idle: &mut Vec<TcpStream>| -> Result<usize> {
        idle.retain_mut(|stream| {
            let read = stream.set_nonblocking(true).and_then(|()| stream.read(&mut [0; 8]));
            matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
        });
        Ok(idle.len())
    };
    wait_until("those beyond the places of one address are closed", PATIENCE, || {
        Ok((open(&mut idle)? <= CONNECTIONS_OF_ADDRESS_MAX).then_some(()))
    })?;
    wait_until("the others are closed in their time", STRANGER_TIME_MAX + PATIENCE, || {
        Ok((open(&mut idle)? == 0).then_some(()))
    })?;
    assert_eq!(from(Who::Client)?, 200, "there are places again");

    // Whom nobody knows keeps no connection: there is no second request on it.
    let mut curl = stage.outside.command("curl")?;
    curl.args(["--silent", "--noproxy", "*", "--max-time", "60", "--cacert", &files.certificate]);
    curl.args([
        "--output",
        "/dev/null",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code} %{num_connects}\n",
    ]);
    let (_, out, err) = answer(curl.args([&url, &url]))?;
    assert_eq!(out, "401 1\n401 1\n", "{err}");
    Ok(())
}

#[test]
fn without_tls_and_closed_tokens_there_is_no_listener() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let files = Files::make(&site)?;
    let (_, line) = token(&site, "a", "viewer")?;
    let refused = |arguments: &[&str], parts: &[&str]| -> Result<()> {
        let (code, said) = site.refused(&["edge0"], arguments)?;
        assert_eq!(code, 2, "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
        assert!(!site.is_pinned(), "what is refused leaves nothing behind");
        Ok(())
    };
    let all = files.arguments();
    for missing in [0, 2, 4, 6] {
        let others: Vec<_> = [&all[..missing], &all[missing + 2..]].concat();
        refused(&others, &["required", all[missing]])?;
    }
    files.write(&[&line], 0o644)?;
    refused(&all, &["open to everybody", "chmod 640"])?;
    files.write(&["viewer a 00"], 0o600)?;
    refused(&all, &["tokens:1: not a token"])?;
    files.write(&[&line], 0o600)?;
    fs::write(&files.key, "no key").context("spoiling the key")?;
    refused(&all, &["cannot use the key"])?;
    let (code, _, err) = answer(&mut site.detector(&["token", "a b"])?)?;
    assert!(code == 2 && err.contains("cannot name a token"), "{code}: {err}");
    Ok(())
}
