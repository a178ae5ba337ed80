//! Orders about fleets, and the switch of all actions on them: what `throttle`, `allow` and `undo` do with `fleet:ID`, and `fleets --stop`.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{
    Api,
    admission::Operator,
    audit::record_refusal,
    caller::Caller,
    change::{Wanted, checked_reason, is_within, response, say, unprocessable},
    input,
    reads::{Answer, beside},
    refusal::Refusal,
};
use crate::{
    actions::{limits::ORDERS_MAX, order},
    change::{
        INCIDENT_TIME_MAX,
        fleets::{self as changes, Asked, CARRIED_OUT_WITHIN},
        incidents::Record,
    },
    commands::{Failure, incident},
    daemon::Running,
    history::Origin,
    kernel::fleets,
    policy::incident::IncidentAction,
};

const _: () = assert!(
    ORDERS_MAX == 256 && INCIDENT_TIME_MAX.as_secs() == 31_622_400,
    "the attributes below say these bounds to the schema, and take nothing but literals"
);

/// What is to be done about fleets.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderFleets {
    /// What.
    action: OrderKind,
    /// Their numbers.
    #[schema(min_items = 1, max_items = 256)]
    fleets: Vec<u64>,
    /// Seconds until it ends by itself.
    #[schema(minimum = 1, maximum = 31_622_400)]
    for_s: u64,
    /// Why.
    #[schema(min_length = 1, max_length = 255)]
    reason: String,
    /// Of a throttle: packets that all members share, like `100/s`; without it, as the daemon would do.
    rate: Option<String>,
    /// Of a throttle with a rate: packets at once after a pause. Where packets are not limited: connections.
    #[schema(minimum = 1)]
    burst: Option<u64>,
    /// Of a throttle: new connections that all members share, like `5/s`; without it, as the daemon would do.
    connections: Option<String>,
    /// Throttle also where a guard would leave it a suggestion.
    #[serde(default)]
    force: bool,
}

/// What may be done about a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = FleetOrderKind)]
pub(super) enum OrderKind {
    /// All members share one budget.
    Throttle,
    /// It is left alone, whatever the policy says.
    Allow,
}

impl OrderFleets {
    fn wanted(&self) -> Result<order::Wanted, Failure> {
        let budgets = incident::budgets(&incident::Rates {
            rate: self.rate.as_deref(),
            burst: self.burst,
            connections: self.connections.as_deref(),
            ..incident::Rates::default()
        })?;
        let action = match (self.action, budgets) {
            (OrderKind::Throttle, budgets) => budgets.map(IncidentAction::ThrottleShared),
            (OrderKind::Allow, None) => Some(IncidentAction::Allow),
            (OrderKind::Allow, Some(_)) => return Err(Failure::invalid("only a throttle has rates")),
        };
        order::Wanted::of(action.as_ref()).map_err(Failure::invalid)
    }
}

/// Throttle fleets, or leave them alone; in the place of what was ordered about them before. Answers when the daemon has decided by it. Where
/// a guard does not let it be that is a refusal, and the order stands until it ends.
#[utoipa::path(post, path = "/v1/fleets/orders", request_body = OrderFleets, responses((status = OK, description = "It is done.", body = changes::Answer)))]
pub(super) async fn order_fleets(
    State(app): State<Api>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let body: OrderFleets = input::small(&app, request).await?;
    let fleets = checked_fleets(&body.fleets)?;
    let reason = checked_reason(Some(&body.reason))?.unwrap_or_default();
    if !is_within(body.for_s, INCIDENT_TIME_MAX) {
        return Err(unprocessable(&format!("`for_s` is from 1 to {}", INCIDENT_TIME_MAX.as_secs())));
    }
    let (wanted, time) = (body.wanted()?, Duration::from_secs(body.for_s));
    let request = changes::Request { fleets, wanted, force: body.force, time, reason };
    let what = if wanted.is_throttle() { "throttle" } else { "allow" };
    let logged = Wanted { what, target: target(&request.fleets), reason: Some(request.reason.clone()) };
    let told = app.running.fleets.told();
    let running = app.running.clone();
    ordered(app, operator, logged, move |record| {
        let asked = changes::order(record, &told, &request);
        if request.wanted.is_throttle() {
            return asked;
        }
        // Not when the daemon has decided by it, which may be busy.
        changes::release(asked, &running.pins, running.maps_to_change(), &request.fleets)
    })
    .await
}

/// Orders to take back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UndoFleets {
    /// The numbers of the fleets that they are about.
    #[schema(min_items = 1, max_items = 256)]
    fleets: Vec<u64>,
    /// Why, for the history.
    #[schema(min_length = 1, max_length = 255)]
    reason: Option<String>,
}

