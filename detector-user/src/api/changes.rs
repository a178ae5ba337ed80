//! What changes something: one change at a time, logged, and brought to its end also when who asked has gone.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api,
    admission::Operator,
    audit::{Audited, Change, Version, audit},
    blocking, input,
    reads::POLICY_NAME,
    refusal::{Json, Refusal},
};
use crate::{
    commands::{Failure, PolicyFile, SourceFiles, apply, confirm as trial},
    daemon::Running,
    kernel::{maps::Maps, read},
};

/// A policy to apply.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Apply {
    /// The policy, as its file would be.
    text: String,
    /// What it is called where it is shown.
    #[serde(default = "default_name")]
    #[schema(default = "api.toml", min_length = 1, max_length = 255)]
    name: String,
    /// The source files that it names, by these names. No file of the daemon's machine is read.
    #[serde(default)]
    source_files: BTreeMap<String, String>,
    /// Seconds until it is taken back unless it is confirmed.
    #[schema(minimum = 1, maximum = 86_400)]
    confirm_s: Option<u64>,
    /// Apply also what `check` says needs to be forced.
    #[serde(default)]
    force: bool,
    /// Why, for the log.
    #[schema(max_length = 255)]
    reason: Option<String>,
}

pub(super) fn default_name() -> String {
    POLICY_NAME.to_owned()
}

/// Apply a policy in one step; every budget keeps its state.
#[utoipa::path(post, path = "/v1/apply", request_body = Apply, responses((status = OK, description = "Applied.", body = apply::Answer)))]
pub(super) async fn apply(
    State(app): State<Api>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let _place = app.applies.acquire().await;
    let Apply { text, name, source_files, confirm_s, force, reason } = input::body(&app, request).await?;
    let is_bounded = |text: &str| text.chars().count() <= 255 && !text.chars().any(char::is_control);
    if name.is_empty() || !is_bounded(&name) || !is_bounded(reason.as_deref().unwrap_or_default()) {
        return Err(unprocessable("`name` and `reason` have at most 255 characters, on one line"));
    }
    if !confirm_s.is_none_or(|seconds| (1..=86_400).contains(&seconds)) {
        return Err(unprocessable("`confirm_s` is from 1 to 86400"));
    }
    change(app.clone(), operator, "apply", reason, move |running, maps| {
        let file = PolicyFile::parse(name, text, SourceFiles::Sent(&source_files))?;
        if !force {
            file.check_force()?;
        }
        apply::answer(maps, &running.pins, &file, confirm_s.map(Duration::from_secs))
    })
    .await
}

fn unprocessable(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message)
}

/// Keep the policy that is on trial.
#[utoipa::path(post, path = "/v1/confirm", responses((status = OK, description = "It stays.", body = trial::Answer)))]
pub(super) async fn confirm(State(app): State<Api>, operator: Operator) -> Result<Response, Refusal> {
    change(app, operator, "confirm", None, |running, maps| trial::answer(maps, &running.pins, true)).await
}

/// Go back from the policy that is on trial.
#[utoipa::path(post, path = "/v1/rollback", responses((status = OK, description = "The policy before is active.", body = trial::Answer)))]
pub(super) async fn rollback(State(app): State<Api>, operator: Operator) -> Result<Response, Refusal> {
    change(app, operator, "rollback", None, |running, maps| trial::answer(maps, &running.pins, false)).await
}

/// Makes a change when it is its turn, and logs it with the policies before and after.
async fn change<T: Serialize + Send + 'static>(
    app: Api,
    Operator(caller): Operator,
    what: &'static str,
    reason: Option<String>,
    work: impl FnOnce(&Running, &mut Maps) -> Result<T, Failure> + Send + 'static,
) -> Result<Response, Refusal> {
    // A task of its own: who asks may go away, what was begun and the log of it may not.
    let changed = tokio::spawn(async move {
        let _turn = app.running.changes.lock().await;
        let running = app.running.clone();
        let done = blocking(move || {
            let mut maps = running.maps_to_change();
            let before = maps.as_ref().ok().and_then(version);
            let done = maps.as_mut().map_err(|failure| Failure::unavailable(&failure.message));
            let done = done.and_then(|maps| work(&running, maps));
            let after = maps.as_ref().ok().and_then(version);
            let error = done.as_ref().err().map(|failure| failure.message.clone());
            audit(&Change { caller, what: what.to_owned(), reason, before, after, error });
            done
        });
        let done = done.await;
        app.running.changed.notify_one();
        done
    });
    let done = changed
        .await
        .unwrap_or_else(|error| Err(Failure::failed(format_args!("the change was ended: {error}"))));
    let mut response = match done {
        Ok(answer) => Json(answer).into_response(),
        Err(failure) => Refusal::from(failure).into_response(),
    };
    response.extensions_mut().insert(Audited);
    Ok(response)
}

/// Which policy is active. One that cannot be read is no reason to refuse the next.
fn version(maps: &Maps) -> Option<Version> {
    let version = read::consistently(maps, |active| -> Result<_, read::ReadError> {
        let file = active.manifest()?.unwrap_or_default().file;
        Ok(Version { epoch: active.epoch(), file })
    });
    version.inspect_err(|error| tracing::warn!("the log of changes lacks a policy: {error}")).ok()
}
