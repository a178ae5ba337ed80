//! What changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use axum::extract::{Path, Query, Request, State};
use detector_common::abi::ABI_VERSION;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api, App,
    caller::Caller,
    changes, document, input,
    input::Input,
    limits::{FINGERPRINT_ROWS_MAX, INTERVAL_S_MAX, POLICY_BYTES_MAX, ROWS_MAX},
    permits::{Permit, blocking_with},
    refusal::{Json, Refusal},
};
use crate::{
    commands::{self, Failure, SourceFiles, check as checks, explain as explains, mode_name, top},
    daemon::Running,
    kernel::{mapped::Access, maps::Maps, pins::Pins, read},
    policy,
};

pub(super) type Answer<T> = Result<Json<T>, Refusal>;

/// The name of a policy that is sent without one.
pub(super) const POLICY_NAME: &str = "api.toml";

/// Reads the pinned maps, as the commands do.
pub(super) async fn of_maps<T: Send + 'static>(
    app: &Api,
    read: impl FnOnce(&Maps, &Pins) -> Result<T, Failure> + Send + 'static,
) -> Answer<T> {
    beside(app, |running| read(&Maps::pinned(&running.pins.loaded()?, Access::Read)?, &running.pins)).await
}

/// Reads what takes longer than a moment, when it is its turn among all who do.
pub(super) async fn beside<T: Send + 'static>(
    app: &Api,
    read: impl FnOnce(&Running) -> Result<T, Failure> + Send + 'static,
) -> Answer<T> {
    let permit = app.readers.take().await?;
    let running = app.running.clone();
    Ok(Json(blocking_with(permit, move || read(&running)).await?))
}

/// What is enforced, where, and how full the tables are.
#[utoipa::path(get, path = "/v1/status", responses((status = OK, description = "How things stand.", body = commands::status::Answer)))]
pub(super) async fn status(State(app): State<Api>) -> Answer<commands::status::Answer> {
    beside(&app, |running| commands::status::answer(&running.pins, Some(&running.fleets.told().detection)))
        .await
}

/// The rules: what they do, what they refused so far, when they end.
#[utoipa::path(get, path = "/v1/rules", responses((status = OK, description = "The rules.", body = commands::rules::Answer)))]
pub(super) async fn rules(State(app): State<Api>) -> Answer<commands::rules::Answer> {
    of_maps(&app, |maps, _| commands::rules::answer(maps)).await
}

/// Which sources to answer with.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Rows at most.
    #[param(minimum = 1, maximum = 10_000, default = 20)]
    rows: usize,
    /// Seconds between two looks, for rates; 0: totals only.
    #[param(maximum = 10, default = 0)]
    interval_s: u64,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { rows: 20, interval_s: 0 }
    }
}

/// The sources with the most packets.
#[utoipa::path(get, path = "/v1/sources", params(Wanted), responses((status = OK, description = "Sources.", body = top::Answer)))]
pub(super) async fn sources(
    State(app): State<Api>,
    Input(Query(wanted)): Input<Query<Wanted>>,
) -> Answer<top::Answer> {
    let Wanted { rows, interval_s } = wanted;
    if !(1..=ROWS_MAX).contains(&rows) || interval_s > INTERVAL_S_MAX {
        let message = format!("`rows` is from 1 to {ROWS_MAX}, `interval_s` from 0 to {INTERVAL_S_MAX}");
        return Err(Failure::invalid(message).into());
    }
    if interval_s == 0 {
        return of_maps(&app, move |maps, _| top::answer(maps, rows, None)).await;
    }
    // What was counted stands in memory until the second look, which others do not wait for.
    let _permit = app.samplers.take().await?;
    let Json(before) = of_maps(&app, |maps, _| Ok(top::count(maps))).await?;
    tokio::time::sleep(Duration::from_secs(interval_s)).await;
    of_maps(&app, move |maps, _| top::answer(maps, rows, Some(&before))).await
}

/// Which fingerprints to answer with.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct WantedFingerprints {
    /// Only those of this service.
    service: Option<String>,
    /// Only those taken from this.
    #[param(inline)]
    kind: Option<top::fingerprints::Of>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 4096, default = 100)]
    rows: usize,
}

impl Default for WantedFingerprints {
    fn default() -> Self {
        Self { service: None, kind: None, rows: 100 }
    }
}

