//! The log of changes: who asked for what, from where, and what came of it.

use axum::{
    extract::{Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::Response,
};

use super::{Api, admission::admits, caller::Caller, permits::blocking_with, refusal::Told};
use crate::{
    clock,
    daemon::Running,
    history::{Entry, Origin},
};

/// A policy, as far as a log names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// Its number; 0: none.
    pub(super) epoch: u32,
    /// Where it came from.
    pub(super) file: String,
}

/// A change that was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) caller: Caller,
    /// What was asked for: the change, or the last part of the path.
    pub(super) what: String,
    /// To what: a file, a version, targets, numbers of rules; empty where that was not read.
    pub(super) target: String,
    /// Why, by the one who asks.
    pub(super) reason: Option<String>,
    pub(super) before: Option<Version>,
    pub(super) after: Option<Version>,
    /// Why it was not done.
    pub(super) error: Option<String>,
}

/// Logs a change, done or refused. The one place that all of them come to. Asks the user database for the name of who
/// asked: not to be called where others wait.
pub(super) fn audit(change: &Asked) {
    let Asked { caller, what, target, reason, before, after, error } = change;
    let (who, from, role) = (caller.who.to_string(), caller.peer.to_string(), caller.role.name());
    let epoch = |version: &Option<Version>| version.as_ref().map(|version| version.epoch);
    let file = |version: &Option<Version>| version.as_ref().map(|version| version.file.clone());
    let (before_file, after_file) = (file(before), file(after));
    match error {
        None => tracing::info!(
            change = %what, target, who, from, role, reason,
            before = epoch(before), before_file, after = epoch(after), after_file,
            "changed over the API"
        ),
        Some(error) => tracing::warn!(
            change = %what, target, who, from, role, reason,
            before = epoch(before), before_file, after = epoch(after), after_file,
            error, "refused over the API"
        ),
    }
}

/// Writes a refused change into the history, where nothing further on does. Not to be called where others wait.
pub(super) fn record_refusal(running: &Running, caller: &Caller, what: &str, target: &str, why: &str) {
    let author = caller.author();
    let entry = Entry::new(clock::unix_s(), &author, Origin::Api, what, target);
    if let Err(error) = running.history.record(&Entry { refusal: Some(why), ..entry }) {
        tracing::warn!("a refused {what} is not recorded: {error}");
    }
}

/// What a path asks for: its last part that is no number.
fn asked_for(path: &str) -> &str {
    let is_name = |part: &&str| !part.bytes().all(|letter| letter.is_ascii_digit());
    path.rsplit('/').find(is_name).unwrap_or_default()
}

/// Says of a response that its change was logged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Audited;

/// Logs and records the changes that were refused before anything was done: by role, by rate, by what was sent. Of each
/// caller one a second, so that nobody fills the log.
pub(super) async fn refusals(State(app): State<Api>, request: Request, next: Next) -> Response {
    let what = asked_for(request.uri().path()).to_owned();
    let caller = request.extensions().get::<Caller>().cloned();
    let may_change = matches!(*request.method(), Method::POST | Method::DELETE);
    let is_read = !may_change || matches!(&*what, "check" | "plan");
    let response = next.run(request).await;
    let is_no_change =
        is_read || matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
    let (false, Some(caller), None) = (is_no_change, caller, response.extensions().get::<Audited>()) else {
        return response;
    };
    let Some(Told(error)) = response.extensions().get::<Told>().cloned() else { return response };
    if !admits(&app.refused, &caller.who) {
        return response;
    }
    let logged = async move {
        let (permit, running) = (app.audits.take().await?, app.running.clone());
        let logged = move || {
            record_refusal(&running, &caller, &what, "", &error);
            let (reason, before, after) = (None, None, None);
            audit(&Asked { caller, what, target: String::new(), reason, before, after, error: Some(error) });
            Ok(())
        };
        blocking_with(permit, logged).await
    };
    // A task of its own, as that of a change: who asks may go away meanwhile.
    let logged = tokio::spawn(async {
        if let Err(failure) = logged.await {
            tracing::error!("a refused change was not logged: {}", failure.message);
        }
    });
    if let Err(error) = logged.await {
        tracing::error!("a refused change may not be logged: {error}");
    }
    response
}
