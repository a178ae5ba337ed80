//! Fleets: what is known of them, and who belongs to them as it changes.

use std::{pin::Pin, sync::Arc};

use axum::{
    extract::{Path, Query, State},
    response::Response,
};
use serde::{Deserialize, Serialize};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{BroadcastStream, errors::BroadcastStreamRecvError},
};

use super::{
    Api,
    caller::Caller,
    follow::{Follower, lines},
    input::Input,
    reads::{Answer, beside},
    refusal::Refusal,
};
use crate::{
    commands::fleets::{One, one},
    daemon::fleets::Changes,
    fleets::{Told, membership::Membership},
};

/// Changes of who belongs to fleets, as many as come at once.
type Sets = Pin<Box<dyn Stream<Item = Result<Changes, BroadcastStreamRecvError>> + Send>>;

/// Lines that are sent at once.
const LINES_AT_ONCE: usize = 1000;

/// The fleets that are known, and how detection is.
#[utoipa::path(get, path = "/v1/fleets", responses((status = OK, description = "Fleets.", body = Told)))]
pub(super) async fn fleets(State(app): State<Api>) -> Answer<Told> {
    beside(&app, |running| Ok((*running.fleets.told()).clone())).await
}

/// One fleet: what speaks for it, what else it could be, who belongs to it. One that was forgotten is told as it was last.
#[utoipa::path(
    get,
    path = "/v1/fleets/{id}",
    params(("id" = u64, Path, description = "Its number.", example = 3)),
    responses((status = OK, description = "The fleet.", body = One))
)]
pub(super) async fn fleet(State(app): State<Api>, Input(Path(id)): Input<Path<u64>>) -> Answer<One> {
    beside(&app, move |running| one(&running.fleets.told(), &running.history, &id.to_string())).await
}

/// Whom to follow.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only those of fleets at this service.
    service: Option<String>,
    /// End after those who belong now.
    #[serde(default)]
    #[param(default = false)]
    once: bool,
}

/// Some changes were missed: what is known of members is not true any more, until they are asked for anew.
#[derive(Debug, Serialize)]
struct Missed {
    change: &'static str,
    sets: u64,
}

/// Follow who belongs to fleets: first all who do, as `joined`, then who joins and who leaves, an object a line, until the daemon ends. A
/// follower that is too slow gets a last line whose `change` is `missed`, and has to begin anew.
#[utoipa::path(
    get,
    path = "/v1/fleets/members",
    params(Wanted),
    responses((status = OK, description = "An object a line, as it happens.", body = Membership, content_type = "application/x-ndjson"))
)]
pub(super) async fn members(
    State(app): State<Api>,
    caller: Caller,
    Input(Query(wanted)): Input<Query<Wanted>>,
) -> Result<Response, Refusal> {
    let follower = Follower::admit(&app, caller)?;
    let (all, changes) = app.running.fleets.follow();
    let Wanted { service, once } = wanted;
    let is_wanted = move |one: &&Membership| service.as_ref().is_none_or(|service| one.service == *service);
    let first: Vec<_> = all.chunks(LINES_AT_ONCE).map(|some| Ok(Arc::new(some.to_vec()))).collect();
    let mut has_missed = false;
    let later = BroadcastStream::new(changes).take_while(move |changes| {
        // The line that tells of it is the last one.
        !std::mem::replace(&mut has_missed, changes.is_err())
    });
    let later: Sets = if once { Box::pin(tokio_stream::empty()) } else { Box::pin(later) };
    Ok(follower.follow(tokio_stream::iter(first).chain(later), move |changes| {
        Some(match changes {
            Ok(changes) => lines(changes.iter().filter(&is_wanted)),
            Err(BroadcastStreamRecvError::Lagged(sets)) => lines([&Missed { change: "missed", sets }]),
        })
    }))
}
