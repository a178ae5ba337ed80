//! The API: what it answers, to whom, and what it refuses without harm.

mod endpoints;
mod events;
mod generated;
mod lockout;
mod notices;
mod refused;
mod roles;
mod tls;

use anyhow::Result;
use detector_tests::{
    api::Api,
    daemon::Site,
    process::{PATIENCE, wait_until},
    stage::{Net, Stage, Who, outside_interface, policy},
    traffic::{Flood, Pace},
};
use serde_json::{Value, json};

/// The limit of most tests here.
const LIMIT: &str = "packets = { rate = \"1000/s\", burst = 1000 }";

fn api(site: &Site<'_>) -> Api {
    Api::new(site.api())
}

/// The policy of most tests here, to be sent.
fn request() -> Value {
    json!({ "text": policy(LIMIT) })
}

fn flood(stage: &Stage) -> Result<Flood> {
    let frame = Net::v4(0).flow(Who::Offender).datagram();
    Flood::start(&stage.outside, &outside_interface(0), frame, Pace::per_second(20_000))
}

/// Waits until the program drops more packets of a flood than it did, and the API says so.
fn assert_filters(stage: &Stage, site: &Site<'_>) -> Result<()> {
    let flood = flood(stage)?;
    let dropped = || -> Result<u64> {
        let status = api(site).get("/v1/status")?;
        Ok(status.body["services"]["edge"]["drop"].as_u64().unwrap_or_default())
    };
    let before = dropped()?;
    wait_until("packets are dropped", PATIENCE, || Ok((dropped()? > before + 100).then_some(())))?;
    flood.stop().map(drop)
}
