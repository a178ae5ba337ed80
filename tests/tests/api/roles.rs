//! Who may do what over the socket, by real processes with other users and groups.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, Result};
use detector_tests::{
    daemon::{Site, answer},
    stage::{MTU, Stage, policy},
};

use crate::{LIMIT, api};

/// Groups that every Debian has, and nobody of these tests is in by itself.
const OPERATORS: (&str, u32) = ("adm", 4);
const VIEWERS: (&str, u32) = ("games", 60);
const NOBODY: u32 = 65_534;

/// The status that curl gets as a user, with a group of its own and others; 0: it cannot connect.
fn status(
    site: &Site<'_>,
    stage: &Stage,
    user: u32,
    group: u32,
    groups: &[u32],
    request: &[&str],
) -> Result<u16> {
    let groups: Vec<_> = groups.iter().map(u32::to_string).collect();
    let mut command = stage.outside.command("setpriv")?;
    command.args(["--reuid", &user.to_string(), "--regid", &group.to_string()]);
    if groups.is_empty() {
        command.arg("--clear-groups");
    } else {
        command.args(["--groups", &groups.join(",")]);
    }
    command.args([
        "curl",
        "--silent",
        "--noproxy",
        "*",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
    ]);
    command.arg("--unix-socket").arg(site.api()).args(request);
    let (_, out, err) = answer(&mut command)?;
    out.parse().with_context(|| format!("curl prints {out:?}, {err:?}"))
}

const READ: &[&str] = &["http://x/v1/status"];
const CHECK: &[&str] = &["--json", "{\"text\":\"version = 1\"}", "http://x/v1/check"];
const CHANGE: &[&str] = &["--request", "POST", "http://x/v1/confirm"];

/// Who asks, with which user, group and other groups; what is answered to a read, a check and a change.
type Row = (&'static str, u32, u32, &'static [u32], [u16; 3]);

#[test]
fn roles_go_by_the_groups_of_the_process() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    fs::set_permissions(site.files(), fs::Permissions::from_mode(0o755)).context("letting others in")?;
    let daemon = site.start(&["edge0"], &["--api-group", OPERATORS.0, "--api-viewer-group", VIEWERS.0])?;
    let mode = fs::metadata(site.api()).context("the socket")?.permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    // Nothing waits to be confirmed: who may ask is told so with 409.
    let rows: [Row; 6] = [
        ("root", 0, 0, &[], [200, 200, 409]),
        ("an operator by its own group", NOBODY, OPERATORS.1, &[], [200, 200, 409]),
        ("an operator by another group", NOBODY, NOBODY, &[7, OPERATORS.1, VIEWERS.1], [200, 200, 409]),
        ("a viewer by its own group", NOBODY, VIEWERS.1, &[], [200, 200, 403]),
        ("a viewer by another group", NOBODY, NOBODY, &[7, VIEWERS.1], [200, 200, 403]),
        ("anybody else", NOBODY, NOBODY, &[7], [0, 0, 0]),
    ];
    for (who, user, group, groups, expected) in rows {
        for (request, expected) in [READ, CHECK, CHANGE].into_iter().zip(expected) {
            let found = status(&site, &stage, user, group, groups, request)?;
            assert_eq!(found, expected, "{who}: {request:?}");
        }
    }
    let log = daemon.log();
    let refused =
        log.lines().find(|line| line.contains("role=\"viewer\"")).context("a refused change is logged")?;
    assert!(refused.contains("change=confirm") && refused.contains("(uid 65534)"), "{refused}");

    let (_, audit) = site.ask_json(&["history", "--audit"])?;
    let entries = audit["entries"].as_array().context("entries")?;
    let refused = entries.iter().find(|entry| entry["author"]["uid"] == NOBODY);
    let refused = refused.with_context(|| format!("a refused change is recorded: {audit}"))?;
    assert!(refused["action"] == "confirm" && refused["result"].to_string().contains("viewers"), "{refused}");

    // Who gets past the mode of the socket is asked who it is all the same.
    fs::set_permissions(site.api(), fs::Permissions::from_mode(0o666)).context("opening the socket")?;
    for request in [READ, CHECK, CHANGE] {
        assert_eq!(status(&site, &stage, NOBODY, NOBODY, &[7], request)?, 403);
    }
    assert_eq!(api(&site).get("/v1/status")?.status, 200);
    Ok(())
}

#[test]
fn a_socket_is_replaced_only_where_nobody_listens_and_goes_with_its_daemon() -> Result<()> {
    let Some(stage) = Stage::in_turn(1)? else { return Ok(()) };
    let site = Site::new(&stage.edge, &policy(LIMIT))?;
    let daemon = site.start(&["edge0"], &[])?;
    let mode = fs::metadata(site.api()).context("the socket")?.permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "root alone where there is no group `detector`");
    daemon.end(libc::SIGKILL)?;
    assert!(site.api().exists(), "who is killed leaves its socket");
    let daemon = site.start(&["edge0"], &[])?;
    assert_eq!(api(&site).get("/v1/version")?.status, 200, "the next one replaces it");

    let other = Stage::new(1, MTU)?;
    let elsewhere = Site::new(&other.edge, &policy(LIMIT))?;
    let path = site.api().to_string_lossy().into_owned();
    let (code, said) = elsewhere.refused(&["edge0"], &["--api", &path])?;
    assert!(
        code == 1 && said.contains("another program serves at") && said.contains("--api"),
        "{code}: {said}"
    );
    assert!(!elsewhere.is_pinned(), "what is refused leaves nothing behind");
    let file = elsewhere.policy().to_string_lossy().into_owned();
    let (code, said) = elsewhere.refused(&["edge0"], &["--api", &file])?;
    assert!(code == 2 && said.contains("is not a socket"), "{code}: {said}");
    let (code, said) = elsewhere.refused(&["edge0"], &["--api-group", "no-such-group"])?;
    assert!(code == 2 && said.contains("groupadd"), "{code}: {said}");
    let off = elsewhere.start(&["edge0"], &["--api", "off"])?;
    assert!(!off.log().contains("the API is served"));

    assert_eq!(api(&site).get("/v1/version")?.status, 200, "the first one still serves");
    daemon.end(libc::SIGTERM)?;
    assert!(!site.api().exists(), "who ends takes its socket away");
    Ok(())
}
