//! What `plan` foretells, who is not locked out by a change, and how much it does not drop: with real senders and real SSH
//! sessions.

mod look;
mod plan;
mod ssh;
mod traffic;

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, Result};
use detector_tests::{
    daemon::Site,
    process::{PATIENCE, wait_until},
    stage::{Net, Stage, Who},
    traffic::{Pace, Sender},
};
use serde_json::Value;

/// Never reached in these tests.
const WIDE: &str = "packets = { rate = \"100000/s\", burst = 100000 }";

const NET: Net = Net::v4(0);

/// A rule about a source.
fn rule(name: &str, who: Who, rest: &str) -> String {
    format!("\n[[rule]]\nname = \"{name}\"\nsource = [\"{}\"]\n{rest}\n", NET.source(who))
}

/// Writes a policy beside that of the daemon; its path.
fn file(site: &Site<'_>, name: &str, text: &str) -> Result<String> {
    let path = site.files().join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path.to_string_lossy().into_owned())
}

fn sender(stage: &Stage, who: Who, per_second: u32) -> Result<Sender> {
    let from = SocketAddr::new(NET.source(who), 0);
    Sender::start(&stage.outside, from, NET.service(), Pace::per_second(per_second))
}

/// Waits until the daemon has had its first look.
fn wait_for_look(site: &Site<'_>) -> Result<()> {
    let look = site.run_directory().join("traffic");
    wait_until("the daemon looks at the traffic", PATIENCE, || Ok(look.exists().then_some(())))
}

/// Sends from both for longer than a window has to be; how many left of each.
fn send_from_both(stage: &Stage, client: u32, offender: u32) -> Result<(u64, u64)> {
    let senders = (sender(stage, Who::Client, client)?, sender(stage, Who::Offender, offender)?);
    let enough = u64::from(client) * 5 / 2;
    wait_until("both have sent", PATIENCE, || Ok((senders.0.packets() >= enough).then_some(())))?;
    Ok((senders.0.stop()?.packets, senders.1.stop()?.packets))
}

fn epoch(site: &Site<'_>) -> Result<Value> {
    Ok(site.status()?.1["policy"].clone())
}
