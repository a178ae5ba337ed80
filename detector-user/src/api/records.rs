//! What was changed, what is in force whole, and what a change would do.

use axum::extract::{Extension, Path, Query, Request, State};
use serde::Deserialize;

use super::{
    Api, blocking,
    caller::Caller,
    input,
    input::Input,
    limits::ROWS_MAX,
    reads::{Answer, Check, of_maps},
    refusal::{Json, Refusal},
};
use crate::{
    change::in_kernel,
    commands::{Failure, PolicyFile, SourceFiles, effective, history, plan, show, victims},
    guard::say_waiting,
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
        if (1..=ROWS_MAX).contains(&self.limit) {
            return Ok(self.limit);
        }
        Err(Failure::invalid(format_args!("`limit` is from 1 to {ROWS_MAX}")).into())
    }
}

/// The versions of the policy: who, when, why, what changed.
#[utoipa::path(get, path = "/v1/history", params(Limit), responses((status = OK, description = "Versions.", body = history::Answer)))]
pub(super) async fn versions(
    State(app): State<Api>,
    Input(Query(limit)): Input<Query<Limit>>,
) -> Answer<history::Answer> {
    let limit = limit.checked()?;
    let records = app.running.history.clone();
    of_maps(&app, move |maps, _| history::answer(&records, in_kernel(maps)?.as_ref(), limit)).await
}

/// What a version of the policy changed.
#[utoipa::path(
    get,
    path = "/v1/history/{version}",
    params(("version" = u64, Path, description = "The number of the version.", minimum = 1)),
    responses((status = OK, description = "What it changed.", body = history::Difference))
)]
pub(super) async fn difference(
    State(app): State<Api>,
    Input(Path(version)): Input<Path<u64>>,
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
    let _place = app.readers.acquire().await;
    let records = app.running.history.clone();
    Ok(Json(blocking(move || history::audit(&records, limit)).await?))
}

/// The text of a version of the policy, with its source files.
#[utoipa::path(
    get,
    path = "/v1/versions/{version}",
    params(("version" = u64, Path, description = "The number of the version.", minimum = 1)),
    responses((status = OK, description = "Its text.", body = show::Answer))
)]
pub(super) async fn version_text(
    State(app): State<Api>,
    Input(Path(version)): Input<Path<u64>>,
) -> Answer<show::Answer> {
    let _place = app.readers.acquire().await;
    let records = app.running.history.clone();
    Ok(Json(blocking(move || show::answer(&records, version)).await?))
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
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<plan::Answer> {
    let _place = app.checks.acquire().await;
    let Check { text, name, source_files } = input::body(&app, request).await?;
    let guard = caller.guard(&app.running.guard);
    of_maps(&app, move |maps, _| {
        let file = PolicyFile::parse(&name, text, SourceFiles::Sent(&source_files))?;
        plan::answer(maps, &file, &guard, VICTIMS_MAX)
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
    let watching = app.running.guard.watching.clone();
    of_maps(&app, move |maps, _| {
        let traffic = watching.traffic(maps, say_waiting);
        victims::answer(maps, &traffic, rule.as_deref(), rows)
    })
    .await
}
