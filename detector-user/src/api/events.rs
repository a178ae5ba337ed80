//! Following what happens: a line of JSON for each event, until one end goes away.

use std::pin::Pin;

use axum::{
    extract::{Query, State},
    http::StatusCode,
    response::Response,
};
use clap::ValueEnum;
use serde::Deserialize;
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{BroadcastStream, errors::BroadcastStreamRecvError},
};

use super::{
    Api,
    caller::Caller,
    follow::{Follower, lines},
    input::Input,
    refusal::Refusal,
};
use crate::daemon::feed::{Entry, Event, EventKind, Feed};

/// Which events to follow.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Kinds, with commas between; all without.
    #[param(example = "drop,reload")]
    kind: Option<String>,
    /// Of drops, fingerprints, their conflicts and fleets, only those of this service.
    service: Option<String>,
}

impl Wanted {
    fn kinds(&self) -> Result<Vec<EventKind>, Refusal> {
        let names = self.kind.iter().flat_map(|kinds| kinds.split(','));
        names
            .map(|name| {
                EventKind::from_str(name, false).map_err(|_| {
                    let known: Vec<_> = EventKind::value_variants().iter().map(|kind| kind.name()).collect();
                    let message =
                        format!("{name:?} is no kind of event: expected some of {}", known.join(", "));
                    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message)
                })
            })
            .collect()
    }
}

fn is_wanted(entry: &Entry, kinds: &[EventKind], service: Option<&str>) -> bool {
    let kind = entry.event.kind();
    // That some are missing is for everybody to know.
    let is_of_kind = kinds.is_empty() || kind == EventKind::Missed || kinds.contains(&kind);
    let is_of_service = match (&entry.event, service) {
        (Event::Drop(dropped), Some(service)) => dropped.service == service,
        (Event::Fingerprint { service: of, .. }, Some(service)) => of == service,
        (Event::FingerprintConflict { service: of, .. }, Some(service)) => of == service,
        (Event::Fleet(fleet), Some(service)) => fleet.service == service,
        _ => true,
    };
    is_of_kind && is_of_service
}

type Entries = Pin<Box<dyn Stream<Item = Result<Entry, BroadcastStreamRecvError>> + Send>>;

/// What is told of some kinds of events: drops, which are many, only to those who want them.
fn entries(feed: &Feed, kinds: &[EventKind]) -> Entries {
    let others = BroadcastStream::new(feed.follow_others());
    if kinds.is_empty() || kinds.contains(&EventKind::Drop) {
        return Box::pin(others.merge(BroadcastStream::new(feed.follow_drops())));
    }
    Box::pin(others)
}

/// Follow what happens: an object a line, until the daemon ends. A follower that is too slow is told how many it missed.
#[utoipa::path(
    get,
    path = "/v1/events",
    params(Wanted),
    responses((status = OK, description = "An object a line, as it happens.", body = Entry, content_type = "application/x-ndjson"))
)]
pub(super) async fn events(
    State(app): State<Api>,
    caller: Caller,
    Input(Query(wanted)): Input<Query<Wanted>>,
) -> Result<Response, Refusal> {
    let kinds = wanted.kinds()?;
    let follower = Follower::admit(&app, caller)?;
    Ok(follower.follow(entries(&app.running.feed, &kinds), move |entry| {
        let entry = entry
            .unwrap_or_else(|BroadcastStreamRecvError::Lagged(events)| Entry::now(Event::Missed { events }));
        is_wanted(&entry, &kinds, wanted.service.as_deref()).then(|| lines([&entry]))
    }))
}