/// Take back what is ordered about fleets, of all of them or none: the daemon decides by itself again, as the policy says.
#[utoipa::path(post, path = "/v1/fleets/undo", request_body = UndoFleets, responses((status = OK, description = "Nothing is ordered about them.", body = changes::Answer)))]
pub(super) async fn undo_fleets(
    State(app): State<Api>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let UndoFleets { fleets, reason } = input::small(&app, request).await?;
    let fleets = checked_fleets(&fleets)?;
    let reason = checked_reason(reason.as_deref())?;
    let logged = Wanted { what: "undo", target: target(&fleets), reason: reason.clone() };
    ordered(app, operator, logged, move |record| changes::undo(record, &fleets, reason.as_deref())).await
}

/// Each of them once, in order.
fn checked_fleets(fleets: &[u64]) -> Result<Vec<u64>, Refusal> {
    if fleets.is_empty() || fleets.len() > ORDERS_MAX {
        return Err(unprocessable(&format!("`fleets` has 1 to {ORDERS_MAX} numbers")));
    }
    let fleets: BTreeSet<_> = fleets.iter().copied().collect();
    Ok(fleets.into_iter().collect())
}

fn target(fleets: &[u64]) -> String {
    fleets.iter().map(|id| format!("fleet:{id}")).collect::<Vec<_>>().join(", ")
}

/// Writes something for the daemon, and waits until it has decided by it.
async fn ordered(
    app: Api,
    operator: Operator,
    logged: Wanted,
    work: impl FnOnce(&Record<'_>) -> Result<Asked, Failure> + Send + 'static,
) -> Result<Response, Refusal> {
    let mut told = app.running.fleets.follow_told();
    let asked = match recorded(app, operator, logged, work).await {
        Ok(asked) => asked,
        Err(failure) => return Ok(response::<changes::Answer>(Err(failure))),
    };
    // What it says is looked at below, also where it does not say it in time.
    let _ = timeout(CARRIED_OUT_WITHIN, told.wait_for(|told| asked.is_heard(told))).await;
    let told = told.borrow().clone();
    Ok(response(asked.answer(&told)))
}

/// Does something as who asks, and records also that it was refused.
async fn recorded<T: Send + 'static>(
    app: Api,
    operator: Operator,
    logged: Wanted,
    work: impl FnOnce(&Record<'_>) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let Wanted { what, target, .. } = logged.clone();
    say(app, operator, logged, move |running: &Running, caller: &Caller| {
        let author = caller.author();
        let record = Record { history: &running.history, author: &author, origin: Origin::Api };
        work(&record).inspect_err(|failure| record_refusal(running, caller, what, &target, &failure.message))
    })
    .await
}

/// What is ordered about fleets, and whether all actions on them are stopped.
#[utoipa::path(get, path = "/v1/fleets/orders", responses((status = OK, description = "Orders.", body = changes::Orders)))]
pub(super) async fn fleet_orders(State(app): State<Api>) -> Answer<changes::Orders> {
    beside(&app, |running| changes::orders(&running.history)).await
}

/// Why all actions on fleets are to end.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StopFleets {
    /// Why.
    #[schema(min_length = 1, max_length = 255)]
    reason: String,
}

/// End all actions on fleets, at once and until they are resumed, whoever wants one.
#[utoipa::path(post, path = "/v1/fleets/stop", request_body = StopFleets, responses((status = OK, description = "No fleet is acted on.", body = changes::Switched)))]
pub(super) async fn stop_fleets(
    State(app): State<Api>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let StopFleets { reason } = input::small(&app, request).await?;
    let reason = checked_reason(Some(&reason))?.unwrap_or_default();
    let logged = Wanted { what: "stop", target: "fleets".to_owned(), reason: Some(reason.clone()) };
    let running = app.running.clone();
    let done = recorded(app, operator, logged, move |record| {
        let kernel = || changes::stop_in_kernel(&running.pins, &mut running.maps_to_change()?);
        changes::stop(record, &reason, Some(kernel))
    });
    Ok(response(done.await))
}

/// Why fleets are acted on again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ResumeFleets {
    /// Why, for the history.
    #[schema(min_length = 1, max_length = 255)]
    reason: Option<String>,
}

/// Let the daemon act on fleets again, as the policy says.
#[utoipa::path(post, path = "/v1/fleets/resume", request_body = ResumeFleets, responses((status = OK, description = "It acts again.", body = changes::Switched)))]
pub(super) async fn resume_fleets(
    State(app): State<Api>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let ResumeFleets { reason } = input::small(&app, request).await?;
    let reason = checked_reason(reason.as_deref())?;
    let logged = Wanted { what: "resume", target: "fleets".to_owned(), reason: reason.clone() };
    let running = app.running.clone();
    let done = recorded(app, operator, logged, move |record| {
        let kernel = || {
            fleets::resume(&running.maps_to_change()?);
            Ok(())
        };
        changes::resume(record, reason.as_deref(), kernel)
    });
    Ok(response(done.await))
}
