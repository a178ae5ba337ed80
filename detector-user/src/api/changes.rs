//! What changes the policy, and incident rules beside it.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    Api,
    admission::Operator,
    audit::record_refusal,
    blocking,
    change::{Wanted, change, checked_reason, is_within, unprocessable},
    input,
    limits::{INCIDENT_BYTES_MAX, POLICY_BYTES_MAX},
    reads::POLICY_NAME,
    refusal::Refusal,
};
use crate::{
    change::{
        CONFIRM_TIME_MAX, Change, INCIDENT_TIME_MAX,
        incidents::{self, TARGETS_MAX, targets_text},
    },
    commands::{Failure, PolicyFile, SourceFiles, apply, confirm as trial, incident, rollback},
    guard::Guard,
    history::Origin,
    policy::{
        REASON_CHARS_MAX,
        incident::{self as rules, IncidentAction},
        target,
    },
};
use detector_common::limits::INCIDENT_RULES_MAX;

const _: () = assert!(
    CONFIRM_TIME_MAX.as_secs() == 86_400
        && INCIDENT_TIME_MAX.as_secs() == 31_622_400
        && REASON_CHARS_MAX == 255
        && TARGETS_MAX == 100_000
        && INCIDENT_RULES_MAX == 256,
    "the attributes below say these bounds to the schema, and take nothing but literals"
);

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
    #[schema(min_length = 1, max_length = 255)]
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
    let permit = app.applies.take().await?;
    let (body, permit) = input::large(&app, request, POLICY_BYTES_MAX, permit).await?;
    let Apply { text, name, source_files, confirm_s, force, reason } = body;
    if name.is_empty() || name.chars().count() > 255 || name.chars().any(char::is_control) {
        return Err(unprocessable("`name` has 1 to 255 characters, on one line"));
    }
    let reason = checked_reason(reason.as_deref())?;
    check_confirm(confirm_s)?;
    let wanted = Wanted { what: "apply", target: name.clone(), reason: reason.clone() };
    change(app.clone(), operator, wanted, move |running, maps, caller| {
        let _permit = permit;
        let (author, guard) = (&caller.author(), caller.guard(&running.guard));
        // One that is invalid never gets to where changes are recorded.
        let file = PolicyFile::parse(&name, text, SourceFiles::Sent(&source_files))
            .inspect_err(|failure| record_refusal(running, caller, "apply", &name, &failure.message))?;
        let confirm = confirm_s.map(Duration::from_secs);
        let reason = reason.as_deref();
        let guard = Some(&guard);
        let change = Change { confirm, force, reason, guard, ..Change::new(&file, author, Origin::Api) };
        apply::answer(maps, &running.pins, &running.history, &change)
    })
    .await
}

/// Keep the policy that is on trial.
#[utoipa::path(post, path = "/v1/confirm", responses((status = OK, description = "It stays.", body = trial::Answer)))]
pub(super) async fn confirm(State(app): State<Api>, operator: Operator) -> Result<Response, Refusal> {
    let wanted = Wanted { what: "confirm", target: String::new(), reason: None };
    change(app, operator, wanted, |running, maps, caller| {
        trial::answer(maps, &running.pins, &running.history, &caller.author(), Origin::Api)
    })
    .await
}

/// What to go back to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rollback {
    /// The version; without it, from the policy on trial, or to the version before.
    #[schema(minimum = 1)]
    version: Option<u64>,
    /// Seconds until that is taken back unless it is confirmed.
    #[schema(minimum = 1, maximum = 86_400)]
    confirm_s: Option<u64>,
    /// Go back also to what `check` says needs to be forced.
    force: bool,
    /// Why, for the history.
    #[schema(min_length = 1, max_length = 255)]
    reason: Option<String>,
}

