//! The API: what the commands do, over a unix socket, and over TLS where that is asked for.
//!
//! A connection is admitted by `serve`, which knows the other end; `admission` says what it may do; `reads`, `changes` and
//! `events` answer with what the commands answer. An endpoint is a function with `#[utoipa::path]` and its name in
//! `endpoints`: the document, its role and its bounds follow from that.

mod admission;
mod audit;
pub(crate) mod caller;
mod changes;
mod document;
mod events;
mod input;
pub mod limits;
mod reads;
mod records;
mod refusal;
mod serve;
mod socket;
mod tls;
pub mod tokens;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::{from_fn, from_fn_with_state},
};
use tokio::sync::Semaphore;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use document::document;
pub use serve::Listeners;
pub use tokens::Tokens;

use crate::daemon::{Shared, blocking};
use limits::{BODY_BYTES_MAX, FOLLOWERS_MAX, POLICIES_MAX, POLICY_BYTES_MAX, READERS_MAX, SAMPLERS_MAX};

/// What requests share.
struct App {
    running: Shared,
    tokens: Option<Tokens>,
    groups: caller::Groups,
    rates: Mutex<admission::Rates>,
    followers: Arc<Semaphore>,
    readers: Semaphore,
    samplers: Semaphore,
    checks: Semaphore,
    applies: Semaphore,
    body_time_max: Duration,
}

type Api = Arc<App>;

impl App {
    fn new(running: Shared, tokens: Option<Tokens>, groups: caller::Groups, body_time_max: Duration) -> Self {
        Self {
            running,
            tokens,
            groups,
            rates: Mutex::default(),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            readers: Semaphore::new(READERS_MAX),
            samplers: Semaphore::new(SAMPLERS_MAX),
            checks: Semaphore::new(POLICIES_MAX),
            applies: Semaphore::new(POLICIES_MAX),
            body_time_max,
        }
    }
}

/// Every endpoint.
fn endpoints() -> OpenApiRouter<Api> {
    let policies = OpenApiRouter::new()
        .routes(routes!(reads::check))
        .routes(routes!(changes::apply))
        .routes(routes!(records::planned))
        .routes(routes!(changes::incidents))
        .layer(DefaultBodyLimit::max(POLICY_BYTES_MAX));
    OpenApiRouter::with_openapi(document::head())
        .routes(routes!(reads::status))
        .routes(routes!(reads::rules))
        .routes(routes!(reads::sources))
        .routes(routes!(reads::explain))
        .routes(routes!(reads::policy))
        .routes(routes!(reads::schema))
        .routes(routes!(reads::openapi))
        .routes(routes!(reads::version))
        .routes(routes!(events::events))
        .routes(routes!(records::versions))
        .routes(routes!(records::difference))
        .routes(routes!(records::audit_log))
        .routes(routes!(records::version_text))
        .routes(routes!(records::effect))
        .routes(routes!(records::hurt))
        .routes(routes!(changes::confirm))
        .routes(routes!(changes::rollback))
        .routes(routes!(changes::undo))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .merge(policies)
}

/// Every endpoint, behind what all requests go through: the time they have, who asks, and the log of changes.
fn router(app: Api) -> Router {
    let (router, _) = endpoints().split_for_parts();
    router
        .fallback(refusal::no_such_path)
        .method_not_allowed_fallback(refusal::no_such_method)
        .layer(from_fn_with_state(app.clone(), audit::refusals))
        .layer(from_fn_with_state(app.clone(), admission::admit))
        .layer(from_fn(admission::in_time))
        .with_state(app)
}