/// The fingerprints of clients with the most handshakes.
#[utoipa::path(get, path = "/v1/fingerprints", params(WantedFingerprints), responses((status = OK, description = "Fingerprints.", body = top::fingerprints::Answer)))]
pub(super) async fn fingerprints(
    State(app): State<Api>,
    Input(Query(wanted)): Input<Query<WantedFingerprints>>,
) -> Answer<top::fingerprints::Answer> {
    let WantedFingerprints { service, kind, rows } = wanted;
    if !(1..=FINGERPRINT_ROWS_MAX).contains(&rows) {
        return Err(Failure::invalid(format!("`rows` is from 1 to {FINGERPRINT_ROWS_MAX}")).into());
    }
    let wanted = top::fingerprints::Wanted { service, kind, rows };
    of_maps(&app, move |maps, _| top::fingerprints::answer(maps, &wanted)).await
}

/// How an address stands: rule, every budget, what is left of it.
#[utoipa::path(
    get,
    path = "/v1/explain/{address}",
    params(("address" = String, Path, description = "An IPv4 or IPv6 address.", example = "198.51.100.7")),
    responses((status = OK, description = "How it stands.", body = explains::Answer))
)]
pub(super) async fn explain(
    State(app): State<Api>,
    Input(Path(address)): Input<Path<IpAddr>>,
) -> Answer<explains::Answer> {
    beside(&app, move |running| {
        let maps = Maps::pinned(&running.pins.loaded()?, Access::Read)?;
        explains::answer(&maps, address, &running.fleets.told())
    })
    .await
}

/// The names of the active policy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PolicyNames)]
pub(super) struct Names {
    /// Its number; 0: none.
    epoch: u32,
    /// Where it came from.
    file: String,
    /// When it was applied, seconds since the Unix epoch.
    applied_at_s: u64,
    /// `enforce`, `shadow` or `enforce N %`: of all that does not name its own.
    mode: String,
    /// Its services.
    services: BTreeSet<String>,
    /// Its profiles.
    profiles: Vec<String>,
    /// Its rules, in the order of the file.
    rules: Vec<String>,
}

/// What the active policy is made of.
#[utoipa::path(get, path = "/v1/policy", responses((status = OK, description = "Its names.", body = Names)))]
pub(super) async fn policy(State(app): State<Api>) -> Answer<Names> {
    of_maps(&app, |maps, _| {
        read::consistently(maps, |active| {
            let manifest = active.manifest()?.unwrap_or_default();
            Ok(Names {
                epoch: active.policy_epoch(),
                mode: mode_name(manifest.enforced_percent),
                services: manifest.services.into_keys().collect(),
                profiles: manifest.profiles,
                rules: manifest.rules.into_iter().map(|rule| rule.name).collect(),
                file: manifest.file,
                applied_at_s: manifest.applied_at_s,
            })
        })
    })
    .await
}

/// The policy language as a JSON Schema.
#[utoipa::path(get, path = "/v1/schema", responses((status = OK, description = "The schema.", body = Object)))]
pub(super) async fn schema() -> Json<serde_json::Value> {
    Json(policy::json_schema())
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = OK, description = "The document.", body = Object)))]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}

/// What runs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Version)]
pub(super) struct Versions {
    /// Of detector.
    version: &'static str,
    /// Of the maps.
    abi: u32,
}

/// Which version answers.
#[utoipa::path(get, path = "/v1/version", responses((status = OK, description = "The version.", body = Versions)))]
pub(super) async fn version() -> Json<Versions> {
    Json(Versions { version: env!("CARGO_PKG_VERSION"), abi: ABI_VERSION })
}

/// A policy to check.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Check {
    /// The policy, as its file would be.
    pub(super) text: String,
    /// What it is called where it is shown.
    #[serde(default = "changes::default_name")]
    #[schema(default = "api.toml")]
    pub(super) name: String,
    /// The source files that it names, by these names. No file of the daemon's machine is read.
    #[serde(default)]
    pub(super) source_files: BTreeMap<String, String>,
}

/// Whether a policy is valid and would fit. One that is not is an answer, too.
#[utoipa::path(post, path = "/v1/check", request_body = Check, responses((status = OK, description = "What is to be said of it.", body = checks::Answer)))]
pub(super) async fn check(
    State(app): State<Api>,
    caller: Caller,
    request: Request,
) -> Answer<checks::Answer> {
    let (Check { text, name, source_files }, permits) = sent(&app, &caller, request).await?;
    let answer = move || Ok(checks::answer(&name, &text, SourceFiles::Sent(&source_files)));
    Ok(Json(blocking_with(permits, answer).await?))
}

/// Receives a policy to look at, when it is its turn, with the permits to do so.
pub(super) async fn sent(
    app: &App,
    caller: &Caller,
    request: Request,
) -> Result<(Check, [Permit; 2]), Refusal> {
    let of_one = app.checks_of_each.take(&caller.who).await?;
    let permits = [of_one, app.checks.take().await?];
    input::large(app, request, POLICY_BYTES_MAX, permits).await
}