/// Go back: from the policy on trial, to the version before, or to a version by number.
#[utoipa::path(post, path = "/v1/rollback", request_body = Rollback, responses((status = OK, description = "Another policy is active.", body = rollback::Answer)))]
pub(super) async fn rollback(
    State(app): State<Api>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    // No permit: whoever is on the way out waits for nobody's upload.
    let Rollback { version, confirm_s, force, reason } = input::small(&app, request).await?;
    let reason = checked_reason(reason.as_deref())?;
    check_confirm(confirm_s)?;
    let target = version.map_or_else(String::new, |version| format!("version {version}"));
    let wanted = Wanted { what: "rollback", target, reason: reason.clone() };
    change(app.clone(), operator, wanted, move |running, maps, caller| {
        let author = &caller.author();
        let confirm = confirm_s.map(Duration::from_secs);
        let guard = caller.guard(&running.guard);
        let (reason, guard) = (reason.as_deref(), Some(&guard));
        let request = rollback::Request { version, confirm, force, author, reason, guard };
        Ok(rollback::answer(maps, &running.pins, &running.history, &request)?.0)
    })
    .await
}

/// A rule to add beside the policy.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddIncident {
    /// What happens.
    action: IncidentKind,
    /// Addresses or prefixes; or patterns of fingerprints, `ja4:PATTERN`, `syn:PATTERN`, or `ja4:PATTERN+syn:PATTERN` of clients that
    /// match both.
    #[schema(min_items = 1, max_items = 100_000, example = json!(["198.51.100.7", "2001:db8:1::/48"]))]
    targets: Vec<String>,
    /// Only at this service of the policy.
    service: Option<String>,
    /// Seconds until it ends by itself; without it `permanent` has to be true.
    #[schema(minimum = 1, maximum = 31_622_400)]
    for_s: Option<u64>,
    /// It stays until it is undone.
    #[serde(default)]
    permanent: bool,
    /// Why.
    #[schema(min_length = 1, max_length = 255)]
    reason: String,
    /// Of a throttle: packets of each source, like `100/s`.
    rate: Option<String>,
    /// Of a throttle with a rate: packets that a source may send at once after a pause. Where packets are not limited: handshakes
    /// or connections.
    #[schema(minimum = 1)]
    burst: Option<u64>,
    /// Of a throttle: bytes of each source, like `1MB/s`.
    bytes: Option<String>,
    /// Of a throttle: new connections of each source, like `5/s`; what `syn:PATTERN` is limited by.
    connections: Option<String>,
    /// Of a throttle: TLS handshakes of each source, like `2/s`; what `ja4:PATTERN` is limited by.
    handshakes: Option<String>,
    /// Of a throttle: one budget for all clients that match the fingerprints, instead of one for each source.
    #[serde(default)]
    shared: bool,
    /// Add also what is refused because it is about nearly everyone, about fingerprints that ordinary clients have, or has no effect.
    #[serde(default)]
    force: bool,
}

/// What an incident rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum IncidentKind {
    /// Limit each source.
    Throttle,
    /// Drop everything.
    Block,
    /// Let everything pass.
    Allow,
}

impl AddIncident {
    fn request(self, guard: Guard) -> Result<incidents::Request, Failure> {
        let budgets = incident::budgets(&incident::Rates {
            rate: self.rate.as_deref(),
            burst: self.burst,
            bytes: self.bytes.as_deref(),
            connections: self.connections.as_deref(),
            handshakes: self.handshakes.as_deref(),
        })?;
        if self.shared && self.action != IncidentKind::Throttle {
            return Err(Failure::invalid("only a throttle is `shared`"));
        }
        let action = match (self.action, budgets) {
            (IncidentKind::Block, None) => IncidentAction::Block,
            (IncidentKind::Allow, None) => IncidentAction::Allow,
            (IncidentKind::Throttle, Some(budgets)) if self.shared => IncidentAction::ThrottleShared(budgets),
            (IncidentKind::Throttle, Some(budgets)) => IncidentAction::Throttle(budgets),
            (IncidentKind::Throttle, None) => {
                return Err(Failure::invalid(
                    "a throttle needs `rate`, `bytes`, `connections` or `handshakes`",
                ));
            }
            (_, Some(_)) => return Err(Failure::invalid("only a throttle has rates")),
        };
        let time = match (self.for_s, self.permanent) {
            (Some(seconds), false) if is_within(seconds, INCIDENT_TIME_MAX) => {
                Some(Duration::from_secs(seconds))
            }
            (None, true) => None,
            _ => {
                return Err(Failure::invalid(format_args!(
                    "expected `for_s` from 1 to {}, or `permanent`: true",
                    INCIDENT_TIME_MAX.as_secs()
                )));
            }
        };
        let target = |text: &String| {
            target::target(text).map_err(|wrong| Failure::invalid(format_args!("target {text:?}: {wrong}")))
        };
        let targets = self.targets.iter().map(target).collect::<Result<_, _>>()?;
        Ok(incidents::Request {
            action,
            matches: target::matches(targets).map_err(Failure::invalid)?,
            service: self.service,
            time,
            reason: rules::reason(&self.reason)
                .map_err(|wrong| Failure::invalid(format_args!("`reason`: {wrong}")))?,
            force: self.force,
            guard,
        })
    }
}

