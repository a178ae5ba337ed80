//! What a request has to pass before anything is done for it: who asks, with which role, how often, and for how long.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use detector_common::budget::{take, ticks};
use tokio::time::timeout;

use super::{
    Api, App,
    audit::Audited,
    caller::{Caller, Peer, Role, Who},
    limits::{CHANGE_EVERY, CHANGES_BURST, REFUSAL_EVERY},
    refusal::Refusal,
};
use crate::clock;

/// Whether the change that a request asks for was begun: then it comes to its end, whatever becomes of the request.
#[derive(Debug, Clone, Default)]
pub(super) struct Begun(Arc<AtomicBool>);

impl Begun {
    /// It is begun now.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Ends what takes too long.
pub(super) async fn in_time(State(time_max): State<Duration>, mut request: Request, next: Next) -> Response {
    let begun = Begun::default();
    request.extensions_mut().insert(begun.clone());
    if let Ok(response) = timeout(time_max, next.run(request)).await {
        return response;
    }
    let seconds = time_max.as_secs_f64();
    let late = |message| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    if !begun.is_set() {
        return late(format!("not done within {seconds} s, and no change was begun: try again"));
    }
    let mut response = late(format!(
        "not done within {seconds} s: the change comes to its end all the same, `detector status` says how it went"
    ));
    // By the change, when it is done.
    response.extensions_mut().insert(Audited);
    response
}

/// Finds out who asks, or refuses.
pub(super) async fn admit(State(app): State<Api>, mut request: Request, next: Next) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return Refusal::new(StatusCode::UNAUTHORIZED, "nobody knows who asks").into_response();
    };
    match caller(&app, peer.clone(), request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refusal) => {
            if admits(&app.strangers, &()) {
                let seconds = REFUSAL_EVERY.as_secs();
                tracing::warn!(
                    from = %peer,
                    "refused over the API, as others may have been that are not logged for {seconds} s: {}",
                    refusal.message()
                );
            }
            refusal.into_response()
        }
    }
}

/// Whether somebody's budget has room for one more now.
pub(super) fn admits<K: Clone + Eq + Hash>(rates: &Mutex<Rates<K>>, who: &K) -> bool {
    rates.lock().unwrap_or_else(PoisonError::into_inner).admit(who, ticks(clock::kernel_ns()))
}

fn caller(app: &App, peer: Peer, headers: &HeaderMap) -> Result<Caller, Refusal> {
    if let Peer::Local(credentials) = &peer {
        let role = app.groups.role(credentials).ok_or_else(|| {
            Refusal::new(
                StatusCode::FORBIDDEN,
                format_args!(
                    "user {} may not use this API: root may, and members of the groups of `run --api-group` and \
                     `run --api-viewer-group`",
                    credentials.uid
                ),
            )
        })?;
        return Ok(Caller { who: Who::User(credentials.uid), role, peer, token: None });
    }
    let secret = bearer(headers).ok_or_else(|| {
        Refusal::new(StatusCode::UNAUTHORIZED, "a token is needed: `Authorization: Bearer TOKEN`")
    })?;
    let token = app.tokens.as_ref().and_then(|tokens| tokens.find(secret)).ok_or_else(|| {
        Refusal::new(StatusCode::UNAUTHORIZED, "no such token: `detector token NAME` makes one")
    })?;
    Ok(Caller { who: Who::Token(token.name.clone()), role: token.role, peer, token: Some(token) })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

/// Who reads: everybody whom [`admit`] let in.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let unknown = || Refusal::new(StatusCode::UNAUTHORIZED, "nobody knows who asks");
        parts.extensions.get::<Self>().cloned().ok_or_else(unknown)
    }
}

/// Who changes something: an operator, and not too often.
pub(super) struct Operator {
    pub(super) caller: Caller,
    pub(super) begun: Begun,
}

impl FromRequestParts<Api> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Api) -> Result<Self, Refusal> {
        let caller = Caller::from_request_parts(parts, app).await?;
        if caller.role < Role::Operator {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "viewers may read and check, not change: ask as root, as a member of the group of `run --api-group`, or \
                 with a token for operators",
            ));
        }
        if !admits(&app.rates, &caller.who) {
            let seconds = CHANGE_EVERY.as_secs();
            let message =
                format!("too many changes: {CHANGES_BURST} at once and one every {seconds} s after that");
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, message));
        }
        let begun = parts.extensions.get::<Begun>().cloned().unwrap_or_default();
        Ok(Self { caller, begun })
    }
}

/// A budget of each caller: so many at once, and one more after each time.
#[derive(Debug)]
pub(super) struct Rates<K> {
    /// In ticks.
    every: u64,
    burst: u64,
    /// When each budget is full again, in ticks. Those that are full are forgotten.
    full_at: HashMap<K, u64>,
}

impl<K: Clone + Eq + Hash> Rates<K> {
    pub(super) fn new(every: Duration, burst: u64) -> Self {
        Self { every: ticks(nanoseconds(every)), burst, full_at: HashMap::new() }
    }

    fn admit(&mut self, who: &K, now: u64) -> bool {
        self.full_at.retain(|_, full_at| *full_at > now);
        let full_at = self.full_at.get(who).copied().unwrap_or(now);
        let taken = take(full_at, now, self.every, self.every * self.burst);
        if let Ok(full_at) = taken {
            self.full_at.insert(who.clone(), full_at);
        }
        taken.is_ok()
    }
}

const fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_a_burst_and_then_a_rate() {
        let mut rates = Rates::new(CHANGE_EVERY, CHANGES_BURST);
        let (one, other) = (Who::User(1), Who::Token("1".to_owned()));
        let at = |seconds: u64| ticks(seconds * nanoseconds(CHANGE_EVERY));
        let admitted = (0..100).filter(|_| rates.admit(&one, at(1000))).count();
        assert_eq!(admitted as u64, CHANGES_BURST);
        assert!(rates.admit(&other, at(1000)));
        assert!(rates.admit(&one, at(1001)) && !rates.admit(&one, at(1001)));
        assert!(rates.admit(&one, at(2000)));
        assert_eq!(rates.full_at.len(), 1, "who has a full budget is forgotten");
    }
}
