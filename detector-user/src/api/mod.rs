//! The API: what the commands do, over a unix socket, and over TLS where that is asked for.
//!
//! A connection is admitted by `serve`, which knows the other end; `admission` says what it may do; `reads`, `changes`,
//! `fleet_orders` and `events` answer with what the commands answer, and `hints` takes what an application says. An endpoint is a function with `#[utoipa::path]` and its name in
//! `endpoints`: the document, its role and its bounds follow from that.

mod admission;
mod audit;
pub(crate) mod caller;
mod change;
mod changes;
mod document;
mod events;
mod fleet_orders;
mod fleets;
mod follow;
mod hints;
mod input;
pub mod limits;
mod permits;
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

use axum::{Router, middleware::from_fn_with_state};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use document::document;
pub use serve::Listeners;
pub use tokens::Tokens;

use crate::daemon::{Shared, blocking};
use admission::Rates;
use caller::Who;
use limits::{
    AUDITS_MAX, BODY_TIME_HEADS, CHANGE_EVERY, CHANGES_BURST, CHECKS_MAX, CHECKS_OF_ONE_MAX, FOLLOWERS_MAX,
    FOLLOWERS_OF_ONE_MAX, READERS_MAX, REFUSAL_EVERY, REQUEST_TIME_HEADS, SAMPLERS_MAX, UPLOADS_MAX,
};
use permits::{Permits, PermitsOfEach};

/// What requests share.
struct App {
    running: Shared,
    tokens: Option<Tokens>,
    groups: caller::Groups,
    rates: Mutex<Rates<Who>>,
    /// Of what is written down of refused changes.
    refused: Mutex<Rates<Who>>,
    /// Of what is logged of those whom nobody knows.
    strangers: Mutex<Rates<()>>,
    followers: Permits,
    followers_of_each: PermitsOfEach,
    readers: Permits,
    samplers: Permits,
    checks: Permits,
    checks_of_each: PermitsOfEach,
    applies: Permits,
    incidents: Permits,
    hints: Permits,
    audits: Permits,
    body_time_max: Duration,
    request_time_max: Duration,
}

type Api = Arc<App>;

/// What the listener over TCP reads again when the daemon is told to.
#[derive(Clone)]
pub(crate) struct Secrets {
    tokens: Tokens,
    certificate: tls::Certificate,
}

impl Secrets {
    /// Reads tokens, certificate and key again. What cannot be used stays as it was. Not to be called where others wait.
    pub(crate) fn reload(&self) {
        self.tokens.reload();
        self.certificate.reload();
    }
}

impl App {
    fn new(running: Shared, tokens: Option<Tokens>, groups: caller::Groups, head_time_max: Duration) -> Self {
        Self {
            running,
            tokens,
            groups,
            rates: Mutex::new(Rates::new(CHANGE_EVERY, CHANGES_BURST)),
            refused: Mutex::new(Rates::new(REFUSAL_EVERY, 1)),
            strangers: Mutex::new(Rates::new(REFUSAL_EVERY, 1)),
            followers: Permits::new(FOLLOWERS_MAX),
            followers_of_each: PermitsOfEach::new(FOLLOWERS_OF_ONE_MAX),
            readers: Permits::new(READERS_MAX),
            samplers: Permits::new(SAMPLERS_MAX),
            checks: Permits::new(CHECKS_MAX),
            checks_of_each: PermitsOfEach::new(CHECKS_OF_ONE_MAX),
            applies: Permits::new(UPLOADS_MAX),
            incidents: Permits::new(UPLOADS_MAX),
            hints: Permits::new(UPLOADS_MAX),
            audits: Permits::new(AUDITS_MAX),
            body_time_max: head_time_max * BODY_TIME_HEADS,
            request_time_max: head_time_max * REQUEST_TIME_HEADS,
        }
    }
}

/// Every endpoint.
fn endpoints() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(document::head())
        .routes(routes!(reads::status))
        .routes(routes!(reads::rules))
        .routes(routes!(reads::sources))
        .routes(routes!(reads::fingerprints))
        .routes(routes!(reads::explain))
        .routes(routes!(reads::policy))
        .routes(routes!(reads::schema))
        .routes(routes!(reads::openapi))
        .routes(routes!(reads::version))
        .routes(routes!(events::events))
        .routes(routes!(fleets::fleets))
        .routes(routes!(fleets::fleet))
        .routes(routes!(fleets::members))
        .routes(routes!(fleet_orders::fleet_orders, fleet_orders::order_fleets))
        .routes(routes!(fleet_orders::undo_fleets))
        .routes(routes!(fleet_orders::stop_fleets))
        .routes(routes!(fleet_orders::resume_fleets))
        .routes(routes!(hints::hints, hints::add_hints))
        .routes(routes!(hints::take_back_hint))
        .routes(routes!(records::versions))
        .routes(routes!(records::difference))
        .routes(routes!(records::audit_log))
        .routes(routes!(records::version_text))
        .routes(routes!(records::effect))
        .routes(routes!(records::hurt))
        .routes(routes!(changes::confirm))
        .routes(routes!(changes::rollback))
        .routes(routes!(changes::undo))
        .routes(routes!(reads::check))
        .routes(routes!(changes::apply))
        .routes(routes!(records::planned))
        .routes(routes!(changes::incidents))
}

/// Every endpoint, behind what all requests go through: who asks, the log of changes, and the time they have.
fn router(app: Api) -> Router {
    let (router, _) = endpoints().split_for_parts();
    router
        .fallback(refusal::no_such_path)
        .method_not_allowed_fallback(refusal::no_such_method)
        .layer(from_fn_with_state(app.request_time_max, admission::in_time))
        .layer(from_fn_with_state(app.clone(), audit::refusals))
        .layer(from_fn_with_state(app.clone(), admission::admit))
        .with_state(app)
}
