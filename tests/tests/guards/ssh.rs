//! Who is connected by SSH is not locked out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use detector_tests::{
    daemon::{Site, answer},
    netns::{may_run, turn},
    ssh::Sshd,
    stage::{MTU, Stage, Who},
};

use crate::{NET, WIDE, epoch, file};

/// Where sshd listens in the edge.
const SSHD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 10)), 2222);

/// A rule about everybody who comes over the link.
const DROP_ALL: &str = "\n[[rule]]\nname = \"slip\"\nsource = [\"198.18.0.0/24\"]\naction = \"drop\"\n";
const LIMIT_ALL: &str =
    "\n[[rule]]\nname = \"slip\"\nsource = [\"198.18.0.0/24\"]\naction = { limit = \"each\" }\n";

/// A policy for the port of sshd, with defaults and the rest.
fn around_sshd(defaults: &str, rest: &str) -> String {
    format!(
        "version = 1\n[defaults]\n{defaults}\n[[service]]\nname = \"ssh\"\naddresses = [\"{}\"]\nports = [\"tcp/{}\"]\n\
         [profile.each]\n{WIDE}\n{rest}",
        SSHD.ip(),
        SSHD.port()
    )
}

#[test]
fn who_is_connected_by_ssh_does_not_lock_themselves_out() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let _turn = turn();
    let stage = Stage::new(1, MTU)?;
    let peer = NET.source(Who::Client);
    let site = Site::new(&stage.edge, &around_sshd("", ""))?;
    let _daemon = site.start(&["edge0"], &[])?;
    let sshd = Sshd::start(&stage.edge, SSHD)?;
    let through_ssh = |file: &str, more: &str| {
        let line = site.line(&["apply", file])? + more;
        answer(&mut sshd.session(&stage.outside, peer, &line)?)
    };
    let before = epoch(&site)?;
    let drops = file(&site, "drops.toml", &around_sshd("", DROP_ALL))?;
    let limits = file(&site, "limits.toml", &around_sshd("", LIMIT_ALL))?;
    for (file, would) in
        [(&drops, "drop by slip at service ssh"), (&limits, "limit each by slip at service ssh")]
    {
        // As sudo does, which forgets the variable: the shell before it remembers.
        for (before, more) in [("env -i ", ""), ("", " --json")] {
            let line = before.to_owned() + &site.line(&["apply", file])? + more;
            let (code, out, err) = answer(&mut sshd.session(&stage.outside, peer, &line)?)?;
            let said = out + &err;
            assert_eq!(code, 2, "{said}");
            for part in [&peer.to_string(), "SSH connection", would, "`allow` in [defaults]", "--force"] {
                assert!(said.contains(part), "{part:?} is missing in: {said}");
            }
        }
    }
    assert_eq!(epoch(&site)?, before, "nothing changed in the kernel");

    // Another one's slip is none of ours: a plan from elsewhere does not speak of the peer.
    let (_, plan) = site.ask_json(&["plan", &drops])?;
    let locked_out = plan["refusal"]["lockouts"].to_string();
    assert!(!locked_out.contains(&peer.to_string()), "{plan}");

    let allowed = format!("allow = [\"{peer}\"]");
    let allowed = file(&site, "allowed.toml", &around_sshd(&allowed, DROP_ALL))?;
    assert_eq!(through_ssh(&allowed, "")?.0, 0, "a peer that is always allowed is not locked out");
    let (code, _, err) = through_ssh(&limits, "")?;
    assert!(code == 2 && err.contains("defaults.allow"), "{code}: {err}");
    assert_eq!(through_ssh(&limits, " --force")?.0, 0);
    // Forced, it locks out, until the kernel takes it back: the session waits and goes on.
    let (code, out, err) = through_ssh(&drops, " --force --confirm 2s && echo \"still here\"")?;
    assert!(code == 0 && out.contains("still here"), "{code}: {out}{err}");
    Ok(())
}
