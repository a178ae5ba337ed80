//! How changes are made: one of a kind at a time, logged, and brought to their end also when who asked has gone.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;

use super::{
    Api,
    admission::Operator,
    audit::{Asked, Audited, Version, audit},
    blocking,
    caller::Caller,
    refusal::{Json, Refusal},
};
use crate::{
    commands::Failure,
    daemon::{Running, turns::Kind},
    kernel::{maps::Maps, read},
    policy::incident,
};

/// A change as the log names it.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) what: &'static str,
    pub(super) target: String,
    pub(super) reason: Option<String>,
}

/// Makes a change of the policy when it is its turn, and logs it with the policies before and after; what others change meanwhile
/// stands between the two.
pub(super) async fn change<T: Serialize + Send + 'static>(
    app: Api,
    operator: Operator,
    wanted: Wanted,
    work: impl FnOnce(&Running, &mut Maps, &Caller) -> Result<T, Failure> + Send + 'static,
) -> Result<Response, Refusal> {
    // Whoever is on the way out waits for nobody's look at the traffic.
    let kind = match (wanted.what, wanted.target.is_empty()) {
        ("confirm", _) | ("rollback", true) => Kind::EndTrial,
        ("undo", _) => Kind::Undo,
        _ => Kind::Ordinary,
    };
    let done = make(app, operator, kind, wanted, |running, caller| {
        let mut maps = running.maps_to_change();
        let before = maps.as_ref().ok().and_then(version);
        let done = maps.as_mut().map_err(|failure| Failure::unavailable(&failure.message));
        let done = done.and_then(|maps| work(running, maps, caller));
        let after = maps.as_ref().ok().and_then(version);
        (done, [before, after])
    });
    Ok(response(done.await))
}

/// Makes a change of what is said of fleets, when it is its turn, and logs it.
pub(super) async fn say<T: Send + 'static>(
    app: Api,
    operator: Operator,
    wanted: Wanted,
    work: impl FnOnce(&Running, &Caller) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    make(app, operator, Kind::Fleets, wanted, |running, caller| (work(running, caller), [None, None])).await
}

/// The answer to a change that was logged.
pub(super) fn response<T: Serialize>(done: Result<T, Failure>) -> Response {
    let mut response = match done {
        Ok(answer) => Json(answer).into_response(),
        Err(failure) => Refusal::from(failure).into_response(),
    };
    response.extensions_mut().insert(Audited);
    response
}

async fn make<T: Send + 'static>(
    app: Api,
    Operator { caller, begun }: Operator,
    kind: Kind,
    Wanted { what, target, reason }: Wanted,
    work: impl FnOnce(&Running, &Caller) -> (Result<T, Failure>, [Option<Version>; 2]) + Send + 'static,
) -> Result<T, Failure> {
    // A task of its own: who asks may go away, what was begun and the log of it may not.
    begun.set();
    let changed = tokio::spawn(async move {
        let _turn = app.running.changes.take(kind).await;
        let running = app.running.clone();
        let done = blocking(move || {
            let (done, [before, after]) = work(&running, &caller);
            let error = done.as_ref().err().map(|failure| failure.message.clone());
            audit(&Asked { caller, what: what.to_owned(), target, reason, before, after, error });
            done
        });
        let done = done.await;
        app.running.changed.notify_one();
        done
    });
    changed.await.unwrap_or_else(|error| Err(Failure::failed(format_args!("the change was ended: {error}"))))
}

/// Which policy is active. One that cannot be read is no reason to refuse the next.
fn version(maps: &Maps) -> Option<Version> {
    let version = read::consistently(maps, |active| -> Result<_, read::ReadError> {
        let file = active.manifest()?.unwrap_or_default().file;
        Ok(Version { epoch: active.policy_epoch(), file })
    });
    version.inspect_err(|error| tracing::warn!("the log of changes lacks a policy: {error}")).ok()
}

/// A reason as the history has it, by the bounds of the option of commands.
pub(super) fn checked_reason(reason: Option<&str>) -> Result<Option<String>, Refusal> {
    let reason = reason.map(incident::reason).transpose();
    reason.map_err(|wrong| unprocessable(&format!("`reason`: {wrong}")))
}

pub(super) fn unprocessable(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message)
}

pub(super) const fn is_within(seconds: u64, max: Duration) -> bool {
    1 <= seconds && seconds <= max.as_secs()
}
