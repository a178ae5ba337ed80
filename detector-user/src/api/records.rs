//! What was changed, what is in force whole, and what a change would do.

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use serde::Deserialize;
use tokio::time::sleep;

use super::{
    Api,
    caller::Caller,
    input::Input,
    limits::{ROWS_MAX, VERSIONS_MAX},
    reads::{Answer, Check, beside, of_maps, sent},
    refusal::{Json, Refusal},
};
use crate::{
    change::in_kernel,
    commands::{Failure, PolicyFile, SourceFiles, effective, history, plan, show, victims},
    kernel::maps::Maps,
    traffic::{Look, Traffic, WINDOW_MIN, recent},
};

/// How much to answer with.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Limit {
    /// Entries at most, the newest first.
    #[param(minimum = 1, maximum = 10_000, default = 20)]
    limit: usize,
}

impl Default for Limit {
    fn default() -> Self {
        Self { limit: 20 }
    }
}

impl Limit {
    fn checked(self) -> Result<usize, Refusal> {
        checked(self.limit, ROWS_MAX)
    }
}

fn checked(limit: usize, max: usize) -> Result<usize, Refusal> {
    if (1..=max).contains(&limit) {
        return Ok(limit);
    }
    Err(Failure::invalid(format_args!("`limit` is from 1 to {max}")).into())
}

/// How many versions to answer with.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct VersionLimit {
    /// Versions at most, the newest first.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: usize,
}

impl Default for VersionLimit {
    fn default() -> Self {
        Self { limit: 20 }
    }
}

/// Which version.
#[derive(Debug, Clone, Copy, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Number {
    /// The number of the version.
    #[param(minimum = 1)]
    version: u64,
}

/// The versions of the policy: who, when, why, what changed.
#[utoipa::path(get, path = "/v1/history", params(VersionLimit), responses((status = OK, description = "Versions.", body = history::Answer)))]
pub(super) async fn versions(
    State(app): State<Api>,
    Input(Query(VersionLimit { limit })): Input<Query<VersionLimit>>,
) -> Answer<history::Answer> {
    let limit = checked(limit, VERSIONS_MAX)?;
    let records = app.running.history.clone();
    of_maps(&app, move |maps, _| history::answer(&records, in_kernel(maps)?.as_ref(), limit)).await
}

/// What a version of the policy changed.
#[utoipa::path(get, path = "/v1/history/{version}", params(Number), responses((status = OK, description = "What it changed.", body = history::Difference)))]
pub(super) async fn difference(
    State(app): State<Api>,
    Input(Path(Number { version })): Input<Path<Number>>,
) -> Answer<history::Difference> {
    let records = app.running.history.clone();
    of_maps(&app, move |maps, _| history::difference(&records, in_kernel(maps)?.as_ref(), version)).await
}

/// Every change that was asked for, done or refused.
#[utoipa::path(get, path = "/v1/audit", params(Limit), responses((status = OK, description = "Entries.", body = history::Audit)))]
pub(super) async fn audit_log(
    State(app): State<Api>,
    Input(Query(limit)): Input<Query<Limit>>,
) -> Answer<history::Audit> {
    let limit = limit.checked()?;
    beside(&app, move |running| history::audit(&running.history, limit)).await
}

/// The text of a version of the policy, with its source files.
#[utoipa::path(get, path = "/v1/versions/{version}", params(Number), responses((status = OK, description = "Its text.", body = show::Answer)))]
pub(super) async fn version_text(
    State(app): State<Api>,
    Input(Path(Number { version })): Input<Path<Number>>,
) -> Answer<show::Answer> {
    beside(&app, move |running| show::answer(&running.history, version)).await
}

/// What the kernel does now: services with their budgets, rules with what they refused.
#[utoipa::path(get, path = "/v1/effective", responses((status = OK, description = "What is in force.", body = effective::Answer)))]
pub(super) async fn effect(State(app): State<Api>) -> Answer<effective::Answer> {
    of_maps(&app, |maps, _| effective::answer(maps)).await
}

/// What a policy would change, for which sources of the live table, and whether it would be refused.
#[utoipa::path(post, path = "/v1/plan", request_body = Check, responses((status = OK, description = "What it would change.", body = plan::Answer)))]
pub(super) async fn planned(
    State(app): State<Api>,
    caller: Caller,
    request: Request,
) -> Answer<plan::Answer> {
    // The permits are held for as long as the policy is.
    let sent = Arc::new(sent(&app, &caller, request).await?);
    let guard = caller.guard(&app.running.guard);
    with_traffic(&app, move |maps, traffic| {
        let (Check { text, name, source_files }, _) = &*sent;
        let file = PolicyFile::parse(name, text.clone(), SourceFiles::Sent(source_files))?;
        plan::answer(maps, &file, &guard, traffic, VICTIMS_MAX)
    })
    .await
}

/// Answers with the traffic of the last minute, as the daemon saw it. Where it keeps no look yet, two are taken, and no
/// other reader waits in between.
async fn with_traffic<T: Send + 'static>(
    app: &Api,
    answer: impl Fn(&Maps, &Traffic) -> Result<T, Failure> + Clone + Send + 'static,
) -> Answer<T> {
    let (directory, by_kept) = (app.running.guard.watching.directory.clone(), answer.clone());
    let Json(kept) = of_maps(app, move |maps, _| {
        let kept = recent(maps, &directory, WINDOW_MIN);
        let kept = kept.inspect_err(|error| tracing::debug!("the traffic is looked at twice: {error}"));
        kept.ok().flatten().map(|look| by_kept(maps, &look.since(maps))).transpose()
    })
    .await?;
    if let Some(answer) = kept {
        return Ok(Json(answer));
    }
    let permit = app.samplers.take().await?;
    let Json(look) = of_maps(app, |maps, _| Ok(Look::take(maps))).await?;
    sleep(WINDOW_MIN).await;
    of_maps(app, move |maps, _| {
        let _permit = permit;
        answer(maps, &look.since(maps))
    })
    .await
}

/// Sources that a plan names.
const VICTIMS_MAX: usize = 100;

/// Whose victims to answer with.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct OfRule {
    /// Only the sources of this rule.
    rule: Option<String>,
    /// Rows at most.
    #[param(minimum = 1, maximum = 10_000, default = 20)]
    rows: usize,
}

impl Default for OfRule {
    fn default() -> Self {
        Self { rule: None, rows: 20 }
    }
}

/// The sources that are dropped, or would be in mode enforce.
#[utoipa::path(get, path = "/v1/victims", params(OfRule), responses((status = OK, description = "Sources.", body = victims::Answer)))]
pub(super) async fn hurt(
    State(app): State<Api>,
    Input(Query(OfRule { rule, rows })): Input<Query<OfRule>>,
) -> Answer<victims::Answer> {
    if !(1..=ROWS_MAX).contains(&rows) {
        return Err(Failure::invalid(format_args!("`rows` is from 1 to {ROWS_MAX}")).into());
    }
    with_traffic(&app, move |maps, traffic| victims::answer(maps, traffic, rule.as_deref(), rows)).await
}