/// Add a rule beside the policy, in force at once: throttle, block or allow.
#[utoipa::path(post, path = "/v1/incidents", request_body = AddIncident, responses((status = OK, description = "In force.", body = incident::Answer)))]
pub(super) async fn incidents(
    State(app): State<Api>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let permit = app.incidents.take().await?;
    let (body, permit) = input::large::<AddIncident, _>(&app, request, INCIDENT_BYTES_MAX, permit).await?;
    let guard = app.running.guard.clone();
    let (request, permit) = blocking(move || Ok((body.request(guard)?, permit))).await?;
    let target = targets_text(&request.matches);
    let wanted = Wanted { what: request.action.name(), target, reason: Some(request.reason.clone()) };
    change(app, operator, wanted, move |running, maps, caller| {
        let _permit = permit;
        let author = &caller.author();
        let record = incidents::Record { history: &running.history, author, origin: Origin::Api };
        let request = incidents::Request { guard: caller.guard(&running.guard), ..request };
        incidents::add(maps, &running.pins, &record, &request)
    })
    .await
}

/// Rules to take back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Undo {
    /// Their numbers.
    #[schema(min_items = 1, max_items = 256)]
    ids: Vec<u64>,
    /// Why, for the history.
    #[schema(min_length = 1, max_length = 255)]
    reason: Option<String>,
    /// Undo also what locks somebody out or drops too many packets then.
    #[serde(default)]
    force: bool,
}

/// Take back incident rules, all of them or none.
#[utoipa::path(post, path = "/v1/undo", request_body = Undo, responses((status = OK, description = "They are gone.", body = incident::Answer)))]
pub(super) async fn undo(
    State(app): State<Api>,
    operator: Operator,
    request: Request,
) -> Result<Response, Refusal> {
    let Undo { ids, reason, force } = input::small(&app, request).await?;
    let reason = checked_reason(reason.as_deref())?;
    if ids.is_empty() || ids.len() > INCIDENT_RULES_MAX {
        return Err(unprocessable("`ids` has 1 to 256 numbers"));
    }
    let target = ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let wanted = Wanted { what: "undo", target, reason: reason.clone() };
    change(app, operator, wanted, move |running, maps, caller| {
        let author = &caller.author();
        let record = incidents::Record { history: &running.history, author, origin: Origin::Api };
        let guard = (!force).then(|| caller.guard(&running.guard));
        incidents::remove(maps, &running.pins, &record, &ids, reason.as_deref(), guard.as_ref())
    })
    .await
}

/// Refuses a time that no option takes.
fn check_confirm(confirm_s: Option<u64>) -> Result<(), Refusal> {
    if confirm_s.is_none_or(|seconds| is_within(seconds, CONFIRM_TIME_MAX)) {
        return Ok(());
    }
    Err(unprocessable(&format!("`confirm_s` is from 1 to {}", CONFIRM_TIME_MAX.as_secs())))
}
